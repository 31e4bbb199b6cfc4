"""Back through a maximum: the first of equals has the gradient, and where there is NaN the first NaN."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from xconv._dtypes import wide
from xconv._geometry import Axis
from xconv._gradients._carry import Arrays, Meeting, Part, at, meetings, placed
from xconv._movers import room
from xconv._namespace import Array, Namespace, combined, empty_like, full_like, selected

CALL = 3000  # elements that take as long as an array operation takes to begin


class Tap(NamedTuple):
    """One element of every window."""

    outputs: tuple[slice, ...]
    elements: tuple[slice, ...]
    remainders: tuple[int, ...]  # by the stride: taps at others are other elements


def back_to_first(
    read: Arrays,
    outputs: Arrays,
    part: Part,
    target: Array | None,
    xp: Namespace,
    *,
    reduction: str = "max",
    omit: bool = False,
) -> Array:
    """Tap by tap in raster order: what equals the result, and was not found before, has the gradient.

    Either all taps of a window, or axis by axis: the first of equals stands in the first row whose own largest
    element equals the result, and is the first there.
    """
    (x,), (y, dy) = read, outputs
    computed = wide(xp, dy.dtype)
    dy = dy if dy.dtype == computed else xp.astype(dy, computed)
    if omit:  # NaN counts as the least, which it equals only where there is nothing else
        x = xp.where(xp.isnan(x), xp.full_like(x, float("-inf")), x)
    axes = part.axes
    if target is not None and _all_at_once(x, axes):
        _put_first(x, y, dy, tuple(enumerate(axes, 1)), target, xp)
        return target
    rows = [x]  # the results along the last axes: none of them, the last, the last two, ...
    for i, axis in reversed(tuple(enumerate(axes, 1))[1:]):
        rows.append(_reduced(rows[-1], i, axis, reduction, xp, in_place=target is not None))
    for i, axis in enumerate(axes, 1):
        elements = rows.pop()
        if target is None:
            dy = _first(elements, y, dy, i, axis, xp)
        else:
            found = target if i == len(axes) else room(f"gradient {i}", elements.shape, dy)
            found[...] = 0
            _put_first(elements, y, dy, ((i, axis),), found, xp)
            dy = found
        y = elements
    return dy


def _all_at_once(x: Array, axes: Sequence[Axis]) -> bool:
    """Whether that takes less: every operation is counted by its elements."""
    windows, sizes = [a.window for a in axes], [a.size for a in axes]
    outputs, others = [a.output for a in axes], x.shape[0] * x.shape[-1]
    whole = prod(windows) * (prod(outputs) * others + CALL)
    steps = [prod(sizes[:i]) * prod(outputs[i:]) * others + CALL for i in range(len(axes))]
    one_by_one: float = 1.4 * sum(k * step for k, step in zip(windows, steps, strict=True))
    return bool(whole <= one_by_one)


def _put_first(
    x: Array, y: Array, dy: Array, axes: Sequence[tuple[int, Axis]], target: Array, xp: Namespace
) -> None:
    """Along these axes, in memory that holds zeros."""
    put_first(
        x, y, dy, (_tap(found, axes) for found in product(*(tuple(meetings(a)) for _, a in axes))), target, xp
    )


def put_first(x: Array, y: Array, dy: Array, taps: Iterable[Tap], target: Array, xp: Namespace) -> None:
    """For one tap after the other, in memory that holds zeros."""
    taps, flags = tuple(taps), empty_like(y, (0,), xp.bool)
    free, hits = (room(name, y.shape, flags) for name in ("free", "hits"))
    pieces = room("pieces", dy.shape, dy)
    free[...] = True
    met: set[tuple[int, ...]] = set()
    for outs, ins, remainders in taps:
        open_ = free[outs]
        hit = combined(xp.equal, x[ins], y[outs], hits[outs])
        hit &= open_
        open_ ^= hit
        place = target[ins]
        if remainders in met:
            place += selected(dy[outs], hit, pieces[outs])
        else:
            met.add(remainders)
            selected(dy[outs], hit, place)
    # Values are read here, as nowhere else: these are arrays of NumPy in memory, and the result is the same either way.
    if xp.any(combined(xp.not_equal, y, y, hits)):
        _put_first_nans(xp.nonzero(hits), x, dy, taps, target, xp)


def _put_first_nans(
    windows: tuple[Array, ...], x: Array, dy: Array, taps: Sequence[Tap], target: Array, xp: Namespace
) -> None:
    """The same for some windows, given by an index along each axis, that hold NaN, which equals nothing."""
    for outs, ins, _ in taps:
        inside = xp.ones_like(windows[0], dtype=xp.bool)
        elements = list(windows)
        for axis, (o, i) in enumerate(zip(outs, ins, strict=True)):
            (start, stop, step), (first, _, stride) = o.indices(dy.shape[axis]), i.indices(x.shape[axis])
            p = windows[axis]
            inside &= (p >= start) & (p < stop) & ((p - start) % step == 0)
            elements[axis] = xp.where(inside, first + (p - start) // step * stride, 0)
        place = tuple(elements)
        hit = inside & xp.isnan(x[place])
        target[tuple(e[hit] for e in place)] += dy[tuple(p[hit] for p in windows)]
        windows = tuple(p[~hit] for p in windows)


def _tap(taps: tuple[Meeting, ...], axes: Sequence[tuple[int, Axis]]) -> Tap:
    before = (slice(None),) * axes[0][0]
    remainders = tuple(
        (a.input_dilation * p.start - a.stride * o.start) % a.stride
        for (_, a), (o, p) in zip(axes, taps, strict=True)
    )
    return Tap((*before, *(o for o, _ in taps)), (*before, *(p for _, p in taps)), remainders)


def _reduced(x: Array, i: int, axis: Axis, reduction: str, xp: Namespace, *, in_place: bool) -> Array:
    """The results along one axis, of the elements that there are."""
    combine, least = {"max": (xp.maximum, float("-inf")), "min": (xp.minimum, float("inf"))}[reduction]
    shape = (*x.shape[:i], axis.output, *x.shape[i + 1 :])
    if in_place:
        y = room(f"row {i}", shape, x)
        y[...] = least
        for o, p in meetings(axis):
            combined(combine, y[at(i, o)], x[at(i, p)], y[at(i, o)])
        return y
    y = None
    for o, p in meetings(axis):
        element = placed(x[at(i, p)], i, o, axis.output, least, xp)
        y = element if y is None else combine(y, element)
    return full_like(x, shape, least, x.dtype) if y is None else y


def _first(x: Array, y: Array, dy: Array, i: int, axis: Axis, xp: Namespace) -> Array:
    """The same along one axis, as a function."""
    taken = total = None
    for o, p in meetings(axis):
        element = x[at(i, p)]
        hit = (element == y[at(i, o)]) | xp.isnan(element)
        hit = placed(hit, i, o, axis.output, 0, xp)
        if taken is not None:
            hit = hit & ~taken
        taken = hit if taken is None else taken | hit
        piece = placed(xp.where(hit, dy, xp.zeros_like(dy))[at(i, o)], i, p, axis.size, 0, xp)
        total = piece if total is None else total + piece
    shape = (*dy.shape[:i], axis.size, *dy.shape[i + 1 :])
    return full_like(dy, shape, 0, dy.dtype) if total is None else total
