"""NumPy's arrays as compiled code takes them: addresses, strides in bytes, and tables of 64-bit integers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from xconv._address import address
from xconv._bridges.numba.kernels import word_of
from xconv._bridges.numba.vectors import MOST, WIDTH

Array = Any

# Compiled functions that only compiled functions call: without the code that Python would call them by.
inner = njit(nogil=True, cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@lru_cache(maxsize=4096)
def table(values: tuple[int, ...]) -> Array:
    """Integers for compiled code, which only reads them."""
    return np.array(values, np.int64)


@lru_cache(maxsize=4096)
def table_at(values: tuple[int, ...]) -> tuple[Array, int]:
    """The same with its address; hold both."""
    made = table(values)
    return made, address(made)


@lru_cache(maxsize=64)
def zeros(count: int, dtype: Any) -> tuple[Array, int]:
    """Zeros, and as many more as a vector may reach beyond them, and their address; hold both while that is used."""
    found = np.zeros(count + MOST * WIDTH, dtype)
    return found, address(found)


def beginning(bias: Array | None, count: int, dtype: Any) -> tuple[Array, int]:
    """What ``count`` sums begin with, and its address; hold both. Vectors may read beyond its end."""
    if bias is None:
        return zeros(count, dtype)
    start = np.zeros(count + MOST * WIDTH, dtype)
    start[:count] = bias
    return start, address(start)


@lru_cache(maxsize=64)
def numbers(dtype: Any, low: float, high: float) -> tuple[Any, Any, Any]:
    """Zero and two bounds as numbers of a dtype, which tell compiled code what it works on."""
    return dtype.type(0), dtype.type(low), dtype.type(high)


@lru_cache(maxsize=64)
def bounds(dtype: Any, low: float, high: float) -> tuple[tuple[Any], tuple[int, int]]:
    """A number that kernels are compiled for, and two bounds as words of a job."""
    return (dtype.type(0),), (word_of(dtype.type(low)), word_of(dtype.type(high)))
