"""Views of NumPy's own arrays and sums over their windows, for which the standard has no words, or only slow ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from xconv._geometry import Axis
from xconv._scratch import spare


def rows_are_runs(x: Any) -> bool:
    """Whether the last two axes of an array of NumPy are one run of memory."""
    return bool(x.strides[-2:] == (x.shape[-1] * x.itemsize, x.itemsize))


def rows_are_apart(x: Any) -> bool:
    """Whether BLAS can read or write an array of NumPy as it is: rows are runs of memory, one behind the other."""
    return bool(
        (x.strides[-1] == x.itemsize or x.shape[-1] == 1) and x.strides[-2] >= x.shape[-1] * x.itemsize
    )


def longer_runs(view: Any, length: int) -> Any:
    """The same view with a last axis of this length: what follows in memory belongs to it."""
    if length == view.shape[-1]:
        return view
    return np.lib.stride_tricks.as_strided(
        view, (*view.shape[:-1], length), view.strides, subok=True, writeable=False
    )


def can_sum_products(x: Any) -> bool:
    """Whether `sum_products` is there, which the standard has no name for."""
    return isinstance(x, np.ndarray)


def sum_products(view: Any, w: Any, out: Any) -> None:
    """Multiply windows (..., *window, R) with weights (*window, R), and sum over the window into ``out`` (..., R)."""
    outer, taps = list(range(out.ndim - 1)), list(range(out.ndim, out.ndim + w.ndim - 1))
    run = out.ndim - 1
    np.einsum(view, [*outer, *taps, run], w, [*taps, run], [*outer, run], out=out)


def can_slide(x: Any) -> bool:
    """Whether `slide` is there for this array, and fast: the channels stand side by side."""
    return isinstance(x, np.ndarray) and (x.strides[-1] == x.itemsize or x.shape[-1] == 1)


def slide(combine: Callable[..., Any], x: Any, axis: int, a: Axis, fill: complex, out: Any) -> Any:
    """Combine what every window along one axis of ``x`` meets, tap after tap, in ``out``; padding is ``fill``."""
    before, (whole, (first, *others), ends) = (slice(None),) * axis, _meetings(a)
    y, part = out[(*before, whole)], x[(*before, first)]
    if not others:
        y[...] = part
    for tap in others:
        part = combine(part, x[(*before, tap)], out=y)
    for place, taps in ends:
        out[(*before, place)] = fill
        for some, tap in taps:
            y = out[(*before, some)]
            combine(y, x[(*before, tap)], out=y)
    return out


@lru_cache(maxsize=1024)
def _meetings(a: Axis) -> tuple[slice, list[slice], list[tuple[slice, list[tuple[slice, slice]]]]]:
    """The outputs whose windows lie in the input, and what they meet, tap by tap; the same of those at both ends."""
    start, stop = a.inner
    ends = [(first, last) for first, last in ((0, start), (stop, a.output)) if first < last]
    return (
        slice(start, stop),
        [a.met(tap, start, stop)[1] for tap in range(a.window)],
        [(slice(*end), [a.met(tap, *end) for tap in range(a.window)]) for end in ends],
    )


def window_runs(
    x: Any, outputs: tuple[int, ...], steps: tuple[tuple[int, int, int], ...], target: Any | None = None
) -> Any | None:
    """Copy ``x`` (N, *n, C) as its windows (N, *outputs, *window, C) where their rows are short runs of memory.

    NumPy copies short runs element by element; as one opaque element each they take half the time. In ``target``, if
    given: (N, *outputs, T C) for T taps, whose windows may be apart.
    """
    channels, size = x.shape[-1], x.itemsize if isinstance(x, np.ndarray) else 0
    window, _, dilation = steps[-1]
    run = window * channels * size
    if not 0 < run < 512 or dilation > 1 or x.strides[-2:] != (channels * size, size):
        return None
    shape, strides = _runs(x.shape[0], x.strides[:-1], outputs, steps)
    if x.flags.c_contiguous and x.size:
        opaque = np.ndarray(shape, _opaque(run), x, 0, strides).view(type(x))
    else:
        rows = np.lib.stride_tricks.as_strided(x, (*shape, window * channels), (*strides, size), subok=True)
        opaque = rows.view(_opaque(run))[..., 0]
    whole = (*shape, window, channels)
    target = spare("windows", whole, x.dtype, x) if target is None else target
    if target is None:
        return opaque.copy().view(x.dtype).reshape(whole)
    target.reshape(*shape, window * channels).view(_opaque(run))[..., 0] = opaque
    return target


@lru_cache(maxsize=1024)
def _runs(
    batch: int, strides: tuple[int, ...], outputs: tuple[int, ...], steps: tuple[tuple[int, int, int], ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of the rows of all windows, each one element."""
    spatial = tuple(zip(strides[1:], steps, strict=True))
    across = (s * stride for s, (_, stride, _) in spatial)
    within = (s * dilation for s, (_, _, dilation) in spatial[:-1])
    return (batch, *outputs, *(taps for taps, _, _ in steps[:-1])), (strides[0], *across, *within)


@lru_cache(maxsize=64)
def _opaque(size: int) -> Any:
    return np.dtype((np.void, size))


def strided(x: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """A read-only view of an array of NumPy; where ``x`` is packed, without the price of NumPy's own function."""
    if not x.flags.c_contiguous or not x.size:
        return np.lib.stride_tricks.as_strided(x, shape, strides, subok=True, writeable=False)
    view: Any = np.ndarray(shape, x.dtype, x, 0, strides)
    view = view if type(x) is np.ndarray else view.view(type(x))
    view.flags.writeable = False
    return view
