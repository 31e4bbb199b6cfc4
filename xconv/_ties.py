"""Largest and smallest elements whose derivative belongs to one of equals, the first, as their index says.

They are for libraries that differentiate what is computed here. A maximum of theirs shares its derivative out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from xconv._dtypes import default_integer
from xconv._geometry import Axis
from xconv._movers import ahead, one_axis_taps
from xconv._namespace import Array, Namespace, copied, count_up, differentiates


def keeps_ties(x: Array, xp: Namespace) -> bool:
    """Whether it matters which of equals is taken."""
    return differentiates(xp) and bool(xp.isdtype(x.dtype, "real floating"))


def first_of_two(a: Array, b: Array, reduction: str, xp: Namespace) -> Array:
    """The larger ("max") or smaller ("min") of two, the first of equals and the first NaN."""
    return xp.where(ahead(b, a, reduction, xp), b, a)


def first_running(
    x: Array,
    axes: Sequence[Axis],
    whole: Sequence[Axis],
    origin: Sequence[int],
    reduction: str,
    xp: Namespace,
) -> Array:
    """Reduce every window of a padded block (N, *n, C) to its largest or smallest element: (N, *out, C).

    The last axis comes first: that leaves the first one of every row, and then the first row that has one. Padding
    gives way even to its equals. ``whole`` are the axes of the input, ``origin`` is where the block's windows stand.
    """
    real = _inside(x, whole, origin, xp)
    for axis, a in reversed([*enumerate(axes, 1)]):
        if a.window == 1 and a.stride == 1:
            continue
        before = (slice(None),) * axis
        first, *others = one_axis_taps(a)
        best = x[(*before, first, ...)]
        found = None if real is None else real[(*before, first, ...)]
        for tap in others:
            value = x[(*before, tap, ...)]
            better = ahead(value, best, reduction, xp)
            if real is not None and found is not None:
                here = real[(*before, tap, ...)]
                better, found = better | (here & ~found), found | here
            best = xp.where(better, value, best)
        x, real = best, found
    return x if any(a.window > 1 for a in axes) else copied(x, xp)  # never the caller's own memory


def _inside(x: Array, whole: Sequence[Axis], origin: Sequence[int], xp: Namespace) -> Array | None:
    """Which elements of a padded block are of the input, (1, *n, 1), or None where all are."""
    if not any(a.low > 0 or a.high > 0 or a.input_dilation > 1 for a in whole):
        return None
    real = None
    for i, (a, start) in enumerate(zip(whole, origin, strict=True)):
        size = x.shape[1 + i]
        places = count_up(x, size, default_integer(xp)) + (start * a.stride - a.low)
        inside = (places >= 0) & (places < a.spread) & (places % a.input_dilation == 0)
        inside = xp.reshape(inside, (1,) * (1 + i) + (size,) + (1,) * (len(whole) - i))
        real = inside if real is None else real & inside
    return real


def first_over(x: Array, axes: tuple[int, ...], xp: Namespace, *, keepdims: bool) -> Array:
    """The largest element over some axes."""
    others = tuple(i for i in range(x.ndim) if i not in axes)
    shape = tuple(1 if i in axes else size for i, size in enumerate(x.shape) if keepdims or i not in axes)
    rows, length = prod(x.shape[i] for i in others), prod(x.shape[i] for i in axes)
    x = xp.reshape(xp.permute_dims(x, (*others, *axes)), (rows, length))
    places = xp.argmax(x, axis=1) + count_up(x, rows, default_integer(xp)) * length
    return xp.reshape(xp.take(xp.reshape(x, (-1,)), places, axis=0), shape)


FEW = 32  # arrays that are compared one by one, each of which is some operations of a traced program


def first_equal(y: Array, taps: Iterable[Array], xp: Namespace) -> Array:
    """``y`` once more, as the first of these arrays that equals it or is NaN where it is: theirs is the derivative.

    How ``y`` was found has no part in that: it is compared with, and nothing else.
    """
    missing, candidates = xp.isnan(y), list(taps)
    if len(candidates) <= FEW:
        first = candidates.pop()
        for tap in reversed(candidates):
            first = xp.where((tap == y) | (missing & xp.isnan(tap)), tap, first)
        return first
    stacked, y, missing = xp.stack(candidates), xp.expand_dims(y, axis=0), xp.expand_dims(missing, axis=0)
    hits = (stacked == y) | (missing & xp.isnan(stacked))
    places = xp.argmax(xp.astype(hits, xp.uint8), axis=0, keepdims=True)
    shape = (len(candidates), *(1,) * (y.ndim - 1))
    chosen = xp.reshape(count_up(y, len(candidates), places.dtype), shape) == places
    return xp.sum(xp.where(chosen, stacked, xp.zeros_like(stacked)), axis=0, dtype=y.dtype)
