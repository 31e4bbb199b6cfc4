"""Windows side by side, and results finished where they stand. What else is copied is in `gathering`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from xconv._address import address
from xconv._bridges.numba.arrays import Array, inner, numbers, table
from xconv._bridges.numba.gathering import can_gather, five, gathered, maps
from xconv._bridges.numba.rows import fill_rows, finish_rows, move_rows
from xconv._finish import Finish
from xconv._geometry import Axis

__all__ = ["can_gather", "columns", "finished", "gathered", "maps"]

ROW = 2**14  # bytes of windows that are written tap by tap
PIECE = 256  # numbers that share one row of repeated biases


@inner
def _inside(at, step, size, count):
    """Which of ``count`` positions, from ``at`` on, ``step`` apart, are at least 0 and below ``size``: from, and to."""
    if step == 1:  # by far the most, and without a division
        a, b = -at, size - at
    else:
        a, b = -(at // step), (size - 1 - at) // step + 1
    a = min(max(a, 0), count)
    return a, min(max(b, a), count)


@njit(nogil=True, cache=True)
def _columns(item, size, shape, steps, axes, x, y, some):
    """``shape`` is (N, *out, C) and ``steps`` the bytes between neighbours in x, both of three spatial axes."""
    channels, zero = shape[4], item - item
    window, stride, dilation, low = axes[2, 1], axes[2, 2], axes[2, 3], axes[2, 4]
    row, outputs, step = window * channels, shape[3], steps[3]
    pixel = axes[0, 1] * axes[1, 1] * row * size
    # windows that are runs of numbers, from the first to the last that is all inside
    begin, end = 0, 0
    runs = window == 1 or (dilation == 1 and step == channels * size)
    if runs:
        begin, end = _inside(-low, stride, axes[2, 0] - (window - 1) * dilation, outputs)
    for line in range(shape[0] * shape[1] * shape[2]):
        j, rest = line % shape[2], line // shape[2]
        sample, i = rest // shape[1], rest % shape[1]
        for first in range(0, outputs, some):
            last = min(first + some, outputs)
            inside, outside = min(max(begin, first), last), min(max(end, first), last)
            target = y + line * outputs * pixel
            for above in range(axes[0, 1]):
                for beside in range(axes[1, 1]):
                    d = i * axes[0, 2] + above * axes[0, 3] - axes[0, 4]
                    h = j * axes[1, 2] + beside * axes[1, 3] - axes[1, 4]
                    if not (0 <= d < axes[0, 0] and 0 <= h < axes[1, 0]):
                        fill_rows(zero, target + first * pixel, pixel, last - first, row)
                    else:
                        source = x + sample * steps[0] + d * steps[1] + h * steps[2]
                        move_rows(
                            item, item, source + (inside * stride - low) * step, stride * step,
                            target + inside * pixel, pixel, outside - inside, row,
                        )  # fmt: skip
                        for side in range(2):
                            start, stop = (outside, last) if side else (first, inside)
                            units, count, to = window, stop - start, pixel  # by taps, pixel after pixel
                            by, on, unit = dilation, stride, channels * size
                            if runs and count > 0:  # few pixels: the other way
                                units, count, to, by, on, unit = count, units, unit, on, 1, to
                            for u in range(units if count > 0 else 0):
                                at, here = start * stride - low + u * by, target + start * pixel + u * unit
                                a, b = _inside(at, on, axes[2, 0], count)
                                fill_rows(zero, here, to, a, channels)
                                move_rows(
                                    item, item, source + (at + a * on) * step, on * step,
                                    here + a * to, to, b - a, channels,
                                )  # fmt: skip
                                fill_rows(zero, here + b * to, to, count - b, channels)
                    target += row * size


@lru_cache(maxsize=1024)
def _windows(axes: tuple[Axis, ...]) -> Array:
    """The axes as a table (3, 5) of size, window, stride, dilation and low padding."""
    three = (*(Axis(1, 1),) * (3 - len(axes)), *axes)
    return np.array([(a.size, a.window, a.stride, a.dilation, a.low) for a in three], np.int64)


def columns(x: Array, axes: tuple[Axis, ...], y: Array) -> Array:
    """Windows of x (N, *n, C), padded by zeros as the axes say, side by side: to y (N, *out, T C), contiguous."""
    if y.size:
        item, _, _ = numbers(y.dtype, 0.0, 0.0)
        shape = table(five((*y.shape[:-1], x.shape[-1]), 1))
        some = max(ROW // (y.shape[-1] * y.itemsize), 1)
        _columns(
            item, y.itemsize, shape, table(five(x.strides, 0)), _windows(axes), address(x), address(y), some
        )
    return y


@njit(nogil=True, cache=True)
def _finished(size, shape, y, ys, r, rs, piece, rest, start, low, high):
    """Pieces of numbers, side by side, along five axes; behind those of the last axis there are ``rest`` more."""
    done = shape[4] * piece * size
    for a in range(shape[0]):
        for b in range(shape[1]):
            for c in range(shape[2]):
                for d in range(shape[3]):
                    at, beside = y + a * ys[0] + b * ys[1] + c * ys[2] + d * ys[3], 0
                    if r:
                        beside = r + a * rs[0] + b * rs[1] + c * rs[2] + d * rs[3]
                    finish_rows(at, ys[4], beside, rs[4], start, shape[4], piece, low, high)
                    if rest:
                        finish_rows(at + done, 0, beside + done if r else 0, 0, start, 1, rest, low, high)


@lru_cache(maxsize=1024)
def _pieces(shape: tuple[int, ...], y: tuple[int, ...], r: tuple[int, ...], size: int) -> tuple[Any, ...]:
    """Tables of shape and strides, once what lies side by side is one run; how long its pieces are, what is left."""
    axes = [axis for axis in zip(shape[:-1], y, r, strict=False) if axis[0] > 1]
    run = channels = shape[-1]
    while axes and axes[-1][1] == axes[-1][2] == run * size:
        run *= axes.pop()[0]
    piece = min(channels * max(PIECE // channels, 1), run)
    if piece < run:
        axes.append((run // piece, piece * size, piece * size))
    axes = [(1, 0, 0)] * (5 - len(axes)) + axes
    return (*(table(column) for column in zip(*axes, strict=True)), piece, run % piece)


def finished(y: Array, finish: Finish) -> Array:
    """Add bias and residual to y (N, *out, O) where it stands, its channels side by side, and keep it in bounds."""
    bias, r, low, high = finish
    if not y.size or (bias is None and r is None and low == float("-inf") and high == float("inf")):
        return y
    channels, size = y.shape[-1], y.itemsize
    if r is not None and (r.dtype != y.dtype or (channels > 1 and r.strides[-1] != size)):
        r = _contiguous(r, y.dtype)
    shape, ys, rs, piece, rest = _pieces(y.shape, y.strides, y.strides if r is None else r.strides, size)
    start = np.zeros((piece // channels, channels), y.dtype)
    if bias is not None:
        start[...] = bias
    _, least, most = numbers(y.dtype, low, high)
    ra = 0 if r is None else address(r)
    _finished(size, shape, address(y), ys, ra, rs, piece, rest, address(start), least, most)
    return y


def _contiguous(x: Array, dtype: Any) -> Array:
    y = np.empty(x.shape, dtype)
    if not can_gather(x.dtype, dtype):
        y[...] = x
        return y
    return gathered(x, tuple(maps(n, 0, n) for n in x.shape[1:-1]), 0, y)
