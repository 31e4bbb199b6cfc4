"""Rank filters: the largest, the smallest, the median and any other rank of the window around every element."""

from __future__ import annotations

from functools import partial

from xconv._args import Ints
from xconv._errors import door
from xconv._footprints import Axes, Footprint, checked_rank, percentile_rank
from xconv._namespace import Array
from xconv._ranking import ranked_windows


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
    return ranked_windows(x, size, footprint, axes, origin, pad_mode, value, lambda taps: taps - 1)


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
    return ranked_windows(x, size, footprint, axes, origin, pad_mode, value, lambda taps: 0)


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
    return ranked_windows(x, size, footprint, axes, origin, pad_mode, value, lambda taps: taps // 2)


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
    return ranked_windows(x, size, footprint, axes, origin, pad_mode, value, partial(checked_rank, rank))


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
    return ranked_windows(
        x, size, footprint, axes, origin, pad_mode, value, partial(percentile_rank, percentile)
    )
