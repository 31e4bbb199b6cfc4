"""Compiled: Winograd's tiles to points, sums of points to outputs, and kernels to points, over two axes.

What stands outside the input is read from zeros, what stands outside the output is written where nobody looks. There
is a kernel for each number of points and taps; all are made here, and each is compiled when it is first called: one
that was made later might be made twice at once.
"""

from __future__ import annotations

from xconv._bridges.numba.kernels import Kernel, number, put, stack, words
from xconv._bridges.numba.transforms import from_points, kernel_to_points, to_points
from xconv._bridges.numba.vectors import MOST, WIDTH

# Points of a tile along an axis, taps.
FILTERS = ((4, 2), (4, 3), (6, 2), (6, 3), (6, 4), (6, 5), (8, 3), (8, 4), (8, 5))


def _kernels(points: int, taps: int) -> Kernel:
    """Outputs ``first`` to ``last`` of kernels (T, r, r, C, O), as `packed_rows` would lay out points (P, T C, O)."""

    @Kernel
    def kernels(job, first, last, item):
        size, terms, channels, outputs, w, u, step = words(job, 1, 7)
        ws = words(job, 8, 4)
        lanes = WIDTH // size
        width = (outputs + lanes - 1) // lanes * lanes
        for begin in range(first, last, MOST * lanes):
            row = min(width - begin, MOST * lanes) * size
            for term in range(terms):
                of = w + term // channels * ws[0] + term % channels * ws[3]
                at = u + terms * begin * size + term * row
                for o in range(begin, begin + row // size, lanes):
                    to = at + (o - begin) * size
                    kernel_to_points(points, taps, item, of + o * size, ws[1], ws[2], to, step, outputs - o)

    return kernels


def _inputs(n: int) -> Kernel:
    """Tiles ``first`` to ``last``, of (N, D, rows of tiles, tiles in a row), and their steps one after the other."""

    @Kernel
    def inputs(job, first, last, item):
        v, size, m, x, steps, channels, nothing, step = words(job, 1, 8)
        counts, xs, sizes, lows = words(job, 9, 4), words(job, 13, 5), words(job, 18, 3), words(job, 21, 3)
        lanes, places = WIDTH // size, stack(64)
        for tile in range(first, last):
            column, rest = tile % counts[3], tile // counts[3]
            row, rest = rest % counts[2], rest // counts[2]
            d, sample = rest % counts[1] - lows[0], rest // counts[1]
            inside = 0 <= d < sizes[0]
            for s in range(steps):
                base = x + sample * xs[0] + d * xs[1] + s * xs[4]
                for i in range(n):
                    h = row * m + i - lows[1]
                    for j in range(n):
                        w = column * m + j - lows[2]
                        if inside and 0 <= h < sizes[1] and 0 <= w < sizes[2]:
                            put(places, i * n + j, base + h * xs[2] + w * xs[3])
                        else:
                            put(places, i * n + j, nothing)
                at = v + (tile * steps + s) * channels * size
                for c in range(0, channels, lanes):
                    to_points(n, item, places, c * size, at + c * size, step, channels - c)

    return inputs


def _outputs(n: int, m: int) -> Kernel:
    """The other way."""

    @Kernel
    def outputs(job, first, last, item):
        p, dump, size, step, start, r, nothing, y, channels = words(job, 1, 9)
        counts, rs, ys, sizes = words(job, 10, 4), words(job, 14, 4), words(job, 18, 4), words(job, 22, 2)
        low, high = number(job, 24, item), number(job, 25, item)
        lanes, to, residuals = WIDTH // size, stack(36), stack(36)
        residual = 0
        if r != 0:
            residual = residuals
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
                        put(to, i * m + j, base + h * ys[2] + w * ys[3])
                        put(residuals, i * m + j, beside + h * rs[2] + w * rs[3])
                    else:
                        put(to, i * m + j, dump)
                        put(residuals, i * m + j, nothing)
            at = p + tile * channels * size
            for c in range(0, channels, lanes):
                from_points(
                    n, m, item, at + c * size, step, start, residual, to, c * size, channels - c, low, high
                )

    return outputs


KERNELS = {(n, taps): _kernels(n, taps) for n, taps in FILTERS}
READING = {n: _inputs(n) for n in sorted({n for n, _ in FILTERS})}
WRITING = {(n, n + 1 - taps): _outputs(n, n + 1 - taps) for n, taps in FILTERS}
