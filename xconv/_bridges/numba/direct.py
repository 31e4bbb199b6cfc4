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

from xconv._bridges.numba.arrays import Array, address, beginning, numbers, table, zeros
from xconv._bridges.numba.sharing import is_large, shared
from xconv._bridges.numba.vectors import MOST, PIXELS_1, PIXELS_2, PIXELS_3, PIXELS_4, WIDTH, sum_rows
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis
from xconv._scratch import LINE, aligned

CHUNK = 2**17  # bytes of weights that are gone through for all pixels before the next ones are


@njit(nogil=True, cache=True)
def _sums(
    item, size, first, last, begin, end, shape, x, xs, off, w, start, nothing, y, ys, r, rs, steps, outputs,
    group_first, group_last, low, high, least, most, chunk
):  # fmt: skip
    """Pixels ``first`` to ``last`` and outputs ``begin`` to ``end``, of groups ``group_first`` to ``group_last``.

    ``steps`` are the bytes from one group to the next, of x, w, start, y and r.
    """
    rank, terms = len(shape), len(off)
    px, py, pr = np.empty(16, np.int64), np.empty(16, np.int64), np.empty(16, np.int64)
    apx, apy, apr, aoff = px.ctypes.data, py.ctypes.data, pr.ctypes.data, off.ctypes.data
    at = np.empty(rank, np.int64)
    lanes = WIDTH // size
    for group in range(group_first, group_last):
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


def packed_rows(w: Array) -> Array:
    """Weights (G, K, O) as (G, K * O'): blocks of up to four vectors of outputs, each with all its rows."""
    groups, terms, outputs = w.shape
    block, lanes = MOST * WIDTH // w.itemsize, WIDTH // w.itemsize
    width = -(-outputs // lanes) * lanes
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
    width: int
    work: int
    split: str  # how large work is shared out


@lru_cache(maxsize=4096)
def _tables(steps: Steps) -> _Tables:
    taps = (
        sum(t * s for t, s in zip(tap, steps.taps, strict=True)) for tap in product(*map(range, steps.window))
    )
    off = table(tuple(tap + c * steps.size for tap in taps for c in range(steps.inner)))
    pixels, lanes = prod(steps.shape), WIDTH // steps.size
    shape, x, y, residual, groups = map(table, steps[:5])
    return _Tables(
        shape,
        x,
        off,
        y,
        residual,
        groups,
        pixels,
        -(-steps.outputs // lanes) * lanes,
        pixels * len(off) * steps.outputs * steps.groups_count,
        _split(pixels, len(off), steps),
    )


def _split(pixels: int, terms: int, steps: Steps) -> str:
    """By what there is most of: where the weights are the most of what is read, no two threads should read the same."""
    if terms * steps.outputs <= 64 * pixels:
        return "pixels"
    return "groups" if steps.groups_count > 1 else "outputs"


def sums(x: Array, w: Array, y: Array, steps: Steps, finish: Finish = PLAIN) -> None:
    """For every pixel and group: the numbers of its window times weights (G, K * O'), to ``y``."""
    bias, residual, low, high = finish
    dtype, t = y.dtype, _tables(steps)
    count = steps.outputs * (steps.groups_count if steps.groups[2] else 1)
    (_start, begins), (_zeros, nothing) = beginning(bias, count, dtype), zeros(0, dtype)
    item, least, most = numbers(dtype, float("-inf"), float("inf"))
    _, lowest, highest = numbers(dtype, low, high)
    r = 0 if residual is None else address(residual)
    addresses = (address(x), address(w), address(y))

    def some(
        first: int = 0,
        last: int = t.pixels,
        begin: int = 0,
        end: int = t.width,
        group: int = 0,
        groups: int = steps.groups_count,
    ) -> None:
        xa, wa, ya = addresses
        _sums(
            item, steps.size, first, last, begin, end, t.shape, xa, t.x, t.off, wa, begins, nothing, ya, t.y, r,
            t.residual, t.groups, steps.outputs, group, groups, lowest, highest, least, most, CHUNK,
        )  # fmt: skip

    if not is_large(t.work):
        some()
    elif t.split == "groups":
        shared(lambda group, groups: some(group=group, groups=groups), steps.groups_count, t.work)
    elif t.split == "outputs":
        shared(lambda begin, end: some(begin=begin, end=end), t.width, t.work, MOST * WIDTH // steps.size)
    else:
        shared(some, t.pixels, t.work, 24)


def convolved(
    x: Array, w: Array, axes: tuple[Axis, ...], outputs: int, y: Array, finish: Finish = PLAIN
) -> Array:
    """Windows of a padded block (N, *n, C) times packed weights (G, T C/G * O'), to y (N, *out, G O)."""
    r = finish.residual
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
