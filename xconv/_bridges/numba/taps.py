"""Which taps of a window meet the input, and where they stand in memory: the bookkeeping of `lanes` and `maxima`.

Compiled code sees three spatial axes, whatever there are, in a table: windows, strides, dilations, paddings below,
sizes and outputs of all three.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from xconv._address import address
from xconv._bridges.numba.arrays import Array, inner
from xconv._bridges.numba.kernels import put
from xconv._bridges.numba.vectors import WIDTH
from xconv._geometry import Axis


def can(axes: tuple[Axis, ...]) -> bool:
    """Whether there is code for so many axes, and 32 bits for the distances in an input that they are the axes of."""
    extent = prod(a.size + max(a.low, 0) + max(a.high, 0) for a in axes)
    return 1 <= len(axes) <= 3 and extent < 2**31 and all(a.input_dilation == 1 for a in axes)


def three(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """The same as three axes."""
    return (*(Axis(1, 1),) * (3 - len(axes)), *axes)


@lru_cache(maxsize=1024)
def geometry(axes: tuple[Axis, ...]) -> tuple[int, ...]:
    """What compiled code knows of axes: three of each."""
    rows = ((a.window, a.stride, a.dilation, a.low, a.size, a.output) for a in three(axes))
    return tuple(chain(*zip(*rows, strict=True)))


@lru_cache(maxsize=1024)
def byte_steps(strides: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of (N, *n, C), without the last, as if there were three spatial axes."""
    return (strides[0], *(0,) * (5 - len(strides)), *strides[1:-1])


@lru_cache(maxsize=16)
def padding(value: float, dtype: Any) -> tuple[Array, int]:
    """At least a vector of what padding holds, which must be kept alive, and its address."""
    vector = np.full(WIDTH, value, dtype)
    return vector, address(vector)


@inner
def met(at, step, count, size):
    """From and to which of ``count`` positions, ``at`` and every ``step`` behind, an axis of ``size`` is met."""
    if step == 1:  # by far the most, and no division
        first, last = -at, size - at
    else:
        first, last = -(at // step), (size - 1 - at) // step + 1
    first = max(first, 0)
    return first, max(min(last, count), first)


@inner
def place_taps(planes, rows, columns, windows, steps, off, number):
    """Where the taps of these planes and rows stand, and their numbers in the window; how many these are.

    Of every row, ``columns`` taps are placed.
    """
    count = 0
    for i in range(planes[0], planes[1]):
        for j in range(rows[0], rows[1]):
            for k in range(columns):
                put(off, count, i * steps[0] + j * steps[1] + k * steps[2])
                put(number, count, (i * windows[1] + j) * windows[2] + k)
                count += 1
    return count
