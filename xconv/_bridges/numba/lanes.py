"""Depthwise convolutions and the reductions of pools: channels stay side by side, padding is never written out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from xconv._address import address
from xconv._bridges.numba.arrays import Array, beginning, bounds
from xconv._bridges.numba.kernels import Kernel, number, put, word, words
from xconv._bridges.numba.maxima import first_maximum
from xconv._bridges.numba.reductions import MAX, MIN, PIXELS, PRODUCTS, SUM, reduce_rows
from xconv._bridges.numba.sharing import TAP, shared
from xconv._bridges.numba.taps import byte_steps, can, geometry, met, padding, place_taps
from xconv._bridges.numba.vectors import WIDTH
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis

__all__ = ["can", "depthwise", "first_maximum", "running"]

CHUNK = 2**15  # bytes of weights that are gone through for all pixels before those of the next channels
# Windows and strides of rows whose taps are read once for all pixels; others gain little or are rare.
OWN = frozenset({(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)})


def _named(name: str) -> Callable[[Any], Any]:
    """Give a function a name of its own: code found on disk is linked by names, whatever else has it."""

    def named(function: Any) -> Any:
        function.__name__ = function.__qualname__ = name
        return function

    return named


@lru_cache(maxsize=64)
def _reducer(kind: int, window: int, stride: int) -> Kernel:
    """Compiled for rows of ``window`` taps whose windows are ``stride`` apart; with (1, 1) every tap is a row."""

    @_named(f"reduce_{kind}_{window}_{stride}")
    def reduce(job, first, last, item):
        size, x, w, start, next_start, nothing, y, r, channels, chunk = words(job, 1, 10)
        windows, strides, dilations = words(job, 11, 3), words(job, 14, 3), words(job, 17, 3)
        lows, sizes, outputs = words(job, 20, 3), words(job, 23, 3), words(job, 26, 3)
        xs, ys, rs = words(job, 29, 4), words(job, 33, 4), words(job, 37, 4)
        low, high = number(job, 41, item), number(job, 42, item)
        along = 1 if window > 1 else windows[2]  # rows in a row of the window
        step = xs[3] if window > 1 else xs[3] * strides[2]
        most = max(windows[0] * windows[1] * along, 1)
        table = np.empty(6 * most, np.int64)
        off = table.ctypes.data
        woff, everywhere, inside = off + 8 * most, off + 16 * most, off + 32 * most
        for t in range(most):
            put(everywhere, 2 * t, 0)
            put(everywhere, 2 * t + 1, 2**62)
        reach = (PIXELS - 1) * strides[2] + (windows[2] - 1) * dilations[2]
        steps = (dilations[0] * xs[1], dilations[1] * xs[2], dilations[2] * xs[3])
        lanes = WIDTH // size
        for begin in range(0, channels, chunk):
            end = min(begin + chunk, channels)
            seen, count = ((-1, -1), (-1, -1)), 0
            for row in range(first, last):
                p, rest = row % outputs[1], row // outputs[1]
                o, sample = rest % outputs[0], rest // outputs[0]
                i = o * strides[0] - lows[0]
                j = p * strides[1] - lows[1]
                planes = met(i, dilations[0], windows[0], sizes[0])
                rows = met(j, dilations[1], windows[1], sizes[1])
                if seen != (planes, rows):
                    seen = (planes, rows)
                    count = place_taps(planes, rows, along, windows, steps, off, woff)
                    for t in range(count):
                        put(woff, t, word(woff, t) * channels * size)
                at = x + sample * xs[0] + i * xs[1] + j * xs[2]
                to = y + sample * ys[0] + o * ys[1] + p * ys[2]
                beside = r + sample * rs[0] + o * rs[1] + p * rs[2]
                for q in range(0, outputs[2], PIXELS):
                    k = q * strides[2] - lows[2]
                    some = min(outputs[2] - q, PIXELS)
                    edge = some < PIXELS or k < 0 or k + reach >= sizes[2] or count == 0
                    bounds = everywhere
                    if edge:
                        bounds = inside
                        for t in range(count):
                            if window > 1:
                                left, right = met(k, 1, (some - 1) * strides[2] + window, sizes[2])
                            else:
                                left, right = met(k + t % along * dilations[2], strides[2], some, sizes[2])
                            put(inside, 2 * t, left)
                            put(inside, 2 * t + 1, right)
                        if count == 0:  # one row of nothing
                            put(off, 0, 0)
                            put(woff, 0, 0)
                            put(inside, 0, 0)
                            put(inside, 1, 0)
                    for c in range(begin, end, lanes):
                        d = c * size
                        reduce_rows(
                            kind, window, stride, item, at + k * xs[3] + d, step, off,
                            max(count, 1), edge, bounds, nothing, w + d, woff, channels * size,
                            start + c * next_start, to + q * ys[3] + d, ys[3], some,
                            0 if r == 0 else beside + q * rs[3] + d, rs[3], channels - c, low, high,
                        )  # fmt: skip

        table[0] = 0  # it is alive until here

    return Kernel(reduce)


def _own(axis: Axis) -> tuple[int, int]:
    """The kind of row that is compiled for the last axis."""
    row = axis.window, axis.stride
    return row if axis.dilation == 1 and row in OWN else (1, 1)


def depthwise(x: Array, w: Array, axes: tuple[Axis, ...], y: Array, finish: Finish = PLAIN) -> Array:
    """Windows of x (N, *n, C), padded as the axes say, times weights (T, C * M), summed channel by channel.

    The result, in y (N, *out, C * M), has its channels in the order of those of x, M for each.
    """
    channels, r, size = y.shape[-1], finish.residual, y.itemsize
    if not y.size:
        return y
    if channels != x.shape[-1]:
        x = np.repeat(x, channels // x.shape[-1], axis=-1)
    w, lanes = np.ascontiguousarray(w), WIDTH // size
    items, within = bounds(y.dtype, finish.low, finish.high)
    (_start, sa), (_kept, nothing) = beginning(finish.bias, channels, y.dtype), padding(0.0, y.dtype)
    chunk = max(CHUNK // (len(w) * WIDTH), 1) * lanes
    ys = byte_steps(y.strides)
    shared(
        _reducer(PRODUCTS, *_own(axes[-1])), items, prod(y.shape[:-2]), TAP // 2 * y.size * len(w), 1,
        (
            size, address(x), address(w), sa, size, nothing, address(y), 0 if r is None else address(r), channels,
            chunk, *geometry(axes), *byte_steps(x.strides), *ys, *(ys if r is None else byte_steps(r.strides)),
            *within,
        ),
    )  # fmt: skip
    return y


_KINDS = {"sum": (SUM, 0.0), "max": (MAX, float("-inf")), "min": (MIN, float("inf"))}


def running(x: Array, axes: tuple[Axis, ...], reduction: str, y: Array) -> Array:
    """Windows of x (N, *n, C), padded by the identity as the axes say, reduced to y (N, *out, C); NaN stays NaN."""
    if not y.size:
        return y
    kind, value = _KINDS[reduction]
    items, endless = bounds(y.dtype, float("-inf"), float("inf"))
    (_kept, nothing), ys, channels = padding(value, y.dtype), byte_steps(y.strides), y.shape[-1]
    shared(
        _reducer(kind, *_own(axes[-1])), items, prod(y.shape[:-2]), TAP * y.size * prod(a.window for a in axes), 1,
        (
            y.itemsize, address(x), 0, nothing, 0, nothing, address(y), 0, channels, channels, *geometry(axes),
            *byte_steps(x.strides), *ys, *ys, *endless,
        ),
    )  # fmt: skip
    return y
