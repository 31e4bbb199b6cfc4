"""Copies that do more on the way: what is padded, cropped, spread, continued, turned and converted is one copy."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numba import njit

from xconv._borders import boundary
from xconv._bridges.numba.arrays import Array, address, inner, table
from xconv._bridges.numba.crew import lead, piece
from xconv._bridges.numba.rows import fill_rows, halves, move_number, move_rows
from xconv._bridges.numba.sharing import TAP, shared
from xconv._bridges.numba.turns import WOVEN, turn, weave
from xconv._bridges.numba.vectors import WIDTH

AT_ONCE = 2**18  # bytes of a turned result that are written piece by piece


@inner
def _runs_of(row, old, new, step, channels, side_by_side):
    """A row of pixels as runs: whether they are fill, where they begin in x and y, how far from one to the next in x.

    Then rows, and numbers in each: pixels with nothing between them are one row.
    """
    runs = [(False, 0, 0, 0, 0, 0)]
    runs.clear()
    begin = 0
    while begin < len(row):
        first, end, by = row[begin], begin + 1, 1
        fill = first < 0
        if end < len(row) and row[end] >= 0:
            by = row[end] - first
        while end < len(row) and (row[end] < 0) == fill and (fill or row[end] == first + by * (end - begin)):
            end += 1
        rows, count = end - begin, channels
        if side_by_side and (fill or by * step == channels * old):
            rows, count = 1, rows * channels
        runs.append((fill, first * step, begin * channels * new, by * step, rows, count))
        begin = end
    return runs


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


@inner
def _gathered(
    begin, end, old, new, before, after, shape, steps, x, first, second, third, fill, y, at_once
):  # fmt: skip
    """Lines ``begin`` to ``end`` of y; ``shape`` is its own, of three spatial axes, ``steps`` are the bytes in x."""
    channels, away, pixel, lanes = shape[4], steps[4], shape[4] * after, WIDTH // after
    dump = np.empty(lanes, np.float64)
    nowhere = dump.ctypes.data
    side_by_side = away == before or channels == 1
    some = channels if side_by_side or channels <= WOVEN else lanes
    line = shape[3] * pixel
    lines = max(at_once // line, 1)
    runs = _runs_of(third, before, after, steps[3], channels, side_by_side)
    while begin < end:
        plane, of_plane = begin // shape[2], begin % shape[2]
        sample, i = plane // shape[1], plane % shape[1]
        base = x + sample * steps[0] + first[i] * steps[1]
        out = y + plane * shape[2] * line
        stop = min(of_plane + end - begin, shape[2])
        begin += stop - of_plane
        for start in range(of_plane, stop, lines):
            for channel in range(0, channels, some):
                left = min(some, channels - channel)
                for j in range(start, min(start + lines, stop)):
                    if first[i] < 0 or second[j] < 0:
                        if channel == 0:
                            fill_rows(fill, out + j * line, 0, 1, line // after)
                        continue
                    source, target = (
                        base + second[j] * steps[2] + channel * away,
                        out + j * line + channel * after,
                    )
                    for run in range(len(runs)):
                        empty, a, b, by, rows, count = runs[run]
                        a, b = source + a, target + b
                        if empty:
                            fill_rows(fill, b, pixel, rows, count if side_by_side else left)
                        elif side_by_side:
                            move_rows(old, new, a, by, b, pixel, rows, count)
                        else:
                            _channels_apart(
                                old, new, before, after, a, by, away, b, pixel, rows, left, lanes, nowhere
                            )
    dump[0] = 0  # it is alive until here


@njit(nogil=True, cache=True)
def _gathered_led(crew, size, count, unit, helpers, *arguments):
    function, job = piece(_gathered, arguments)
    lead(crew, size, count, unit, helpers, function, job)


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
        steps, shape, value = table(five(x.strides, 0)), table(five(y.shape, 1)), y.dtype.type(fill)
        first, second, third = _ONES[len(maps) :] + maps
        shared(
            _gathered_led, prod(five(y.shape, 1)[:3]), TAP * y.size, 1,
            (
                _number(x.dtype), value, x.itemsize, y.itemsize, shape, steps, address(x), first, second, third,
                value, address(y), AT_ONCE,
            ),
        )  # fmt: skip
    return y
