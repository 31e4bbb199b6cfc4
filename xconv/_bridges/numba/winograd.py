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

from xconv._bridges.numba.arrays import Array, address, beginning, inner, numbers, table, zeros
from xconv._bridges.numba.crew import add, lead, piece
from xconv._bridges.numba.direct import BAND, CHUNK, MANY, Steps, _sums, sums
from xconv._bridges.numba.sharing import shared
from xconv._bridges.numba.transforms import from_points, kernel_to_points, to_points
from xconv._bridges.numba.vectors import MOST, WIDTH
from xconv._config import settings
from xconv._finish import Finish
from xconv._geometry import Axis
from xconv._machine import cache_bytes, cores
from xconv._scratch import LINE, aligned, in_tiles, spare

BLOCK = 96  # tiles that go from one end to the other together on each core, at most,
ROOM = 2**25  # and bytes for all of those
UNKNOWN = 2**19  # bytes of a cache that nobody knows
TILE = 4  # multiplications that take as long as the transform of one number of a tile
KERNEL = 70  # multiplications that take as long as the transform of one kernel


@inner
def _kernels(first, last, item, size, m, taps, channels, outputs, w, ws, u, step):
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


@njit(nogil=True, cache=True)
def _kernels_led(crew, size, count, unit, helpers, *arguments):
    function, job = piece(_kernels, arguments)
    lead(crew, size, count, unit, helpers, function, job)


def winograd_kernel(w: Array, m: int) -> Array:
    """Kernels (3, 3, C, O), or with any axes before, transformed and packed: (points, T C * O')."""
    *before, _, _, channels, outputs = w.shape
    w = np.ascontiguousarray(w).reshape(prod(before), 3, 3, channels, outputs)
    lanes, points = WIDTH // w.itemsize, (m + 2) ** 2
    row = w.shape[0] * channels * (-(-outputs // lanes) * lanes)
    u = aligned(points * row, w.dtype).reshape(points, row)
    item, *_ = numbers(w.dtype, 0.0, 0.0)
    taps, wa, ws, ua = w.shape[0], address(w), table(w.strides[:-1]), address(u)

    shared(
        _kernels_led, row // (taps * channels), KERNEL * taps * channels * outputs, MOST * lanes,
        (item, w.itemsize, m, taps, channels, outputs, wa, ws, ua, u.strides[0]),
    )  # fmt: skip
    return u


@inner
def _inputs(first, last, item, size, m, counts, x, xs, sizes, lows, channels, nothing, v, step):
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
def _inputs_led(crew, size, count, unit, helpers, *arguments):
    function, job = piece(_inputs, arguments)
    lead(crew, size, count, unit, helpers, function, job)


@inner
def _outputs(
    first, last, item, size, m, counts, p, step, start, r, rs, nothing, y, ys, sizes, channels, dump, low,
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


@njit(nogil=True, cache=True)
def _outputs_led(crew, size, count, unit, helpers, *arguments):
    function, job = piece(_outputs, arguments)
    lead(crew, size, count, unit, helpers, function, job)


@inner
def _blocks(
    first, last, item, size, m, block, room, step, places, read, x, xs, sizes, lows, channels, nothing, w, w_step, off,
    begins, made, y, ys, r, rs, limits, outputs, low, high, least, most, chunk, band
):  # fmt: skip
    """Tiles ``first`` to ``last`` from one end to the other, so many at a time that a core's cache holds them.

    They pass through the first of ``places`` in ``room`` that is free; there are as many as threads.
    """
    slot = 0
    while add(room + slot * step, 1) > 0:
        add(room + slot * step, -1)
        slot = (slot + 1) % places
    points = (m + 2) ** 2
    v = room + slot * step + LINE
    p = v + points * block * channels * size
    dump = p + points * block * outputs * size
    vs, ps = block * channels * size, block * outputs * size
    shape, along, beside = np.empty(1, np.int64), np.empty(1, np.int64), np.empty(1, np.int64)
    along[0], beside[0] = channels * size, outputs * size
    steps = np.array((vs, w_step, 0, ps, 0))
    none = first - first  # a literal 0 would be a type of its own, and compiled for
    for tile in range(first, last, block):
        end = min(tile + block, last)
        shape[0] = end - tile
        _inputs(
            tile, end, item, size, m, read, x, xs, sizes, lows, channels, nothing, v - tile * channels * size, vs
        )  # fmt: skip
        _sums(
            none, end - tile, item, size, none, end - tile, points, shape, v, along, off, w, none, nothing, nothing, p,
            beside, none, beside, steps, outputs, least, most, least, most, chunk, band,
        )  # fmt: skip
        _outputs(
            tile, end, item, size, m, made, p - tile * outputs * size, ps, begins, r, rs, nothing, y, ys, limits,
            outputs, dump, low, high,
        )  # fmt: skip
    add(room + slot * step, -1)


@njit(nogil=True, cache=True)
def _blocks_led(crew, size, count, unit, helpers, *arguments):
    function, job = piece(_blocks, arguments)
    lead(crew, size, count, unit, helpers, function, job)


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
    threads = 1 if in_tiles() else settings().threads or cores()
    g = _geometry(x.shape, x.strides, axes, m, outputs, w.strides[0], y.strides, _strides_of(finish.residual))
    item, low, high = numbers(y.dtype, finish.low, finish.high)
    size, channels = x.itemsize, x.shape[-1]
    if outputs * channels <= MANY * g.points[1] and len(axes) == 2:
        return _in_blocks(x, w, m, outputs, y, finish, g, threads)
    v = _room("points", g.points, x)
    _zeros, nothing = zeros(max(channels, outputs), x.dtype)
    xa, va, step = address(x), address(v), v.strides[0]

    shared(
        _inputs_led, g.points[1], TILE * prod(g.points), 1,
        (item, size, m, g.read, xa, g.x, g.sizes, g.lows, channels, nothing, va, step),
    )  # fmt: skip
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

    shared(
        _outputs_led, g.products[1], TILE * prod(g.products), 1,
        (item, size, m, g.made, pa, apart, begins, ra, g.residual, nothing, ya, g.y, g.limits, outputs, da, low, high),
    )  # fmt: skip
    return y


def _in_blocks(
    x: Array, w: Array, m: int, outputs: int, y: Array, finish: Finish, g: _Geometry, threads: int
) -> Array:
    """The same for many tiles."""
    item, low, high = numbers(y.dtype, finish.low, finish.high)
    _, least, endless = numbers(y.dtype, float("-inf"), float("inf"))
    (points, tiles, channels), size, r = g.points, x.itemsize, finish.residual
    fitting = (cache_bytes(2) or UNKNOWN) // (points * (channels + outputs) * size)
    most = min(ROOM // (threads * points * (channels + outputs) * size), BLOCK * cores() // threads)
    block = max(min(max(fitting, 3 * channels * outputs // (4 * (channels + outputs))), BLOCK, most), 1)
    block = -(-tiles // (-(-tiles // (block * threads)) * threads))  # as many for every thread
    step = LINE + -(-(points * block * (channels + outputs) + outputs) * size // LINE) * LINE + WIDTH
    room = _room("blocks", (threads * step // size,), x)
    for slot in range(threads):
        room[slot * step // size :][: LINE // size] = 0
    (_start, begins), (_zeros, nothing) = (
        beginning(finish.bias, outputs, x.dtype),
        zeros(max(channels, outputs), x.dtype),
    )
    off = table(tuple(size * c for c in range(channels)))
    shared(_blocks_led, tiles, points * tiles * channels * outputs, block, (
        item, size, m, block, address(room), step, threads, g.read, address(x), g.x, g.sizes, g.lows, channels, nothing,
        address(w), w.strides[0], off, begins, g.made, address(y), g.y, 0 if r is None else address(r), g.residual,
        g.limits, outputs, low, high, least, endless, CHUNK, BAND,
    ))  # fmt: skip
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
