"""The foreman: cuts a planned problem into tiles, runs them, on threads where they help, and joins the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from xconv._borders import runs
from xconv._config import DEFAULTS, Settings
from xconv._geometry import Axis, Problem, Tile, WindowProblem, cut
from xconv._movers import block, continued, continued_block, gathered, ready_to_read, source_map
from xconv._namespace import (
    Array,
    DType,
    Namespace,
    NumPyArray,
    assignable,
    chunk_edges,
    defer,
    empty_like,
    same_memory,
)
from xconv._repeats import repeated
from xconv._scratch import scratch
from xconv._threads import run_all
from xconv._written import again

LARGE = 2**14  # numbers in an input that are worth the keeping of memory

Origin = tuple[int, ...]
Operands = tuple[Any, ...]  # beside the input: kernels, as they are or made ready, and biases


class Place(NamedTuple):
    """Where the outputs of a tile belong."""

    job: Job
    tile: Tile
    out: tuple[Array | None, ...]  # memory for every result, of its shape and dtype, where there is any yet

    @property
    def origin(self) -> Origin:
        """In the whole."""
        return self.job.begin(self.tile)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done with every tile of a problem.

    ``work(job, block, operands, problem, place, xp)`` gets a block whose padding and holes are written out
    (except where its problem says that they are left), the problem over that block, and its place in the whole; it
    gives a tuple of results, which may be the arrays that the place offers for them.
    """

    problem: Problem
    work: Callable[[Job, Array, Operands, Any, Place, Namespace], tuple[Array, ...]]
    dtype: DType  # of the blocks
    tails: tuple[tuple[int, ...], ...]  # of each result: the axes behind batch and space
    dtypes: tuple[DType, ...]  # of each result
    fill: complex = 0
    algorithm: str = "auto"
    settings: Settings = DEFAULTS
    origin: Origin = ()
    compilable: bool = False  # whether compiled movers could do it where the library lets them
    aligned: int = 0  # how many of the operands, the last ones, are of the result's shape
    borders: bool = False  # whether the work takes what lies beyond the border for zeros: they are left to it
    repeats: bool = False  # whether the work does the same for all arrays of the same shapes

    def results(self, problem: Problem) -> list[tuple[tuple[int, ...], DType]]:
        """Shape and dtype of every result for ``problem``, all of the job's or a tile of it."""
        front = (problem.batch, *problem.outputs)
        return [((*front, *tail), dtype) for tail, dtype in zip(self.tails, self.dtypes, strict=True)]

    def begin(self, tile: Tile) -> Origin:
        """Where the outputs of ``tile`` begin in the whole."""
        starts = tuple(s.start for s in tile.target[1:])
        return tuple(o + s for o, s in zip(self.origin, starts, strict=True)) if self.origin else starts


def run(
    job: Job,
    x: Array,
    operands: Operands,
    whole: Tile | None,
    edges: tuple[tuple[int, ...], ...],
    threads: int,
    xp: Namespace,
) -> tuple[Array, ...]:
    """The job's results: tile by tile, each put where it belongs, or in one go where one tile is enough.

    ``threads`` of our own take the tiles; without any, one tile follows the other, and large products are shared out.
    """
    if whole is not None and not (type(x) is NumPyArray and x.size > LARGE):
        return _one(job, x, operands, whole, (None,) * len(job.dtypes), xp)
    shapes = job.results(job.problem)
    if 0 in (job.problem.batch, *job.problem.outputs):
        return tuple(empty_like(x, shape, dtype) for shape, dtype in shapes)
    tiles = cut(job.problem, edges) if whole is None else (whole,)
    if not assignable(xp):
        return join([_one(job, x, operands, tile, (None,) * len(shapes), xp) for tile in tiles], edges, xp)
    targets = tuple(empty_like(x, shape, dtype) for shape, dtype in shapes)
    if (
        threads
        and job.repeats
        and isinstance(tiles, tuple)
        and type(x) is NumPyArray
        and not job.problem.fast
    ):
        lanes = min(threads, len(tiles))
        key = (job, None if whole is None else edges, lanes)
        work = partial(_lane, job, tiles, lanes, xp)
        if repeated(key, (x, operands, targets), lanes, job.settings.workspace, work):
            return targets
    tasks = (partial(_put, job, x, operands, tile, targets, xp) for tile in tiles)
    if threads:
        run_all(tasks, threads, scratch)
        return targets
    with scratch(tiles=False):
        for task in tasks:
            task()
    return targets


def _lane(job: Job, tiles: Sequence[Tile], lanes: int, xp: Namespace, lane: int, values: Any) -> None:
    """Of so many lanes, one: every so many tiles, beginning with its own number."""
    x, operands, targets = values
    for tile in tiles[lane::lanes]:
        again()
        _put(job, x, operands, tile, targets, xp)


def run_chunks(
    job: Job, x: Array, operands: Operands, compute: Callable[..., tuple[Array, ...]], xp: Namespace
) -> tuple[Array, ...]:
    """The same on a chunked array: a tile is a chunk with its halo.

    ``compute(job, block, *operands)`` treats it as an ordinary array when the array's own scheduler calls it.
    """
    parts = []
    edges = _chunked_outputs(job.problem, x)
    for part, problem, tile in chunks(job.problem, x, xp, job.fill):
        piece = replace(job, problem=problem, origin=job.begin(tile))
        fixed = len(operands) - job.aligned
        own = tuple(operand[(*tile.target, ...)] for operand in operands[fixed:])
        parts.append(defer(_Call(compute, piece), (part, *operands[:fixed], *own), job.results(problem)))
    return join(parts, edges, xp)


def chunks(problem: Problem, x: Array, xp: Namespace, fill: complex = 0) -> Iterator[tuple[Array, Any, Tile]]:
    """What every tile of a chunked array reads, the problem over that, and the tile, about one for each chunk."""
    for tile in cut(problem, _chunked_outputs(problem, x)):
        if problem.pad_mode == "constant":
            yield x[(*tile.source, ...)], tile.problem, tile
        else:
            yield _continued(x, problem, tile, x.dtype, fill, xp), tile.core, tile


def _chunked_outputs(problem: Problem, x: Array) -> tuple[tuple[int, ...], ...]:
    batches, *spatial = chunk_edges(x)[:-1]
    return batches, *(_output_edges(a, e) for a, e in zip(problem.axes, spatial, strict=True))


@dataclass(frozen=True)
class _Call:
    """A function bound to its job, by value, so that it can travel to another process."""

    compute: Callable[..., tuple[Array, ...]]
    job: Job

    def __call__(self, block: Array, *operands: Array | None) -> tuple[Array, ...]:
        return self.compute(self.job, block, *operands)


def _one(
    job: Job, x: Array, operands: Operands, tile: Tile, out: tuple[Array | None, ...], xp: Namespace
) -> tuple[Array, ...]:
    if job.problem.fast:
        part, problem = _read(job, x, tile)
        return job.work(job, part, operands, problem, Place(job, tile, out), xp)
    left = job.borders or tile.core is tile.problem  # padding is left to the work, and holes with it
    part = read_block(x, job.problem, tile, job.dtype, xp, job.fill, () if left else tile.problem.axes)
    problem = tile.problem if left else tile.core
    return job.work(job, part, operands, problem, Place(job, tile, out), xp)


def read_block(
    x: Array,
    problem: Problem,
    tile: Tile,
    dtype: DType,
    xp: Namespace,
    fill: complex = 0,
    axes: Sequence[Axis] | None = None,
) -> Array:
    """What a tile of ``problem`` reads, with the padding and the holes of ``axes``, the tile's own, written out."""
    if problem.pad_mode == "constant":
        part = x if tile.entire else x[(*tile.source, ...)]
        return block(part, tile.problem.axes if axes is None else axes, dtype, fill, xp)
    part = _continued(x, problem, tile, dtype, fill, xp)
    return part if part.dtype == dtype else xp.astype(part, dtype)


def read_results(y: Array, tile: Tile, dtype: DType, xp: Namespace) -> Array:
    """What stands where a tile's results belong, in an array of their shape."""
    y = y[(*tile.target, ...)]
    return y if y.dtype == dtype else xp.astype(y, dtype)


def _put(
    job: Job, x: Array, operands: Operands, tile: Tile, targets: tuple[Array, ...], xp: Namespace
) -> None:
    """One tile's results, where they belong; its own memory is given back before the next one is computed."""
    out = tuple(target[(*tile.target, ...)] for target in targets)
    for place, part in zip(out, _one(job, x, operands, tile, out, xp), strict=True):
        if not same_memory(place, part):
            place[...] = part


def _read(job: Job, x: Array, tile: Tile) -> tuple[Array, Problem]:
    """What the tile reads, for compiled movers: as it stands, padding to be written out on the way, or copied."""
    problem, mode = job.problem, job.problem.pad_mode
    left = tile.core is tile.problem  # padding is left to the work, and holes with it
    padded = any(a.low or a.high for a in tile.problem.axes)
    zeros = (
        not padded or not job.fill or isinstance(problem, WindowProblem)
    )  # what compiled sums take padding for
    if mode == "constant" and zeros and (left or not problem.holes) and ready_to_read(x, job.dtype):
        return (x if tile.entire else x[(*tile.source, ...)]), tile.problem
    ends = tile.reads
    if left:
        ends = tuple((cut.start, cut.stop) for cut in tile.source[1:])
    holes = (1 if left else a.input_dilation for a in problem.axes)
    maps = tuple(
        source_map(a.size, start, stop, step, mode)
        for a, (start, stop), step in zip(problem.axes, ends, holes, strict=True)
    )
    return gathered(x[tile.source[0]], maps, job.dtype, job.fill), tile.core


def _continued(x: Array, problem: Problem, tile: Tile, dtype: DType, fill: complex, xp: Namespace) -> Array:
    """What the tile reads of an input that goes on beyond its borders by the pad mode."""
    x = x[(tile.source[0], ...)]
    pieces = [
        runs(start, stop, axis.size, problem.pad_mode)
        for axis, (start, stop) in zip(problem.axes, tile.reads, strict=True)
    ]
    if any(len(along) > 1 for along in pieces):
        found = continued_block(x, pieces, dtype, fill)
        if found is not None:
            return found
    for axis, along in enumerate(pieces, 1):
        x = continued(x, axis, along, fill, xp)
    return x


def _output_edges(axis: Axis, edges: Sequence[int]) -> tuple[int, ...]:
    """Where the outputs are cut so that each piece reads about one chunk of the input."""
    inner = (-(-(e * axis.input_dilation + axis.low) // axis.stride) for e in edges[1:-1])
    found = sorted({0, axis.output, *(min(max(o, 0), axis.output) for o in inner)})
    return tuple(found) if axis.output else (0, 0)


def join(
    parts: list[tuple[Array, ...]], edges: tuple[tuple[int, ...], ...], xp: Namespace
) -> tuple[Array, ...]:
    """Tiles in raster order, put together along every axis, the last one first."""
    results = []
    for pieces in zip(*parts, strict=True):
        for axis in reversed(range(len(edges))):
            count = len(edges[axis]) - 1
            rows = [pieces[i : i + count] for i in range(0, len(pieces), count)]
            pieces = tuple(row[0] if count == 1 else xp.concat(list(row), axis=axis) for row in rows)
        results.append(pieces[0])
    return tuple(results)
