"""Where the elements of NumPy's arrays begin in memory.

NumPy says it by a dictionary of all there is to know of an array, which takes a microsecond; a small call asks ten
times. In CPython it stands behind the head of the array's object, where it can be read. Whether it does here is found
out when this is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes import c_size_t
from typing import Any

import numpy as np

Plain = np.ndarray[Any, Any]

_HEAD = object.__basicsize__


def _asked(x: Plain) -> int:
    return int(x.__array_interface__["data"][0])


def _read(x: Plain) -> int:
    return c_size_t.from_address(id(x) + _HEAD).value


def _is_there() -> bool:
    if sys.implementation.name != "cpython":
        return False
    x = np.empty((3, 4))
    return all(
        _read(y) == _asked(y) for y in (x, x[1:, 2:], x[::-1], x.T, np.empty(()), np.empty(0, np.int8))
    )


address: Callable[[Plain], int] = _read if _is_there() else _asked
