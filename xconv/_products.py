"""Matrix products, on threads of our own where they are large and nothing else is.

BLAS is never left to its own threads: after a product they keep spinning for milliseconds, and take the cores from the
tiles that run next. A large product is cut into pieces instead, the same ones for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import prod

from xconv._config import settings
from xconv._machine import cores
from xconv._namespace import Array, Namespace, NumPyArray, empty_like, numpy_matmul
from xconv._scratch import in_tiles, scratch
from xconv._threads import one_blas_thread, run_all

ALONE = 2**18  # multiplications up to which BLAS itself stays on one thread
LARGE = 2 * 10**7  # that are worth waking other threads for
PIECE = 4 * 10**7  # in a piece
FEW = 16  # rows; with fewer, it is the reading of the other operand that takes the time


def matmul(a: Array, b: Array, xp: Namespace, out: Array | None = None) -> Array:
    """``a @ b``; in ``out`` where that can be done without a copy: an array of as many elements, or of that shape."""
    if type(a) is not NumPyArray:
        return xp.matmul(a, b)
    if b.ndim not in (2, a.ndim):
        with one_blas_thread():
            return numpy_matmul(a, b)
    shape = (*a.shape[:-1], b.shape[-1])
    if out is not None:
        out = out.reshape(shape) if out.flags.c_contiguous else out if _has_rows(out, shape) else None
    products = prod(shape) * a.shape[-1]
    work = products * max(FEW // max(a.shape[-2], 1), 1)
    if work <= ALONE or in_tiles():
        return numpy_matmul(a, b, out)
    if work <= LARGE or a.dtype.kind not in "fc":
        with one_blas_thread():
            return numpy_matmul(a, b, out)
    if out is None:
        out = empty_like(a, shape, a.dtype)
    run_all(_pieces(a, b, out, min(max(products // PIECE, 2), 64)), settings().threads or cores(), scratch)
    return out


def _has_rows(out: Array, shape: tuple[int, ...]) -> bool:
    """Whether BLAS can write a result of this shape into an array: row by row, wherever the rows stand."""
    rows, step = out.strides[-2:] if out.ndim > 1 else (0, 0)
    return bool(out.shape == shape and step == out.itemsize and rows >= shape[-1] * step)


def _pieces(a: Array, b: Array, out: Array, count: int) -> Iterator[partial[Array]]:
    """The product cut along the longer side of the result, or along a batch of at least as many products."""
    rows, columns = out.shape[-2:]
    if a.ndim > 2 and len(a) >= count:
        for piece in _cuts(len(a), count, 1):
            yield partial(numpy_matmul, a[piece], b if b.ndim == 2 else b[piece], out[piece])
    elif rows >= columns:
        for piece in _cuts(rows, count, 16):
            yield partial(numpy_matmul, a[..., piece, :], b, out[..., piece, :])
    else:
        for piece in _cuts(columns, count, 64):
            yield partial(numpy_matmul, a, b[..., piece], out[..., piece])


def _cuts(size: int, count: int, unit: int) -> Iterator[slice]:
    """An even number of about ``count`` slices, as even as possible in units."""
    units = -(-size // unit)
    count = min(count + count % 2, units)
    for i in range(count):
        yield slice(units * i // count * unit, min(units * (i + 1) // count * unit, size))


def product_into(a: Array, b: Array, xp: Namespace, out: Array | None) -> Array:
    """``a @ b``, the work of one thread; of arrays of NumPy in ``out``, if given, in which rows are runs of memory."""
    if type(a) is not NumPyArray:
        return xp.matmul(a, b)
    if in_tiles() or a.shape[-2] * a.shape[-1] * b.shape[-1] <= ALONE:
        return numpy_matmul(a, b, out)
    with one_blas_thread():
        return numpy_matmul(a, b, out)
