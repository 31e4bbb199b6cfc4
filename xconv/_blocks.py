"""Products of NumPy arrays cut into blocks so small that BLAS multiplies them where they stand.

Where BLAS packs every operand (see `small_products`), nothing is cut. The blocks depend on shapes only, never on the
number of threads: the same bits.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import prod

from xconv._blas import libraries
from xconv._namespace import Array, NumPyArray, empty_like, numpy_home, numpy_matmul
from xconv._scratch import spare

SMALL = 10**6  # multiplications: see `small_products`
UNPACKED = ("SkylakeX", "Cooperlake", "SapphireRapids")  # the kernels of OpenBLAS that do so,
EVEN = ("Haswell", "Zen")  # and others that were looked at: see `cuts_columns`
WIDTHS = (64, 96, 48, 32, 16)  # columns of a block: whole vectors, the more of them at a time the better
ROWS = 12  # of a block, or a multiple: so many fill the registers with any of these widths
BAND = 2**19  # sums that are added up chunk by chunk, before the next
TOGETHER = 2**17  # terms of sums that are computed at once
FEWEST = 4  # rows of a product that are worth it
FEW = 16  # up to which the right operand is read as a stream: so few take less time than to pack it,
STREAM = 64  # rows of that at a time,
STREAM_WIDTH = 512  # and columns, at most
NEAR = 40_000  # bytes of a right operand that stay in the nearest cache; a larger one is better packed,
SHORT = 128  # or kept in blocks if its columns are no longer than that, or with few rows to the left of it
SUM = 512  # numbers that are added up one after another: the more of them, the more is lost in rounding
FILLED = 8  # blocks, at least, of which the last may have columns of zeros; fewer are as wide as divides them
CALL = 2**15  # multiplications of a block, at least: there is a call for each


@lru_cache(maxsize=1)
def small_products() -> int:
    """How many multiplications real products may have that BLAS does not pack; 0 where it packs all.

    Most libraries copy both operands before they multiply, into the order of the arithmetic units. OpenBLAS on AVX-512
    leaves that out up to 100 x 100 x 100, and is then at the speed of those units. See ``sgemm_small_kernel_permit`` in
    its source, and the same for float64.
    """
    return SMALL if _has_kernels(UNPACKED) else 0


@lru_cache(maxsize=1)
def cuts_columns() -> bool:
    """Whether BLAS is known to cut a vector times a matrix in equal parts of the columns, one for each thread."""
    return _has_kernels((*UNPACKED, *EVEN))


def _has_kernels(names: tuple[str, ...]) -> bool:
    """Whether NumPy's BLAS, or any that there is, is OpenBLAS with kernels of these names."""
    found = [lib for lib in libraries() if str(lib.filepath).startswith(numpy_home)] or libraries()
    return bool(found) and all(getattr(lib, "architecture", None) in names for lib in found)


def suits(a: Array) -> bool:
    """Whether numbers of this kind are multiplied where they stand."""
    return bool(a.dtype.kind == "f" and a.itemsize in (4, 8) and small_products())


def fits(a: Array, b: Array) -> bool:
    """Whether to cut this product: both operands row by row, and not so small that it is one block."""
    return bool(
        a.dtype == b.dtype
        and suits(a)
        and a.ndim > 1
        and a.strides[-1] == b.strides[-1] == a.itemsize
        and a.shape[-2] >= FEWEST
        and (a.shape[-2] <= FEW or a.shape[-1] * b.shape[-1] * b.itemsize <= NEAR)
        and a.shape[-2] * a.shape[-1] * b.shape[-1] > small_products()
    )


def in_blocks(b: Array) -> Array:
    """(..., K, N) as blocks of columns (..., N / n, K, n), each a run of memory, if that pays; else as it is.

    A copy, for what is multiplied from the right time and again. The last block may have zeros behind its columns.
    """
    if type(b) is not NumPyArray or not suits(b):
        return b
    *lead, inner, columns = b.shape
    width = next((width for width in WIDTHS if columns % width == 0), 0)
    if not width and columns >= FILLED * WIDTHS[0]:
        width = WIDTHS[0]
    width = width or next((width for width in range(88, 16, -8) if columns % width == 0), columns)
    if width == columns or not columns:
        return b
    count = -(-columns // width)
    kept = empty_like(b, (*lead, count, inner, width), b.dtype)
    whole = columns // width
    kept[..., :whole, :, :] = b[..., : whole * width].reshape(*lead, inner, whole, width).swapaxes(-3, -2)
    if whole < count:
        kept[..., whole, :, : columns - whole * width] = b[..., whole * width :]
        kept[..., whole, :, columns - whole * width :] = 0
    return kept


def product(a: Array, b: Array, out: Array, *, blocked: bool = False) -> Array:
    """``a @ b`` in ``out``, of this thread: (..., P, K) @ (..., K, N), or @ (..., N / n, K, n) if ``blocked``."""
    if blocked:
        count, _, width = b.shape[-3:]
        whole = out.shape[-1] // width
        if whole:
            _in_chunks(a, b[..., :whole, :, :], out[..., : whole * width], SUM)
        if whole < count:  # what a block has behind the last column is left there
            shape = (*out.shape[:-1], width)
            last = spare("last", shape, out.dtype, out)
            last = empty_like(out, shape, out.dtype) if last is None else last
            _in_chunks(a, b[..., whole:, :, :], last, SUM)
            out[..., whole * width :] = last[..., : out.shape[-1] - whole * width]
        return out
    rows, columns = out.shape[-2:]
    width = _width(rows, a.shape[-1], columns)
    whole = columns // width * width
    blocks = b[..., :whole].reshape(*b.shape[:-1], whole // width, width).swapaxes(-3, -2)
    _in_chunks(a, blocks, out[..., :whole], STREAM if rows <= FEW else SUM)
    if whole < columns:  # what does not fill a block is one of its own, or more
        product(a, b[..., whole:], out[..., whole:])
    return out


def _width(rows: int, inner: int, columns: int) -> int:
    """Columns of a block, where the right operand stands as it does."""
    if rows <= FEW:
        most = min(max(small_products() // (rows * STREAM), 1), STREAM_WIDTH, columns)
        return next((n for n in range(most, most // 2, -1) if columns % n == 0), most)
    width = next((width for width in WIDTHS[:-1] if columns % width == 0), min(columns, WIDTHS[0]))
    while width < columns and rows * inner * width < CALL:
        width = min(2 * width, columns)
    return width


def _in_chunks(a: Array, b: Array, out: Array, length: int) -> None:
    """The inner axis in parts that are added up, so short that a block of some rows is small enough, and exact."""
    inner, width = b.shape[-2:]
    rows = max(min(a.shape[-2], ROWS), 1)
    chunks = max(-(-rows * inner * width // small_products()), -(-inner // length), 1)
    if chunks == 1:
        _rows_by_blocks(a, b, out)
        return
    chunks = next((count for count in range(chunks, 2 * chunks) if inner % count == 0), chunks)
    together = min(TOGETHER // max(prod(out.shape), 1), chunks)
    if b.ndim == 3 and a.ndim == 2 and inner % chunks == 0 and together > 1:
        # Several at once: between two operations a thread waits for the others.
        left = a.reshape(-1, chunks, inner // chunks).swapaxes(0, 1)
        right = b.reshape(-1, chunks, inner // chunks, width).swapaxes(0, 1)
        shape = (together, *out.shape)
        terms = spare("chunks", shape, out.dtype, out)
        terms = empty_like(out, shape, out.dtype) if terms is None else terms
        for first in range(0, chunks, together):
            found = terms[: chunks - first]
            _rows_by_blocks(left[first : first + together], right[first : first + together], found)
            if first:
                out += found.sum(axis=0)
            else:
                found.sum(axis=0, out=out)
        return
    edges = [inner * i // chunks for i in range(chunks + 1)]
    height = max(BAND // max(prod(out.shape[:-2]) * out.shape[-1], 1) // ROWS, 1) * ROWS
    for first in range(0, a.shape[-2], height):
        band, target = a[..., first : first + height, :], out[..., first : first + height, :]
        _rows_by_blocks(band[..., : edges[1]], b[..., : edges[1], :], target)
        term = spare("chunk", target.shape, target.dtype, target)
        term = empty_like(target, target.shape, target.dtype) if term is None else term
        for start, stop in pairwise(edges[1:]):
            target += _rows_by_blocks(band[..., start:stop], b[..., start:stop, :], term)


def _rows_by_blocks(a: Array, b: Array, out: Array) -> Array:
    """(..., P, K) @ (..., N / n, K, n), so many rows at a time that a block is small enough."""
    count, inner, width = b.shape[-3:]
    rows, most = a.shape[-2], small_products() // max(inner * width, 1)
    size = max(min(most // ROWS * ROWS if most >= ROWS else most, rows), 1)
    full = rows // size * size
    if full > size and 0 < rows - full <= most - size:
        full -= size  # the last one takes what is left
    target = out.reshape(*out.shape[:-1], count, width)
    if full:
        left = a[..., :full, :].reshape(*a.shape[:-2], full // size, 1, size, inner)
        place = target[..., :full, :, :].reshape(*out.shape[:-2], full // size, size, count, width)
        numpy_matmul(left, b if b.ndim == 3 else b[..., None, :, :, :], place.swapaxes(-3, -2))
    if full < rows:
        numpy_matmul(a[..., None, full:, :], b, target[..., full:, :, :].swapaxes(-3, -2))
    return out
