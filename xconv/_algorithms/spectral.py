"""Long kernels over images of one channel: frequencies along one axis and band matrices along the other.

Rows of the image are cut into blocks of L, which overlap by the reach of the kernel. With X[f] the discrete Fourier
transform of a block from row to row, each X[f] being a row of complex numbers, and W[f] the same of the kernel,

    Y[f] = X[f] convolved with conj(W[f]) along the row

is the transform of a sum that wraps around after L rows, as for `fft`. Both transforms are products with matrices of
sines and cosines, and the convolution along the row is one with a band matrix, as for `banded`: all is matrix products,
whose columns are the image's as they stand. The products of complex numbers are Gauss's, of three real ones,

    (a + b i) (g + h i) = (a g - b h) + ((a + b) (g + h) - a g - b h) i,

so that the matrices of the transforms give and take about 3 L / 2 real rows a block, a, b and a + b for each
frequency that is not real, and each of these rows has a band matrix of its own.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from xconv._algorithms._bands import band_reach
from xconv._algorithms._cost import Cost
from xconv._algorithms._waves import backward, forward, length_of, of_kernel, places, points_of
from xconv._geometry import Axis, ConvProblem
from xconv._movers import room, written
from xconv._namespace import (
    Array,
    Namespace,
    Traits,
    empty_like,
    is_own,
    numbers,
    overlapping,
    permuted_axes,
)
from xconv._products import product_into
from xconv._strides import rows_are_apart

WIDTH = 16  # outputs in a band: as many as a BLAS kernel computes at once
SLOW = 1.5  # times as long do the products with band matrices take: they are short
PART = 1.03  # times as long does it take with a block that is not whole
LONGEST = 6  # reaches of the kernel in a block, at most
LARGEST = 4 * 2**20  # bytes of the band matrices, or of the matrix of a transform
BATCHED = 16  # products that one call does in the time that a call takes

_NONE = (0, Axis(1, 1), Axis(1, 1))  # in place of what is refused


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Real numbers that need not be summed directly, one channel, and a kernel over two neighbouring axes."""
    if problem.direct:
        return "only direct sums are allowed (integers, or precision='strict')"
    if problem.kind != "float":
        return f"its matrices are of real floats, and the numbers are of kind {problem.kind!r}"
    if (problem.channels_in, problem.channels_out) != (1, 1):
        return (
            f"there are {problem.channels_in} input and {problem.channels_out} output channels, not one each"
        )
    if 0 in (problem.batch, *problem.outputs):
        return "there is nothing to compute"
    plane = _plane(problem)
    if plane is None:
        return "the kernel does not lie in two neighbouring axes, with strides along these alone"
    _, rows, last = plane
    length = _length(rows, last)
    for which, size in (
        ("band matrices", _bound(problem)),
        ("transform", points_of(length) * length * problem.itemsize),
    ):
        if size > LARGEST:
            return f"its {which} would take {round(size / 2**20, 1)} MiB, more than {LARGEST // 2**20}"
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """Three products: forth, along the rows, and back."""
    batch, rows, last = _plane(problem) or _NONE
    length, size, taken = _length(rows, last), problem.itemsize, last.size + last.output
    blocks, points, width = _blocks(rows, length), points_of(length), min(WIDTH, last.output)
    lines, bands = batch * blocks.number * points, -(-last.output // width)
    products = points * batch * (blocks.reads * last.size + rows.output * last.output)
    banded = lines * bands * width * band_reach(last, width)
    calls = 10 + (2 * batch * blocks.number + points * bands) // BATCHED
    kept, bound = lines * taken * size, _bound(problem)
    moved = 2 * kept + batch * (blocks.reads * last.size + rows.output * last.output) * size
    if not traits.threads:  # other libraries copy what overlaps
        moved += 2 * (batch * blocks.reads * last.size + lines * bands * band_reach(last, width)) * size
    flops = int(2 * (products + SLOW * banded))
    return Cost(
        flops, moved, calls, kept, 2 * points * problem.taps, 6 * bound, bound, blocks.kept, shared=False
    )


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """A band matrix for every point: (P, reach, B) for B outputs along a row."""
    _, rows, last = _plane(problem) or _NONE
    width = min(WIDTH, last.output)
    w = xp.reshape(w, (rows.window, last.window))
    points = numbers(of_kernel, (_length(rows, last), rows.window, rows.dilation), w.dtype, w)
    shifts = numbers(places, (last.window, last.stride, last.dilation, width), w.dtype, w)
    bands = product_into(product_into(points, w, xp, None), shifts, xp, None)
    return xp.reshape(bands, (-1, band_reach(last, width), width))


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None = None) -> Array:
    """(P, L) @ (L, W) for every block, (blocks, reach) @ (reach, B) for every point and band, (rows, P) @ (P, W).

    Zeros beyond the border are not written out: the rows of the matrices that would meet them are left out.
    """
    if not reads_borders(problem):
        x, problem = written(x, problem, xp)
    batch, rows, last = _plane(problem) or _NONE
    shape = (batch, rows.output, last.output)
    blocks = _blocks(rows, length_of(w.shape[0]))
    target = None
    if is_own(x):
        target = empty_like(x, shape, x.dtype) if out is None else _lines_of(out, shape)
        target = room("result", shape, x) if target is None else target
    if last.output < w.shape[2]:  # a smaller band matrix is a corner of the larger one
        w = w[:, : band_reach(last, last.output), : last.output]
    x = _forth(xp.reshape(x, (batch, rows.size, last.size)), rows, blocks, xp)
    y = _back(_along_rows(x, w, last, xp), rows, blocks, target, xp)
    return xp.reshape(y, (problem.batch, *problem.outputs, 1))


def reads_borders(problem: ConvProblem) -> bool:
    """Whether zeros beyond the border need not be written out: they are, along axes that are not filtered."""
    return not any((axis.low or axis.high) and axis.window == 1 for axis in problem.axes)


def _forth(x: Array, rows: Axis, blocks: Blocks, xp: Namespace) -> Array:
    """Every block of x (N, H, W) at every point: (P, N, blocks, W)."""
    matrix, target = numbers(forward, (blocks.length,), x.dtype, x), None
    if is_own(x):
        x = x if rows_are_apart(x) else x.copy()
        target = room("points", (matrix.shape[0], x.shape[0], blocks.number, x.shape[2]), x)
    parts = []
    for piece in _pieces(rows, blocks.number, blocks.length, blocks.step, blocks.number):
        view = _overlapping(x[:, piece.start : piece.stop, :], piece.many, piece.read, blocks.step, xp)
        place = None
        if target is not None:
            place = target[:, :, piece.first : piece.first + piece.many].transpose(1, 2, 0, 3)
        part = matrix[:, piece.skipped : piece.skipped + piece.read]
        parts.append(product_into(part, view, xp, place))  # (N, blocks, P, W)
    return target if target is not None else xp.permute_dims(_joined(parts, 1, xp), (2, 0, 1, 3))


def _along_rows(x: Array, w: Array, last: Axis, xp: Namespace) -> Array:
    """Blocks (P, N, blocks, W) convolved along their rows, with another kernel at every point."""
    points, reach, width = w.shape
    shape, lines = (*x.shape[:-1], last.output), prod(x.shape[1:3])
    x = xp.reshape(x, (points * lines, last.size, 1))
    target = room("lines", (points, lines, last.output), x) if is_own(x) else None
    whole, rest = divmod(last.output, width)
    parts, done = [], 0
    for piece in _pieces(last, whole + (rest > 0), reach, width * last.stride, whole):
        view = _overlapping(
            x[:, piece.start : piece.stop, :], piece.many, piece.read, width * last.stride, xp
        )
        view = permuted_axes(xp.reshape(view, (points, lines, piece.many, piece.read)), (0, 2, 1, 3), xp)
        # What is left over at the end is a whole band as well, which begins in the one before.
        start, length = min(piece.first * width, last.output - width), piece.many * width
        place = None
        if target is not None:
            place = target[:, :, start : start + length].reshape(points, lines, piece.many, width)
            place = place.transpose(0, 2, 1, 3)
        part = w[:, None, piece.skipped : piece.skipped + piece.read, :]
        part = product_into(view, part, xp, place)  # (P, bands, N blocks, B)
        if target is None:
            part = xp.reshape(permuted_axes(part, (0, 2, 1, 3), xp), (points, lines, length))
            parts.append(part[:, :, done - start :])
        done = start + length
    return xp.reshape(target if target is not None else _joined(parts, 2, xp), shape)


def _overlapping(x: Array, count: int, length: int, step: int, xp: Namespace) -> Array:
    return x[:, None, :, :] if count == 1 else overlapping(x, count, length, step, xp)


def _back(x: Array, rows: Axis, blocks: Blocks, target: Array | None, xp: Namespace) -> Array:
    """The outputs (N, H, W) of blocks (P, N, blocks, W)."""
    matrix = numbers(backward, (blocks.length, blocks.kept, rows.stride), x.dtype, x)
    _, batch, _, wide = x.shape
    x, parts = permuted_axes(x, (1, 2, 0, 3), xp), []
    for first, count, given in ((0, blocks.whole, blocks.kept), (blocks.whole, 1, blocks.rest)):
        if not count or not given:
            continue
        place, start = None, first * blocks.kept
        if target is not None:
            place = target[:, start : start + count * given].reshape(batch, count, given, wide)
        y = product_into(matrix[:given, :], x[:, first : first + count, :, :], xp, place)
        parts.append(y if target is not None else xp.reshape(y, (batch, count * given, wide)))
    return target if target is not None else _joined(parts, 1, xp)


def _joined(parts: list[Array], axis: int, xp: Namespace) -> Array:
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=axis)


def _lines_of(out: Array, shape: tuple[int, ...]) -> Array | None:
    """The memory of a result as rows of images, if its rows are runs that BLAS can write."""
    lines = out.reshape(shape) if out.flags.c_contiguous else out[..., 0] if out.ndim == 4 else None
    return lines if lines is not None and lines.shape == shape and rows_are_apart(lines) else None


class Blocks(NamedTuple):
    """How rows are cut: blocks of ``length``, ``step`` apart, each giving ``kept`` outputs, and one for the rest."""

    length: int
    kept: int
    step: int
    whole: int  # number of those
    rest: int  # outputs that are left over
    read: int  # rows that they read

    @property
    def reads(self) -> int:
        """Rows that all of them read, those that they share counted twice."""
        return self.whole * self.length + (self.read if self.rest else 0)

    @property
    def number(self) -> int:
        """Number of blocks."""
        return self.whole + (self.rest > 0)


@lru_cache(maxsize=4096)
def _blocks(rows: Axis, length: int) -> Blocks:
    kept = (length - rows.reach) // rows.stride + 1
    whole, rest = divmod(rows.output, kept)
    return Blocks(length, kept, kept * rows.stride, whole, rest, (rest - 1) * rows.stride + rows.reach)


class Piece(NamedTuple):
    """Blocks of an axis that lie in the input completely, or one that does not."""

    first: int  # block
    many: int
    skipped: int  # elements of it that lie before the input
    read: int  # elements of it that do not lie beyond
    start: int  # of the input
    stop: int


@lru_cache(maxsize=4096)
def _pieces(axis: Axis, number: int, length: int, step: int, whole: int) -> tuple[Piece, ...]:
    """``number`` blocks, ``step`` apart; those from ``whole`` on end where the padded axis does, and begin earlier."""
    pieces: list[Piece] = []
    for i in range(number):
        place = i * step if i < whole else (axis.output - 1) * axis.stride + axis.reach - length
        place -= axis.low
        start = min(max(place, 0), axis.size)
        stop = max(min(place + length, axis.size), start)
        if start == stop:  # it meets padding only
            place = start = stop = 0
        piece = Piece(i, 1, start - place, stop - start, start, stop)
        before = pieces[-1] if pieces else piece
        follows = place - before.stop == step - length and i > 0
        if follows and piece.read == before.read == length:
            pieces[-1] = before._replace(many=before.many + 1, stop=stop)
        else:
            pieces.append(piece)
    return tuple(pieces)


@lru_cache(maxsize=4096)
def _length(rows: Axis, last: Axis) -> int:
    """How long blocks are: the least work on this image."""
    reach = band_reach(last, WIDTH)

    def work(length: int) -> float:
        blocks = _blocks(rows, length)
        part = PART if blocks.rest and blocks.whole else 1.0
        return part * points_of(length) * (blocks.reads + SLOW * reach * blocks.number + rows.output)

    longest = min(LONGEST * rows.reach, (rows.output - 1) * rows.stride + rows.reach)
    return min(range(rows.reach, max(longest, rows.reach) + 1), key=work)


def _bound(problem: ConvProblem) -> int:
    """Bytes of the band matrices."""
    plane = _plane(problem)
    if plane is None:
        return 0
    _, rows, last = plane
    width = min(WIDTH, last.output)
    return points_of(_length(rows, last)) * band_reach(last, width) * width * problem.itemsize


@lru_cache(maxsize=4096)
def _plane(problem: ConvProblem) -> tuple[int, Axis, Axis] | None:
    """Images, their rows and their columns: other axes are images, if before these, or columns, if behind them.

    A step along a row is one to the same place behind, so that the taps stand as far apart.
    """
    axes = problem.axes
    long = [i for i, axis in enumerate(axes) if axis.window > 1]
    if len(long) != 2 or long[1] != long[0] + 1:
        return None
    first, second = long
    before, rows, last, behind = axes[:first], axes[first], axes[second], axes[second + 1 :]
    if any(axis.stride > 1 for axis in (*before, *behind)):
        return None
    inner = prod(axis.size for axis in behind)
    if inner > 1:
        if last.stride > 1:
            return None
        size, low, high = (part * inner for part in (last.size, last.low, last.high))
        last = Axis(size, last.window, 1, last.dilation * inner, 1, low, high)
    return problem.batch * prod(axis.size for axis in before), rows, last
