"""From the outputs of sliding windows back to what they read: tile by tile, in memory or as a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from typing import Any, NamedTuple

from xconv._borders import runs
from xconv._config import settings
from xconv._dtypes import itemsize
from xconv._engine import enter, leave
from xconv._geometry import Axis, WindowProblem, edges
from xconv._machine import cache_bytes, cores
from xconv._movers import continued, ready_to_read, room, spread
from xconv._namespace import (
    Array,
    DType,
    Namespace,
    Traits,
    chunk_edges,
    defer,
    empty_like,
    full_like,
    inspect,
    packed,
)
from xconv._plan import UNKNOWN_CACHE, plan_window
from xconv._problems import PoolSpec
from xconv._scratch import scratch
from xconv._threads import run_all

# Tiles are larger than the cache of a core: on operations of a few microseconds two threads wait for each other.
CACHES = 8

Meeting = tuple[slice, slice]  # outputs, and the elements that one of their taps is


class Part(NamedTuple):
    """Some of the windows of a problem."""

    axes: tuple[Axis, ...]  # over what these windows read
    windows: tuple[slice, ...]  # which of all they are
    problem: WindowProblem  # the whole


Arrays = tuple[Array, ...]
# (arrays of what the windows read, arrays of their outputs, part, memory that holds zeros or None) -> gradient
Work = Callable[[Arrays, Arrays, Part, Array | None, Namespace], Array]


class Sliding(NamedTuple):
    """How the gradient of a sliding-window operation is found."""

    work: Work
    problem: WindowProblem
    computed: DType
    result: DType

    def of(self, read: Arrays, outputs: Arrays, spec: PoolSpec, xp: Namespace, traits: Traits) -> Array:
        """The gradient in the caller's layout, from arrays as the caller has them."""
        sources, results = (
            tuple(enter(a, spec.layout, xp, batched=spec.batched) for a in group) for group in (read, outputs)
        )
        whole = whole_batch if not traits.chunked else by_chunks
        return leave(whole(self, sources, results, xp, traits), spec.layout, xp, batched=spec.batched)


def by_chunks(sliding: Sliding, read: Arrays, outputs: Arrays, xp: Namespace, _: Traits) -> Array:
    """The chunks of a batch, each when its array's own scheduler comes to it; the other axes stay whole."""
    problem, parts = sliding.problem, []
    spatial = (*(axis.size for axis in problem.axes), problem.channels)
    for start, stop in pairwise(chunk_edges(outputs[-1])[0]):
        piece = sliding._replace(problem=replace(problem, batch=stop - start))
        arrays = tuple(a[start:stop, ...] for a in (*read, *outputs))
        block = partial(_chunk, sliding=piece, read=len(read))
        parts.append(defer(block, arrays, [((stop - start, *spatial), sliding.result)])[0])
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)


def _chunk(*arrays: Array, sliding: Sliding, read: int) -> tuple[Array]:
    xp, traits = inspect(x=arrays[-1])
    return (whole_batch(sliding, arrays[:read], arrays[read:], xp, traits),)


def whole_batch(sliding: Sliding, read: Arrays, outputs: Arrays, xp: Namespace, traits: Traits) -> Array:
    """The gradient (N, *n, C) from arrays (N, *n, C) that are read and arrays (N, *out, C)."""
    problem, like = sliding.problem, outputs[-1]
    shape = (problem.batch, *(axis.size for axis in problem.axes), problem.channels)
    back = replace(
        problem,
        axes=tuple(axis.transposed() for axis in problem.axes),
        itemsize=itemsize(xp, sliding.computed),
        fast=False,
    )
    cache = settings().cache or cache_bytes(2) or UNKNOWN_CACHE
    plan = plan_window(back, traits, settings()._replace(cache=CACHES * cache))
    batches = plan.edges[0]
    if not traits.threads:  # derivatives pass through functions only, and programs are made of them
        windows = tuple(slice(0, n) for n in problem.outputs)
        whole = Part(problem.axes, windows, problem)
        parts = [
            sliding.work(
                tuple(a[start:stop, ...] for a in read),
                tuple(a[start:stop, ...] for a in outputs),
                whole,
                None,
                xp,
            )
            for start, stop in pairwise(batches)
        ]
        parts = parts or [full_like(like, shape, 0, sliding.computed)]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
    dx = empty_like(like, shape, sliding.result)
    places = (
        edges(a.size, max(extent // a.stride * a.stride, a.stride), a.stride)
        for a, extent in zip(problem.axes, plan.extents[1:], strict=True)
    )
    boxes = product(*(pairwise(e) for e in (batches, *places)))
    tasks = (partial(_put, sliding, read, outputs, box, dx, xp) for box in boxes)
    if plan.threaded:
        run_all(tasks, min(settings().threads or cores(), plan.at_once), scratch)
        return dx
    with scratch():
        for task in tasks:
            task()
    return dx


def _put(
    sliding: Sliding,
    read: Arrays,
    outputs: Arrays,
    box: tuple[tuple[int, int], ...],
    dx: Array,
    xp: Namespace,
) -> None:
    """The gradient of one box of the input, from all windows that reach it."""
    (start, stop), *spatial = box
    place = dx[(slice(start, stop), *(slice(*ends) for ends in spatial), slice(None))]
    axes = sliding.problem.axes
    reached = [axis.reached(*ends) for axis, ends in zip(axes, spatial, strict=True)]
    cuts = [axis.tile(*ends) for axis, ends in zip(axes, reached, strict=True)]
    if any(first == last for first, last in reached) or any(begin == end for begin, end, _ in cuts):
        place[...] = 0
        return
    batch = slice(start, stop)
    source = (batch, *(slice(begin, end) for begin, end, _ in cuts), slice(None))
    windows = tuple(slice(*ends) for ends in reached)
    near = tuple(_near(a[source], f"read {i}", xp) for i, a in enumerate(read))
    made = tuple(_near(a[(batch, *windows, slice(None))], f"made {i}", xp) for i, a in enumerate(outputs))
    part = Part(tuple(axis for _, _, axis in cuts), windows, sliding.problem)
    alone = dx.dtype == sliding.computed and all(
        (begin, end) == ends for (begin, end, _), ends in zip(cuts, spatial, strict=True)
    )
    shape = (stop - start, *(end - begin for begin, end, _ in cuts), dx.shape[-1])
    target = place if alone else _room("gradient", shape, sliding.computed, dx)
    target[...] = 0
    found = sliding.work(near, made, part, target, xp)
    if found is not place:
        _assign(place, found, list(spatial), [(begin, end) for begin, end, _ in cuts])


def _assign(place: Array, found: Array, wanted: list[tuple[int, int]], known: list[tuple[int, int]]) -> None:
    """What was found between other ends than those wanted; zeros elsewhere."""
    both = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(wanted, known, strict=True)]
    if both != wanted:
        place[...] = 0
    here = (slice(a - w, b - w) for (a, b), (w, _) in zip(both, wanted, strict=True))
    there = (slice(a - k, b - k) for (a, b), (k, _) in zip(both, known, strict=True))
    place[(slice(None), *here, slice(None))] = found[(slice(None), *there, slice(None))]


def _near(a: Array, purpose: str, xp: Namespace) -> Array:
    """Channels side by side: another order of the axes is copied once, and not for every tap."""
    return a if ready_to_read(a, a.dtype) else packed(a, a.shape, purpose, xp)


def _room(purpose: str, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
    return room(purpose, shape, empty_like(like, (0,), dtype))


def meetings(axis: Axis) -> Iterator[Meeting]:
    """For every tap along one axis, where there is any: outputs, and the elements that this tap of theirs is."""
    return (found for found in map(axis.meets, range(axis.window)) if found is not None)


def placed(part: Array, axis: int, where: slice, size: int, fill: float, xp: Namespace) -> Array:
    """``part`` at ``where`` of an axis of ``size``, as a function."""
    part = spread(part, axis, where.step, fill, xp)
    return continued(
        part, axis, runs(-where.start, size - where.start, part.shape[axis], "constant"), fill, xp
    )


def at(axis: int, where: slice) -> tuple[Any, ...]:
    """An index along one axis."""
    return (*(slice(None),) * axis, where, ...)


def added_back(g: Array, axes: Sequence[Axis], target: Array | None, xp: Namespace) -> Array:
    """The transpose of a sum over windows: every element has the sum of g over the windows that read it.

    Axis by axis, the last one first.
    """
    for i, axis in reversed(tuple(enumerate(axes, 1))):
        if axis.window == 1 and axis.size == axis.output and axis.meets(0) == (slice(0, axis.size, 1),) * 2:
            continue
        shape = (*g.shape[:i], axis.size, *g.shape[i + 1 :])
        if target is None:
            pieces = [placed(g[at(i, o)], i, p, axis.size, 0, xp) for o, p in meetings(axis)]
            total = pieces[0] if pieces else full_like(g, shape, 0, g.dtype)
            for piece in pieces[1:]:
                total = total + piece
            g = total
            continue
        total = target if i == 1 else _room(f"axis {i}", shape, g.dtype, g)
        total[...] = 0
        for o, p in meetings(axis):
            total[at(i, p)] += g[at(i, o)]
        g = total
    return g
