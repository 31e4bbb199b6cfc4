"""Gradients that need whole samples at once: part by part of batch and channels, in memory or as a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from math import prod

from xconv._config import config, settings
from xconv._geometry import Axis, WindowProblem, edges
from xconv._gradients._carry import CACHES
from xconv._machine import cache_bytes, cores
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
    same_memory,
)
from xconv._plan import SHARE, UNKNOWN_CACHE, plan_window
from xconv._scratch import scratch
from xconv._threads import run_all

Arrays = tuple[Array, ...]
Work = Callable[..., Array]  # (arrays, xp, memory for the result or None) -> result


def by_samples(
    work: Work,
    arrays: Arrays,
    shape: tuple[int, ...],
    dtype: DType,
    xp: Namespace,
    traits: Traits,
    *,
    held: int,
) -> Array:
    """``work(*arrays, xp, out)`` for arrays (N, *any, C) of their own sizes, of which it gives (N, *n, C).

    ``held`` is what it may need beside them, in bytes for each element of the result.
    """
    batch, *sizes, channels = shape
    if traits.chunked:
        parts = []
        for start, stop in pairwise(chunk_edges(arrays[-1])[0]):
            piece = (stop - start, *shape[1:])
            block = partial(_chunk, work=work, shape=piece, dtype=dtype, held=held)
            parts.append(defer(block, tuple(a[start:stop, ...] for a in arrays), [(piece, dtype)])[0])
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
    if not batch:
        return full_like(arrays[-1], shape, 0, dtype)
    if not traits.threads:  # derivatives pass through functions only
        return work(*arrays, xp, None)
    problem = WindowProblem(batch, tuple(Axis(1, 1) for _ in sizes), prod(sizes) * channels, held, 1)
    cache = settings().cache or cache_bytes(2) or UNKNOWN_CACHE
    plan = plan_window(problem, traits, settings()._replace(cache=CACHES * cache))
    share = plan.workspace // SHARE
    most = max(share // (held * prod(sizes)), 1) if plan.memory > share else channels
    dx = empty_like(arrays[-1], shape, dtype)
    width = min(most, channels) or 1
    at_once = max(
        plan.workspace // max(plan.extents[0] * held * prod(sizes) * width, 1), 1
    )  # for memory's sake
    places = product(pairwise(plan.edges[0]), pairwise(edges(channels, width)))
    tasks = (partial(_put, work, arrays, place, dx, xp) for place in places)
    if plan.threaded:
        run_all(tasks, min(settings().threads or cores(), at_once), scratch)
        return dx
    with scratch():
        for task in tasks:
            task()
    return dx


def _put(work: Work, arrays: Arrays, place: tuple[tuple[int, int], ...], dx: Array, xp: Namespace) -> None:
    batch, channels = (slice(*ends) for ends in place)
    with config(threads=1):
        here = dx[batch, ..., channels]
        found = work(*(a[batch, ..., channels] for a in arrays), xp, here)
        if not same_memory(found, here):
            here[...] = found


def _chunk(*arrays: Array, work: Work, shape: tuple[int, ...], dtype: DType, held: int) -> tuple[Array]:
    xp, traits = inspect(x=arrays[0])
    return (by_samples(work, arrays, shape, dtype, xp, traits, held=held),)
