"""Sums of products in one sweep: those of several pixels stay in registers while their windows are read where they are.

Pixels are addresses, so this is a convolution of any rank, stride and dilation, and a product of matrices too.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from xconv._bridges.numba.arrays import Array, address, beginning, numbers, table, zeros
from xconv._bridges.numba.sharing import shared
from xconv._bridges.numba.vectors import MOST, PIXELS_1, PIXELS_2, PIXELS_3, PIXELS_4, WIDTH, sum_rows
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis
from xconv._scratch import LINE, aligned

CHUNK = 2**17  # bytes of weights that are gone through for all pixels before the next ones are


@njit(nogil=True, cache=True)
def _sums(
    item,
    size,
    first,
    last,
    begin,
    end,
    shape,
    x,
    xs,
    off,
    w,
    start,
    nothing,
    y,
    ys,
    r,
    rs,
    steps,
    outputs,
    groups,
    low,
    high,
    least,
    most,
    chunk,
):
    """Pixels ``first`` to ``last``, and outputs ``begin`` to ``end`` of every group.

    ``steps`` are the bytes from one group to the next, of x, w, start, y and r.
    """
    rank, terms = len(shape), len(off)
    px, py, pr = np.empty(16, np.int64), np.empty(16, np.int64), np.empty(16, np.int64)
    apx, apy, apr, aoff = px.ctypes.data, py.ctypes.data, pr.ctypes.data, off.ctypes.data
    at = np.empty(rank, np.int64)
    lanes = WIDTH // size
    for group in range(groups):
        done = begin
        while done < end:
            left = outputs - done
            vectors = min(MOST, -(-left // lanes))
            pixels = PIXELS_4
            if vectors == 3:
                pixels = PIXELS_3
            elif vectors == 2:
                pixels = PIXELS_2
            elif vectors == 1:
                pixels = PIXELS_1
            row = vectors * WIDTH
            some = max(chunk // row, 16)
            for k in range(0, terms, some):
                count = min(some, terms - k)
                xg, oa = x + group * steps[0], aoff + 8 * k
                wg = w + group * steps[1] + done * size * terms + k * row
                sg = start + group * steps[2] + done * size
                yg = y + group * steps[3] + done * size
                rg = 0
                if r != 0:
                    rg = r + group * steps[4] + done * size
                again = k > 0
                if again:
                    sg, rg = nothing, yg
                lo, hi = low, high
                if k + count < terms:
                    lo, hi = least, most
                p, a, b, c = first, 0, 0, 0
                for i in range(rank - 1, -1, -1):
                    at[i] = p % shape[i]
                    p //= shape[i]
                    a += at[i] * xs[i]
                    b += at[i] * ys[i]
                    c += at[i] * rs[i]
                p = first
                while p < last:
                    if vectors == 4:  # the last few are not done as if they were more
                        pixels = PIXELS_4 if last - p > 4 else 4 if last - p > 2 else 2
                    for i in range(pixels):
                        px[i], py[i] = a, b
                        pr[i] = b if again else c
                        if p + i < last - 1:  # past the end the last pixel is done once more, to the same
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
                    p += pixels
                    # fmt: off
                    if vectors == 4:
                        if MOST == 4:
                            if pixels > 4:
                                sum_rows(4, PIXELS_4, item, xg, apx, oa, count, wg, sg, yg, apy, rg, apr, left, lo, hi)
                            elif pixels > 2:
                                sum_rows(4, 4, item, xg, apx, oa, count, wg, sg, yg, apy, rg, apr, left, lo, hi)
                            else:
                                sum_rows(4, 2, item, xg, apx, oa, count, wg, sg, yg, apy, rg, apr, left, lo, hi)
                    elif vectors == 3:
                        if MOST == 4:
                            sum_rows(3, PIXELS_3, item, xg, apx, oa, count, wg, sg, yg, apy, rg, apr, left, lo, hi)
                    elif vectors == 2:
                        sum_rows(2, PIXELS_2, item, xg, apx, oa, count, wg, sg, yg, apy, rg, apr, left, lo, hi)
                    else:
                        sum_rows(1, PIXELS_1, item, xg, apx, oa, count, wg, sg, yg, apy, rg, apr, left, lo, hi)
                    # fmt: on
            done += vectors * lanes


def packed_width(outputs: int, dtype: Any) -> int:
    """Outputs that packed weights have room for: whole vectors."""
    lanes = WIDTH // dtype.itemsize
    return -(-outputs // lanes) * lanes


def packed_rows(w: Array) -> Array:
    """Weights (G, K, O) as (G, K * O'): blocks of up to four vectors of outputs, each with all its rows."""
    groups, terms, outputs = w.shape
    block, width = MOST * WIDTH // w.itemsize, packed_width(outputs, w.dtype)
    if width == outputs <= block and w.flags.c_contiguous and address(w) % LINE == 0:
        return w.reshape(groups, terms * outputs)
    rows = aligned(groups * terms * width, w.dtype).reshape(groups, terms * width)
    if width > outputs:
        rows[...] = 0
    for begin in range(0, width, block):
        end = min(begin + block, width)
        place = rows[:, terms * begin : terms * end].reshape(groups, terms, end - begin)
        place[..., : min(end, outputs) - begin] = w[..., begin : min(end, outputs)]
    return rows


class Steps(NamedTuple):
    """How pixels and terms follow each other, in bytes."""

    shape: tuple[int, ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    residual: tuple[int, ...]
    groups: tuple[int, ...]  # of x, weights, bias, y and residual


def sums(x: Array, off: Array, w: Array, y: Array, outputs: int, steps: Steps, finish: Finish) -> None:
    """For every pixel and group: the numbers at ``off`` behind it, times weights (G, K * O'), to ``y``."""
    dtype, groups = y.dtype, w.shape[0]
    start = beginning(finish.bias, outputs * (groups if steps.groups[2] else 1), dtype)
    pixels, width = prod(steps.shape), packed_width(outputs, dtype)
    item, low, high = numbers(dtype, finish.low, finish.high)
    _, least, most = numbers(dtype, float("-inf"), float("inf"))
    r = 0 if finish.residual is None else address(finish.residual)
    shape, xs, ys, rs, gs = map(table, steps)
    work = pixels * len(off) * outputs * groups
    xa, wa, sa, ya, na = map(address, (x, w, start, y, zeros(0, dtype)))
    size = dtype.itemsize

    def some_pixels(first: int, last: int) -> None:
        _sums(
            item, size, first, last, 0, width, shape, xa, xs, off, wa, sa, na, ya, ys, r, rs, gs, outputs, groups,
            low, high, least, most, CHUNK,
        )  # fmt: skip

    def some_outputs(begin: int, end: int) -> None:
        _sums(
            item, size, 0, pixels, begin, end, shape, xa, xs, off, wa, sa, na, ya, ys, r, rs, gs, outputs, groups,
            low, high, least, most, CHUNK,
        )  # fmt: skip

    if len(off) * outputs > pixels * 64:  # the weights are the most of what is read
        shared(some_outputs, width, work, MOST * WIDTH // size)
    else:
        shared(some_pixels, pixels, work, 24)


@lru_cache(maxsize=1024)
def offsets(window: tuple[int, ...], steps: tuple[int, ...], inner: int, size: int) -> Array:
    """Where the numbers of a window stand behind its first, row by row."""
    taps = (sum(t * s for t, s in zip(tap, steps, strict=True)) for tap in product(*map(range, window)))
    return table(tuple(tap + c * size for tap in taps for c in range(inner)))


def convolved(
    x: Array, w: Array, axes: tuple[Axis, ...], outputs: int, y: Array, finish: Finish = PLAIN
) -> Array:
    """Windows of a padded block (N, *n, C) times packed weights (G, T C/G * O'), to y (N, *out, G O)."""
    groups = w.shape[0]
    inner, size = x.shape[-1] // groups, x.itemsize
    off = offsets(
        tuple(a.window for a in axes),
        tuple(s * a.dilation for s, a in zip(x.strides[1:-1], axes, strict=True)),
        inner,
        size,
    )
    r = finish.residual
    steps = Steps(
        y.shape[:-1],
        (x.strides[0], *(s * a.stride for s, a in zip(x.strides[1:-1], axes, strict=True))),
        y.strides[:-1],
        y.strides[:-1] if r is None else r.strides[:-1],
        (inner * size, w.strides[0], outputs * size, outputs * size, outputs * size),
    )
    sums(x, off, w, y, outputs, steps, finish)
    return y
