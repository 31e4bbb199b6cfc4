"""Pooling: the largest, the mean and the norm of every window."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from xconv._args import Ints, Padding
from xconv._config import Settings, settings
from xconv._dtypes import default_float, default_integer, dtype_kind, identity, itemsize, wide
from xconv._engine import Ready, enter, execute, leave
from xconv._errors import door, refuse, refuse_type
from xconv._geometry import COPIES, Axis, WindowProblem
from xconv._movers import first_maximum, running
from xconv._namespace import Array, DType, Namespace, is_compilable, is_compiled
from xconv._plan import plan_cache
from xconv._problems import PoolSpec
from xconv._ranks import fixed_rank_pool
from xconv._special import powers, root
from xconv._ties import first_running, keeps_ties
from xconv._tiles import Job, Operands, Place
from xconv._windows import (
    check_norm,
    check_numeric,
    check_real,
    enter_windows,
    mean_tile,
    reduce_tile,
    run_windows,
)


@door
def max_pool(
    x: Array,
    window: Ints,
    /,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    nan: str = "propagate",
    layout: str = "NHWC",
) -> Array | tuple[Array, Array]:
    """Take the largest element of every window.

    Parameters
    ----------
    x : array (N, *spatial, C); (*spatial, C) where ``window`` has one int per axis
        Real numbers.
    window : int or one int per axis
        Size of the window.
    stride : int or one int per axis, optional
        Step of the window; its own size by default.
    padding : int, int per axis, (low, high) per axis, or a name
        As for `conv`. Padding is never the largest, and no window may lie in it completely.
    dilation : int or one int per axis
        Distance between the elements of a window.
    ceil_mode : bool
        Whether a last window counts that reaches over the end but starts inside the input or its low padding.
    return_indices : bool
        Whether to return, as well, where each largest element stands: the first one of equals, counted row by row over
        the spatial axes of each sample and channel, without padding. (ONNX counts over the whole tensor: for
        (N, C, H, W) its index is this one plus (n * C + c) * H * W.)
    nan : {"propagate", "omit"}
        Whether NaN is the largest of its window, or counts as absent (a window without anything else gives -inf).
    layout : str
        ``"NHWC"`` or ``"NCHW"``, ``"channels_last"`` or ``"channels_first"``, for any number of spatial axes.

    Returns
    -------
    array (N, *outputs, C), or two
        ``outputs = floor((n + low + high - dilation * (k - 1) - 1) / stride) + 1`` (ceil with ``ceil_mode``), in the
        dtype of ``x``; the indices in the library's default integer dtype.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, traits, spec = enter_windows(x, window, stride, padding, dilation, layout, ceil_mode=ceil_mode)
    kind = check_real(x, xp)
    if nan not in ("propagate", "omit"):
        refuse("nan", nan, "be 'propagate' or 'omit'")
    nan = nan if kind == "float" else "propagate"
    lowest = identity(xp, "max", x.dtype)
    if not return_indices:
        spec = replace(spec, problem=replace(spec.problem, copies=5)) if nan == "omit" else spec
        return run_windows(x, spec, reduce_tile, ("max", nan), x.dtype, x.dtype, lowest, xp, traits)
    able = is_compilable(xp, x.dtype, len(spec.problem.axes))
    fast, integer = able and is_compiled(xp), default_integer(xp)
    job, plans = _prepared(spec, x.dtype, integer, nan, lowest, xp, settings(), able=able, fast=fast)
    values, indices = execute(job, enter(x, spec.layout, xp, batched=spec.batched), (), xp, traits, plans)
    return leave(values, spec.layout, xp, batched=spec.batched), leave(
        indices, spec.layout, xp, batched=spec.batched
    )


@plan_cache
def _prepared(
    spec: PoolSpec,
    dtype: DType,
    integer: DType,
    nan: str,
    lowest: float,
    xp: Namespace,
    config: Settings,
    *,
    able: bool,
    fast: bool,
) -> Ready:
    """All that follows for maxima with their indices."""
    size = max(itemsize(xp, dtype), itemsize(xp, integer))
    copies = COPIES if fast and nan != "omit" else 6
    problem = replace(spec.problem, itemsize=size, copies=copies, fast=fast)
    tails = ((problem.channels,),) * 2
    work = partial(_maximum_tile, problem.axes, nan)
    return Ready(
        Job(
            problem,
            work,
            dtype,
            tails,
            (dtype, integer),
            lowest,
            settings=config,
            compilable=able,
            repeats=True,
        ),
        {},
    )


@door
def avg_pool(
    x: Array,
    window: Ints,
    /,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    divisor: float | None = None,
    layout: str = "NHWC",
) -> Array:
    """Take the mean of every window.

    Parameters
    ----------
    x : array (N, *spatial, C); (*spatial, C) where ``window`` has one int per axis
        Numbers; integers give the library's default floating dtype.
    window, stride, padding, dilation, ceil_mode, layout
        As for `max_pool`.
    count_include_pad : bool
        Whether padding counts as zeros, rather than not at all. What ``ceil_mode`` adds never counts.
    divisor : float, optional
        What sums are divided by, in place of their number of elements.

    Returns
    -------
    array (N, *outputs, C), or (*outputs, C)
        As `max_pool`.

    Raises
    ------
    ValueError, TypeError
        As `max_pool`.
    """
    xp, traits, spec = enter_windows(x, window, stride, padding, dilation, layout, ceil_mode=ceil_mode)
    if divisor is not None:
        if isinstance(divisor, bool) or not isinstance(divisor, int | float):
            refuse_type("divisor", divisor, "be a number")
        if not divisor:
            refuse("divisor", divisor, "not be zero")
        if count_include_pad:
            refuse("count_include_pad", count_include_pad, "be left out when a divisor is given")
    result = default_float(xp) if dtype_kind(xp, x.dtype) == "integer" else x.dtype
    check_numeric(x, xp)
    counted = spec.pads if count_include_pad else ((0, 0),) * len(spec.pads)
    return run_windows(x, spec, mean_tile, (counted, divisor), wide(xp, result), result, 0, xp, traits)


@door
def lp_pool(
    x: Array,
    window: Ints,
    /,
    *,
    p: float = 2,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    layout: str = "NHWC",
) -> Array:
    """Take the p-norm of every window, (sum of abs(x) ** p) ** (1 / p).

    Parameters
    ----------
    x : array (N, *spatial, C); (*spatial, C) where ``window`` has one int per axis
        Real floating. Absolute values are taken (PyTorch omits them, and gives NaN for odd p).
    window, stride, padding, dilation, ceil_mode, layout
        As for `max_pool`.
    p : float
        Order of the norm, positive.

    Returns
    -------
    array (N, *outputs, C), or (*outputs, C)
        As `max_pool`.

    Raises
    ------
    ValueError, TypeError
        As `max_pool`.
    """
    xp, traits, spec = enter_windows(x, window, stride, padding, dilation, layout, ceil_mode=ceil_mode)
    check_norm(x, p, xp)
    spec = replace(spec, problem=replace(spec.problem, copies=4))
    return run_windows(x, spec, _norm_tile, (p,), wide(xp, x.dtype), x.dtype, 0, xp, traits)


max_pool1d, max_pool2d, max_pool3d = (fixed_rank_pool(max_pool, spatial) for spatial in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (fixed_rank_pool(avg_pool, spatial) for spatial in (1, 2, 3))


def _norm_tile(
    _axes: tuple[Axis, ...],
    p: float,
    job: Job,
    x: Array,
    _: Operands,
    problem: WindowProblem,
    place: Place,
    xp: Namespace,
) -> tuple[Array]:
    y = root(running(powers(x, p, xp), problem.axes, "sum", xp, fast=problem.fast), p, xp)
    return (y if y.dtype == job.dtypes[0] else xp.astype(y, job.dtypes[0]),)


def _maximum_tile(
    axes: tuple[Axis, ...],
    nan: str,
    job: Job,
    x: Array,
    _: Operands,
    problem: WindowProblem,
    place: Place,
    xp: Namespace,
) -> tuple[Array, Array]:
    if nan == "omit":
        x = xp.where(xp.isnan(x), xp.full_like(x, job.fill), x)
    values, indices = first_maximum(x, axes, problem, place.origin, job.dtypes[1], xp)
    if keeps_ties(x, xp):
        values = first_running(x, problem.axes, axes, place.origin, "max", xp)
    return values, indices
