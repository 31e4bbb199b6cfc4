"""The way from the clerk's problem to the result: plan it, hand plan and arrays to the foreman."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial, reduce
from itertools import product
from math import prod
from threading import Lock
from typing import Any, NamedTuple

from xconv._algorithms import ALGORITHMS, FACTORED, FINISHING, PIECEWISE, Algorithm, kept, reads_borders
from xconv._config import Settings, settings
from xconv._dtypes import SumDTypes, dtype_kind, itemsize
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis, ConvProblem, WindowProblem, materialised
from xconv._layout import Layout
from xconv._machine import cores
from xconv._movers import biased, block, finished, interleaved, ready_to_add
from xconv._namespace import (
    Array,
    DType,
    Namespace,
    NumPyArray,
    Traits,
    added,
    assignable,
    clipped,
    empty_like,
    full_like,
    inspect,
    is_compilable,
    is_compiled,
    is_contiguous,
    is_traced,
    permuted_axes,
    same_memory,
)
from xconv._phases import Phase, periods, phases, side_by_side
from xconv._plan import Plan, plan_conv, plan_window, times_forgotten
from xconv._products import Each
from xconv._tiles import Job, Operands, Place, run, run_chunks

Activation = Callable[[Array], Array]

KERNELS = 8  # that are kept
PIECE = 2**16  # numbers of a result that an activation is given at a time
_keeping = Lock()


class Kernel(NamedTuple):
    """A kernel as an algorithm wants it; of an input with holes, one for each phase, by its first taps."""

    room: Algorithm
    weights: Any
    finishes: bool = False  # whether its run takes what is to be done last,
    biases: bool = False  # or of that a bias,
    pieces: bool = False  # or is told what to do with each piece of the result


Kernels = dict[Any, Kernel]  # by algorithm and problem
Call = Callable[[Array], Any]  # that only lacks its input


class Kept(NamedTuple):
    """What a plan keeps."""

    kernels: Kernels
    calls: dict[Any, Call]  # by `_kind` of an input of NumPy

    def call(self, x: Array) -> Call | None:
        """The call for an input like this one, if there has been one."""
        return self.calls.get(_kind(x)) if type(x) is NumPyArray else None

    def keep(self, x: Array, call: Call) -> None:
        """Have it for the next input like this one."""
        if type(x) is NumPyArray:
            with _keeping:
                while len(self.calls) >= KERNELS:
                    self.calls.pop(next(iter(self.calls)))
                self.calls[_kind(x)] = call


def _kind(x: Array) -> Any:
    """All that the way to a result depends on, beside what a plan holds."""
    return x.shape, x.dtype, settings(), times_forgotten()


_only_plan: ContextVar[bool] = ContextVar("xconv_only_plan", default=False)
in_use: ContextVar[Kept | None] = ContextVar("xconv_kept", default=None)  # by the call that a plan makes


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
    extra = _epilogue_bytes(problem.channels_out, dtypes, activation, xp)
    problem = typed(problem, dtypes, extra, xp, cast=x != dtypes.compute)
    compilable = is_compilable(xp, dtypes.compute, len(problem.axes))  # here, or in the chunks of an array
    if compilable and dtypes.result == dtypes.compute and _bounds(activation) is not None:
        problem = replace(problem, ends=True)
    work = partial(_convolve_tile, activation=activation)
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


def _epilogue_bytes(channels: int, dtypes: SumDTypes, activation: Activation | None, xp: Namespace) -> int:
    """What an epilogue holds per output pixel: a copy in the result's dtype, the temporaries of an activation."""
    cast = itemsize(xp, dtypes.result) if dtypes.result != dtypes.compute else 0
    return channels * (cast + (5 * max(dtypes.itemsize, cast) if activation is not None else 0))


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
    return execute(job, x, operands, xp, traits)


def bound_kernel(plan: Plan, w: Any, dtype: DType, kernels: Kernels | None, xp: Namespace) -> Kernel:
    """The kernel made ready for a plan: now, or found among those made before."""
    problem: Any = plan.problem
    room = ALGORITHMS[plan.algorithm]
    key = (plan.algorithm, plan.core, dtype)  # which says as well whether compiled code does it
    if kernels is not None and is_traced(w):
        kernels = None  # what is made of it is of this call only
    if kernels is not None and (found := kernels.get(key)) is not None:
        return found
    if problem.separable:
        w = tuple(None if k is None else xp.astype(k, dtype, copy=False) for k in w)
        w = w if plan.algorithm in FACTORED else multiplied(w, problem, xp)
    else:
        if problem.beside > 1:  # (*k, I, phases, O)
            w = xp.reshape(w, (*w.shape[:-2], -1))
        if w.dtype != dtype:
            w = xp.astype(w, dtype)

    def made(w: Any, core: ConvProblem) -> Any:
        weights = room.bind(w, core, xp)
        return weights if kernels is None else kept(plan.algorithm, weights, core, problem.pixels)

    if problem.holes:
        weights: Any = {
            first_taps(phase): made(_of_phase(w, phase), materialised(phase.problem))
            for phase in phases(problem).values()
        }
    else:
        weights = made(w, plan.core)
    finishes = problem.fast and plan.algorithm in FINISHING
    pieces = plan.algorithm in PIECEWISE and not (problem.fast or problem.holes) and plan.traits.threads
    kernel = Kernel(room, weights, finishes, plan.biases, pieces)
    if kernels is not None and not is_traced(kernel.weights):
        with _keeping:
            while len(kernels) >= KERNELS:
                kernels.pop(next(iter(kernels)))
            kernels[key] = kernel
    return kernel


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


def multiplied(factors: tuple[Array | None, ...], problem: ConvProblem, xp: Namespace) -> Array:
    """The kernel (*k, 1, 1) whose factors (k,) stand along the axes of a problem, or None."""
    rank = len(factors)
    shaped = [
        xp.reshape(k, (*(1,) * i, -1, *(1,) * (rank - 1 - i))) for i, k in enumerate(factors) if k is not None
    ]
    return xp.reshape(reduce(xp.multiply, shaped), (*problem.window, 1, 1))


def _of_phase(w: Any, phase: Phase) -> Any:
    """The taps that a phase meets, of a kernel or of its factors."""
    if not isinstance(w, tuple):
        return w[(*phase.kernel, ...)]
    return tuple(None if k is None else k[part] for k, part in zip(w, phase.kernel, strict=True))


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
    r = residual[0][(*place.tile.target, ...)] if residual else None
    if w.finishes and job.dtypes[0] == job.dtype:
        bounds = _bounds(activation)
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


def is_elementwise(activation: Activation | None) -> bool:
    """Whether a result may be given to it in any pieces: the caller's own function gets what it always got."""
    return activation is None or getattr(activation, "_xconv_elementwise", False)


def finish_pieces(
    b: Array | None, r: Array | None, activation: Activation | None, dtype: DType, xp: Namespace
) -> Each | None:
    """What comes after a product, for `matmul` to do with each piece of the result (P, O), in its place."""
    if b is None and r is None and activation is None:
        return None
    return partial(_finish_piece, b, r, activation, dtype, xp)


def _finish_piece(
    b: Array | None,
    r: Array | None,
    activation: Activation | None,
    dtype: DType,
    xp: Namespace,
    y: Array,
    rows: slice,
    columns: slice,
) -> None:
    b = None if b is None else b[columns]
    r = None if r is None else r[rows, columns]
    one_pass = _bounds(activation) is not None
    step = max(len(y) if one_pass else PIECE // max(y.shape[1], 1), 1)
    for start in range(0, len(y), step):
        part = slice(start, start + step)
        done = finish(y[part], b, activation, dtype, xp, None if r is None else r[part])
        if not same_memory(done, y[part]):
            y[part] = done


def _bounds(activation: Activation | None) -> tuple[float, float] | None:
    """Between what an activation holds its numbers, if that is all it does."""
    return (float("-inf"), float("inf")) if activation is None else getattr(activation, "_xconv_bounds", None)


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
        y = added(y, residual if residual.dtype == y.dtype else xp.astype(residual, y.dtype), xp)
    if activation is not None:
        bounds = _bounds(activation)
        held = None if bounds is None else clipped(y, *bounds, out=y)
        y = activation(y) if held is None else held
    return y if y.dtype == result else xp.astype(y, result)
