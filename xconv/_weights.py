"""The gradient of a convolution by its kernel: one long sum over batch and pixels, cut into tiles along the sum.

It is a convolution, too (`ConvProblem.weight_transposed`), but one with a kernel as large as an image and a result as
small as a kernel. Cut as others are, each of its tiles would read the whole input; so the sum is cut instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import pairwise, product
from math import prod
from operator import add
from typing import NamedTuple, cast

from xconv._config import Settings
from xconv._extents import fitted
from xconv._geometry import Axis, ConvProblem, Tile, cut, edges, materialised, padded_pixels
from xconv._machine import cores
from xconv._movers import columns, tap_slices, total_by_channel
from xconv._namespace import Array, DType, Namespace, Traits, combined, defer, full_like, inspect, packed
from xconv._plan import cache_of, plan_cache, tile_budget
from xconv._products import matmul
from xconv._scratch import scratch, spare
from xconv._threads import run_all
from xconv._tiles import chunks, read_block, read_results
from xconv._weights_winograd import fewer_products, suits

RUNS = 8  # parts of the sum, at most, that may be in work at once


class Piece(NamedTuple):
    """A part of the kernel: taps that follow each other in raster order, and input channels."""

    window: tuple[tuple[int, int], ...]  # the box of them
    taps: slice
    channels: slice

    def of(self, problem: ConvProblem) -> ConvProblem:
        """The convolution with these taps alone."""
        parts = zip(problem.axes, self.window, strict=True)
        return replace(problem, axes=tuple(axis.part(*ends) for axis, ends in parts))


def weight_gradient(
    x: Array,
    dy: Array,
    problem: ConvProblem,
    dtype: DType,
    settings: Settings,
    xp: Namespace,
    traits: Traits,
    fill: complex = 0,
    *,
    bias: bool = False,
) -> tuple[Array, Array]:
    """Sums, over batch and pixels, of what every tap meets times the gradient there, and of the gradient alone.

    (*k, I / groups, O) and (O,), in ``dtype``; zeros in the place of the second, where the ``bias`` is not wanted.
    ``problem`` is a convolution of x (N, *n, I), with ``fill`` around it, that gives something of the shape of
    dy (N, *out, O). The order of the sums follows from the problem and the cache, never from the number of threads.
    """
    kernel = (*problem.window, problem.channels_in // problem.groups, problem.channels_out)
    nothing = full_like(x, kernel[-1:], 0, dtype)
    if 0 in (problem.batch, *problem.outputs):
        return full_like(x, kernel, 0, dtype), nothing
    if traits.chunked:
        results = [((1, *kernel), dtype), ((1, *kernel[-1:]), dtype)]
        parts = [
            defer(_Chunk(piece, dtype, settings, fill, bias), (here, dy[(*tile.target, ...)]), results)
            for here, piece, tile in chunks(problem, x, xp, fill)
        ]
        dw, db = (xp.sum(xp.concat(list(p), axis=0), axis=0, dtype=dtype) for p in zip(*parts, strict=True))
        return dw, db
    if traits.threads and suits(problem, settings, traits):
        dw, db = fewer_products(x, dy, problem, dtype, settings, xp, traits, fill, bias=bias)
        return dw, nothing if db is None else db
    pieces, bounds, at_once = _cut_up(problem, settings, traits)
    tiles = {piece.window: list(cut(piece.of(problem), bounds)) for piece in pieces}
    if not traits.threads:
        (piece,) = pieces
        parts = [(read_results(dy, tile, dtype, xp), tile) for tile in tiles[piece.window]]
        dw = reduce(add, (_product(x, g, problem, piece, tile, xp, fill) for g, tile in parts))
        return xp.reshape(dw, kernel), reduce(
            add, (total_by_channel(g, xp) for g, _ in parts)
        ) if bias else nothing
    shares = tuple(pairwise(edges(len(tiles[pieces[0].window]), at_once)))
    sums = [
        (full_like(x, (problem.taps, *kernel[-2:]), 0, dtype), full_like(x, kernel[-1:], 0, dtype))
        for _ in shares
    ]
    tasks = (
        partial(
            _add, x, dy, problem, piece, tiles[piece.window][start:stop], total, xp, fill, bias=bias and not i
        )
        for i, piece in enumerate(pieces)
        for total, (start, stop) in zip(sums, shares, strict=True)
    )
    run_all(tasks, settings.threads or cores(), scratch)
    (dw, db), *others = sums
    for other_dw, other_db in others:
        dw += other_dw
        db += other_db
    return xp.reshape(dw, kernel), db


@plan_cache
def _cut_up(
    problem: ConvProblem, settings: Settings, traits: Traits
) -> tuple[list[Piece], tuple[tuple[int, ...], ...], int]:
    """The pieces of the kernel, where the sum is cut, and how many tiles make a part of it."""
    size = (
        prod(problem.window)
        * (problem.channels_in // problem.groups)
        * problem.channels_out
        * problem.itemsize
    )
    pieces = _pieces(problem, cache_of(settings) // 2 if traits.threads else size)
    needed = partial(_needed, pieces=len(pieces))
    most = budget = tile_budget(traits, settings)
    if traits.threads:  # no fewer parts than that, so that no thread waits for another
        most = min(budget, needed(problem) * len(pieces) // RUNS)
    extents = fitted(problem, needed, most)
    bounds = tuple(
        edges(n, extent) for n, extent in zip((problem.batch, *problem.outputs), extents, strict=True)
    )
    count = prod(len(bound) - 1 for bound in bounds)
    return pieces, bounds, -(-count // min(max(RUNS // len(pieces), 1), 1 + budget // size))


@dataclass(frozen=True)
class _Chunk:
    """The same of one chunk, bound to its problem by value, so that it can travel to another process."""

    problem: ConvProblem
    dtype: DType
    settings: Settings
    fill: complex
    bias: bool

    def __call__(self, x: Array, dy: Array) -> tuple[Array, ...]:
        xp, traits = inspect(x=x, dy=dy)
        sums = weight_gradient(
            x, dy, self.problem, self.dtype, self.settings, xp, traits, self.fill, bias=self.bias
        )
        return tuple(xp.expand_dims(total, axis=0) for total in sums)


def _pieces(problem: ConvProblem, most: int) -> list[Piece]:
    """Parts of the kernel of at most ``most`` bytes, if they can be: what is added to should stay in the cache."""
    window, inputs = problem.window, problem.channels_in // problem.groups
    tap = inputs * problem.channels_out * problem.itemsize
    if problem.groups > 1 or problem.taps * tap <= most:
        return [Piece(tuple((0, k) for k in window), slice(0, problem.taps), slice(None))]
    channels = [slice(*ends) for ends in pairwise(edges(inputs, max(inputs * most // tap, 1)))]
    axis = 0  # the first whose elements, with all axes behind it, are small enough; those before it go one by one
    while axis < len(window) - 1 and prod(window[axis + 1 :]) * tap > most:
        axis += 1
    inner = prod(window[axis + 1 :])
    found = []
    for row, lead in enumerate(product(*map(range, window[:axis]))):
        for start, stop in pairwise(edges(window[axis], max(most // (inner * tap), 1))):
            box = (*((i, i + 1) for i in lead), (start, stop), *((0, k) for k in window[axis + 1 :]))
            first = row * window[axis] + start
            taps = slice(first * inner, (row * window[axis] + stop) * inner)
            found += [Piece(box, taps, part) for part in channels]
    return found


def _needed(tile: ConvProblem, *, pieces: int) -> int:
    """Bytes that a tile needs for one of so many pieces: the block, its columns, and the gradient."""
    first, block = tile.axes[0], padded_pixels(tile) * tile.channels_in
    gathered = tile.pixels * -(-tile.taps * tile.channels_in // pieces)
    if tile.groups > 1:
        gathered *= 3
    elif pieces == 1 == first.stride:
        gathered = gathered // first.window * (first.output + first.reach - 1) // max(first.output, 1)
    return tile.itemsize * (block + gathered + tile.pixels * tile.channels_out)


def _add(
    x: Array,
    dy: Array,
    problem: ConvProblem,
    piece: Piece,
    tiles: list[Tile],
    sums: tuple[Array, Array],
    xp: Namespace,
    fill: complex,
    *,
    bias: bool,
) -> None:
    """Add what some tiles give for a piece of the kernel, and for the bias if that is wanted, to both sums."""
    total, db = sums
    place = total[piece.taps, piece.channels, :]
    for tile in tiles:
        g = read_results(dy, tile, total.dtype, xp)
        place += _product(x, g, problem, piece, tile, xp, fill)
        if bias:
            db += total_by_channel(g, xp)


def _product(
    x: Array, g: Array, whole: ConvProblem, piece: Piece, tile: Tile, xp: Namespace, fill: complex
) -> Array:
    """What one tile gives for a piece of the kernel: (taps, I / groups, O)."""
    problem = cast(ConvProblem, tile.problem)
    block = read_block(x[..., piece.channels], whole, tile, g.dtype, xp, fill)
    axes, groups, pixels, taps = materialised(problem).axes, problem.groups, problem.pixels, problem.taps
    inputs, outputs = block.shape[-1] // groups, problem.channels_out // groups
    if inputs == 1 < groups:
        return _by_channel(block, g, axes, problem, xp)
    if groups == 1:
        return _by_rows(block, g, axes, xp)
    gathered = columns(block, axes, xp)  # (N, *out, taps, I)
    gathered = xp.permute_dims(xp.reshape(gathered, (pixels, taps, groups, inputs)), (2, 1, 3, 0))
    g = xp.permute_dims(xp.reshape(g, (pixels, groups, outputs)), (1, 0, 2))
    y = matmul(xp.reshape(gathered, (groups, taps * inputs, pixels)), g, xp)  # (G, taps I, P) @ (G, P, O)
    y = xp.permute_dims(xp.reshape(y, (groups, taps, inputs, outputs)), (1, 2, 0, 3))
    return xp.reshape(y, (taps, inputs, groups * outputs))


def _by_rows(block: Array, g: Array, axes: tuple[Axis, ...], xp: Namespace) -> Array:
    """(taps I, P) @ (P, O). Along the first axis a window is only a shift: where that axis stands before the batch, and
    goes in single steps, the columns of the other axes serve all taps along it, each from another row on.
    """
    first, inputs, outputs = axes[0], block.shape[-1], g.shape[-1]
    rows, shifts = 0, [0]
    if all((a.window, a.stride) == (1, 1) for a in axes):
        gathered = xp.expand_dims(block, axis=-2)
    elif first.stride > 1:
        gathered = columns(block, axes, xp)
    else:
        order = (1, 0, *range(2, block.ndim))
        block, g = xp.permute_dims(block, order), xp.permute_dims(g, order)
        batch = Axis(block.shape[1], 1)
        gathered = columns(block, (batch, *axes[1:]), xp)  # (n, N, *out, taps, I)
        rows, shifts = first.output, [t * first.dilation for t in range(first.window)]
    taps, pixels = gathered.shape[-2], prod(g.shape[:-1])
    g = packed(g, (pixels, outputs), "gradient", xp)
    out = spare("product", (len(shifts), taps * inputs, outputs), g.dtype, g)
    found = []
    for i, shift in enumerate(shifts):
        part = gathered[shift : shift + rows, ...] if rows else gathered
        part = xp.permute_dims(xp.reshape(part, (pixels, taps * inputs)), (1, 0))
        found.append(matmul(part, g, xp, None if out is None else out[i, ...]))
    y = found[0] if len(found) == 1 else xp.stack(found, axis=0) if out is None else out
    return xp.reshape(y, (len(found) * taps, inputs, outputs))


def _by_channel(block: Array, g: Array, axes: Sequence[Axis], problem: ConvProblem, xp: Namespace) -> Array:
    """The same where every channel has kernels of its own: products of numbers, not of matrices."""
    pixels, groups = problem.pixels, problem.groups
    each = problem.channels_out // groups
    g = xp.reshape(g, (*g.shape[:-1], groups, each))
    found = []
    for tap in tap_slices(axes):
        met = xp.expand_dims(block[(slice(None), *tap, ...)], axis=-1)  # (N, *out, G, 1)
        terms = combined(xp.multiply, met, g, spare("product", g.shape, g.dtype, g))
        found.append(xp.sum(xp.reshape(terms, (pixels, groups * each)), axis=0))
    return xp.reshape(xp.stack(found, axis=0), (problem.taps, 1, groups * each))
