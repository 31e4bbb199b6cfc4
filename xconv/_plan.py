"""The planner: from integers and traits to a plan that can be cached and printed. It never sees an array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from xconv._algorithms import ALGORITHMS, Algorithm
from xconv._algorithms._cost import Cost
from xconv._errors import refuse
from xconv._geometry import (
    Axis,
    ConvProblem,
    Problem,
    T,
    Tile,
    WindowProblem,
    cut,
    edges,
    input_copies,
    materialised,
    padded_pixels,
)
from xconv._namespace import Traits
from xconv._phases import phases

CPU_WORKSPACE = 16 * 2**20
ACCELERATOR_WORKSPACE = 256 * 2**20
CACHE = 2 * 2**20  # where tiles are only streamed through, without a matmul, they stay in a core's own cache

# Rough figures that rank algorithms; only their ratios matter. Measured 2026-11 on two cores of a server CPU
# with OpenBLAS and AVX-512, float32; an accelerator's are those of a large GPU.
_FLOPS_PER_SECOND = {False: 150e9, True: 30e12}
_BYTES_PER_SECOND = {False: 12e9, True: 2e12}
_SECONDS_PER_CALL = {False: 0.7e-6, True: 5e-6}
_SLOWDOWN = {"float": 1.0, "complex": 4.0, "integer": 40.0}  # of a matmul, against floats of the same size


@dataclass(frozen=True, slots=True)
class Candidate:
    """One algorithm's bid for a problem."""

    algorithm: str
    extents: tuple[int, ...]
    tiles: int
    cost: Cost
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How a problem will be computed."""

    problem: Problem
    traits: Traits
    workspace: int
    extents: tuple[int, ...]  # of a tile: batch, then every output axis
    algorithm: str = "window"
    candidates: tuple[Candidate, ...] = ()  # best first
    refusals: tuple[tuple[str, str], ...] = ()
    whole: Tile | None = None  # the only tile, where one is enough

    @property
    def edges(self) -> tuple[tuple[int, ...], ...]:
        """Where the tiles begin and end, along the batch and every output axis."""
        sizes = (self.problem.batch, *self.problem.outputs)
        return tuple(edges(size, extent) for size, extent in zip(sizes, self.extents, strict=True))

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return prod(len(e) - 1 for e in self.edges)


@lru_cache(maxsize=4096)
def plan_conv(problem: ConvProblem, traits: Traits, workspace: int | None, algorithm: str) -> Plan:
    """Rank the algorithms for ``problem`` and take the cheapest, or the one that is named."""
    budget = _budget(traits, workspace)
    if algorithm != "auto" and algorithm not in ALGORITHMS:
        refuse("algorithm", algorithm, f"be one of {', '.join(repr(name) for name in ('auto', *ALGORITHMS))}")
    reasons = {name: _why_not(room, problem, traits) for name, room in ALGORITHMS.items()}
    if reason := reasons.get(algorithm):
        refuse("algorithm", algorithm, f"be able to do this problem, but {reason}")
    able = [name for name, reason in reasons.items() if reason is None]
    bids = sorted((_bid(name, problem, traits, workspace) for name in able), key=lambda bid: bid.seconds)
    chosen = bids[0] if algorithm == "auto" else next(bid for bid in bids if bid.algorithm == algorithm)
    refusals = tuple((name, reason) for name, reason in reasons.items() if reason is not None)
    return _finish(Plan(problem, traits, budget, chosen.extents, chosen.algorithm, tuple(bids), refusals))


@lru_cache(maxsize=4096)
def plan_window(problem: WindowProblem, traits: Traits, workspace: int | None) -> Plan:
    """Tiles for a sliding-window reduction; there is one way to compute it."""
    budget = _budget(traits, workspace, streamed=True)

    def needed(tile: WindowProblem) -> int:
        largest = max(tile.batch * prod(tile.outputs), padded_pixels(tile))
        return (
            tile.channels * tile.itemsize * (input_copies(tile) * padded_pixels(tile) + tile.copies * largest)
        )

    return _finish(Plan(problem, traits, budget, _extents(problem, needed, budget)))


def _budget(traits: Traits, workspace: int | None, *, streamed: bool = False) -> int:
    if traits.accelerator or not traits.writeable:
        # Where arrays cannot be assigned to, every tile is a part of the traced program: few of them, then.
        return ACCELERATOR_WORKSPACE if workspace is None else workspace
    budget = CPU_WORKSPACE if workspace is None else workspace
    return min(budget, CACHE) if streamed else budget


def _finish(plan: Plan) -> Plan:
    if plan.tiles != 1:
        return plan
    (tile,) = cut(plan.problem, plan.edges)
    return replace(plan, whole=tile)


def _cores(problem: ConvProblem) -> list[ConvProblem]:
    """What an algorithm is given to do: the problem on a padded block, or each of its phases."""
    parts = [phase.problem for phase in phases(problem).values()] if problem.holes else []
    return [
        materialised(part) for part in parts or [problem]
    ]  # where no tap meets an element, as if there were no holes


def _why_not(room: Algorithm, problem: ConvProblem, traits: Traits) -> str | None:
    return next((reason for core in _cores(problem) if (reason := room.why_not(core, traits))), None)


def _bid(name: str, problem: ConvProblem, traits: Traits, workspace: int | None) -> Candidate:
    room = ALGORITHMS[name]
    budget = _budget(
        traits, workspace, streamed=not any(room.cost(core, traits).flops for core in _cores(problem))
    )

    def needed(tile: ConvProblem) -> int:
        cores = _cores(tile)
        largest = max(map(padded_pixels, cores), default=0)
        block = input_copies(tile) * largest * tile.channels_in * tile.itemsize
        whole = tile.batch == problem.batch and tile.outputs == problem.outputs
        outputs = (0 if whole else 1) + (2 if tile.holes else 0)  # phases stand beside what they are put into
        output = outputs * tile.pixels * tile.channels_out * tile.itemsize
        temporary = max((room.cost(core, traits).workspace for core in cores), default=0)
        return block + output + max(tile.pixels * tile.extra, temporary)

    extents = _extents(problem, needed, budget)
    tile = _tile_of(problem, extents)
    count = Plan(problem, traits, budget, extents).tiles
    costs = [room.cost(core, traits) for core in _cores(tile)]
    memory = needed(tile)
    moved = memory + sum(cost.bytes - cost.workspace for cost in costs)
    calls = sum(cost.calls + 5 for cost in costs)
    total = Cost(sum(cost.flops for cost in costs) * count, moved * count, calls * count, memory)
    seconds = (
        total.flops * _SLOWDOWN[problem.kind] * (problem.itemsize / 4) / _FLOPS_PER_SECOND[traits.accelerator]
        + total.bytes / _BYTES_PER_SECOND[traits.accelerator]
        + total.calls * _SECONDS_PER_CALL[traits.accelerator]
    )
    return Candidate(name, extents, count, total, seconds)


def _extents(problem: T, needed: Callable[[T], int], budget: int) -> tuple[int, ...]:
    """The largest tile that needs no more than ``budget`` bytes: the batch is cut first, then axis by axis."""
    sizes = (problem.batch, *problem.outputs)
    extents = list(sizes)
    smallest = needed(_tile_of(problem, tuple(min(size, 1) for size in sizes)))
    budget = max(budget, 2 * smallest)  # a tile that is nearly all halo would do the same work over and over
    for dim, size in enumerate(sizes):
        while extents[dim] > 1 and (bytes_ := needed(_tile_of(problem, tuple(extents)))) > budget:
            smaller = min(extents[dim] - 1, max(1, extents[dim] * budget // bytes_))
            count = -(-size // smaller)
            extents[dim] = -(-size // count)  # as even as possible
    return tuple(extents)


def _tile_of(problem: T, extents: tuple[int, ...]) -> T:
    """A tile of these extents; one that touches no border, so that every tile is at most as large."""
    axes = tuple(_inner(axis, extent) for axis, extent in zip(problem.axes, extents[1:], strict=True))
    return replace(problem, batch=extents[0], axes=axes)


def _inner(axis: Axis, extent: int) -> Axis:
    return axis if extent == axis.output else axis.tile(0, extent)[2]
