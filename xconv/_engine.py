"""The way from the clerk's problem to the result: plan it, hand plan and arrays to the foreman."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

from xconv._algorithms import ALGORITHMS, Algorithm
from xconv._config import settings
from xconv._dtypes import SumDTypes, dtype_kind, itemsize
from xconv._geometry import ConvProblem, WindowProblem, materialised
from xconv._layout import Layout
from xconv._machine import cores
from xconv._movers import biased, block, interleaved
from xconv._namespace import Array, DType, Namespace, Traits, full_like, inspect, permuted_axes
from xconv._phases import Phase, periods, phases
from xconv._plan import Plan, plan_conv, plan_window
from xconv._tiles import Job, Operands, Place, run, run_chunks

Activation = Callable[[Array], Array]

Kernels = dict[Any, Any]  # made ready, by algorithm and problem
KERNELS = 8  # that are kept

_only_plan: ContextVar[bool] = ContextVar("xconv_only_plan", default=False)
_kernels: ContextVar[Kernels | None] = ContextVar("xconv_kernels", default=None)


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


@contextmanager
def with_kernels(kernels: Kernels) -> Iterator[None]:
    """Inside, kernels that have been made ready are taken from here, and new ones are put here."""
    token = _kernels.set(kernels)
    try:
        yield
    finally:
        _kernels.reset(token)


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
    residual: Array | None = None,
) -> Array:
    """The convolution of x (N, *n, C) and w (*k, C / groups, O) with bias, residual and activation: (N, *out, O)."""
    extra = _epilogue_bytes(problem.channels_out, dtypes, activation, xp)
    problem = typed(problem, dtypes, extra, xp, cast=x.dtype != dtypes.compute)
    work = partial(_convolve_tile, activation=activation)
    tails = ((problem.channels_out,),)
    aligned = 0 if residual is None else 1
    job = Job(
        problem, work, dtypes.compute, tails, (dtypes.result,), 0, algorithm, settings(), aligned=aligned
    )
    return execute(job, x, (w, b, residual)[: 2 + aligned], xp, traits)[0]


def enter(x: Array, layout: Layout, xp: Namespace, *, batched: bool) -> Array:
    """The caller's array as (N, *spatial, C)."""
    x = permuted_axes(x, layout.enter(batched=batched), xp)
    return x if batched else xp.expand_dims(x, axis=0)


def leave(y: Array, layout: Layout, xp: Namespace, *, batched: bool) -> Array:
    """The result as the caller wants it."""
    y = y if batched else xp.squeeze(y, axis=0)
    return permuted_axes(y, layout.leave(batched=batched), xp)


def typed(problem: ConvProblem, dtypes: SumDTypes, extra: int, xp: Namespace, *, cast: bool) -> ConvProblem:
    """The problem with the kind and size of number it is computed in."""
    direct = dtype_kind(xp, dtypes.result) == "integer" or settings().precision == "strict"
    if (dtypes.kind, dtypes.itemsize, extra, cast, direct) == (
        problem.kind,
        problem.itemsize,
        problem.extra,
        problem.cast,
        problem.direct,
    ):
        return problem
    return replace(problem, kind=dtypes.kind, itemsize=dtypes.itemsize, extra=extra, cast=cast, direct=direct)


def _epilogue_bytes(channels: int, dtypes: SumDTypes, activation: Activation | None, xp: Namespace) -> int:
    """What an epilogue holds per output pixel: a copy in the result's dtype, the temporaries of an activation."""
    cast = itemsize(xp, dtypes.result) if dtypes.result != dtypes.compute else 0
    return channels * (cast + (5 * max(dtypes.itemsize, cast) if activation is not None else 0))


def execute(job: Job, x: Array, operands: Operands, xp: Namespace, traits: Traits) -> tuple[Array, ...]:
    """Plan the job and run it, here or, for a chunked array, in the array's own scheduler.

    The first operand of a convolution is its kernel; the work gets it as its algorithm wants it.
    """
    problem, kernels = job.problem, _kernels.get()
    _kernels.set(None)  # they are of this call, and of none that its activation may make
    if isinstance(problem, WindowProblem):
        plan = plan_window(problem, traits, job.settings)
    else:
        plan = plan_conv(problem, traits, job.settings, job.algorithm, bound=kernels is not None)
        if not traits.chunked and (kernels is not None or not _only_plan.get()):
            w, *others = operands
            operands = (bound_kernel(plan.algorithm, w, problem, job.dtype, kernels, xp), *others)
            job = replace(job, algorithm=plan.algorithm)
    if _only_plan.get():
        raise Planned(plan)
    if traits.chunked:
        return run_chunks(job, x, operands, _execute_block, xp)
    threads = min(job.settings.threads or cores(), plan.at_once) if plan.threaded else 0
    return run(job, x, operands, plan.whole, plan.edges, threads, xp)


def _execute_block(job: Job, x: Array, *operands: Array | None) -> tuple[Array, ...]:
    xp, traits = inspect(x=x)
    return execute(job, x, operands, xp, traits)


def bound_kernel(
    algorithm: str, w: Array, problem: ConvProblem, dtype: DType, kernels: Kernels | None, xp: Namespace
) -> Any:
    """The kernel as the algorithm wants it, made now or found among those made before.

    For an input with holes, a kernel for each phase, by its first taps.
    """
    key = (algorithm, replace(problem, batch=1, cast=False), dtype) if kernels is not None else None
    if kernels is not None and key in kernels:
        return kernels[key]
    room = ALGORITHMS[algorithm]
    w = w if w.dtype == dtype else xp.astype(w, dtype)
    if problem.holes:
        bound = {
            first_taps(phase): room.bind(w[(*phase.kernel, ...)], materialised(phase.problem), xp)
            for phase in phases(problem).values()
        }
    else:
        bound = room.bind(w, materialised(problem), xp)
    if kernels is not None:
        while len(kernels) >= KERNELS:
            kernels.pop(next(iter(kernels)))
        kernels[key] = bound
    return bound


def first_taps(phase: Phase) -> tuple[int, ...]:
    """Where the part of the kernel begins that a phase meets: phases that begin alike meet the same."""
    return tuple(part.start for part in phase.kernel)


def _convolve_tile(
    job: Job,
    x: Array,
    operands: Operands,
    problem: ConvProblem,
    place: Place,
    xp: Namespace,
    *,
    activation: Activation | None,
) -> tuple[Array, ...]:
    w, b, *residual = operands
    out = place.out[0] if job.dtypes[0] == job.dtype else None
    y = convolve_block(ALGORITHMS[job.algorithm], x, w, problem, out, xp)
    r = residual[0][(*place.target, ...)] if residual else None
    return (finish(y, b, activation, job.dtypes[0], xp, r),)


def convolve_block(
    room: Algorithm, x: Array, w: Any, problem: ConvProblem, out: Array | None, xp: Namespace
) -> Array:
    """One tile, in ``out`` where that saves a copy; an input with holes is done as several without, interleaved."""
    if not problem.holes:
        return room.run(x, w, problem, xp, out)
    steps, found = periods(problem), phases(problem)

    def part(remainders: tuple[int, ...]) -> Array:
        if remainders not in found:  # these outputs meet holes only
            counts = zip(problem.outputs, remainders, steps, strict=True)
            shape = (problem.batch, *(-(-(n - r) // step) for n, r, step in counts), problem.channels_out)
            return full_like(x, shape, 0, x.dtype)
        phase = found[remainders]
        piece = block(x[(slice(None), *phase.source, slice(None))], phase.problem.axes, x.dtype, 0, xp)
        return room.run(piece, w[first_taps(phase)], materialised(phase.problem), xp)

    return interleaved(part, steps, problem.outputs, xp)


def finish(
    y: Array,
    b: Array | None,
    activation: Activation | None,
    result: DType,
    xp: Namespace,
    residual: Array | None = None,
) -> Array:
    """Bias, residual and activation, and the result's dtype: before them for integers, whose sums may be floats."""
    if y.dtype != result and dtype_kind(xp, result) == "integer":
        y = xp.astype(y, result)
    if b is not None:
        y = biased(y, b if b.dtype == y.dtype else xp.astype(b, y.dtype), xp)
    if residual is not None:
        y += residual if residual.dtype == y.dtype else xp.astype(residual, y.dtype)
    if activation is not None:
        y = activation(y)
    return y if y.dtype == result else xp.astype(y, result)
