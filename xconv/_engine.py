"""The way from the clerk's problem to the result: plan it, hand plan and arrays to the foreman."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import prod
from typing import NamedTuple

from xconv._algorithms import reads_borders
from xconv._config import Settings, settings
from xconv._dtypes import SumDTypes, dtype_kind
from xconv._epilogue import Activation, bounds_of, epilogue_bytes, finish, finish_pieces, is_elementwise
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis, ConvProblem, WindowProblem, materialised
from xconv._kernels import Call, Kernel, bound_kernel, first_taps, in_use
from xconv._layout import Layout
from xconv._machine import cores
from xconv._movers import block, finished, interleaved, ready_to_add
from xconv._namespace import (
    Array,
    DType,
    Namespace,
    Traits,
    assignable,
    empty_like,
    full_like,
    inspect,
    is_compilable,
    is_compiled,
    is_contiguous,
    permuted_axes,
    same_memory,
)
from xconv._phases import periods, phases, side_by_side
from xconv._plan import Plan, is_able, plan_conv, plan_window
from xconv._tiles import Job, Operands, Place, run, run_chunks

_only_plan: ContextVar[bool] = ContextVar("xconv_only_plan", default=False)


class Planned(Exception):
    """The plan of a call that was not to be run."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.algorithm)
        self.plan = plan


@contextmanager
def only_plan() -> Iterator[None]:
    """Inside, a call ends with `Planned` where its computation would begin."""
    token = _only_plan.set(True)
    try:
        yield
    finally:
        _only_plan.reset(token)


class Ready(NamedTuple):
    """A convolution that only lacks its arrays."""

    job: Job
    plans: dict[bool, Plan]  # by whether there is a kernel that is bound


def ready(
    problem: ConvProblem,
    x: DType,
    dtypes: SumDTypes,
    activation: Activation | None,
    algorithm: str,
    xp: Namespace,
    settings: Settings,
    *,
    aligned: int = 0,
) -> Ready:
    """What is to be done with x (N, *n, C) and w (*k, C / groups, O), and bias and residual, to give (N, *out, O)."""
    extra = epilogue_bytes(problem.channels_out, dtypes, activation, xp)
    problem = typed(problem, dtypes, extra, xp, cast=x != dtypes.compute)
    compilable = is_compilable(xp, dtypes.compute, len(problem.axes))  # here, or in the chunks of an array
    if compilable and dtypes.result == dtypes.compute and bounds_of(activation) is not None:
        problem = replace(problem, ends=True)
    work = _Work(activation)
    tails = ((problem.channels_out,),)
    job = Job(
        problem,
        work,
        dtypes.compute,
        tails,
        (dtypes.result,),
        0,
        algorithm,
        settings,
        compilable=compilable,
        aligned=aligned,
        repeats=is_elementwise(activation),
    )
    return Ready(job, {})


def enter(x: Array, layout: Layout, xp: Namespace, *, batched: bool) -> Array:
    """The caller's array as (N, *spatial, C)."""
    x = permuted_axes(x, layout.enter(batched=batched), xp)
    return x if batched else xp.expand_dims(x, axis=0)


def leave(y: Array, layout: Layout, xp: Namespace, *, batched: bool) -> Array:
    """The result as the caller wants it."""
    y = y if batched else xp.squeeze(y, axis=0)
    return permuted_axes(y, layout.leave(batched=batched), xp)


def way(inner: Callable[[Array], tuple[Array, ...]], layout: Layout, xp: Namespace, *, batched: bool) -> Call:
    """From the caller's array to the result as the caller wants it, by a way between the inner ones."""

    def call(x: Array) -> Array:
        (y,) = inner(enter(x, layout, xp, batched=batched))
        return leave(y, layout, xp, batched=batched)

    return call


def typed(problem: ConvProblem, dtypes: SumDTypes, extra: int, xp: Namespace, *, cast: bool) -> ConvProblem:
    """The problem with the kind and size of number it is computed in."""
    direct = dtype_kind(xp, dtypes.result) == "integer" or settings().precision == "strict"
    fast = is_compilable(xp, dtypes.compute, len(problem.axes)) and is_compiled(xp)
    if (dtypes.kind, dtypes.itemsize, extra, cast, direct, fast) == (
        problem.kind,
        problem.itemsize,
        problem.extra,
        problem.cast,
        problem.direct,
        problem.fast,
    ):
        return problem
    return replace(
        problem,
        kind=dtypes.kind,
        itemsize=dtypes.itemsize,
        extra=extra,
        cast=cast,
        direct=direct,
        fast=fast,
    )


def execute(
    job: Job,
    x: Array,
    operands: Operands,
    xp: Namespace,
    traits: Traits,
    plans: dict[bool, Plan] | None = None,
) -> tuple[Array, ...]:
    """Plan the job and run it, here or, for a chunked array, in the array's own scheduler."""
    return arranged(job, operands, xp, traits, plans)(x)


def arranged(
    job: Job,
    operands: Operands,
    xp: Namespace,
    traits: Traits,
    plans: dict[bool, Plan] | None = None,
) -> Callable[[Array], tuple[Array, ...]]:
    """Plan the job, and what is left to do with its input.

    The first operand of a convolution is its kernel; the work gets it as its algorithm wants it.
    """
    problem = job.problem
    if problem.holes and not traits.chunked and not isinstance(problem, WindowProblem):
        beside = side_by_side(problem)
        if beside.beside > problem.beside:
            return _side_by_side(job, beside, operands, xp, traits, plans)
    keeps = in_use.get()
    if keeps is not None:
        in_use.set(None)  # it is of this call, and of none that its activation may make
    bound, kernels = keeps is not None, None if keeps is None else keeps.kernels
    plan = None if plans is None else plans.get(bound)
    if plan is None or (plan.traits is not traits and plan.traits != traits):
        plan = _plan(job, traits, bound=bound)
        if plans is not None:
            plans[bound] = plan
    is_conv = not isinstance(problem, WindowProblem)
    if is_conv and not traits.chunked and (bound or not _only_plan.get()):
        w, *others = operands
        operands = (bound_kernel(plan, w, job.dtype, kernels, xp), *others)
    if _only_plan.get():
        raise Planned(plan)
    if traits.chunked:
        return partial(run_chunks, job, operands=operands, compute=_execute_block, xp=xp)
    if not job.fill and reads_borders(plan.algorithm, problem):
        job = replace(job, borders=True)
    threads = min(job.settings.threads or cores(), plan.at_once) if plan.threaded else 0
    return partial(run, job, operands=operands, whole=plan.whole, edges=plan.edges, threads=threads, xp=xp)


def _side_by_side(
    job: Job,
    beside: ConvProblem,
    operands: Operands,
    xp: Namespace,
    traits: Traits,
    plans: dict[bool, Plan] | None,
) -> Callable[[Array], tuple[Array, ...]]:
    """The job done as another problem, that of ``xconv._phases.side_by_side``."""
    w, b = operands
    count, rank = beside.beside, len(beside.axes)
    w = xp.reshape(w, (*w.shape[: rank - 1], -1, count, *w.shape[rank:]))  # (*k, taps, phases, I, O)
    w = xp.permute_dims(xp.flip(w, axis=rank), (*range(rank), rank + 1, rank, rank + 2))
    b = None if b is None else xp.concat([b] * count)
    other = replace(job, problem=beside, tails=((beside.channels_out,),))
    call = arranged(other, (w, b), xp, traits, plans)
    shape = (beside.batch, *beside.outputs[:-1], beside.outputs[-1] * count, beside.channels_out // count)
    return lambda x: (xp.reshape(call(x)[0], shape),)


def _plan(job: Job, traits: Traits, *, bound: bool) -> Plan:
    if isinstance(job.problem, WindowProblem):
        return plan_window(job.problem, traits, job.settings)
    return plan_conv(job.problem, traits, job.settings, job.algorithm, bound=bound)


def _execute_block(job: Job, x: Array, *operands: Array | None) -> tuple[Array, ...]:
    xp, traits = inspect(x=x)
    if job.compilable and job.settings.fast and is_compiled(xp):
        job = replace(job, problem=replace(job.problem, fast=True))
    if not isinstance(job.problem, WindowProblem) and not is_able(job.algorithm, job.problem, traits):
        job = replace(
            job, algorithm="auto"
        )  # the whole problem it can do; a chunk may read nothing, or too little
    return execute(job, x, operands, xp, traits)


def right_operand(w: Array, lead: tuple[int, ...], dtypes: SumDTypes, xp: Namespace, traits: Traits) -> Array:
    """The matrix (I, O) that rows (*lead, I) are multiplied by, in the dtype of the products, or what a plan has kept.

    To the planner it is a kernel of one element.
    """
    keeps = in_use.get()
    if keeps is None and not _only_plan.get():
        return xp.astype(w, dtypes.compute, copy=False)
    problem = ConvProblem(prod(lead), (Axis(1, 1),), *w.shape)
    problem = replace(typed(problem, dtypes, 0, xp, cast=False), fast=False)
    plan = plan_conv(problem, traits, settings(), "pointwise", bound=keeps is not None)
    if keeps is None or traits.chunked:
        w = xp.astype(w, dtypes.compute, copy=False)
    else:
        in_use.set(None)  # as above
        w = bound_kernel(plan, w, dtypes.compute, keeps.kernels, xp).weights
    if _only_plan.get():
        raise Planned(plan)
    return w


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with a tile of a convolution; it is the same for the same activation."""

    activation: Activation | None

    def __call__(
        self, job: Job, x: Array, operands: Operands, problem: ConvProblem, place: Place, xp: Namespace
    ) -> tuple[Array, ...]:
        return _convolve_tile(job, x, operands, problem, place, xp, self.activation)


def _convolve_tile(
    job: Job,
    x: Array,
    operands: Operands,
    problem: ConvProblem,
    place: Place,
    xp: Namespace,
    activation: Activation | None,
) -> tuple[Array, ...]:
    w, b, *residual = operands
    out = place.out[0] if job.dtypes[0] == job.dtype else None
    r = residual[0][(*place.tile.target, ...)] if residual else None
    if w.finishes and job.dtypes[0] == job.dtype:
        bounds = bounds_of(activation)
        if bounds is not None:
            r = None if r is None else ready_to_add(r, job.dtype)
            return (convolve_block(w, x, problem, out, xp, Finish(b, r, *bounds)),)
    if job.dtypes[0] == job.dtype and (w.pieces or w.biases):
        b = b if b is None or b.dtype == job.dtype else xp.astype(b, job.dtype)
        last, b = (Finish(b), None) if w.biases else (PLAIN, b)
        if w.pieces and is_elementwise(activation) and (r is None or is_contiguous(r)):
            r = None if r is None else xp.reshape(r, (problem.pixels, problem.channels_out))
            each = finish_pieces(b, r, activation, job.dtype, xp)
            return (w.room.run(x, w.weights, problem, xp, out, last, each),)
        y = w.room.run(x, w.weights, problem, xp, out, last)
    else:
        y = convolve_block(w, x, problem, out, xp)
    return (finish(y, b, activation, job.dtypes[0], xp, r),)


def convolve_block(
    kernel: Kernel, x: Array, problem: ConvProblem, out: Array | None, xp: Namespace, last: Finish = PLAIN
) -> Array:
    """One tile, in ``out`` where that saves a copy; an input with holes is done as several without."""
    room, weights, finishes = kernel.room, kernel.weights, kernel.finishes
    if not problem.holes:
        return room.run(x, weights, problem, xp, out, *((last,) if finishes else ()))
    steps, found = periods(problem), phases(problem)

    def part(remainders: tuple[int, ...], place: Array | None = None, last: Finish = PLAIN) -> Array:
        if remainders not in found:  # these outputs meet holes only
            if place is not None and not finishes:
                place[...] = 0
                return place
            counts = zip(problem.outputs, remainders, steps, strict=True)
            shape = (problem.batch, *(-(-(n - r) // step) for n, r, step in counts), problem.channels_out)
            y = full_like(x, shape, 0, x.dtype)
            return finished(y, last) if finishes else y
        phase = found[remainders]
        piece, here = x[(slice(None), *phase.source, slice(None))], phase.problem
        if not problem.fast:
            piece, here = block(piece, here.axes, x.dtype, 0, xp), materialised(here)
        options = (last,) if finishes else ()
        return room.run(piece, weights[first_taps(phase)], here, xp, place, *options)

    if not assignable(xp):
        return interleaved(part, steps, problem.outputs, xp)
    if out is None:
        out = empty_like(x, (problem.batch, *problem.outputs, problem.channels_out), x.dtype)
    for remainders in product(*(range(min(s, n)) for s, n in zip(steps, problem.outputs, strict=True))):
        spatial = (slice(r, None, s) for r, s in zip(remainders, steps, strict=True))
        where = (slice(None), *spatial, slice(None))
        residual = None if last.residual is None else last.residual[where]
        place = out[where]
        y = part(remainders, place, last._replace(residual=residual))
        if not same_memory(y, place):
            out[where] = y
    return out
