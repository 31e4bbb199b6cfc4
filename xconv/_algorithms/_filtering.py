"""The matrices of Winograd's minimal filtering F(m, r), and how one of them is laid over the axes of a tile."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from xconv._namespace import Array, DType, Namespace, constant
from xconv._products import matmul
from xconv._scratch import spare

Matrix = tuple[tuple[float, ...], ...]

# By the points n of a tile along an axis: the numbers where polynomials are evaluated, infinity being the last point,
# what the taps are multiplied by there, and Bt (n, n), which is the same for all m and r with m + r - 1 = n.
POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 2, -2), 8: (0, 1, -1, 2, -2, 1 / 2, -1 / 2)}
SCALES = {
    4: (1, 1 / 2, 1 / 2),
    6: (1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24),
    8: (1, -2 / 9, -2 / 9, 1 / 90, 1 / 90, 32 / 45, 32 / 45),
}
INPUTS = {
    4: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),
    6: (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    8: (
        (1, 0, -21 / 4, 0, 21 / 4, 0, -1, 0),
        (0, 1, 1, -17 / 4, -17 / 4, 1, 1, 0),
        (0, -1, 1, 17 / 4, -17 / 4, -1, 1, 0),
        (0, 1 / 2, 1 / 4, -5 / 2, -5 / 4, 2, 1, 0),
        (0, -1 / 2, 1 / 4, 5 / 2, -5 / 4, -2, 1, 0),
        (0, 2, 4, -5 / 2, -5, 1 / 2, 1, 0),
        (0, -2, 4, 5 / 2, -5, -1 / 2, 1, 0),
        (0, -1, 0, 21 / 4, 0, -21 / 4, 0, 1),
    ),
}


@lru_cache
def matrices(points: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Bt (n, n), G (n, r) and At (m, n) of F(m, r) with n = m + r - 1 points."""
    m, numbers, scales = points + 1 - taps, POINTS[points], SCALES[points]
    kernel = tuple(tuple(f * p**t for t in range(taps)) for p, f in zip(numbers, scales, strict=True))
    output = tuple((*(p**k for p in numbers), int(k == m - 1)) for k in range(m))
    return INPUTS[points], (*kernel, (*(0,) * (taps - 1), 1)), output


def matrix(which: int, points: int, taps: int, dtype: DType, like: Array) -> Array:
    """Bt (0), G (1) or At (2) as an array beside ``like``."""
    return constant(matrices(points, taps)[which], dtype, like)


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
