"""Sums of products in one sweep: those of several pixels stay in registers while their windows are read where they are.

Pixels are addresses, so this is a convolution of any rank, stride and dilation, and a product of matrices too.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
from numba import njit

from xconv._bridges.numba.arrays import Array, address, beginning, inner, numbers, table, zeros
from xconv._bridges.numba.crew import lead, piece
from xconv._bridges.numba.sharing import shared
from xconv._bridges.numba.vectors import (
    MOST,
    PIXELS_1,
    PIXELS_2,
    PIXELS_3,
    PIXELS_4,
    WIDTH,
    copy_rows,
    sum_rows,
)
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis
from xconv._scratch import LINE, aligned, spare

# Bytes of weights that are gone through for a band before the next ones are.
CHUNK = 2**15 if WIDTH < 64 else 2**17
RAW, LITTLE = 192, 10**7  # pixels, or multiplications, up to which weights are packed on the way
BAND = 96  # pixels that all weights are gone through for before the next ones are: they stay in the cache of a core
PACKED = 8  # multiplications that take as long as packing a number
WIDE = 4  # blocks of outputs whose weights are packed together, if they are packed on the way
MANY = 64  # weights for each pixel: with more, they are the most of what is read
PIXELS, OUTPUTS, GROUPS = range(3)  # what the sums are cut along
SMALL = 2**12  # weights of a group; of such groups, all are done for a band before the next one


@inner
def _sums(
    piece_first, piece_last, item, size, split, pixels, groups, shape, x, xs, off, w, apart, start, nothing, y, ys, r,
    rs, steps, outputs, low, high, least, most, chunk, band
):  # fmt: skip
    """From one to the other of all pixels, outputs or groups, whatever is ``split``.

    ``steps`` are the bytes from one group to the next, of x, w, start, y and r. Rows of weights that are ``apart``
    are packed on the way; 0 if they are packed.
    """
    first, last, group_first, group_last, begin, end = 0, pixels, 0, groups, 0, outputs
    if split == PIXELS:
        first, last = piece_first, piece_last
    elif split == OUTPUTS:
        begin, end = piece_first, min(piece_last, outputs)
    else:
        group_first, group_last = piece_first, piece_last
    rank, terms = len(shape), len(off)
    px, py, pr = np.empty(band + 16, np.int64), np.empty(band + 16, np.int64), np.empty(band + 16, np.int64)
    aoff = off.ctypes.data
    at = np.empty(rank, np.int64)
    lanes = WIDTH // size
    some = min(max(chunk // (MOST * WIDTH), 16), max(terms, 1))
    wide = min(WIDE * MOST, -(-(end - begin) // lanes)) * WIDTH  # bytes of a row of them
    own = np.empty(wide // 8 * some if apart else 1, np.int64)
    panel = own.ctypes.data
    together = group_last - group_first if terms * outputs < SMALL else 1
    for some_groups in range(group_first, group_last, together):
        for begin_band in range(first, last, band):
            count_pixels = min(band, last - begin_band)
            p, a, b, c = begin_band, 0, 0, 0
            for i in range(rank - 1, -1, -1):
                at[i] = p % shape[i]
                p //= shape[i]
                a += at[i] * xs[i]
                b += at[i] * ys[i]
                c += at[i] * rs[i]
            for i in range(count_pixels):
                px[i], py[i], pr[i] = a, b, c
                a += xs[rank - 1]
                b += ys[rank - 1]
                c += rs[rank - 1]
                at[rank - 1] += 1
                j = rank - 1
                while j > 0 and at[j] == shape[j]:
                    at[j] = 0
                    at[j - 1] += 1
                    a += xs[j - 1] - shape[j] * xs[j]
                    b += ys[j - 1] - shape[j] * ys[j]
                    c += rs[j - 1] - shape[j] * rs[j]
                    j -= 1
            for i in range(count_pixels, count_pixels + 16):  # the last one is done once more, to the same
                px[i], py[i], pr[i] = px[i - 1], py[i - 1], pr[i - 1]
            for group in range(some_groups, min(some_groups + together, group_last)):
                for k in range(0, terms, some):
                    count = min(some, terms - k)
                    again = k > 0
                    lo, hi = low, high
                    if k + count < terms:
                        lo, hi = least, most
                    done, packed = begin, begin
                    while done < end:
                        left = outputs - done
                        vectors = min(MOST, -(-left // lanes))
                        row = vectors * WIDTH
                        xg, oa = x + group * steps[0], aoff + 8 * k
                        wg = w + group * steps[1] + done * size * terms + k * row
                        if apart:
                            if (done - begin) % (WIDE * MOST * lanes) == 0:
                                packed = done
                                _pack(
                                    item, size, done, min(done + WIDE * MOST * lanes, end), outputs,
                                    w + group * steps[1] + k * apart, apart, panel, count,
                                )  # fmt: skip
                            wg = panel + (done - packed) * size * count
                        sg = start + group * steps[2] + done * size
                        yg = y + group * steps[3] + done * size
                        rg = 0
                        if r != 0:
                            rg = r + group * steps[4] + done * size
                        apx, apy, apr = px.ctypes.data, py.ctypes.data, pr.ctypes.data
                        if again:
                            sg, rg, apr = nothing, yg, apy
                        _band(
                            item, vectors, count_pixels, xg, apx, oa, count, wg, sg, yg, apy, rg, apr, left, lo, hi
                        )  # fmt: skip
                        done += vectors * lanes
    own[0] = 0  # it is alive until here


@inner
def _pack(item, size, first, last, outputs, w, apart, to, terms):
    """Outputs ``first`` to ``last`` of ``terms`` rows, block by block; some rows at a time, which lie side by side."""
    lanes = WIDTH // size
    block = MOST * lanes
    for k in range(0, terms, 16):
        count = min(16, terms - k)
        for begin in range(first, last, block):
            left = outputs - begin
            vectors = min(MOST, -(-left // lanes))
            of, at = w + k * apart + begin * size, to + (begin - first) * size * terms + k * vectors * WIDTH
            if vectors == 4:
                if MOST == 4:
                    copy_rows(4, item, of, apart, at, count, left)
            elif vectors == 3:
                if MOST == 4:
                    copy_rows(3, item, of, apart, at, count, left)
            elif vectors == 2:
                copy_rows(2, item, of, apart, at, count, left)
            else:
                copy_rows(1, item, of, apart, at, count, left)


@inner
def _band(item, vectors, pixels, x, px, off, count, w, start, y, py, r, pr, left, low, high):
    """As many pixels at a time as the registers hold; fewer where fewer are left."""
    i = 0
    while i < pixels:
        # fmt: off
        more, at, to, beside = pixels - i, px + 8 * i, py + 8 * i, pr + 8 * i
        if vectors == 4:
            if MOST == 4:
                if more > 4:
                    sum_rows(4, PIXELS_4, item, x, at, off, count, w, start, y, to, r, beside, left, low, high)
                    i += PIXELS_4
                elif more > 2:
                    sum_rows(4, 4, item, x, at, off, count, w, start, y, to, r, beside, left, low, high)
                    i += 4
                else:
                    sum_rows(4, 2, item, x, at, off, count, w, start, y, to, r, beside, left, low, high)
                    i += 2
        elif vectors == 3:
            if MOST == 4:
                sum_rows(3, PIXELS_3, item, x, at, off, count, w, start, y, to, r, beside, left, low, high)
                i += PIXELS_3
        elif vectors == 2:
            if MOST == 4 or more > 3:
                sum_rows(2, PIXELS_2, item, x, at, off, count, w, start, y, to, r, beside, left, low, high)
                i += PIXELS_2
            else:
                sum_rows(2, 3, item, x, at, off, count, w, start, y, to, r, beside, left, low, high)
                i += 3
        else:
            sum_rows(1, PIXELS_1, item, x, at, off, count, w, start, y, to, r, beside, left, low, high)
            i += PIXELS_1
        # fmt: on


@njit(nogil=True, cache=True)
def _sums_led(crew, size, count, unit, helpers, *arguments):
    function, job = piece(_sums, arguments)
    lead(crew, size, count, unit, helpers, function, job)


@inner
def _packed(first, last, item, size, groups, terms, outputs, w, group_step, apart, rows, step):
    for group in range(groups):
        at = rows + group * step + first * size * terms
        _pack(item, size, first, last, outputs, w + group * group_step, apart, at, terms)


@njit(nogil=True, cache=True)
def _packed_led(crew, size, count, unit, helpers, *arguments):
    function, job = piece(_packed, arguments)
    lead(crew, size, count, unit, helpers, function, job)


def packed_rows(w: Array, *, keep: bool = True) -> Array:
    """Weights (G, K, O) as (G, K * O'): blocks of up to four vectors of outputs, each with all its rows."""
    groups, terms, outputs = w.shape
    block, lanes = MOST * WIDTH // w.itemsize, WIDTH // w.itemsize
    width = -(-outputs // lanes) * lanes
    if width == outputs <= block and w.flags.c_contiguous and address(w) % LINE == 0:
        return w.reshape(groups, terms * outputs)
    shape = (groups, terms * width)
    rows = None if keep else spare("packed", shape, w.dtype, w)
    rows = aligned(prod(shape), w.dtype).reshape(shape) if rows is None else rows
    if width > outputs:
        rows[...] = 0
    if not rows.size:
        return rows
    if w.strides[-1] != w.itemsize:
        w = np.ascontiguousarray(w)
    shared(_packed_led, width, PACKED * w.size, block, (
        w.dtype.type(0), w.itemsize, groups, terms, outputs, address(w), *w.strides[:2], address(rows),
        rows.strides[0],
    ))  # fmt: skip
    return rows


class Steps(NamedTuple):
    """How pixels, terms and groups follow each other, in bytes."""

    shape: tuple[int, ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    residual: tuple[int, ...]
    groups: tuple[int, ...]  # of x, weights, bias, y and residual
    window: tuple[int, ...]
    taps: tuple[int, ...]  # along every axis of the window
    inner: int  # numbers side by side at every tap
    groups_count: int
    outputs: int  # of a group
    size: int


class _Tables(NamedTuple):
    """The same as compiled code wants it."""

    shape: Array
    x: Array
    off: Array
    y: Array
    residual: Array
    groups: Array
    pixels: int
    work: int
    split: int  # what large work is cut along,
    size: int  # how long that is,
    unit: int  # and in what it is cut


@lru_cache(maxsize=4096)
def _tables(steps: Steps) -> _Tables:
    taps = (
        sum(t * s for t, s in zip(tap, steps.taps, strict=True)) for tap in product(*map(range, steps.window))
    )
    off = table(tuple(tap + c * steps.size for tap in taps for c in range(steps.inner)))
    pixels = prod(steps.shape)
    shape, x, y, residual, groups = map(table, steps[:5])
    return _Tables(
        shape,
        x,
        off,
        y,
        residual,
        groups,
        pixels,
        pixels * len(off) * steps.outputs * steps.groups_count,
        *_split(pixels, len(off), steps),
    )


def _split(pixels: int, terms: int, steps: Steps) -> tuple[int, int, int]:
    """By what there is most of: where the weights are the most of what is read, no two threads should read the same."""
    if terms * steps.outputs <= MANY * pixels:
        return PIXELS, pixels, 24
    if steps.groups_count > 1:
        return GROUPS, steps.groups_count, 1
    return OUTPUTS, steps.outputs, MOST * WIDTH // steps.size


def sums(x: Array, w: Array, y: Array, steps: Steps, finish: Finish = PLAIN) -> None:
    """For every pixel and group: the numbers of its window times weights, packed or (G, K, O), to ``y``."""
    bias, residual, low, high = finish
    dtype, t = y.dtype, _tables(steps)
    count = steps.outputs * (steps.groups_count if steps.groups[2] else 1)
    (_start, begins), (_zeros, nothing) = beginning(bias, count, dtype), zeros(0, dtype)
    item, least, most = numbers(dtype, float("-inf"), float("inf"))
    _, lowest, highest = numbers(dtype, low, high)
    r, apart = 0 if residual is None else address(residual), w.strides[1] if w.ndim == 3 else 0
    shared(_sums_led, t.size, t.work, t.unit, (
        item, steps.size, t.split, t.pixels, steps.groups_count, t.shape, address(x), t.x, t.off, address(w), apart,
        begins, nothing, address(y), t.y, r, t.residual, t.groups, steps.outputs, lowest, highest, least, most,
        CHUNK, BAND,
    ))  # fmt: skip


def convolved(
    x: Array, w: Array, axes: tuple[Axis, ...], outputs: int, y: Array, finish: Finish = PLAIN
) -> Array:
    """Windows of a padded block (N, *n, C) times weights, to y (N, *out, G O).

    The weights are packed, (G, T C/G * O'), or as they are, (G, T C/G, O), which is as good for few pixels.
    """
    r = finish.residual
    pixels = prod(y.shape[:-1])
    many = pixels > RAW and pixels * w.size > LITTLE
    if w.ndim == 3 and (many or w.strides[-1] != w.itemsize):
        w = packed_rows(w, keep=False)
    sums(x, w, y, _steps(x.shape[-1], x.strides, axes, w.shape[0], w.strides[0], outputs, y.shape, y.strides,
                         None if r is None else r.strides), finish)  # fmt: skip
    return y


@lru_cache(maxsize=4096)
def _steps(
    channels: int,
    x: tuple[int, ...],
    axes: tuple[Axis, ...],
    groups: int,
    w: int,
    outputs: int,
    shape: tuple[int, ...],
    y: tuple[int, ...],
    residual: tuple[int, ...] | None,
) -> Steps:
    size, inner = y[-1], channels // groups
    along = tuple(zip(x[1:-1], axes, strict=True))
    return Steps(
        shape[:-1],
        (x[0], *(s * a.stride for s, a in along)),
        y[:-1],
        (y if residual is None else residual)[:-1],
        (inner * size, w, outputs * size, outputs * size, outputs * size),
        tuple(a.window for a in axes),
        tuple(s * a.dilation for s, a in along),
        inner,
        groups,
        outputs,
        size,
    )
