"""Copies that do more on the way: what is padded, cropped, spread, continued, turned and converted is one copy."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from xconv._address import address
from xconv._borders import boundary
from xconv._bridges.numba.arrays import Array, inner, table
from xconv._bridges.numba.kernels import Kernel, number, put, stack, word, word_of, words
from xconv._bridges.numba.rows import fill_rows, halves, move_number, move_rows
from xconv._bridges.numba.sharing import TAP, shared
from xconv._bridges.numba.turns import WOVEN, turn, weave
from xconv._bridges.numba.vectors import WIDTH

RUN = 6  # words that say what a run is
LINES = 8  # words that hold a vector
AT_ONCE = 2**18  # bytes of a turned result that are written piece by piece


@inner
def _runs_of(row, pixels, old, new, step, channels, side_by_side, runs):
    """A row of pixels as runs: whether they are fill, where they begin in x and y, how far from one to the next in x.

    Then rows, and numbers in each: pixels with nothing between them are one row. How many runs there are.
    """
    begin, made = 0, runs
    while begin < pixels:
        first, end, by = word(row, begin), begin + 1, 1
        fill = first < 0
        if end < pixels and word(row, end) >= 0:
            by = word(row, end) - first
        while (
            end < pixels
            and (word(row, end) < 0) == fill
            and (fill or word(row, end) == first + by * (end - begin))
        ):
            end += 1
        rows, count = end - begin, channels
        if side_by_side and (fill or by * step == channels * old):
            rows, count = 1, rows * channels
        put(made, 0, fill)
        put(made, 1, first * step)
        put(made, 2, begin * channels * new)
        put(made, 3, by * step)
        put(made, 4, rows)
        put(made, 5, count)
        begin, made = end, made + 8 * RUN
    return (made - runs) // (8 * RUN)


@inner
def _channels_apart(old, new, before, after, x, by, away, y, pixel, pixels, channels, lanes, nowhere):
    """A vector of channels at most, or a few that are all; in x they are ``away`` from each other, pixels ``by``."""
    together = pixel == channels * after
    if by == before and together and channels == 2:
        weave(2, old, new, x, away, y, pixels)
    elif by == before and together and channels == 3:
        weave(3, old, new, x, away, y, pixels)
    elif by == before and together and channels == 4:
        weave(4, old, new, x, away, y, pixels)
    elif by == before:
        for p in range(0, pixels, lanes):
            turn(old, new, x + p * before, away, y + p * pixel, pixel, pixels - p, channels, nowhere)
    else:
        for p in range(pixels):
            for c in range(channels):
                move_number(old, new, x + p * by + c * away, y + p * pixel + c * after)


@Kernel
def _gathered(job, begin, end, old, new):
    """Lines ``begin`` to ``end`` of y; ``shape`` is its own, of three spatial axes, ``steps`` are the bytes in x."""
    before, after, x, y, first, second, third, at_once = words(job, 1, 8)
    shape, steps, fill = words(job, 9, 5), words(job, 14, 5), number(job, 19, new)
    channels, away, pixel, lanes = shape[4], steps[4], shape[4] * after, WIDTH // after
    nowhere = stack(LINES)
    side_by_side = away == before or channels == 1
    some = channels if side_by_side or channels <= WOVEN else lanes
    line = shape[3] * pixel
    lines = max(at_once // line, 1)
    table = np.empty(RUN * shape[3], np.int64)
    runs = table.ctypes.data
    count_runs = _runs_of(third, shape[3], before, after, steps[3], channels, side_by_side, runs)
    while begin < end:
        plane, of_plane = begin // shape[2], begin % shape[2]
        sample, i = plane // shape[1], plane % shape[1]
        base = x + sample * steps[0] + word(first, i) * steps[1]
        out = y + plane * shape[2] * line
        stop = min(of_plane + end - begin, shape[2])
        begin += stop - of_plane
        for start in range(of_plane, stop, lines):
            for channel in range(0, channels, some):
                left = min(some, channels - channel)
                for j in range(start, min(start + lines, stop)):
                    if word(first, i) < 0 or word(second, j) < 0:
                        if channel == 0:
                            fill_rows(fill, out + j * line, 0, 1, line // after)
                        continue
                    source, target = (
                        base + word(second, j) * steps[2] + channel * away,
                        out + j * line + channel * after,
                    )
                    for run in range(count_runs):
                        empty, a, b, by, rows, count = words(runs + 8 * RUN * run, 0, 6)
                        a, b = source + a, target + b
                        if empty:
                            fill_rows(fill, b, pixel, rows, count if side_by_side else left)
                        elif side_by_side:
                            move_rows(old, new, a, by, b, pixel, rows, count)
                        else:
                            _channels_apart(
                                old, new, before, after, a, by, away, b, pixel, rows, left, lanes, nowhere
                            )
    table[0] = 0  # it is alive until here


def can_gather(x: Any, y: Any) -> bool:
    """Whether there is a compiled copy from one dtype to another."""
    return y.name in ("float32", "float64") and _number(x) is not None


@lru_cache(maxsize=64)
def _number(dtype: Any) -> Any:
    """A number that tells compiled code what it reads; numba takes no 16-bit float, so a boolean stands for one."""
    if dtype.name == "float16" and halves() and dtype.isnative:
        return np.False_
    if dtype.name in ("int8", "uint8", "int16", "uint16", "int32", "float32", "float64") and dtype.isnative:
        return dtype.type(0)
    return None


@lru_cache(maxsize=1024)
def maps(size: int, start: int, stop: int, input_dilation: int = 1, pad_mode: str = "constant") -> Array:
    """The elements at the positions ``start`` to ``stop`` of a spread, continued axis; -1 where there is none."""
    spread = (size - 1) * input_dilation + 1 if size else 0

    def element(position: int) -> int:
        if not 0 <= position < spread:
            if pad_mode == "constant" or not size:
                return -1
            position = boundary(position, spread, pad_mode)
        return -1 if position % input_dilation else position // input_dilation

    return table(tuple(map(element, range(start, stop))))


_ONES = (table((0,)),) * 3


def five(values: tuple[int, ...], missing: int) -> tuple[int, ...]:
    """Something per batch, spatial axis and channel, as if there were three spatial axes."""
    return (values[0], *(missing,) * (5 - len(values)), *values[1:])


def gathered(x: Array, maps: tuple[Array, ...], fill: float, y: Array) -> Array:
    """Copy x[n, maps[0][i], .., c], or ``fill`` where a map says -1, of x (N, *n, C) to y (N, *m, C), contiguous."""
    if y.size:
        shape, value = five(y.shape, 1), y.dtype.type(fill)
        places = map(address, _ONES[len(maps) :] + maps)
        shared(
            _gathered, (_number(x.dtype), value), prod(shape[:3]), TAP * y.size, 1,
            (
                x.itemsize, y.itemsize, address(x), address(y), *places, AT_ONCE, *shape, *five(x.strides, 0),
                word_of(value),
            ),
        )  # fmt: skip
    return y
