"""The movers of rank filters: the element of a rank of every window of a padded block.

A block is taken as one run of memory, and a shift of the window as a shift along that run: whatever the number of axes,
every operation is one of two long vectors. What it gives where windows reach over the end of an axis is never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import NamedTuple

from xconv._namespace import Array, Namespace, NumPyArray, combined, copied, empty_like, packed, unflattened
from xconv._networks import Offset, Pattern, Step, network
from xconv._scratch import spare


class _Cut(NamedTuple):
    """A step of a network over a block: from where on, and how many elements, it takes of which slots."""

    step: Step
    a: slice
    b: slice
    length: int


def selected(
    x: Array, outputs: tuple[int, ...], pattern: Pattern, rank: int, xp: Namespace, out: Array | None = None
) -> Array:
    """Of every window of a padded block (N, *n, C) the element of a rank, in ``out`` if given: (N, *out, C)."""
    shape, places = tuple(x.shape), (x.shape[0], *outputs, x.shape[-1])
    slots, cuts = _cuts(pattern, rank, shape)
    if not cuts:  # never the caller's own memory
        return copied(x, xp)
    size = prod(shape)
    held: list[Array] = [None] * slots
    held[0] = packed(x, (size,), "packed", xp)
    *others, last = cuts
    for step, a, b, length in others:
        held[step.target] = None
        target = spare(f"slot {step.target}", (size,), x.dtype, x)
        held[step.target] = combined(
            xp.maximum if step.largest else xp.minimum,
            held[step.a][a],
            held[step.b][b],
            None if target is None else target[:length],
        )
    ends = ((last.step.a, last.a), (last.step.b, last.b))
    first, second = (unflattened(held[slot][part], shape, places) for slot, part in ends)
    return combined(xp.maximum if last.step.largest else xp.minimum, first, second, out)


@lru_cache(maxsize=32)
def _cuts(pattern: Pattern, rank: int, shape: tuple[int, ...]) -> tuple[int, tuple[_Cut, ...]]:
    """How many slots there are, and the steps for a block of this shape (N, *n, C)."""

    def along(offset: Offset) -> int:
        place = 0
        for size, o in zip(shape[1:-1], offset, strict=True):
            place = place * size + o
        return place * shape[-1]

    found = network(pattern, rank)
    cuts = []
    for step in found.steps:
        count = prod(shape) - along(step.reach)
        a, b = (slice(start, start + count) for start in (along(step.at_a), along(step.at_b)))
        cuts.append(_Cut(step, a, b, count))
    return found.slots, tuple(cuts)


def ranked(x: Array, outputs: tuple[int, ...], pattern: Pattern, rank: int, xp: Namespace) -> Array:
    """The same by sorting every window, which may be of any size: (N, *out, C).

    A window that holds NaN gives NaN, as the minima and maxima of a network do.
    """
    places = (x.shape[0], *outputs, x.shape[-1])
    taps = taps_of(x, outputs, pattern)
    if isinstance(x, NumPyArray):  # one by one: a thousand views are memory, too
        windows = empty_like(x, (*places, len(pattern)), x.dtype)
        for i, tap in enumerate(taps):
            windows[..., i] = tap
    else:
        windows = xp.stack(list(taps), axis=-1)
    y = xp.sort(windows, axis=-1)[..., rank]
    if xp.isdtype(x.dtype, "real floating"):
        return xp.where(xp.any(xp.isnan(windows), axis=-1), xp.full_like(y, float("nan")), y)
    return copied(y, xp)


def taps_of(x: Array, outputs: tuple[int, ...], pattern: Pattern) -> Iterator[Array]:
    """For one element of a pattern after the other, what it is in every window of a padded block: (N, *out, C)."""
    for offset in pattern:
        yield x[(slice(None), *(slice(o, o + n) for o, n in zip(offset, outputs, strict=True)), slice(None))]
