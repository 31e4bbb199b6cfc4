"""Pools that are told the size of their result: adaptive and global ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from math import prod
from typing import Any

from xconv._args import Ints, Shape, frozen, per_axis, pool_rank
from xconv._config import settings
from xconv._dtypes import default_float, default_integer, itemsize, wide
from xconv._engine import enter, execute, leave
from xconv._errors import door, refuse, refuse_type
from xconv._geometry import WindowProblem, adaptive_bounds
from xconv._layout import channel_axis
from xconv._movers import ahead
from xconv._namespace import Array, Namespace, empty_like, inspect, integers
from xconv._problems import PoolSpec, pool_spec
from xconv._special import powers, root
from xconv._ties import first_of_two, first_over, keeps_ties
from xconv._tiles import Job, Operands, Place
from xconv._windows import check_norm, check_numeric, check_real


@door
def adaptive_max_pool(
    x: Array, output_size: Ints, /, *, return_indices: bool = False, layout: str = "NHWC"
) -> Array | tuple[Array, Array]:
    """Take the largest element of each of ``output_size`` windows that together cover the input.

    Parameters
    ----------
    x : array (N, *spatial, C); (*spatial, C) where ``output_size`` has one int per axis
        Real numbers; NaN is the largest of its window.
    output_size : int or one int per axis
        Window i of o over n elements goes from floor(i * n / o) to ceil((i + 1) * n / o).
    return_indices : bool
        Whether to return, as well, where each largest element stands, as in `max_pool`.
    layout : str
        As for `max_pool`.

    Returns
    -------
    array (N, *output_size, C), or (*output_size, C), or two
        In the dtype of ``x``; the indices in the library's default integer dtype.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, _ = inspect(x=x)
    check_real(x, xp)
    if not return_indices:
        return _adaptive(x, output_size, layout, (x.dtype,), x.dtype, partial(_adaptive_tile, mean=False))[0]
    dtypes = (x.dtype, default_integer(xp))
    values, indices = _adaptive(x, output_size, layout, dtypes, x.dtype, _adaptive_indices_tile)
    return values, indices


@door
def adaptive_avg_pool(x: Array, output_size: Ints, /, *, layout: str = "NHWC") -> Array:
    """Take the mean of each of ``output_size`` windows that together cover the input.

    Parameters
    ----------
    x : array (N, *spatial, C); (*spatial, C) where ``output_size`` has one int per axis
        Numbers; integers give the library's default floating dtype.
    output_size, layout
        As for `adaptive_max_pool`.

    Returns
    -------
    array (N, *output_size, C), or (*output_size, C)
        Means.

    Raises
    ------
    ValueError, TypeError
        As `adaptive_max_pool`.
    """
    xp, _ = inspect(x=x)
    result = default_float(xp) if check_numeric(x, xp) == "integer" else x.dtype
    return _adaptive(x, output_size, layout, (result,), wide(xp, result), partial(_adaptive_tile, mean=True))[
        0
    ]


@door
def global_max_pool(x: Array, /, *, keepdims: bool = False, layout: str = "NHWC") -> Array:
    """Take the largest element of every channel.

    Parameters
    ----------
    x : array (N, *spatial, C)
        Real numbers; NaN is the largest.
    keepdims : bool
        Whether the spatial axes stay, with one element each.
    layout : str
        As for `max_pool`.

    Returns
    -------
    array (N, C), or (N, 1, ..., C) with ``keepdims``
        In the dtype of ``x``.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, axes = _global(x, layout, keepdims)
    check_real(x, xp)
    if not x.shape[0]:
        return _nothing(x, axes, x.dtype, keepdims=keepdims)
    if keeps_ties(x, xp):
        return first_over(x, axes, xp, keepdims=keepdims)
    return xp.max(x, axis=axes, keepdims=keepdims)


@door
def global_avg_pool(x: Array, /, *, keepdims: bool = False, layout: str = "NHWC") -> Array:
    """Take the mean of every channel.

    Parameters
    ----------
    x : array (N, *spatial, C)
        Numbers; integers give the library's default floating dtype.
    keepdims, layout
        As for `global_max_pool`.

    Returns
    -------
    array (N, C), or (N, 1, ..., C) with ``keepdims``
        Means; 16-bit floats are summed in float32.

    Raises
    ------
    ValueError, TypeError
        As `global_max_pool`.
    """
    xp, axes = _global(x, layout, keepdims)
    result = default_float(xp) if check_numeric(x, xp) == "integer" else x.dtype
    if not x.shape[0]:
        return _nothing(x, axes, result, keepdims=keepdims)
    total = xp.sum(x, axis=axes, keepdims=keepdims, dtype=wide(xp, x.dtype))
    return xp.astype(xp.astype(total, wide(xp, result)) / prod(x.shape[a] for a in axes), result, copy=False)


@door
def global_lp_pool(x: Array, /, *, p: float = 2, keepdims: bool = False, layout: str = "NHWC") -> Array:
    """Take the p-norm of every channel, (sum of abs(x) ** p) ** (1 / p).

    Parameters
    ----------
    x : array (N, *spatial, C)
        Real floating.
    p : float
        Order of the norm, positive.
    keepdims, layout
        As for `global_max_pool`.

    Returns
    -------
    array (N, C), or (N, 1, ..., C) with ``keepdims``
        In the dtype of ``x``; 16-bit floats are summed in float32.

    Raises
    ------
    ValueError, TypeError
        As `global_max_pool`.
    """
    xp, axes = _global(x, layout, keepdims)
    check_norm(x, p, xp)
    if not x.shape[0]:
        return _nothing(x, axes, x.dtype, keepdims=keepdims)
    terms = powers(xp.astype(x, wide(xp, x.dtype), copy=False), p, xp)
    return xp.astype(root(xp.sum(terms, axis=axes, keepdims=keepdims), p, xp), x.dtype, copy=False)


def _global(x: Array, layout: Any, keepdims: Any) -> tuple[Namespace, tuple[int, ...]]:
    xp, _ = inspect(x=x)
    pool_rank(tuple(x.shape), 1)
    channels = channel_axis(layout, x.ndim)
    if not isinstance(keepdims, bool):
        refuse_type("keepdims", keepdims, "be True or False")
    axes = tuple(axis for axis in range(1, x.ndim) if axis != channels)
    if any(x.shape[axis] == 0 for axis in axes):
        refuse("x", list(x.shape), "have no empty spatial axis")
    return xp, axes


def _nothing(x: Array, axes: tuple[int, ...], dtype: Any, *, keepdims: bool) -> Array:
    """An empty batch keeps its shape; a library may reduce it to another one (Dask does)."""
    shape = (1 if axis in axes else size for axis, size in enumerate(x.shape) if keepdims or axis not in axes)
    return empty_like(x, tuple(shape), dtype)


def _adaptive(
    x: Array, output_size: Any, layout: str, dtypes: tuple[Any, ...], computed: Any, work: Any
) -> tuple[Array, ...]:
    """Whole samples are the tiles: one window over everything, whose result is all of the small image."""
    xp, traits = inspect(x=x)
    size = frozen(output_size)
    spatial, batched = pool_rank(tuple(x.shape), size)
    outputs = per_axis("output_size", size, spatial, least=1)
    spec = _whole_sample(tuple(x.shape), spatial, frozen(layout))
    problem = replace(spec.problem, itemsize=itemsize(xp, computed), copies=2 * len(dtypes))
    tail = (*outputs, problem.channels)
    work = partial(work, outputs=outputs)
    job = Job(problem, work, computed, (tail,) * len(dtypes), dtypes, settings=settings())
    results = execute(job, enter(x, spec.layout, xp, batched=batched), (), xp, traits)
    results = tuple(xp.reshape(y, (problem.batch, *tail)) for y in results)
    return tuple(leave(y, spec.layout, xp, batched=batched) for y in results)


def _whole_sample(x: Shape, spatial: int, layout: str) -> PoolSpec:
    spec = pool_spec(x, (1,) * spatial, 1, 0, 1, layout, empty=True)
    axes = tuple(axis._replace(window=axis.size) for axis in spec.problem.axes)
    return replace(spec, problem=replace(spec.problem, axes=axes))


def _adaptive_tile(
    job: Job,
    x: Array,
    _: Operands,
    problem: WindowProblem,
    place: Place,
    xp: Namespace,
    *,
    outputs: Shape,
    mean: bool,
) -> tuple[Array]:
    """Axis by axis: the j-th elements of all windows at once, for every j up to the longest window."""
    first = not mean and keeps_ties(x, xp)
    order = [*enumerate(zip(problem.axes, outputs, strict=True), 1)]
    for axis, (a, o) in reversed(order) if first else order:
        bounds = adaptive_bounds(a.size, o)
        lengths = integers([end - start for start, end in bounds], x)
        lengths = xp.reshape(lengths, (o,) + (1,) * (x.ndim - axis - 1))
        y = None
        for j, part in enumerate(_window_elements(x, axis, bounds, xp)):
            if y is None:
                y = part
            elif mean:
                y = y + xp.where(lengths > j, part, xp.zeros_like(part))
            else:  # a window too short repeats its last element
                y = first_of_two(y, part, "max", xp) if first else xp.maximum(y, part)
        x = y / xp.astype(lengths, job.dtype) if mean else y
    x = xp.reshape(x, (problem.batch, *problem.outputs, *outputs, problem.channels))
    return (xp.astype(x, job.dtypes[0], copy=False),)


def _adaptive_indices_tile(
    job: Job, x: Array, _: Operands, problem: WindowProblem, _at: Place, xp: Namespace, *, outputs: Shape
) -> tuple[Array, Array]:
    best = best_place = None
    bounds = [adaptive_bounds(a.size, o) for a, o in zip(problem.axes, outputs, strict=True)]
    longest = [max(end - start for start, end in b) for b in bounds]
    for taps in product(*(range(n) for n in longest)):
        value, place = x, None
        for axis, (a, b, j) in enumerate(zip(problem.axes, bounds, taps, strict=True), 1):
            index = integers([min(start + j, end - 1) for start, end in b], x)
            value = xp.take(value, index, axis=axis)
            index = xp.reshape(index, (len(b),) + (1,) * (x.ndim - axis - 1))
            place = index if place is None else place * a.size + index
        if best is None:
            best, best_place = value, xp.broadcast_to(place, value.shape)
            continue
        better = ahead(value, best, "max", xp)
        best, best_place = xp.where(better, value, best), xp.where(better, place, best_place)
    shape = (problem.batch, *problem.outputs, *outputs, problem.channels)
    return xp.reshape(best, shape), xp.reshape(best_place, shape)


def _window_elements(x: Array, axis: int, bounds: tuple[tuple[int, int], ...], xp: Namespace) -> Any:
    for j in range(max(end - start for start, end in bounds)):
        yield xp.take(x, integers([min(start + j, end - 1) for start, end in bounds], x), axis=axis)
