"""The foreman: cuts a planned problem into tiles, runs them, joins the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xconv._borders import runs
from xconv._geometry import Axis, Problem, Tile, cut
from xconv._movers import block, continued
from xconv._namespace import Array, DType, Namespace, assignable, chunk_edges, defer, empty_like

Origin = tuple[int, ...]
Operands = tuple[Array | None, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done with every tile of a problem.

    ``work(job, block, operands, problem, origin, xp)`` gets a block whose padding and holes are written out
    (except for a convolution with holes), the problem over that block, and where its outputs stand in the whole; it
    gives a tuple of results.
    """

    problem: Problem
    work: Callable[[Job, Array, Operands, Any, Origin, Namespace], tuple[Array, ...]]
    dtype: DType  # of the blocks
    tails: tuple[tuple[int, ...], ...]  # of each result: the axes behind batch and space
    dtypes: tuple[DType, ...]  # of each result
    fill: float = 0
    algorithm: str = "auto"
    workspace: int | None = None
    origin: Origin = ()

    def results(self, problem: Problem) -> list[tuple[tuple[int, ...], DType]]:
        """Shape and dtype of every result for ``problem``, all of the job's or a tile of it."""
        front = (problem.batch, *problem.outputs)
        return [((*front, *tail), dtype) for tail, dtype in zip(self.tails, self.dtypes, strict=True)]

    def place(self, tile: Tile) -> Origin:
        """Where the outputs of ``tile`` begin in the whole."""
        starts = tuple(s.start for s in tile.target[1:])
        return tuple(o + s for o, s in zip(self.origin, starts, strict=True)) if self.origin else starts


def run(
    job: Job,
    x: Array,
    operands: Operands,
    whole: Tile | None,
    edges: Sequence[Sequence[int]],
    xp: Namespace,
) -> tuple[Array, ...]:
    """The job's results: tile by tile, each put where it belongs, or in one go where one tile is enough."""
    if whole is not None:
        return _one(job, x, operands, whole, xp)
    shapes = job.results(job.problem)
    if 0 in (job.problem.batch, *job.problem.outputs):
        return tuple(empty_like(x, shape, dtype) for shape, dtype in shapes)
    if not assignable(xp):
        parts = [_one(job, x, operands, tile, xp) for tile in cut(job.problem, edges)]
        return _join(parts, edges, xp)
    targets = tuple(empty_like(x, shape, dtype) for shape, dtype in shapes)
    for tile in cut(job.problem, edges):
        _put(targets, tile, _one(job, x, operands, tile, xp))
    return targets


def run_chunks(
    job: Job, x: Array, operands: Operands, compute: Callable[..., tuple[Array, ...]], xp: Namespace
) -> tuple[Array, ...]:
    """The same on a chunked array: a tile is a chunk with its halo.

    ``compute(job, block, *operands)`` treats it as an ordinary array when the array's own scheduler calls it.
    """
    batches, *spatial = chunk_edges(x)[:-1]
    edges = (batches, *(_output_edges(a, e) for a, e in zip(job.problem.axes, spatial, strict=True)))
    parts = []
    for tile in cut(job.problem, edges):
        constant = job.problem.pad_mode == "constant"
        part = x[(*tile.source, ...)] if constant else _continued(job, x, tile, xp)
        problem = tile.problem if constant else tile.core
        piece = replace(job, problem=problem, origin=job.place(tile))
        parts.append(defer(_Call(compute, piece), (part, *operands), job.results(problem)))
    return _join(parts, edges, xp)


@dataclass(frozen=True)
class _Call:
    """A function bound to its job, by value, so that it can travel to another process."""

    compute: Callable[..., tuple[Array, ...]]
    job: Job

    def __call__(self, block: Array, *operands: Array | None) -> tuple[Array, ...]:
        return self.compute(self.job, block, *operands)


def _one(job: Job, x: Array, operands: Operands, tile: Tile, xp: Namespace) -> tuple[Array, ...]:
    if job.problem.pad_mode == "constant":
        part = x if tile.entire else x[(*tile.source, ...)]
        by_phases = tile.core is tile.problem  # holes are left to the work, and the padding with them
        part = block(part, () if by_phases else tile.problem.axes, job.dtype, job.fill, xp)
    else:
        part = _continued(job, x, tile, xp)
        part = part if part.dtype == job.dtype else xp.astype(part, job.dtype)
    return job.work(job, part, operands, tile.core, job.place(tile), xp)


def _put(targets: tuple[Array, ...], tile: Tile, parts: tuple[Array, ...]) -> None:
    """A function of its own, so that one tile's memory is given back before the next one is computed."""
    for target, part in zip(targets, parts, strict=True):
        target[(*tile.target, ...)] = part


def _continued(job: Job, x: Array, tile: Tile, xp: Namespace) -> Array:
    """What the tile reads of an input that goes on beyond its borders by the pad mode."""
    x = x[(tile.source[0], ...)]
    for axis, (start, stop) in enumerate(tile.reads, 1):
        size = job.problem.axes[axis - 1].size
        x = continued(x, axis, runs(start, stop, size, job.problem.pad_mode), job.fill, xp)
    return x


def _output_edges(axis: Axis, edges: Sequence[int]) -> tuple[int, ...]:
    """Where the outputs are cut so that each piece reads about one chunk of the input."""
    inner = (-(-(e * axis.input_dilation + axis.low) // axis.stride) for e in edges[1:-1])
    return tuple(sorted({0, axis.output, *(min(max(o, 0), axis.output) for o in inner)}))


def _join(parts: list[tuple[Array, ...]], edges: Sequence[Sequence[int]], xp: Namespace) -> tuple[Array, ...]:
    """Tiles in raster order, put together along every axis, the last one first."""
    results = []
    for pieces in zip(*parts, strict=True):
        for axis in reversed(range(len(edges))):
            count = len(edges[axis]) - 1
            rows = [pieces[i : i + count] for i in range(0, len(pieces), count)]
            pieces = tuple(row[0] if count == 1 else xp.concat(list(row), axis=axis) for row in rows)
        results.append(pieces[0])
    return tuple(results)
