"""The transforms of Winograd's algorithm F(m, 3) over two axes: tile by tile, padded and cropped on the way.

What stands outside the input is read from zeros, what stands outside the output is written where nobody looks. The
products in between are `direct.sums`.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numba import njit

from xconv._bridges.numba.arrays import Array, address, beginning, numbers, table, zeros
from xconv._bridges.numba.direct import Steps, sums
from xconv._bridges.numba.sharing import shared
from xconv._bridges.numba.transforms import from_points, kernel_to_points, to_points
from xconv._bridges.numba.vectors import MOST, WIDTH
from xconv._finish import Finish
from xconv._geometry import Axis
from xconv._scratch import aligned, spare

KERNEL = 70  # multiplications that take as long as the transform of one kernel


@njit(nogil=True, cache=True)
def _kernels(item, size, m, first, last, taps, channels, outputs, w, ws, u, step):
    """Outputs ``first`` to ``last`` of kernels (T, 3, 3, C, O), as `packed_rows` would lay out points (P, T C, O)."""
    lanes, terms = WIDTH // size, taps * channels
    width = (outputs + lanes - 1) // lanes * lanes
    for begin in range(first, last, MOST * lanes):
        row = min(width - begin, MOST * lanes) * size
        for term in range(terms):
            of = w + term // channels * ws[0] + term % channels * ws[3]
            at = u + terms * begin * size + term * row
            for o in range(begin, begin + row // size, lanes):
                to = at + (o - begin) * size
                if m == 4:
                    kernel_to_points(4, item, of + o * size, ws[1], ws[2], to, step, outputs - o)
                else:
                    kernel_to_points(2, item, of + o * size, ws[1], ws[2], to, step, outputs - o)


def winograd_kernel(w: Array, m: int) -> Array:
    """Kernels (3, 3, C, O), or with any axes before, transformed and packed: (points, T C * O')."""
    *before, _, _, channels, outputs = w.shape
    w = np.ascontiguousarray(w).reshape(prod(before), 3, 3, channels, outputs)
    lanes, points = WIDTH // w.itemsize, (m + 2) ** 2
    row = w.shape[0] * channels * (-(-outputs // lanes) * lanes)
    u = aligned(points * row, w.dtype).reshape(points, row)
    item, *_ = numbers(w.dtype, 0.0, 0.0)
    taps, wa, ws, ua = w.shape[0], address(w), table(w.strides[:-1]), address(u)

    def some(first: int, last: int) -> None:
        _kernels(item, w.itemsize, m, first, last, taps, channels, outputs, wa, ws, ua, u.strides[0])

    shared(some, row // (taps * channels), KERNEL * taps * channels * outputs, MOST * lanes)
    return u


@njit(nogil=True, cache=True)
def _inputs(item, size, m, first, last, counts, x, xs, sizes, lows, channels, nothing, v, step):
    """Tiles ``first`` to ``last``, of (N, D, rows of tiles, tiles in a row)."""
    n, lanes = m + 2, WIDTH // size
    places = np.empty(36, np.int64)
    for tile in range(first, last):
        column, rest = tile % counts[3], tile // counts[3]
        row, rest = rest % counts[2], rest // counts[2]
        d, sample = rest % counts[1] - lows[0], rest // counts[1]
        inside = 0 <= d < sizes[0]
        base = x + sample * xs[0] + d * xs[1]
        for i in range(n):
            h = row * m + i - lows[1]
            for j in range(n):
                w = column * m + j - lows[2]
                if inside and 0 <= h < sizes[1] and 0 <= w < sizes[2]:
                    places[i * n + j] = base + h * xs[2] + w * xs[3]
                else:
                    places[i * n + j] = nothing
        at = v + tile * channels * size
        if m == 4:
            for c in range(0, channels, lanes):
                to_points(4, item, places.ctypes.data, c * size, at + c * size, step, channels - c)
        else:
            for c in range(0, channels, lanes):
                to_points(2, item, places.ctypes.data, c * size, at + c * size, step, channels - c)


@njit(nogil=True, cache=True)
def _outputs(
    item, size, m, first, last, counts, p, step, start, r, rs, nothing, y, ys, sizes, channels, dump, low,
    high
):  # fmt: skip
    """The other way."""
    lanes = WIDTH // size
    places, residuals = np.empty(16, np.int64), np.empty(16, np.int64)
    residual = 0
    if r != 0:
        residual = residuals.ctypes.data
    for tile in range(first, last):
        column, rest = tile % counts[3], tile // counts[3]
        row, rest = rest % counts[2], rest // counts[2]
        d, sample = rest % counts[1], rest // counts[1]
        base = y + sample * ys[0] + d * ys[1]
        beside = r + sample * rs[0] + d * rs[1]
        for i in range(m):
            h = row * m + i
            for j in range(m):
                w = column * m + j
                if h < sizes[0] and w < sizes[1]:
                    places[i * m + j] = base + h * ys[2] + w * ys[3]
                    residuals[i * m + j] = beside + h * rs[2] + w * rs[3]
                else:
                    places[i * m + j] = dump
                    residuals[i * m + j] = nothing
        at = p + tile * channels * size
        to = places.ctypes.data
        if m == 4:
            for c in range(0, channels, lanes):
                from_points(
                    4, item, at + c * size, step, start, residual, to, c * size, channels - c, low, high
                )
        else:
            for c in range(0, channels, lanes):
                from_points(
                    2, item, at + c * size, step, start, residual, to, c * size, channels - c, low, high
                )


def _room(purpose: str, shape: tuple[int, ...], like: Array) -> Array:
    kept = spare(purpose, shape, like.dtype, like)
    return np.empty(shape, like.dtype) if kept is None else kept


def _four(strides: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of (N, H, W, C) or (N, D, H, W, C), without the last, as if there were a depth."""
    batch, *spatial, _ = strides
    return (batch, *(spatial[:-2] or [0]), *spatial[-2:])


def winograd(
    x: Array, w: Array, axes: tuple[Axis, ...], m: int, outputs: int, y: Array, finish: Finish
) -> Array:
    """Windows of x (N, *n, C), padded as the axes say, times packed weights (points, T C * O'), to y (N, *out, O).

    The last two axes are transformed; the taps of one before them are summed as they are.
    """
    g = _geometry(x.shape, x.strides, axes, m, outputs, w.strides[0], y.strides, _strides_of(finish.residual))
    item, low, high = numbers(y.dtype, finish.low, finish.high)
    size, channels = x.itemsize, x.shape[-1]
    v = _room("points", g.points, x)
    _zeros, nothing = zeros(max(channels, outputs), x.dtype)
    xa, va, step = address(x), address(v), v.strides[0]

    def inputs(first: int, last: int) -> None:
        _inputs(item, size, m, first, last, g.read, xa, g.x, g.sizes, g.lows, channels, nothing, va, step)

    shared(inputs, g.points[1], prod(g.points))
    p = _room("products", g.products, x)
    sums(v, w, p, g.steps)
    _start, begins = beginning(finish.bias, outputs, x.dtype)
    dump = _room("dump", (outputs + WIDTH,), x)
    r = finish.residual
    pa, ya, ra, da, apart = (
        address(p),
        address(y),
        0 if r is None else address(r),
        address(dump),
        p.strides[0],
    )

    def results(first: int, last: int) -> None:
        _outputs(
            item, size, m, first, last, g.made, pa, apart, begins, ra, g.residual, nothing, ya, g.y, g.limits,
            outputs, da, low, high,
        )  # fmt: skip

    shared(results, g.products[1], prod(g.products))
    return y


class _Geometry(NamedTuple):
    """All that follows from sizes and strides."""

    points: tuple[int, ...]  # (points, tiles read, C)
    products: tuple[int, ...]  # (points, tiles made, O)
    steps: Steps
    read: Array  # tiles along every axis
    made: Array
    x: Array
    y: Array
    residual: Array
    sizes: Array
    lows: Array
    limits: Array


def _strides_of(r: Array | None) -> tuple[int, ...] | None:
    return None if r is None else r.strides


@lru_cache(maxsize=4096)
def _geometry(
    shape: tuple[int, ...],
    x: tuple[int, ...],
    axes: tuple[Axis, ...],
    m: int,
    outputs: int,
    w: int,
    y: tuple[int, ...],
    residual: tuple[int, ...] | None,
) -> _Geometry:
    batch, channels, size, points = shape[0], shape[-1], x[-1], (m + 2) ** 2
    *before, rows, columns = axes
    depth = before[0] if before else Axis(1, 1)
    deep = depth.size + depth.low + depth.high
    tiles = (-(-rows.output // m), -(-columns.output // m))
    flat = prod(tiles)
    read, made = batch * deep * flat, batch * depth.output * flat
    steps = Steps(
        (batch, depth.output, flat),
        (deep * flat * channels * size, depth.stride * flat * channels * size, channels * size),
        (depth.output * flat * outputs * size, flat * outputs * size, outputs * size),
        (0, 0, 0),
        (read * channels * size, w, 0, made * outputs * size, 0),
        (depth.window,),
        (depth.dilation * flat * channels * size,),
        channels,
        points,
        outputs,
        size,
    )
    return _Geometry(
        (points, read, channels),
        (points, made, outputs),
        steps,
        table((batch, deep, *tiles)),
        table((batch, depth.output, *tiles)),
        table(_four(x)),
        table(_four(y)),
        table(_four(y if residual is None else residual)),
        table((depth.size, rows.size, columns.size)),
        table((depth.low, rows.low, columns.low)),
        table((rows.output, columns.output)),
    )
