"""Winograd's algorithm F(m, r) over two axes: tile by tile, padded and cropped on the way.

The products in between are `direct.sums`.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from xconv._address import address
from xconv._bridges.numba.arrays import Array, beginning, bounds, inner, table_at, zeros
from xconv._bridges.numba.crew import add
from xconv._bridges.numba.direct import CHUNK, MANY, PIXELS, Steps, sums, sums_of
from xconv._bridges.numba.kernels import Kernel, call, job, put, stack, word, words
from xconv._bridges.numba.sharing import shared
from xconv._bridges.numba.tiles import KERNELS, READING, WRITING
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
INPUTS, SUMS, OUTPUTS = 24, 26, 26  # words of the jobs
KERNEL = 70  # multiplications that take as long as the transform of one kernel


def winograd_kernel(w: Array, n: int) -> Array:
    """Kernels (r, r, C, O), or with any axes before, transformed and packed: (n**2, T C * O')."""
    *before, taps, _, channels, outputs = w.shape
    w = np.ascontiguousarray(w).reshape(prod(before), taps, taps, channels, outputs)
    lanes, terms = WIDTH // w.itemsize, w.shape[0] * channels
    row = terms * (-(-outputs // lanes) * lanes)
    u = aligned(n**2 * row, w.dtype).reshape(n**2, row)
    shared(
        KERNELS[n, taps], (w.dtype.type(0),), row // terms, KERNEL * terms * outputs, MOST * lanes,
        (w.itemsize, terms, channels, outputs, address(w), address(u), u.strides[0], *w.strides[:-1]),
    )  # fmt: skip
    return u


@inner
def _own(table, count, own):
    """A copy of a job, to be changed."""
    for i in range(count):
        put(own, i, word(table, i))


@Kernel
def _blocks(job, first, last):
    """Tiles ``first`` to ``last`` from one end to the other, so many at a time that a core's cache holds them.

    They pass through the first of ``places`` in ``room`` that is free; there are as many as threads. The work is that
    of three kernels, whose jobs are given but for where the numbers stand.
    """
    size, points, block, room, step, places, channels, outputs = words(job, 1, 8)
    reading, inputs, adding, sums, writing, results = words(job, 9, 6)
    mine, terms, made = stack(INPUTS), stack(SUMS), stack(OUTPUTS)
    _own(inputs, INPUTS, mine)
    _own(sums, SUMS, terms)
    _own(results, OUTPUTS, made)
    slot = 0
    while add(room + slot * step, 1) > 0:
        add(room + slot * step, -1)
        slot = (slot + 1) % places
    v = room + slot * step + LINE
    p = v + points * block * channels * size
    put(made, 2, p + points * block * outputs * size)
    for tile in range(first, last, block):
        end = min(tile + block, last)
        put(mine, 1, v - tile * channels * size)
        call(reading, mine, tile, end)
        put(terms, 2, v)
        put(terms, 3, p)
        call(adding, terms, 0, end - tile)
        put(made, 1, p - tile * outputs * size)
        call(writing, made, tile, end)
    add(room + slot * step, -1)
    if word(mine, 0) + word(terms, 0) + word(made, 0) > 0:
        raise MemoryError


def _room(purpose: str, shape: tuple[int, ...], like: Array) -> Array:
    kept = spare(purpose, shape, like.dtype, like)
    return np.empty(shape, like.dtype) if kept is None else kept


def _deep(strides: tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Strides of (N, H, W, C) or (N, D, H, W, C), without the last, as if there were a depth."""
    return strides[:-1] if axes == 3 else (strides[0], 0, *strides[1:-1])


def winograd(
    x: Array, w: Array, axes: tuple[Axis, ...], n: int, outputs: int, y: Array, finish: Finish
) -> Array:
    """Windows of x (N, *n, S, C), padded as the axes say, times packed weights (n**2, T S C * O'), to y (N, *out, O).

    The last two axes are transformed; the taps of one before them are summed as they are. The S steps of a stride that
    is folded away are channels, which need not stand side by side.
    """
    g = _geometry(x.shape, x.strides, axes, n, outputs, w.strides[0], y.strides, _strides_of(finish.residual))
    m = n + 1 - axes[-1].window
    if outputs * g.points[2] <= MANY * g.points[1] and len(axes) == 2:
        return _in_blocks(x, w, n, m, y, finish, g)
    items = (y.dtype.type(0),)
    v, p = _room("points", g.points, x), _room("products", g.products, x)
    dump = _room("dump", (outputs + WIDTH,), x)
    _held, reading, writing = _ends(x, m, y, finish, g, v.strides[0], p.strides[0])
    shared(READING[n], items, g.points[1], TILE * prod(g.points), 1, (address(v), *reading))
    sums(v, w, p, g.steps)
    ends = (address(p), address(dump), *writing)
    shared(WRITING[n, m], items, g.products[1], TILE * prod(g.products), 1, ends)
    return y


def _ends(
    x: Array, m: int, y: Array, finish: Finish, g: _Geometry, v_step: int, p_step: int
) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """Words of the jobs that read and write, but for where the points stand; hold the first one meanwhile."""
    *_, steps, channels = x.shape
    outputs, size, r = y.shape[-1], x.itemsize, finish.residual
    _, within = bounds(y.dtype, finish.low, finish.high)
    start, begins = beginning(finish.bias, outputs, x.dtype)
    nowhere, nothing = zeros(max(channels, outputs), x.dtype)
    reading = (size, m, address(x), steps, channels, nothing, v_step, *g.read, *g.x, *g.sizes, *g.lows)
    writing = (
        size, p_step, begins, 0 if r is None else address(r), nothing, address(y), outputs, *g.made, *g.residual,
        *g.y, *g.limits, *within,
    )  # fmt: skip
    return (start, nowhere), reading, writing


def _in_blocks(x: Array, w: Array, n: int, m: int, y: Array, finish: Finish, g: _Geometry) -> Array:
    """The same for many tiles."""
    threads = 1 if in_tiles() else settings().threads or cores()
    items, endless = bounds(y.dtype, float("-inf"), float("inf"))
    (points, tiles, channels), size, outputs = g.points, x.itemsize, y.shape[-1]
    fitting = (cache_bytes(2) or UNKNOWN) // (points * (channels + outputs) * size)
    most = min(ROOM // (threads * points * (channels + outputs) * size), BLOCK * cores() // threads)
    block = max(min(max(fitting, 3 * channels * outputs // (4 * (channels + outputs))), BLOCK, most), 1)
    block = -(-tiles // (-(-tiles // (block * threads)) * threads))  # as many for every thread
    step = LINE + -(-(points * block * (channels + outputs) + outputs) * size // LINE) * LINE + WIDTH
    room = _room("blocks", (threads * step // size,), x)
    for slot in range(threads):
        room[slot * step // size :][: LINE // size] = 0
    v_step, p_step = block * channels * size, block * outputs * size
    _ready, reading, writing = _ends(x, m, y, finish, g, v_step, p_step)
    _zeros, nothing = zeros(outputs, x.dtype)  # what the products begin with, all outputs
    own = (block,), (channels * size,), (outputs * size,), (v_step, w.strides[0], 0, p_step, 0)
    _tables, (shape, xs, ys, steps) = zip(*map(table_at, own), strict=True)
    _off, off = table_at(tuple(size * c for c in range(channels)))
    adding = (
        block, 0, 0, size, PIXELS, points, 1, channels, shape, xs, off, address(w), 0, nothing, nothing, ys, 0, ys,
        steps, outputs, CHUNK, *endless, *endless,
    )  # fmt: skip
    (_reading, read), (_adding, add_up), (_writing, write) = (
        job((0, *reading)),
        job(adding),
        job((0, 0, *writing)),
    )
    shared(_blocks, (), tiles, points * tiles * channels * outputs, block, (
        size, points, block, address(room), step, threads, channels, outputs, READING[n].code(*items), read,
        sums_of.code(*items), add_up, WRITING[n, m].code(*items), write,
    ))  # fmt: skip
    return y


class _Geometry(NamedTuple):
    """All that follows from sizes and strides."""

    points: tuple[int, ...]  # (points, tiles read, C)
    products: tuple[int, ...]  # (points, tiles made, O)
    steps: Steps
    read: tuple[int, ...]  # tiles along every axis
    made: tuple[int, ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    residual: tuple[int, ...]
    sizes: tuple[int, ...]
    lows: tuple[int, ...]
    limits: tuple[int, ...]


def _strides_of(r: Array | None) -> tuple[int, ...] | None:
    return None if r is None else r.strides


@lru_cache(maxsize=4096)
def _geometry(
    shape: tuple[int, ...],
    x: tuple[int, ...],
    axes: tuple[Axis, ...],
    n: int,
    outputs: int,
    w: int,
    y: tuple[int, ...],
    residual: tuple[int, ...] | None,
) -> _Geometry:
    batch, channels, size, points, m = shape[0], prod(shape[-2:]), x[-1], n**2, n + 1 - axes[-1].window
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
        (batch, deep, *tiles),
        (batch, depth.output, *tiles),
        _deep(x, len(axes)),
        _deep(y, len(axes)),
        _deep(y if residual is None else residual, len(axes)),
        (depth.size, rows.size, columns.size),
        (depth.low, rows.low, columns.low),
        (rows.output, columns.output),
    )
