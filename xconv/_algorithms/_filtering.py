"""The matrices of Winograd's minimal filtering F(m, 3), and how one of them is laid over the axes of a tile."""

from __future__ import annotations

from math import prod

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


def matrix(which: int, m: int, dtype: DType, like: Array) -> Array:
    """Bt (0), G (1) or At (2) as an array beside ``like``."""
    return constant(MATRICES[m][which], dtype, like)


def transformed(
    matrix: Array, x: Array, axes: int, xp: Namespace, *, purpose: str | None = None, out: Array | None = None
) -> Array:
    """``matrix`` (k, n) over each of the one or two axes of a tile: (n**axes, ...) to (k**axes, ...).

    In ``out``, or in spare memory if there is a purpose.
    """
    k, n = matrix.shape
    rest = prod(x.shape[1:])
    if out is None and purpose is not None:
        out = spare(purpose, (k**axes, rest), x.dtype, x)
    if axes == 2:
        half = spare("half", (k, n * rest), x.dtype, x)
        x = xp.reshape(matmul(matrix, xp.reshape(x, (n, n * rest)), xp, half), (k, n, rest))
        y = matmul(
            xp.broadcast_to(matrix, (k, k, n)), x, xp, None if out is None else out.reshape(k, k, rest)
        )
    else:
        y = matmul(matrix, xp.reshape(x, (n, rest)), xp, out)
    return xp.reshape(y, (k**axes, rest))
