"""The way from the clerk's problem to the result: plan it, hand plan and arrays to the foreman."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial

from xconv._algorithms import ALGORITHMS, Algorithm
from xconv._config import workspace_setting
from xconv._dtypes import SumDTypes, dtype_kind, itemsize
from xconv._geometry import ConvProblem, WindowProblem, materialised
from xconv._layout import Layout
from xconv._movers import biased, block, interleaved
from xconv._namespace import Array, DType, Namespace, Traits, full_like, inspect, permuted_axes
from xconv._phases import periods, phases
from xconv._plan import Plan, plan_conv, plan_window
from xconv._tiles import Job, Operands, Origin, run, run_chunks

Activation = Callable[[Array], Array]

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


def convolve(
    problem: ConvProblem,
    x: Array,
    w: Array,
    b: Array | None,
    dtypes: SumDTypes,
    activation: Activation | None,
    algorithm: str,
    xp: Namespace,
    traits: Traits,
) -> Array:
    """The convolution of x (N, *n, C) and w (*k, C / groups, O) with bias and activation: (N, *out, O)."""
    extra = _epilogue_bytes(problem.channels_out, dtypes, activation, xp)
    problem = typed(problem, dtypes, extra, cast=x.dtype != dtypes.compute)
    if w.dtype != dtypes.compute:
        w = xp.astype(w, dtypes.compute)
    work = partial(_convolve_tile, activation=activation)
    tails = ((problem.channels_out,),)
    job = Job(problem, work, dtypes.compute, tails, (dtypes.result,), 0, algorithm, workspace_setting())
    return execute(job, x, (w, b), xp, traits)[0]


def enter(x: Array, layout: Layout, xp: Namespace, *, batched: bool) -> Array:
    """The caller's array as (N, *spatial, C)."""
    x = permuted_axes(x, layout.enter(batched=batched), xp)
    return x if batched else xp.expand_dims(x, axis=0)


def leave(y: Array, layout: Layout, xp: Namespace, *, batched: bool) -> Array:
    """The result as the caller wants it."""
    y = y if batched else xp.squeeze(y, axis=0)
    return permuted_axes(y, layout.leave(batched=batched), xp)


def typed(problem: ConvProblem, dtypes: SumDTypes, extra: int, *, cast: bool) -> ConvProblem:
    """The problem with the kind and size of number it is computed in."""
    if (dtypes.kind, dtypes.itemsize, extra, cast) == (
        problem.kind,
        problem.itemsize,
        problem.extra,
        problem.cast,
    ):
        return problem
    return replace(problem, kind=dtypes.kind, itemsize=dtypes.itemsize, extra=extra, cast=cast)


def _epilogue_bytes(channels: int, dtypes: SumDTypes, activation: Activation | None, xp: Namespace) -> int:
    """What an epilogue holds per output pixel: a copy in the result's dtype, the temporaries of an activation."""
    cast = itemsize(xp, dtypes.result) if dtypes.result != dtypes.compute else 0
    return channels * (cast + (5 * max(dtypes.itemsize, cast) if activation is not None else 0))


def execute(job: Job, x: Array, operands: Operands, xp: Namespace, traits: Traits) -> tuple[Array, ...]:
    """Plan the job and run it, here or, for a chunked array, in the array's own scheduler."""
    problem, budget = job.problem, job.workspace
    if isinstance(problem, WindowProblem):
        plan = plan_window(problem, traits, budget)
    else:
        plan = plan_conv(problem, traits, budget, job.algorithm)
    if _only_plan.get():
        raise Planned(plan)
    if traits.chunked:
        return run_chunks(job, x, operands, _execute_block, xp)
    job = replace(job, algorithm=plan.algorithm)
    return run(job, x, operands, plan.whole, plan.edges if plan.whole is None else (), xp)


def _execute_block(job: Job, x: Array, *operands: Array | None) -> tuple[Array, ...]:
    xp, traits = inspect(x=x)
    return execute(job, x, operands, xp, traits)


def _convolve_tile(
    job: Job,
    x: Array,
    operands: Operands,
    problem: ConvProblem,
    origin: Origin,
    xp: Namespace,
    *,
    activation: Activation | None,
) -> tuple[Array, ...]:
    w, b = operands
    room = ALGORITHMS[job.algorithm]
    y = _by_phases(room, x, w, problem, xp) if problem.holes else room.run(x, w, problem, xp)
    return (finish(y, b, activation, job.dtypes[0], xp),)


def _by_phases(room: Algorithm, x: Array, w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """A convolution of an input with holes as several without, interleaved."""
    steps, found = periods(problem), phases(problem)

    def phase(remainders: tuple[int, ...]) -> Array:
        if remainders not in found:  # these outputs meet holes only
            counts = zip(problem.outputs, remainders, steps, strict=True)
            shape = (problem.batch, *(-(-(n - r) // step) for n, r, step in counts), problem.channels_out)
            return full_like(x, shape, 0, x.dtype)
        source, kernel, part = found[remainders]
        piece = block(x[(slice(None), *source, slice(None))], part.axes, x.dtype, 0, xp)
        return room.run(piece, w[(*kernel, ...)], materialised(part), xp)

    return interleaved(phase, steps, problem.outputs, xp)


def finish(y: Array, b: Array | None, activation: Activation | None, result: DType, xp: Namespace) -> Array:
    """Bias and activation, and the result's dtype: before them for integers, whose sums may be held in floats."""
    if y.dtype != result and dtype_kind(xp, result) == "integer":
        y = xp.astype(y, result)
    if b is not None:
        y = biased(y, b if b.dtype == y.dtype else xp.astype(b, y.dtype), xp)
    if activation is not None:
        y = activation(y)
    return y if y.dtype == result else xp.astype(y, result)
