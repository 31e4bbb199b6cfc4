"""The matrices of Winograd's minimal filtering F(m, 3), and one of them over all axes of a tile at once."""

from __future__ import annotations

from functools import lru_cache, reduce
from math import prod
from typing import Any

from xconv._namespace import Array, DType, Namespace, constant
from xconv._products import matmul
from xconv._scratch import spare

# By m: Bt (m + 2, m + 2), G (m + 2, 3) and At (m, m + 2), with the interpolation points 0, 1, -1, (2, -2,) infinity.
MATRICES = {
    2: (
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: (
        (
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        (
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}


@lru_cache(maxsize=64)
def kronecker(which: int, m: int, axes: int) -> tuple[tuple[float, ...], ...]:
    """The matrix that transforms all axes at once: the Kronecker product of Bt (0), G (1) or At (2) with itself."""

    def both(a: Any, b: Any) -> Any:
        return tuple(tuple(p * q for p in row for q in other) for row in a for other in b)

    return tuple(reduce(both, (MATRICES[m][which],) * axes))


def matrix(which: int, m: int, axes: int, dtype: DType, like: Array) -> Array:
    """The same as an array beside ``like``."""
    return constant(kronecker(which, m, axes), dtype, like)


def transformed(matrix: Array, x: Array, purpose: str | None, xp: Namespace) -> Array:
    """``matrix`` over the first axis, in spare memory if there is a purpose."""
    out = spare(purpose, (matrix.shape[0], *x.shape[1:]), x.dtype, x) if purpose is not None else None
    y = matmul(matrix, xp.reshape(x, (x.shape[0], prod(x.shape[1:]))), xp, out)
    return xp.reshape(y, (matrix.shape[0], *x.shape[1:]))
