"""Gradients of rank filters: every window's goes to its first element that equals the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial, reduce
from itertools import groupby, pairwise, product
from math import prod
from operator import add
from typing import Any, NamedTuple

from xconv._args import frozen
from xconv._borders import Run, runs
from xconv._config import settings
from xconv._dtypes import itemsize, wide
from xconv._footprints import frozen_footprint, rank_spec
from xconv._geometry import Axis, WindowProblem
from xconv._gradients._around import folded_onto
from xconv._gradients._carry import Part, placed
from xconv._gradients._firsts import Tap, back_to_first, put_first
from xconv._gradients._rule import Call, Forward, Gradients, Rule, one
from xconv._machine import cores
from xconv._movers import continued, continued_block, room
from xconv._namespace import (
    Array,
    DType,
    Namespace,
    Traits,
    added,
    chunk_edges,
    copied,
    defer,
    empty_like,
    inspect,
)
from xconv._networks import Offset, Pattern, reach
from xconv._order import maximum_filter, median_filter, minimum_filter, percentile_filter, rank_filter
from xconv._plan import plan_window
from xconv._scratch import scratch
from xconv._threads import run_all
from xconv._tiles import join

Ends = tuple[int, int]

COPIES = 6  # temporaries of what a tile reads, in the dtype that sums are computed in


class _Windows(NamedTuple):
    """The windows of a filter over (1, *n, 1), and what is wanted of them."""

    axes: tuple[Axis, ...]
    pattern: Pattern
    pad_mode: str
    fill: float
    reduction: str | None  # "max" or "min" of a box, which goes axis by axis
    computed: DType


def _ranked(call: Call, size: int = 1, reduction: str | None = None) -> Forward:
    y = call.run()
    x, options = call.args[0], call.options
    spec = rank_spec(
        tuple(x.shape),
        frozen(call.arg(size)),
        frozen_footprint(options.get("footprint")),
        frozen(options.get("axes")),
        frozen(options.get("origin", 0)),
        frozen(options.get("pad_mode", "symmetric")),
    )
    axes, pattern = spec.problem.axes, spec.pattern
    box = len(pattern) == prod(most + 1 for most in reach(pattern))

    def pull(dy: Array) -> Gradients:
        xp, traits = inspect(x=x, dy=dy)
        if 0 in x.shape:
            return {"x": copied(dy, xp)}
        windows = _Windows(
            axes,
            pattern,
            spec.problem.pad_mode,
            options.get("value", 0),
            reduction if box else None,
            wide(xp, dy.dtype),
        )
        source, *made = (xp.expand_dims(xp.expand_dims(a, axis=0), axis=x.ndim + 1) for a in (x, y, dy))
        dx = _gradient(windows, source, made[0], made[1], dy.dtype, xp, traits)
        return {"x": xp.squeeze(dx, axis=(0, x.ndim + 1))}

    return one(y, pull)


def _gradient(
    windows: _Windows, x: Array, y: Array, dy: Array, result: DType, xp: Namespace, traits: Traits
) -> Array:
    """The gradient (1, *n, 1) from x (1, *n, 1) and y and dy (1, *out, 1), box by box."""
    if traits.chunked:
        edges = chunk_edges(x)[1:-1]
        parts = [(_of_box(windows, x, y, dy, box, _deferred, xp),) for box in _boxes(edges)]
        return join(parts, ((0, 1), *edges), xp)[0]
    axes = tuple(_both_sides(axis) for axis in windows.axes)
    problem = WindowProblem(1, axes, 1, itemsize(xp, windows.computed), COPIES, kind="lines")
    plan = plan_window(problem, traits, settings())
    if not traits.threads:  # derivatives pass through functions only, and programs are made of them
        parts = [(_of_box(windows, x, y, dy, box, _found, xp),) for box in _boxes(plan.edges[1:])]
        return join(parts, plan.edges, xp)[0]
    dx = empty_like(x, x.shape, result)
    tasks = (partial(_put, windows, x, y, dy, box, dx, xp) for box in _boxes(plan.edges[1:]))
    if plan.threaded:
        run_all(tasks, min(settings().threads or cores(), plan.at_once), scratch)
        return dx
    with scratch():
        for task in tasks:
            task()
    return dx


def _both_sides(axis: Axis) -> Axis:
    """For the planner: an element's gradient needs all elements of all windows that it is in."""
    far = axis.window - 1
    return Axis(axis.size, axis.window + far, low=far, high=far)


def _boxes(edges: tuple[tuple[int, ...], ...]) -> Iterator[tuple[Ends, ...]]:
    return product(*(tuple(pairwise(e)) for e in edges))


def _put(
    windows: _Windows, x: Array, y: Array, dy: Array, box: tuple[Ends, ...], dx: Array, xp: Namespace
) -> None:
    dx[_index(box)] = _of_box(windows, x, y, dy, box, _found, xp)


def _of_box(
    windows: _Windows,
    x: Array,
    y: Array,
    dy: Array,
    box: tuple[Ends, ...],
    found: Callable[..., Array],
    xp: Namespace,
) -> Array:
    """The gradient by the elements of a box, which may stand beyond the borders, too: by all regions that hold any."""
    mode = windows.pad_mode
    total = None
    for regions in product(*(_regions(a, *ends, mode) for a, ends in zip(windows.axes, box, strict=True))):
        whole = [axis.materialised() for axis in windows.axes]
        places = [(r0 + a.low, r1 + a.low) for a, (r0, r1) in zip(windows.axes, regions, strict=True)]
        reached = [axis.reached(*ends) for axis, ends in zip(whole, places, strict=True)]
        tiles = [axis.tile(*ends) for axis, ends in zip(whole, reached, strict=True)]
        pieces = [
            runs(begin - a.low, end - a.low, a.size, mode)
            for a, (begin, end, _) in zip(windows.axes, tiles, strict=True)
        ]
        here = windows._replace(axes=tuple(axis for _, _, axis in tiles), pad_mode="constant")
        made = (a[_index(reached)] for a in (y, dy))
        dx = found(here, _read(x, pieces, windows.fill, xp), *made, xp)
        dx = dx[_index([(r0 - b, r1 - b) for (r0, r1), (b, _, _) in zip(places, tiles, strict=True)])]
        for i, (axis, region, ends) in enumerate(zip(windows.axes, regions, box, strict=True), 1):
            dx = folded_onto(dx, i, runs(*region, axis.size, mode), ends, xp)
        total = _sum(total, dx, xp)
    return total


def _sum(total: Array | None, dx: Array, xp: Namespace) -> Array:
    """Of what regions give, whose memory is used again."""
    return copied(dx, xp) if total is None else added(total, dx, xp)


def _index(box: Any) -> tuple[slice, ...]:
    return (slice(None), *(slice(*ends) for ends in box), slice(None))


@lru_cache(maxsize=4096)
def _regions(axis: Axis, begin: int, end: int, mode: str) -> tuple[Ends, ...]:
    """Where the elements ``begin:end`` stand on the axis as it is continued, which begins at ``-axis.low``."""
    found: list[Ends] = []
    place = -axis.low
    for first, count, step in runs(-axis.low, axis.size + axis.high, axis.size, mode):
        start, stop = place, place + count
        place = stop
        if step is None or (step == 0 and not begin <= first < end):
            continue
        if step == 1:
            start, stop = max(start, start + begin - first), min(stop, start + end - first)
        elif step == -1:
            start, stop = max(start, start + first - end + 1), min(stop, start + first - begin + 1)
        if start >= stop:
            continue
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, stop))
    return tuple(found)


def _read(x: Array, pieces: list[tuple[Run, ...]], fill: float, xp: Namespace) -> Array:
    if any(len(along) > 1 for along in pieces):
        found = continued_block(x, pieces, x.dtype, fill)
        if found is not None:
            return found
    for axis, along in enumerate(pieces, 1):
        x = continued(x, axis, along, fill, xp)
    return x


def _deferred(windows: _Windows, x: Array, y: Array, dy: Array, xp: Namespace) -> Array:
    return defer(partial(_later, windows), (x, y, dy), [(tuple(x.shape), windows.computed)])[0]


def _later(windows: _Windows, x: Array, y: Array, dy: Array) -> tuple[Array]:
    """A block that has been computed: now in tiles."""
    xp, traits = inspect(x=x, y=y, dy=dy)
    return (_gradient(windows, x, y, dy, windows.computed, xp, traits),)


def _found(windows: _Windows, x: Array, y: Array, dy: Array, xp: Namespace) -> Array:
    """The gradient by a block whose padding is written out."""
    _, traits = inspect(x=x)
    axes, computed = windows.axes, windows.computed
    dy = dy if dy.dtype == computed else xp.astype(dy, computed)
    target = None
    if traits.threads:
        target = room("by the block", x.shape, dy)
        target[...] = 0
    if windows.reduction:
        part = Part(axes, (), WindowProblem(1, axes, 1))
        return back_to_first((x,), (y, dy), part, target, xp, reduction=windows.reduction)
    if target is None:
        return _one_by_one(x, y, dy, axes, windows.pattern, xp)
    taps = (
        Tap(
            (slice(None),) * dy.ndim,
            _index([(o, o + a.output) for o, a in zip(offset, axes, strict=True)]),
            (),
        )
        for offset in windows.pattern
    )
    put_first(x, y, dy, taps, target, xp)
    return target


def _one_by_one(
    x: Array, y: Array, dy: Array, axes: tuple[Axis, ...], pattern: Pattern, xp: Namespace
) -> Array:
    """The same as a function: what the elements of a row of a window get is added up before it is put in its place."""
    nothing = xp.zeros_like(dy)
    taken: Array = None

    def of(offsets: tuple[Offset, ...], level: int) -> Array:
        nonlocal taken
        if level == len(axes):
            (offset,) = offsets
            element = x[_index([(o, o + a.output) for o, a in zip(offset, axes, strict=True)])]
            hit = (element == y) | xp.isnan(element)
            if taken is not None:
                hit = hit & ~taken
            taken = hit if taken is None else taken | hit
            return xp.where(hit, dy, nothing)
        axis = axes[level]
        rows = (
            placed(of(tuple(row), level + 1), level + 1, slice(o, o + axis.output, 1), axis.size, 0, xp)
            for o, row in groupby(offsets, lambda offset: offset[level])
        )
        return reduce(add, rows)

    return of(pattern, 0)


RULES: dict[Callable[..., Any], Rule] = {
    maximum_filter: Rule(("x", None), partial(_ranked, reduction="max")),
    minimum_filter: Rule(("x", None), partial(_ranked, reduction="min")),
    median_filter: Rule(("x", None), _ranked),
    rank_filter: Rule(("x", None, None), partial(_ranked, size=2)),
    percentile_filter: Rule(("x", None, None), partial(_ranked, size=2)),
}
