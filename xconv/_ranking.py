"""What rank filters have in common: the window's rank, by a network or by sorting, tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from xconv._args import frozen
from xconv._config import Settings, settings
from xconv._dtypes import check_value, itemsize
from xconv._engine import execute
from xconv._errors import refuse
from xconv._footprints import RankSpec, frozen_footprint, rank_spec
from xconv._geometry import WindowProblem
from xconv._namespace import Array, DType, Namespace, Traits, differentiates, inspect
from xconv._networks import Pattern, network
from xconv._plan import plan_cache
from xconv._selection import ranked, selected, taps_of
from xconv._ties import FEW, first_equal, first_running, keeps_ties
from xconv._tiles import Job, Operands, Place
from xconv._windows import check_real

# Elements of a window, for which a network is made; larger windows are sorted. There are FEW where it becomes part of a
# traced program, which takes long to compile.
MOST = 512


def ranked_windows(
    x: Array,
    size: Any,
    footprint: Any,
    axes: Any,
    origin: Any,
    pad_mode: Any,
    value: Any,
    rank_of: Callable[[int], int],
) -> Array:
    """Of the window around every element of ``x`` the one of a rank, which is said for a number of elements."""
    xp, traits = inspect(x=x)
    check_real(x, xp)
    spec = rank_spec(
        tuple(x.shape),
        frozen(size),
        frozen_footprint(footprint),
        frozen(axes),
        frozen(origin),
        frozen(pad_mode),
    )
    check_value(xp, value, x.dtype)
    if value and spec.problem.pad_mode != "constant":
        refuse("value", value, f"be left out with pad_mode='{spec.problem.pad_mode}'")
    rank = rank_of(len(spec.pattern))
    if 0 in x.shape:
        return xp.asarray(x, copy=True)
    job = _prepared(xp, spec, rank, x.dtype, traits, settings())
    if value:
        job = replace(job, fill=value)
    inner = xp.expand_dims(xp.expand_dims(x, axis=0), axis=x.ndim + 1)  # (1, *x, 1)
    (y,) = execute(job, inner, (), xp, traits)
    return xp.squeeze(y, axis=(0, x.ndim + 1))


@plan_cache
def _prepared(
    xp: Namespace, spec: RankSpec, rank: int, dtype: DType, traits: Traits, config: Settings
) -> Job:
    """All that follows from shapes, dtypes and options: one look-up for a call that has been made before."""
    work, copies, held = _way(spec.pattern, rank, traits)
    if differentiates(xp):
        held += 4 * (len(spec.pattern) if len(spec.pattern) > FEW else 1)
    problem = replace(spec.problem, itemsize=itemsize(xp, dtype), kind="network", copies=copies, held=held)
    return Job(problem, work, dtype, ((1,),), (dtype,), settings=config)


def _way(pattern: Pattern, rank: int, traits: Traits) -> tuple[Callable[..., tuple[Array]], int, int]:
    """What is done with a tile, and how many temporaries of its input and of its output that takes."""
    taps = len(pattern)
    traced = not (traits.writeable or traits.chunked)
    if rank in (0, taps - 1) or taps <= (FEW if traced else MOST):
        found = network(pattern, rank)
        work = partial(_selected_tile, pattern=pattern, rank=rank)
        return work, found.slots + 1, 0
    work = partial(_sorted_tile, pattern=pattern, rank=rank)
    return work, 2, 3 * taps + 3


def _selected_tile(
    job: Job,
    x: Array,
    _: Operands,
    problem: WindowProblem,
    place: Place,
    xp: Namespace,
    *,
    pattern: Pattern,
    rank: int,
) -> tuple[Array]:
    if not keeps_ties(x, xp):
        return (selected(x, problem.outputs, pattern, rank, xp, place.out[0]),)
    taps = len(pattern)
    if rank in (0, taps - 1) and taps == prod(
        a.window for a in problem.axes
    ):  # a box, whose axes can be taken one by one
        reduction = "max" if rank else "min"
        return (first_running(x, problem.axes, problem.axes, place.origin, reduction, xp),)
    y = selected(x, problem.outputs, pattern, rank, xp)
    return (first_equal(y, taps_of(x, problem.outputs, pattern), xp),)


def _sorted_tile(
    job: Job,
    x: Array,
    _: Operands,
    problem: WindowProblem,
    place: Place,
    xp: Namespace,
    *,
    pattern: Pattern,
    rank: int,
) -> tuple[Array]:
    y = ranked(x, problem.outputs, pattern, rank, xp)
    if not keeps_ties(x, xp):
        return (y,)
    return (first_equal(y, taps_of(x, problem.outputs, pattern), xp),)
