"""Sums of products in one sweep: those of several pixels stay in registers while their windows are read where they are.

Pixels are addresses, so this is a convolution of any rank, stride and dilation, and a product of matrices too.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from xconv._address import address
from xconv._bridges.numba.arrays import Array, beginning, bounds, inner, table_at, zeros
from xconv._bridges.numba.kernels import Kernel, number, put, stack, word, words
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
AXES = 8  # of a batch and its pixels, at most
PLACES = BAND + 16  # those of a band, and of as many as are done at once behind it
PIXELS, OUTPUTS, GROUPS = range(3)  # what the sums are cut along
FEW = 4  # pixels, for which it takes as long to read the weights as to multiply
SOME, EVEN = 24, 4  # pixels that are cut at, and parts that threads can share out evenly
SMALL = 2**12  # weights of a group; of such groups, all are done for a band before the next one


@Kernel
def sums_of(job, piece_first, piece_last, item):
    """From one to the other of all pixels, outputs or groups, whatever is ``split``.

    ``steps`` are the bytes from one group to the next, of x, w, start, y and r. Rows of weights that are ``apart``
    are packed on the way; 0 if they are packed.
    """
    pixels, x, y, size, split, groups, rank, terms = words(job, 1, 8)
    shape, xs, off, w, apart, start, nothing, ys, r, rs, steps, outputs, chunk = words(job, 9, 13)
    low, high, least, most = (
        number(job, 22, item), number(job, 23, item), number(job, 24, item), number(job, 25, item)
    )  # fmt: skip
    first, last, group_first, group_last, begin, end = 0, pixels, 0, groups, 0, outputs
    if split == PIXELS:
        first, last = piece_first, piece_last
    elif split == OUTPUTS:
        begin, end = piece_first, min(piece_last, outputs)
    else:
        group_first, group_last = piece_first, piece_last
    lanes = WIDTH // size
    some = min(max(chunk // (MOST * WIDTH), 16), max(terms, 1))
    wide = min(WIDE * MOST, -(-(end - begin) // lanes)) * WIDTH  # bytes of a row of them
    px, py, pr, at = stack(PLACES), stack(PLACES), stack(PLACES), stack(AXES)
    own = np.empty(wide // 8 * some if apart else 1, np.int64)
    panel = own.ctypes.data
    together = group_last - group_first if terms * outputs < SMALL else 1
    for some_groups in range(group_first, group_last, together):
        for begin_band in range(first, last, BAND):
            count_pixels = min(BAND, last - begin_band)
            p, a, b, c = begin_band, 0, 0, 0
            for i in range(rank - 1, -1, -1):
                place = p % word(shape, i)
                put(at, i, place)
                p //= word(shape, i)
                a += place * word(xs, i)
                b += place * word(ys, i)
                c += place * word(rs, i)
            for i in range(count_pixels):
                put(px, i, a)
                put(py, i, b)
                put(pr, i, c)
                a += word(xs, rank - 1)
                b += word(ys, rank - 1)
                c += word(rs, rank - 1)
                j = rank - 1
                put(at, j, word(at, j) + 1)
                while j > 0 and word(at, j) == word(shape, j):
                    put(at, j, 0)
                    put(at, j - 1, word(at, j - 1) + 1)
                    a += word(xs, j - 1) - word(shape, j) * word(xs, j)
                    b += word(ys, j - 1) - word(shape, j) * word(ys, j)
                    c += word(rs, j - 1) - word(shape, j) * word(rs, j)
                    j -= 1
            for i in range(count_pixels, count_pixels + 16):  # the last one is done once more, to the same
                put(px, i, word(px, i - 1))
                put(py, i, word(py, i - 1))
                put(pr, i, word(pr, i - 1))
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
                        xg, oa = x + group * word(steps, 0), off + 8 * k
                        wg = w + group * word(steps, 1) + done * size * terms + k * row
                        if apart:
                            if (done - begin) % (WIDE * MOST * lanes) == 0:
                                packed = done
                                _pack(
                                    item, size, done, min(done + WIDE * MOST * lanes, end), outputs,
                                    w + group * word(steps, 1) + k * apart, apart, panel, count,
                                )  # fmt: skip
                            wg = panel + (done - packed) * size * count
                        sg = start + group * word(steps, 2) + done * size
                        yg = y + group * word(steps, 3) + done * size
                        rg = 0
                        if r != 0:
                            rg = r + group * word(steps, 4) + done * size
                        before = pr
                        if again:
                            sg, rg, before = nothing, yg, py
                        _band(
                            item, vectors, count_pixels, xg, px, oa, count, wg, sg, yg, py, rg, before, left, lo, hi
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


@Kernel
def _packed(job, first, last, item):
    size, groups, terms, outputs, w, group_step, apart, rows, step = words(job, 1, 9)
    for group in range(groups):
        at = rows + group * step + first * size * terms
        _pack(item, size, first, last, outputs, w + group * group_step, apart, at, terms)


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
    shared(_packed, (w.dtype.type(0),), width, PACKED * w.size, block, (
        w.itemsize, groups, terms, outputs, address(w), *w.strides[:2], address(rows), rows.strides[0],
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

    words: tuple[int, ...]  # rank, terms, then addresses
    x: int
    off: int
    y: int
    residual: int
    groups: int
    pixels: int
    work: int
    split: int  # what large work is cut along,
    size: int  # how long that is,
    unit: int  # and in what it is cut
    held: tuple[Array, ...]


@lru_cache(maxsize=4096)
def _tables(steps: Steps) -> _Tables:
    taps = (
        sum(t * s for t, s in zip(tap, steps.taps, strict=True)) for tap in product(*map(range, steps.window))
    )
    off = tuple(tap + c * steps.size for tap in taps for c in range(steps.inner))
    pixels = prod(steps.shape)
    held, places = zip(*map(table_at, (*steps[:5], off)), strict=True)
    shape, x, y, residual, groups, offsets = places
    return _Tables(
        (len(steps.shape), len(off), shape),
        x,
        offsets,
        y,
        residual,
        groups,
        pixels,
        max(pixels, FEW) * len(off) * steps.outputs * steps.groups_count,
        *_split(pixels, len(off), steps),
        held,
    )


def _split(pixels: int, terms: int, steps: Steps) -> tuple[int, int, int]:
    """By what there is most of: where the weights are the most of what is read, no two threads should read the same.

    But a few blocks of outputs would not come out even.
    """
    block = MOST * WIDTH // steps.size
    if terms * steps.outputs <= MANY * pixels or (
        steps.groups_count == 1 and steps.outputs < EVEN * block and pixels >= EVEN * SOME
    ):
        return PIXELS, pixels, SOME
    if steps.groups_count > 1:
        return GROUPS, steps.groups_count, 1
    return OUTPUTS, steps.outputs, block


def sums(x: Array, w: Array, y: Array, steps: Steps, finish: Finish = PLAIN) -> None:
    """For every pixel and group: the numbers of its window times weights, packed or (G, K, O), to ``y``."""
    bias, residual, low, high = finish
    dtype, t = y.dtype, _tables(steps)
    count = steps.outputs * (steps.groups_count if steps.groups[2] else 1)
    (_start, begins), (_zeros, nothing) = beginning(bias, count, dtype), zeros(0, dtype)
    items, endless = bounds(dtype, float("-inf"), float("inf"))
    _, within = bounds(dtype, low, high)
    r, apart = 0 if residual is None else address(residual), w.strides[1] if w.ndim == 3 else 0
    shared(sums_of, items, t.size, t.work, t.unit, (
        t.pixels, address(x), address(y), steps.size, t.split, steps.groups_count, *t.words, t.x, t.off, address(w),
        apart, begins, nothing, t.y, r, t.residual, t.groups, steps.outputs, CHUNK, *within, *endless,
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
