"""The movers of rank filters: the element of a rank of every window of a padded block.

A block is taken as one run of memory, and a shift of the window as a shift along that run: whatever the number of axes,
every operation is one of two long vectors. What it gives where windows reach over the end of an axis is never read.
"""

from __future__ import annotations

from math import prod

from xconv._namespace import Array, Namespace, combined, packed, unflattened
from xconv._networks import Network, Offset, Pattern
from xconv._scratch import spare


def selected(
    x: Array, outputs: tuple[int, ...], network: Network, xp: Namespace, out: Array | None = None
) -> Array:
    """What a network finds in every window of a padded block (N, *n, C), in ``out`` if given: (N, *out, C)."""
    shape, places = tuple(x.shape), (x.shape[0], *outputs, x.shape[-1])
    if not network.steps:  # never the caller's own memory
        return xp.asarray(x, copy=True)
    slots: list[Array] = [None] * network.slots
    slots[0] = packed(x, (prod(shape),), "packed", xp)
    *steps, last = network.steps
    for step in steps:
        slots[step.target] = None
        count = prod(shape) - _along(step.reach, shape)
        target = spare(f"slot {step.target}", (prod(shape),), x.dtype, x)
        slots[step.target] = combined(
            xp.maximum if step.largest else xp.minimum,
            _from(slots[step.a], step.at_a, count, shape),
            _from(slots[step.b], step.at_b, count, shape),
            None if target is None else target[:count],
        )
    count = prod(shape) - _along(last.reach, shape)
    a, b = _from(slots[last.a], last.at_a, count, shape), _from(slots[last.b], last.at_b, count, shape)
    a, b = (unflattened(part, shape, places) for part in (a, b))
    return combined(xp.maximum if last.largest else xp.minimum, a, b, out)


def ranked(x: Array, outputs: tuple[int, ...], pattern: Pattern, rank: int, xp: Namespace) -> Array:
    """The same by sorting every window, which may be of any size: (N, *out, C).

    A window that holds NaN gives NaN, as the minima and maxima of a network do.
    """
    windows = xp.stack(
        [
            x[(slice(None), *(slice(o, o + n) for o, n in zip(offset, outputs, strict=True)), slice(None))]
            for offset in pattern
        ],
        axis=-1,
    )
    y = xp.sort(windows, axis=-1)[..., rank]
    if xp.isdtype(x.dtype, "real floating"):
        return xp.where(xp.any(xp.isnan(windows), axis=-1), xp.full_like(y, float("nan")), y)
    return xp.asarray(y, copy=True)


def _along(offset: Offset, shape: tuple[int, ...]) -> int:
    """An offset along the axes of space, as one along the run of memory of a block of this shape (N, *n, C)."""
    place = 0
    for size, o in zip(shape[1:-1], offset, strict=True):
        place = place * size + o
    return place * shape[-1]


def _from(flat: Array, offset: Offset, count: int, shape: tuple[int, ...]) -> Array:
    start = _along(offset, shape)
    return flat[start : start + count]
