"""Matrix products, on threads of our own where they are large and nothing else is.

A large product is cut into pieces, the same ones for any number of threads. BLAS has threads of its own, which spin for
a while after a product and are at hand at once for the next; they are used for products of middling size only, where
they are known to give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from math import prod
from typing import NamedTuple

from xconv._blas import one_blas_thread, own_threads
from xconv._blocks import cuts_columns, fits, product, small_products
from xconv._config import settings
from xconv._machine import cores
from xconv._namespace import Array, Namespace, NumPyArray, empty_like, is_own, numpy_matmul
from xconv._scratch import in_tiles, scratch
from xconv._threads import run_all

ALONE = 2**18  # multiplications up to which BLAS itself stays on one thread
LARGE = 10**7  # that are worth waking other threads for
PIECE = 10**8  # in a piece
HEAD = 4 * 10**6  # more in the first one: those who help come later, and had better be gone when it is done
MIDDLING = 12 * 10**7  # up to which BLAS does better with threads of its own, which are sooner at work,
TALL = 128  # for so many rows, or sums so long: else there is more to pack than to multiply
UNCUT = 256  # numbers of an inner axis that BLAS certainly leaves in one
VECTOR = 16  # numbers
FEW = 4  # rows; with fewer, it is the reading of the other operand that takes the time:
ROW_ALONE = 2**19  # numbers of it, up to which BLAS stays on one thread,
ROW_LARGE = 25 * 10**5  # and that are worth waking our threads for,
NARROW = 128  # columns,
HANDS = 8  # unless BLAS has more of them: so short parts are slow to read one after the other

# What is done with a piece of a result, of these rows and columns.
Each = Callable[[Array, slice, slice], None]


def matmul(
    a: Array,
    b: Array,
    xp: Namespace,
    out: Array | None = None,
    *,
    blocked: int = 0,
    each: Each | None = None,
) -> Array:
    """``a @ b``; in ``out`` where that can be done without a copy: an array of as many elements, or of that shape.

    The right operand may be ``blocked``, as `in_blocks` gives it, with so many columns. Of operands with two axes,
    every piece of the result is given to ``each`` when it is there, with its rows and columns, on the thread that has
    made it.
    """
    if not isinstance(a, NumPyArray):
        return _then(xp.matmul(a, b), each)
    if not is_own(a):  # mapped from a file, for example
        a = a.view(NumPyArray)
    if b.ndim not in (2, a.ndim) and not blocked:
        with one_blas_thread():
            return numpy_matmul(a, b)
    columns = blocked or b.shape[-1]
    if a.ndim > 2 and b.ndim == 2 + bool(blocked) and out is None and a.flags.c_contiguous and a.size:
        y = matmul(a.reshape(-1, a.shape[-1]), b, xp, blocked=blocked, each=each)  # longer, and only one
        return y.reshape(*a.shape[:-1], columns)
    shape = (*a.shape[:-1], columns)
    if out is not None:
        out = out.reshape(shape) if out.flags.c_contiguous else out if _has_rows(out, shape) else None
    products = prod(shape) * a.shape[-1]
    work = products * max(FEW // max(a.shape[-2], 1), 1)
    middling = not blocked and not in_tiles() and is_middling(a.shape, columns, a)
    if blocked or (work > ALONE and not middling and fits(a, b)):
        out = empty_like(a, shape, a.dtype) if out is None else out
        return _in_cuts(a, b, out, products, blocked=blocked > 0, each=each)
    if (
        a.ndim == b.ndim == 2
        and a.shape[0] < FEW
        and a.dtype.kind in "fc"
        and work > ALONE
        and not in_tiles()
    ):
        out = empty_like(a, shape, a.dtype) if out is None else out
        return _few_rows(a, b, out, each)
    if work <= ALONE or in_tiles() or (middling and own_threads(settings().threads)):
        return _then(numpy_matmul(a, b, out), each)
    if work <= LARGE or a.dtype.kind not in "fc":
        with one_blas_thread():
            return _then(numpy_matmul(a, b, out), each)
    out = empty_like(a, shape, a.dtype) if out is None else out
    pieces = _pieces(a, b, out, products, 2)
    tasks = (partial(_piece, numpy_matmul, piece, each) for piece in pieces)
    run_all(tasks, settings().threads or cores(), scratch)
    return out


def _then(y: Array, each: Each | None) -> Array:
    if each is not None:
        each(y, slice(None), slice(None))
    return y


def _few_rows(a: Array, b: Array, out: Array, each: Each | None) -> Array:
    """Few rows (P, K), each times (K, N) by itself: BLAS reads the matrix again rather than packing it.

    The columns are cut as BLAS cuts them for threads of its own, which are sooner at work than ours; so wherever it has
    as many they do the same sums. Narrow matrices it cuts otherwise; they are left whole.
    """
    numbers, count = prod(b.shape), 1
    if numbers > ROW_ALONE and b.shape[1] >= NARROW:
        count = cores() if cores() <= HANDS else 1 + (numbers > ROW_LARGE)
    known = b.strides[-1] == b.itemsize and a.dtype == b.dtype and a.dtype.char == "f" and cuts_columns()
    if known and 1 < count == own_threads(settings().threads):
        _by_rows(a, b, out)
        return _then(out, each)
    pieces = [Piece(a, b[:, part], out[:, part], columns=part) for part in _parts(b.shape[1], count)]
    if count > 1 and numbers > ROW_LARGE:
        tasks = (partial(_piece, _by_rows, piece, each) for piece in pieces)
        run_all(tasks, settings().threads or cores(), scratch)
        return out
    with one_blas_thread():
        for piece in pieces:
            _by_rows(*piece[:3])
    return _then(out, each)


def _by_rows(a: Array, b: Array, out: Array) -> None:
    numpy_matmul(a[:, None], b, out[:, None])


def _parts(size: int, count: int) -> Iterator[slice]:
    """Equal parts, the first ones longer by one if need be: each takes its share of what is left, rounded up."""
    start = 0
    for left in range(count, 0, -1):
        stop = start - (start - size) // left
        if stop > start:
            yield slice(start, stop)
        start = stop


def _piece(multiply: Callable[..., Array], piece: Piece, each: Each | None) -> None:
    multiply(piece.a, piece.b, piece.out)
    if each is not None:
        each(piece.out, piece.rows, piece.columns)


def is_middling(rows: tuple[int, ...], columns: int, like: Array) -> bool:
    """Whether a product (..., P, K) @ (K, N) is left to BLAS and its own threads: to wake ours takes too long for it.

    Only float32, and only where BLAS is known to give the same bits with any number of threads: a longer inner axis it
    cuts in two, elsewhere with threads than without, unless both halves are whole vectors.
    """
    *_, height, inner = rows
    return bool(
        height >= FEW
        and max(height, inner) >= TALL
        and columns > 1  # which has kernels of its own
        and ALONE < prod(rows) * columns <= MIDDLING
        and (inner <= UNCUT or inner % (2 * VECTOR) == 0)
        and like.dtype.char == "f"
        and small_products()
    )


def _in_cuts(a: Array, b: Array, out: Array, products: int, *, blocked: bool, each: Each | None) -> Array:
    """In blocks, for which BLAS takes one thread by itself."""
    if products <= LARGE or in_tiles():
        return _then(product(a, b, out, blocked=blocked), each)
    pieces = _pieces(a, b, out, products, 3 if blocked else 2)
    tasks = (partial(_piece, partial(product, blocked=blocked), piece, each) for piece in pieces)
    run_all(tasks, settings().threads or cores(), scratch, nullcontext)
    return out


def _has_rows(out: Array, shape: tuple[int, ...]) -> bool:
    """Whether BLAS can write a result of this shape into an array: row by row, wherever the rows stand."""
    rows, step = out.strides[-2:] if out.ndim > 1 else (0, 0)
    together = step == out.itemsize or shape[-1:] == (1,)
    return bool(out.shape == shape and together and rows >= shape[-1] * out.itemsize)


class Piece(NamedTuple):
    """A product that is part of another: operands, place, and which rows and columns of the whole these are."""

    a: Array
    b: Array
    out: Array
    rows: slice = slice(None)
    columns: slice = slice(None)


def _pieces(a: Array, b: Array, out: Array, products: int, axes: int) -> Iterator[Piece]:
    """The product cut along the longer side of the result, or along a batch of at least as many products.

    The right operand of one has so many ``axes``: two, or three where it is in blocks.
    """
    rows, columns = out.shape[-2:]
    count, head = min(max(products // PIECE, 2), 64), HEAD / products
    if a.ndim > 2 and len(a) >= count:
        for piece in _cuts(len(a), count, 1, head):
            yield Piece(a[piece], b if b.ndim == axes else b[piece], out[piece])
    elif rows >= columns:
        for piece in _cuts(rows, count, 16, head):
            yield Piece(a[..., piece, :], b, out[..., piece, :], piece)
    elif axes == 3:
        width = b.shape[-1]
        for piece in _cuts(b.shape[-3], count, 1, head):
            columns_of = slice(piece.start * width, piece.stop * width)
            yield Piece(a, b[..., piece, :, :], out[..., columns_of], columns=columns_of)
    else:
        for piece in _cuts(columns, count, 64, head):
            yield Piece(a, b[..., piece], out[..., piece], columns=piece)


def _cuts(size: int, count: int, unit: int, head: float) -> Iterator[slice]:
    """An even number of about ``count`` slices, as even as possible in units, but for a longer first one.

    It has a share of ``head`` more than the others, to the nearest unit.
    """
    units = -(-size // unit)
    count = min(count + count % 2, units)
    more = round(units * head * (count - 1) / count)  # than an even share
    first, start = min(units // count + more, units - count + 1), 0
    for i in range(count):
        stop = size if i == count - 1 else min((first + (units - first) * i // (count - 1)) * unit, size)
        yield slice(start, stop)
        start = stop


def product_into(a: Array, b: Array, xp: Namespace, out: Array | None) -> Array:
    """``a @ b``, the work of one thread; of arrays of NumPy in ``out``, if given, in which rows are runs of memory."""
    if not is_own(a):
        return xp.matmul(a, b)
    if in_tiles() or a.shape[-2] * a.shape[-1] * b.shape[-1] <= ALONE:
        return numpy_matmul(a, b, out)
    with one_blas_thread():
        return numpy_matmul(a, b, out)
