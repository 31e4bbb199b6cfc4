"""The planner: from integers and traits to a plan that can be cached and printed. It never sees an array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, TypeVar

from xconv._algorithms import ALGORITHMS, Algorithm, compiled_movers
from xconv._algorithms._bias import takes_bias
from xconv._algorithms._cost import Cost
from xconv._config import Settings
from xconv._errors import refuse
from xconv._extents import balanced, fitted, grained, tile_of
from xconv._geometry import (
    COPIES,
    ConvProblem,
    Problem,
    Tile,
    WindowProblem,
    cut,
    edges,
    input_copies,
    materialised,
    padded_pixels,
)
from xconv._machine import cache_bytes, cores
from xconv._namespace import Traits
from xconv._phases import phases
from xconv._products import LARGE
from xconv._rates import ACCELERATOR, CPU, FAST, SLOWDOWN, Rates
from xconv._remembered import choice

CPU_WORKSPACE = 64 * 2**20
ACCELERATOR_WORKSPACE = 256 * 2**20
UNKNOWN_CACHE = 2**20
FILL = (
    12  # times the cache of a core is what a tile may need: short operations cost threads more than misses do
)
LONG = (
    16  # the same of a window's reductions: each is one operation, and a short one costs more than its misses
)
SHARE = 4  # tiles that run at once share the workspace; this many fit, whatever the number of threads


@dataclass(frozen=True, slots=True)
class Candidate:
    """One algorithm's bid for a problem."""

    algorithm: str
    extents: tuple[int, ...]
    step: int
    tiles: int
    threaded: bool
    cost: Cost
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How a problem will be computed."""

    problem: Problem
    traits: Traits
    workspace: int
    extents: tuple[int, ...]  # of a tile: batch, then every output axis
    step: int = 1  # tiles begin at multiples of it
    threaded: bool = False  # tiles run on threads, rather than pieces of large products
    memory: int = 0  # bytes that a tile needs
    algorithm: str = "window"
    candidates: tuple[Candidate, ...] = ()  # best first
    refusals: tuple[tuple[str, str], ...] = ()
    biases: bool = False  # whether the algorithm adds a bias, to tiles like these
    remembered: bool = False  # the algorithm is what `tune` found
    whole: Tile | None = None  # the only tile, where one is enough
    edges: tuple[tuple[int, ...], ...] = ()  # of the tiles, along the batch and every output axis
    core: Any = None  # its problem for one sample, padding written out: what kernels are made ready for

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return prod(len(e) - 1 for e in self.edges)

    @property
    def at_once(self) -> int:
        """How many tiles may be in work at once: for memory's sake, and one where their operations are many and short.

        Of those, threads would spend more time on handing over the interpreter than on the work.
        """
        if isinstance(self.problem, WindowProblem) and self.problem.kind == "network":
            return 1
        return max(self.workspace // max(self.memory, 1), 1)


LED = frozenset({"convolved", "depthwise", "winograd"})  # compiled movers that share out their own work

R = TypeVar("R")
_caches: list[Callable[[], None]] = []
_times = 0


def plan_cache(function: Callable[..., R]) -> Callable[..., R]:
    """Keep what a function of hashable arguments gives, until plans are forgotten."""
    cached = lru_cache(maxsize=4096)(function)
    _caches.append(cached.cache_clear)
    return cached


def forget_plans() -> None:
    """Plan anew what has been planned: another algorithm may be remembered now."""
    global _times
    _times += 1
    for clear in _caches:
        clear()


def times_forgotten() -> int:
    """How often plans have been forgotten: what is kept elsewhere is of its time."""
    return _times


@plan_cache
def plan_conv(
    problem: ConvProblem, traits: Traits, settings: Settings, algorithm: str, *, bound: bool = False
) -> Plan:
    """Rank the algorithms for ``problem`` and take the cheapest, or the one that is named.

    Where the kernel is ``bound`` already, making it ready costs nothing.
    """
    if algorithm != "auto" and algorithm not in ALGORITHMS:
        refuse("algorithm", algorithm, f"be one of {', '.join(repr(name) for name in ('auto', *ALGORITHMS))}")
    budget = workspace_of(traits, settings)
    reasons = {name: _why_not(room, problem, traits) for name, room in ALGORITHMS.items()}
    if reason := reasons.get(algorithm):
        refuse("algorithm", algorithm, f"be able to do this problem, but {reason}")
    able = [name for name, reason in reasons.items() if reason is None]
    bids = sorted(
        (_bid(name, problem, traits, settings, bound=bound) for name in able),
        key=lambda bid: (bid.cost.workspace + (0 if bound else bid.cost.bound) > budget, bid.seconds),
    )  # what the workspace has no room for comes last
    tuned = choice(problem, traits, bound=bound) if algorithm == "auto" else None
    algorithm = tuned or algorithm
    chosen = next((bid for bid in bids if bid.algorithm == algorithm), bids[0])
    refusals = tuple((name, reason) for name, reason in reasons.items() if reason is not None)
    return _finish(
        Plan(
            problem,
            traits,
            budget,
            chosen.extents,
            chosen.step,
            chosen.threaded,
            chosen.cost.workspace,
            chosen.algorithm,
            tuple(bids),
            refusals,
            takes_bias(chosen.algorithm, tile_of(problem, chosen.extents), traits),
            chosen.algorithm == tuned,
        )
    )


@plan_cache
def plan_window(problem: WindowProblem, traits: Traits, settings: Settings) -> Plan:
    """Tiles for a sliding-window reduction; there is one way to compute it."""
    budget = workspace_of(traits, settings)

    def needed(tile: WindowProblem) -> int:
        if tile.fast and tile.copies == COPIES:  # one for the input, if that is not read where it stands
            return tile.channels * tile.itemsize * padded_pixels(tile)
        pixels = tile.batch * prod(tile.outputs)
        largest = max(pixels, padded_pixels(tile))
        elements = input_copies(tile) * padded_pixels(tile) + tile.copies * largest + tile.held * pixels
        return tile.channels * tile.itemsize * elements

    def seconds(tile: WindowProblem) -> float:
        read, left = 0, padded_pixels(tile)
        for axis in tile.axes:  # one after the other, each with what the one before has left
            left = left * axis.output // max(axis.materialised().size, 1)
            read += axis.window * left
        return read * tile.channels * tile.itemsize / CPU.near

    if (
        problem.fast
    ):  # no temporaries but a copy of the input, if that; what is large is shared out inside of a tile
        streamed = budget // SHARE
    else:
        streamed = tile_budget(traits, settings, LONG)
    if problem.kind == "network":  # each step is an operation, which had better be long
        extents = balanced(problem, needed, min(budget, 2 * cache_of(settings)) if traits.threads else budget)
    elif problem.kind == "lines":  # its matrix products do not wait for memory, and halos are wide
        extents = balanced(problem, needed, budget // SHARE, 8 if traits.threads else 1)
    else:
        extents = fitted(problem, needed, streamed)
        if traits.threads and not problem.fast:
            extents = grained(problem, extents, seconds)
    memory = needed(tile_of(problem, extents))
    return _finish(Plan(problem, traits, budget, extents, 1, traits.threads, memory))


def workspace_of(traits: Traits, settings: Settings) -> int:
    """Bytes that a call may need beyond its result."""
    if settings.workspace is not None:
        return settings.workspace
    # Where arrays cannot be assigned to, every tile is a part of the traced program: few of them, then.
    return ACCELERATOR_WORKSPACE if traits.accelerator or not traits.writeable else CPU_WORKSPACE


def cache_of(settings: Settings) -> int:
    """Bytes of cache that a core has to itself."""
    return settings.cache or cache_bytes(2) or UNKNOWN_CACHE


def tile_budget(traits: Traits, settings: Settings, fill: int = FILL) -> int:
    """Bytes that a tile may need: of the workspace, where tiles run at once, what suits the cache of a core."""
    budget = workspace_of(traits, settings)
    return min(budget // SHARE, fill * cache_of(settings)) if traits.threads else budget


def _finish(plan: Plan) -> Plan:
    sizes = (plan.problem.batch, *plan.problem.outputs)
    steps = (1, *(plan.step,) * len(plan.problem.axes))
    pieces = tuple(map(edges, sizes, plan.extents, steps))
    plan = replace(plan, edges=pieces, core=replace(materialised(plan.problem), batch=1, cast=False))
    if plan.tiles != 1:
        return plan
    (tile,) = cut(plan.problem, plan.edges)
    return replace(plan, whole=tile, threaded=False)


def _cores(problem: ConvProblem) -> list[ConvProblem]:
    """What an algorithm is given to do: the problem on a padded block, or each of its phases."""
    parts = [phase.problem for phase in phases(problem).values()] if problem.holes else []
    return [
        materialised(part) for part in parts or [problem]
    ]  # where no tap meets an element, as if there were no holes


def _why_not(room: Algorithm, problem: ConvProblem, traits: Traits) -> str | None:
    return next((reason for core in _cores(problem) if (reason := room.why_not(core, traits))), None)


def is_able(algorithm: str, problem: ConvProblem, traits: Traits) -> bool:
    """Whether the algorithm that is named, if any, can do this problem."""
    return algorithm == "auto" or _why_not(ALGORITHMS[algorithm], problem, traits) is None


def _bid(name: str, problem: ConvProblem, traits: Traits, settings: Settings, *, bound: bool) -> Candidate:
    """The faster of two ways: large products shared out among the threads, or tiles that about fit a core's cache."""
    room, budget = ALGORITHMS[name], workspace_of(traits, settings)
    rates = ACCELERATOR if traits.accelerator else FAST if problem.fast else CPU
    cores_ = _cores(problem)
    whole = [room.cost(core, traits) for core in cores_]
    step = max(cost.step for cost in whole)
    led = problem.fast and problem.ends and not LED.isdisjoint(compiled_movers(name, problem))
    if not bound:
        budget = max(budget - sum(cost.bound for cost in whole), 1)

    def needed(tile: ConvProblem) -> int:
        return _needed(room, tile, problem, traits)

    def seconds(tile: ConvProblem) -> float:
        costs = [room.cost(core, traits) for core in _cores(tile)]
        near = needed(tile) <= FILL * cache_of(settings)
        return _seconds(costs, problem, rates._replace(far=rates.near) if near else rates)

    def ways() -> Iterator[Candidate]:
        if led:
            yield candidate(
                fitted(problem, needed, min(budget, FILL * cache_of(settings)), step), rates, threaded=False
            )
            return
        streamed = not traits.accelerator and traits.writeable and not any(cost.flops for cost in whole)
        most = min(budget, cache_of(settings)) if streamed else budget
        yield candidate(fitted(problem, needed, most, step), rates, threaded=False)
        if traits.threads:
            extents = fitted(problem, needed, min(budget // SHARE, FILL * cache_of(settings)), step)
            extents = grained(problem, extents, seconds, step)
            yield candidate(extents, rates, threaded=True)

    def candidate(extents: tuple[int, ...], rates: Rates, *, threaded: bool) -> Candidate:
        tile = tile_of(problem, extents)
        sizes, steps = (problem.batch, *problem.outputs), (1, *(step,) * len(problem.axes))
        count = prod(len(edges(*cut)) - 1 for cut in zip(sizes, extents, steps, strict=True))
        costs, memory = [room.cost(core, traits) for core in _cores(tile)], needed(tile)
        costs.append(Cost(0, 2 * tile.pixels * tile.channels_out * tile.itemsize, 1, 0))  # the epilogue
        if memory <= FILL * cache_of(settings):
            rates = rates._replace(far=rates.near)
        if threaded:
            at_once = max(min(cores(), count, budget // max(memory, 1)), 1)
            time = rates.start + -(-count // at_once) * _seconds(costs, problem, rates)
        elif led:
            time = count * _seconds(costs, problem, rates) / (cores() if traits.threads else 1)
        else:
            shared = traits.threads and sum(cost.flops * cost.shared for cost in costs) > 2 * LARGE
            gain = 1 + rates.shared * (cores() - 1) if shared else 1
            time = count * _seconds(costs, problem, rates._replace(flops=rates.flops * gain))
        flops, moved, calls = (sum(part) for part in zip(*(cost[:3] for cost in costs), strict=True))
        if not bound:
            time += sum(
                _flops_seconds(cost.bind_flops, problem, rates) + cost.bind_bytes / rates.far
                for cost in whole
            )
        return Candidate(
            name,
            extents,
            step,
            count,
            threaded and count > 1,
            Cost(flops * count, moved * count, calls * count, memory, bound=sum(c.bound for c in whole)),
            time,
        )

    return min(ways(), key=lambda bid: bid.seconds)


def _needed(room: Algorithm, tile: ConvProblem, problem: ConvProblem, traits: Traits) -> int:
    """Bytes beyond the result that a tile of ``problem`` needs."""
    cores_ = _cores(tile)
    largest = max(map(padded_pixels, cores_), default=0)
    block = input_copies(tile) * largest * tile.channels_in * tile.itemsize
    whole = tile.batch == problem.batch and tile.outputs == problem.outputs
    outputs = (0 if whole else 1) + (2 if tile.holes else 0)  # phases stand beside what they are put into
    output = outputs * tile.pixels * tile.channels_out * tile.itemsize
    temporary = max((room.cost(core, traits).workspace for core in cores_), default=0)
    return block + output + max(tile.pixels * tile.extra, temporary)


def _seconds(costs: list[Cost], problem: ConvProblem, rates: Rates) -> float:
    return sum(
        _flops_seconds(cost.flops, problem, rates) + cost.bytes / rates.far + (cost.calls + 5) * rates.call
        for cost in costs
    )


def _flops_seconds(flops: int, problem: ConvProblem, rates: Rates) -> float:
    return flops * SLOWDOWN[problem.kind] * (problem.itemsize / 4) / rates.flops
