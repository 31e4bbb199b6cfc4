"""How large the tiles of a problem are: integers, and estimated seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import prod

from xconv._geometry import Axis, ConvProblem, T
from xconv._machine import cores
from xconv._rates import FINE, GRAIN, WORTH

HALOS = 3  # times its halo is a tile at least, while there is another axis to be cut
WORTHY = 2**16  # elements of a tile that is worth a thread's while
RUN = 64  # elements: shorter runs of memory cost as much as ones that are so much longer


def fitted(problem: T, needed: Callable[[T], int], budget: int, step: int = 1) -> tuple[int, ...]:
    """The largest tile that needs no more than ``budget`` bytes: the batch is cut first, then axis by axis.

    Where each axis is filtered by itself and whole rows bring nothing, no axis is cut into mere halos before another.
    """
    sizes = (problem.batch, *problem.outputs)
    extents = list(sizes)
    even = isinstance(problem, ConvProblem) and problem.separable
    floors = [
        (1, *(HALOS * (a.reach - 1) // a.stride if even else 1 for a in problem.axes)),
        (1,) * len(sizes),
    ]
    smallest = needed(tile_of(problem, tuple(min(size, 1) for size in sizes)))
    budget = max(budget, 2 * smallest)  # a tile that is nearly all halo would do the same work over and over
    for least, (dim, size) in product(floors if even else floors[1:], enumerate(sizes)):
        floor = max(least[dim], 1)
        while extents[dim] > floor and (bytes_ := needed(tile_of(problem, tuple(extents)))) > budget:
            smaller = _extent(
                size, min(extents[dim] - 1, max(floor, extents[dim] * budget // bytes_)), step if dim else 1
            )
            if smaller >= extents[dim]:  # it cannot be cut any more
                break
            extents[dim] = smaller
    return tuple(extents)


def balanced(problem: T, needed: Callable[[T], int], budget: int, most: int = 1) -> tuple[int, ...]:
    """The same, cut where halos grow least: axes that no window reaches along first, and long runs of memory last.

    There are up to ``most`` tiles even if all is small enough, while they have enough elements to be worth it.
    """
    sizes = (problem.batch, *problem.outputs)
    halos = [0, *(axis.reach - 1 for axis in problem.axes)]
    halos[-1] += RUN
    pieces = [1] * len(sizes)

    def length(dim: int, count: int) -> int:
        return -(-sizes[dim] // count)

    def growth(dim: int) -> float:
        before, after = length(dim, pieces[dim]), length(dim, 2 * pieces[dim])
        return (1 + halos[dim] / after) / (1 + halos[dim] / before)

    most = min(most, prod(sizes) // WORTHY)
    while prod(pieces) < most or (
        needed(tile_of(problem, tuple(map(length, range(len(sizes)), pieces)))) > budget
    ):
        able = [dim for dim in range(len(sizes)) if length(dim, pieces[dim]) > 1]
        if not able:
            break
        dim = min(able, key=growth)
        shorter = length(dim, pieces[dim]) - 1
        pieces[dim] = max(pieces[dim] + pieces[dim] // 4, -(-sizes[dim] // shorter))
    return tuple(map(length, range(len(sizes)), pieces))


def _extent(size: int, most: int, step: int) -> int:
    """The largest piece when ``size`` is cut evenly into pieces of at most ``most``, or of one step if that is more."""
    steps, most = -(-size // step), max(most // step, 1)
    count = -(-steps // most)
    return min(-(-steps // count) * step, size)


def grained(
    problem: T, extents: tuple[int, ...], seconds: Callable[[T], float], step: int = 1
) -> tuple[int, ...]:
    """Smaller tiles where larger ones would leave cores without work: as many for each, and each worth its while."""
    sizes = (problem.batch, *problem.outputs)
    if 0 in sizes:
        return extents
    count = prod(-(-size // extent) for size, extent in zip(sizes, extents, strict=True))
    total = seconds(tile_of(problem, extents)) * count
    wanted = max(int(total / GRAIN), min(int(total / FINE), cores()), 2 if total > WORTH else 1, count)
    if wanted < 2:
        return extents
    each = max(min(cores(), wanted), 2)  # the number of tiles had better be a multiple of
    wanted = -(-wanted // each) * each
    best = extents
    for dim, size in enumerate(sizes):
        others = prod(-(-s // e) for i, (s, e) in enumerate(zip(sizes, best, strict=True)) if i != dim)
        unit = step if dim else 1
        most = -(-size // unit)
        for pieces in range(min(-(-wanted // others), most), most + 1):
            extent = min(-(-most // pieces) * unit, size)
            count = others * -(-size // extent)
            if count % each == 0 or count > 4 * each:
                break
        best = (*best[:dim], extent, *best[dim + 1 :])
        if count >= wanted or pieces < most:
            break
    halved = seconds(tile_of(problem, best)) * count
    return best if halved < 1.5 * total else extents  # smaller tiles may be nearly all halo


def tile_of(problem: T, extents: tuple[int, ...]) -> T:
    """A tile of these extents; one that touches no border, so that every tile is at most as large."""
    axes = tuple(_inner(axis, extent) for axis, extent in zip(problem.axes, extents[1:], strict=True))
    return replace(problem, batch=extents[0], axes=axes)


def _inner(axis: Axis, extent: int) -> Axis:
    return axis if extent == axis.output else axis.tile(0, extent)[2]
