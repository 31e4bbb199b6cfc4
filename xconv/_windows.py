"""The sliding-window reduction that all pools are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from xconv._args import Ints, Padding, frozen
from xconv._config import Settings, settings
from xconv._dtypes import default_float, dtype_kind, identity, itemsize, wide
from xconv._engine import Ready, enter, execute, leave
from xconv._errors import door, refuse, refuse_type
from xconv._geometry import Axis, WindowProblem
from xconv._movers import running, window_counts
from xconv._namespace import (
    Array,
    DType,
    Namespace,
    Traits,
    differentiates,
    inspect,
    is_compilable,
    is_compiled,
)
from xconv._plan import plan_cache
from xconv._problems import PoolSpec, pool_spec
from xconv._ties import first_running, keeps_ties
from xconv._tiles import Job, Operands, Place


@door
def reduce_window(
    x: Array,
    reduction: str,
    window: Ints,
    /,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    layout: str = "NHWC",
) -> Array:
    """Reduce every window by one operation: the closed form that the pools are made of.

    Parameters
    ----------
    x : array (N, *spatial, C); (*spatial, C) where ``window`` has one int per axis
        Numbers.
    reduction : {"max", "min", "sum", "prod", "mean"}
        Padding and holes hold the identity of the reduction, and do not count in a mean.
    window, padding, dilation, layout
        As for `max_pool`; windows may lie in the padding completely, except for ``"mean"``.
    stride : int or one int per axis
        Step of the window.
    input_dilation : int or one int per axis
        Distance between neighbouring input elements.

    Returns
    -------
    array (N, *outputs, C), or (*outputs, C)
        Sums and products of integers have the dtype that ``sum`` gives them; a mean of integers is floating.

    Raises
    ------
    ValueError, TypeError
        As `max_pool`.
    """
    if reduction not in ("max", "min", "sum", "prod", "mean"):
        refuse("reduction", reduction, "be 'max', 'min', 'sum', 'prod' or 'mean'")
    mean = reduction == "mean"
    xp, traits, spec = enter_windows(
        x, window, stride, padding, dilation, layout, input_dilation=frozen(input_dilation), empty=not mean
    )
    kind = check_real(x, xp) if reduction in ("max", "min") else check_numeric(x, xp)
    result = x.dtype
    if kind == "integer" and reduction not in ("max", "min"):
        result = default_float(xp) if mean else wide(xp, x.dtype)
    if mean:
        work: Any = mean_tile
        options: tuple[Any, ...] = (((0, 0),) * len(spec.pads), None)
    else:
        work, options = reduce_tile, (reduction, "propagate")
    computed = result if reduction in ("max", "min") else wide(xp, result)
    fill = identity(xp, "sum" if mean else reduction, computed)
    return run_windows(x, spec, work, options, computed, result, fill, xp, traits)


def enter_windows(
    x: Array, window: Any, stride: Any, padding: Any, dilation: Any, layout: Any, **options: Any
) -> tuple[Namespace, Traits, PoolSpec]:
    xp, traits = inspect(x=x)
    window = frozen(window)
    spec = pool_spec(
        tuple(x.shape),
        window,
        window if stride is None else frozen(stride),
        frozen(padding),
        frozen(dilation),
        frozen(layout),
        **options,
    )
    return xp, traits, spec


def run_windows(
    x: Array,
    spec: PoolSpec,
    work: Callable[..., tuple[Array, ...]],
    options: tuple[Any, ...],
    computed: DType,
    result: DType,
    fill: float,
    xp: Namespace,
    traits: Traits,
) -> Array:
    """The result of ``work``, which takes the axes and these options as well, for all windows."""
    able = is_compilable(xp, computed, len(spec.problem.axes)) and fill != 1  # which is that of products
    flags = {"skips": not differentiates(xp), "able": able, "fast": able and is_compiled(xp)}
    dtypes = (x.dtype, computed, result)
    job, plans = _prepared(spec, work, options, dtypes, fill, xp, settings(), **flags)
    (y,) = execute(job, enter(x, spec.layout, xp, batched=spec.batched), (), xp, traits, plans)
    return leave(y, spec.layout, xp, batched=spec.batched)


@plan_cache
def _prepared(
    spec: PoolSpec,
    work: Callable[..., tuple[Array, ...]],
    options: tuple[Any, ...],
    dtypes: tuple[DType, DType, DType],
    fill: float,
    xp: Namespace,
    config: Settings,
    *,
    skips: bool,
    able: bool,
    fast: bool,
) -> Ready:
    """All that follows from shapes, dtypes and options: one look-up for a call that has been made before."""
    x, computed, result = dtypes
    problem = replace(
        spec.problem, itemsize=itemsize(xp, computed), cast=x != computed, fast=fast, skips=skips
    )
    tails = ((problem.channels,),)
    work = partial(work, spec.problem.axes, *options)
    return Ready(
        Job(problem, work, computed, tails, (result,), fill, settings=config, compilable=able, repeats=True),
        {},
    )


def check_real(x: Array, xp: Namespace) -> str:
    kind = dtype_kind(xp, x.dtype)
    if kind not in ("float", "integer"):
        refuse_type("x", x, "hold real numbers, which have an order")
    return kind


def check_numeric(x: Array, xp: Namespace, name: str = "x") -> str:
    kind = dtype_kind(xp, x.dtype)
    if kind == "bool":
        refuse_type(name, x, "not be boolean; convert it to integers first")
    return kind


def reduce_tile(
    axes: tuple[Axis, ...],
    reduction: str,
    nan: str,
    job: Job,
    x: Array,
    _: Operands,
    problem: WindowProblem,
    place: Place,
    xp: Namespace,
) -> tuple[Array]:
    if nan == "omit":
        x = xp.where(xp.isnan(x), xp.full_like(x, job.fill), x)
    out = place.out[0] if job.dtype == job.dtypes[0] else None
    if reduction in ("max", "min") and keeps_ties(x, xp):
        y = first_running(x, problem.axes, axes, place.origin, reduction, xp)
    else:
        y = running(x, problem.axes, reduction, xp, out, fill=job.fill, fast=problem.fast)
    return (y if y.dtype == job.dtypes[0] else xp.astype(y, job.dtypes[0]),)


def mean_tile(
    axes: tuple[Axis, ...],
    counted: tuple[tuple[int, int], ...],
    divisor: float | None,
    job: Job,
    x: Array,
    _: Operands,
    problem: WindowProblem,
    place: Place,
    xp: Namespace,
) -> tuple[Array]:
    out = place.out[0] if problem.fast and job.dtype == job.dtypes[0] else None
    y = running(x, problem.axes, "sum", xp, out, fast=problem.fast)
    count: Any = prod(a.window for a in axes) if divisor is None else divisor
    if divisor is None and any(a.low or a.high or a.input_dilation > 1 for a in axes):
        count = window_counts(axes, counted, problem, place.origin, x, x.dtype, xp)
    if problem.fast:
        y /= count
    else:
        y = y / count
    return (y if y.dtype == job.dtypes[0] else xp.astype(y, job.dtypes[0]),)


def check_norm(x: Array, p: Any, xp: Namespace) -> None:
    """A real floating array and a positive order."""
    if dtype_kind(xp, x.dtype) != "float":
        refuse_type("x", x, "be a real floating array")
    if isinstance(p, bool) or not isinstance(p, int | float):
        refuse_type("p", p, "be a number")
    if not 0 < p < float("inf"):
        refuse("p", p, "be positive and finite")
