"""Rank filters: the largest, the smallest, the median and any other rank of the window around every element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from xconv._args import Ints, frozen
from xconv._config import Settings, settings
from xconv._dtypes import check_value, itemsize
from xconv._engine import execute
from xconv._errors import door, refuse
from xconv._footprints import (
    Axes,
    Footprint,
    RankSpec,
    checked_rank,
    frozen_footprint,
    percentile_rank,
    rank_spec,
)
from xconv._geometry import WindowProblem
from xconv._namespace import Array, DType, Namespace, Traits, inspect
from xconv._networks import Pattern, network
from xconv._plan import plan_cache
from xconv._selection import ranked, selected
from xconv._tiles import Job, Operands, Place
from xconv._windows import check_real

MOST = 512  # elements of a window, for which a network is made; larger windows are sorted
FEW = 64  # the same where a network becomes part of a traced program


@door
def maximum_filter(
    x: Array,
    size: Ints | None = None,
    /,
    *,
    footprint: Footprint = None,
    axes: Axes = None,
    origin: Ints = 0,
    pad_mode: str = "symmetric",
    value: float = 0,
) -> Array:
    """Take the largest element of the window around every element.

    Parameters
    ----------
    x : array of any shape
        Real numbers. Axes that are not filtered are batch axes.
    size : int or one int per axis that is filtered
        Size of the window. It begins ``size // 2 + origin`` elements before the one that it stands for.
    footprint : nested sequences of booleans, optional
        Which elements of the window count, in place of ``size``: one level of nesting for each axis that is filtered,
        or a NumPy array. (Arrays of other libraries hold values that are not read: ``footprint.tolist()``.)
    axes : int or tuple of ints, optional
        The axes that are filtered; all by default.
    origin : int or one int per axis that is filtered
        Shifts every window towards the start; from ``-(size // 2)`` to ``(size - 1) // 2``.
    pad_mode : {"symmetric", "reflect", "edge", "wrap", "constant"}
        How ``x`` goes on beyond its borders, by NumPy's names. (``scipy.ndimage`` calls ``"symmetric"`` reflect,
        ``"reflect"`` mirror and ``"edge"`` nearest.)
    value : number
        What stands there with ``pad_mode="constant"``; ``x`` must be able to hold it.

    Returns
    -------
    array of the shape and dtype of ``x``
        NaN where a window holds NaN.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.

    See Also
    --------
    max_pool : With strides, channels and gradients, as networks use it.

    Notes
    -----
    As ``scipy.ndimage.maximum_filter``. Windows share their work (see `median_filter`): a window of k elements along an
    axis takes no more than ``2 * log2(k)`` operations for each element.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> xconv.maximum_filter(np.array([3, 1, 4, 1, 5]), 3)
    array([3, 4, 4, 5, 5])
    """
    return _ranked(x, size, footprint, axes, origin, pad_mode, value, lambda taps: taps - 1)


@door
def minimum_filter(
    x: Array,
    size: Ints | None = None,
    /,
    *,
    footprint: Footprint = None,
    axes: Axes = None,
    origin: Ints = 0,
    pad_mode: str = "symmetric",
    value: float = 0,
) -> Array:
    """Take the smallest element of the window around every element.

    Parameters
    ----------
    x : array of any shape
        Real numbers. Axes that are not filtered are batch axes.
    size, footprint, axes, origin, pad_mode, value
        As for `maximum_filter`.

    Returns
    -------
    array of the shape and dtype of ``x``
        NaN where a window holds NaN.

    Raises
    ------
    ValueError, TypeError
        As `maximum_filter`.
    """
    return _ranked(x, size, footprint, axes, origin, pad_mode, value, lambda taps: 0)


@door
def median_filter(
    x: Array,
    size: Ints | None = None,
    /,
    *,
    footprint: Footprint = None,
    axes: Axes = None,
    origin: Ints = 0,
    pad_mode: str = "symmetric",
    value: float = 0,
) -> Array:
    """Take the median of the window around every element: noise goes, edges stay.

    Parameters
    ----------
    x : array of any shape
        Real numbers. Axes that are not filtered are batch axes.
    size, footprint, axes, origin, pad_mode, value
        As for `maximum_filter`.

    Returns
    -------
    array of the shape and dtype of ``x``
        Of an even number of elements the upper one of the two in the middle, as SciPy takes it; NaN where a window
        holds NaN.

    Raises
    ------
    ValueError, TypeError
        As `maximum_filter`.

    Notes
    -----
    The result of a network of minima and maxima, each of them one operation on a whole tile: 22 for a window of 3 x 3,
    88 for 5 x 5 and 290 for 7 x 7. Parts of windows are sorted once for all windows that they lie in, after A. Adams,
    "Fast median filters using separable sorting networks", ACM Transactions on Graphics 40, 2021; the network is in
    ``xconv/_networks.py``. Windows of more than 512 elements are sorted one by one, which is slow.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> xconv.median_filter(np.array([3, 1, 4, 1, 5]), 3)
    array([3, 3, 1, 4, 5])
    """
    return _ranked(x, size, footprint, axes, origin, pad_mode, value, lambda taps: taps // 2)


@door
def rank_filter(
    x: Array,
    rank: int,
    size: Ints | None = None,
    /,
    *,
    footprint: Footprint = None,
    axes: Axes = None,
    origin: Ints = 0,
    pad_mode: str = "symmetric",
    value: float = 0,
) -> Array:
    """Take the element of a rank of the window around every element.

    Parameters
    ----------
    x : array of any shape
        Real numbers. Axes that are not filtered are batch axes.
    rank : int
        0 is the smallest element, 1 the next, -1 the largest.
    size, footprint, axes, origin, pad_mode, value
        As for `maximum_filter`.

    Returns
    -------
    array of the shape and dtype of ``x``
        NaN where a window holds NaN.

    Raises
    ------
    ValueError, TypeError
        As `maximum_filter`.
    """
    return _ranked(x, size, footprint, axes, origin, pad_mode, value, partial(checked_rank, rank))


@door
def percentile_filter(
    x: Array,
    percentile: float,
    size: Ints | None = None,
    /,
    *,
    footprint: Footprint = None,
    axes: Axes = None,
    origin: Ints = 0,
    pad_mode: str = "symmetric",
    value: float = 0,
) -> Array:
    """Take a percentile of the window around every element: one of the elements, nothing between two.

    Parameters
    ----------
    x : array of any shape
        Real numbers. Axes that are not filtered are batch axes.
    percentile : number
        In per cent: the rank is ``floor(percentile / 100 * elements)``, 100 the largest; -20 is 80.
    size, footprint, axes, origin, pad_mode, value
        As for `maximum_filter`.

    Returns
    -------
    array of the shape and dtype of ``x``
        NaN where a window holds NaN.

    Raises
    ------
    ValueError, TypeError
        As `maximum_filter`.
    """
    return _ranked(x, size, footprint, axes, origin, pad_mode, value, partial(percentile_rank, percentile))


def _ranked(
    x: Array,
    size: Any,
    footprint: Any,
    axes: Any,
    origin: Any,
    pad_mode: Any,
    value: Any,
    rank_of: Callable[[int], int],
) -> Array:
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
    return (selected(x, problem.outputs, pattern, rank, xp, place.out[0]),)


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
    return (ranked(x, problem.outputs, pattern, rank, xp),)
