"""Filters of one kernel per axis: smoothing, and the derivatives of what is smooth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from xconv._args import Ints, frozen
from xconv._config import Settings, settings
from xconv._dtypes import check_value, default_float, itemsize, wide
from xconv._engine import execute
from xconv._errors import door, refuse
from xconv._footprints import Axes
from xconv._geometry import WindowProblem
from xconv._lines import along_lines
from xconv._namespace import Array, DType, Namespace, Traits, copied, inspect
from xconv._plan import plan_cache
from xconv._scratch import in_tiles
from xconv._smoothers import LinesSpec, Terms, gaussian_spec, sobel_spec, uniform_spec
from xconv._tiles import Job, Operands, Place
from xconv._windows import check_numeric

Floats: TypeAlias = float | Sequence[float]


@door
def gaussian_filter(
    x: Array,
    sigma: Floats,
    /,
    *,
    order: Ints = 0,
    axes: Axes = None,
    pad_mode: str = "symmetric",
    value: complex = 0,
    truncate: float = 4.0,
    radius: Ints | None = None,
) -> Array:
    """Smooth an image, a volume or a stack with a Gaussian, or take a derivative of the smooth one.

    Parameters
    ----------
    x : array of any shape
        Numbers. Axes that are not filtered are batch axes.
    sigma : number or one number per axis that is filtered
        Standard deviation of the Gaussian, in elements.
    order : int or one int per axis that is filtered
        Which derivative of the Gaussian: 0 smooths, 1 is the slope of the smooth image, 2 its curvature.
    axes : int or tuple of ints, optional
        The axes that are filtered; all by default.
    pad_mode : {"symmetric", "reflect", "edge", "wrap", "constant"}
        How ``x`` goes on beyond its borders, by NumPy's names. (``scipy.ndimage`` calls ``"symmetric"`` reflect,
        ``"reflect"`` mirror and ``"edge"`` nearest.)
    value : number
        What stands there with ``pad_mode="constant"``.
    truncate : number
        Where the Gaussian ends, in standard deviations.
    radius : int or one int per axis that is filtered, optional
        Where it ends, in elements; ``truncate`` then does not count.

    Returns
    -------
    array of the shape of ``x``
        In its dtype; of integers, in the library's default floating dtype. (SciPy cuts the fraction off.)

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.

    Notes
    -----
    As ``scipy.ndimage.gaussian_filter``, with its kernel of ``2 * radius + 1`` elements,
    ``radius = int(truncate * sigma + 0.5)``:

    ``g[i] = exp(-i ** 2 / (2 * sigma ** 2))`` divided by its sum, times the polynomial that derivatives bring.

    Beyond the borders stands what ``pad_mode`` says, along all axes at once. (SciPy filters one axis after the other,
    and puts ``cval`` around each result: another answer for derivatives where ``cval`` is not zero.) 16-bit floats are
    summed in float32. NaN and infinity spread up to twice as far as the kernel reaches, as zeros of a band matrix
    meet them; never to another image of a batch.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> stack = np.zeros((10, 64, 64))
    >>> xconv.gaussian_filter(stack, 2.5, axes=(1, 2)).shape
    (10, 64, 64)
    """
    spec = partial(gaussian_spec, sigma=numbers(sigma), order=frozen(order), truncate=numbers(truncate))
    return _filtered(x, partial(spec, radius=frozen(radius)), axes, pad_mode, value)


@door
def gaussian_laplace(
    x: Array,
    sigma: Floats,
    /,
    *,
    axes: Axes = None,
    pad_mode: str = "symmetric",
    value: complex = 0,
    truncate: float = 4.0,
    radius: Ints | None = None,
) -> Array:
    """Take the Laplacian of an image that is smoothed with a Gaussian: blobs of a size stand out.

    Parameters
    ----------
    x : array of any shape
        Numbers. Axes that are not filtered are batch axes.
    sigma, axes, pad_mode, value, truncate, radius
        As for `gaussian_filter`.

    Returns
    -------
    array of the shape of ``x``
        As `gaussian_filter`: the sum, over the axes, of the second derivatives.

    Raises
    ------
    ValueError, TypeError
        As `gaussian_filter`.

    Notes
    -----
    As ``scipy.ndimage.gaussian_laplace``.
    """
    spec = partial(gaussian_spec, sigma=numbers(sigma), order=None, truncate=numbers(truncate))
    return _filtered(x, partial(spec, radius=frozen(radius)), axes, pad_mode, value)


@door
def uniform_filter(
    x: Array,
    size: Ints = 3,
    /,
    *,
    axes: Axes = None,
    origin: Ints = 0,
    pad_mode: str = "symmetric",
    value: complex = 0,
) -> Array:
    """Take the mean of the window around every element.

    Parameters
    ----------
    x : array of any shape
        Numbers. Axes that are not filtered are batch axes.
    size : int or one int per axis that is filtered
        Size of the window. It begins ``size // 2 + origin`` elements before the one that it stands for.
    origin : int or one int per axis that is filtered
        Shifts every window towards the start; from ``-(size // 2)`` to ``(size - 1) // 2``.
    axes, pad_mode, value
        As for `gaussian_filter`.

    Returns
    -------
    array of the shape of ``x``
        As `gaussian_filter`.

    Raises
    ------
    ValueError, TypeError
        As `gaussian_filter`.

    See Also
    --------
    avg_pool : With strides and channels, as networks use it.

    Notes
    -----
    As ``scipy.ndimage.uniform_filter``; every window is summed by itself, so that no error runs along an axis.
    """
    spec = partial(uniform_spec, size=frozen(size), origin=frozen(origin))
    return _filtered(x, spec, axes, pad_mode, value)


@door
def sobel(
    x: Array,
    /,
    *,
    axis: int = -1,
    axes: Axes = None,
    pad_mode: str = "symmetric",
    value: complex = 0,
) -> Array:
    """Take the slope along one axis, smoothed along the others: Sobel's filter for edges.

    Parameters
    ----------
    x : array of any shape
        Numbers. Axes that are not filtered are batch axes.
    axis : int
        The axis of the slope: ``-1, 0, 1`` along it, and ``1, 2, 1`` along the other axes.
    axes : int or tuple of ints, optional
        The axes that are filtered, ``axis`` among them; all by default.
    pad_mode, value
        As for `gaussian_filter`.

    Returns
    -------
    array of the shape of ``x``
        As `gaussian_filter`.

    Raises
    ------
    ValueError, TypeError
        As `gaussian_filter`.

    Notes
    -----
    As ``scipy.ndimage.sobel``, whose filter takes in all axes of a stack as well.
    """
    return _filtered(x, partial(sobel_spec, axis=frozen(axis)), axes, pad_mode, value)


@door
def laplace(x: Array, /, *, axes: Axes = None, pad_mode: str = "symmetric", value: complex = 0) -> Array:
    """Take the Laplacian: the sum, over the axes, of second differences, ``1, -2, 1``.

    Parameters
    ----------
    x : array of any shape
        Numbers. Axes that are not filtered are batch axes.
    axes, pad_mode, value
        As for `gaussian_filter`.

    Returns
    -------
    array of the shape of ``x``
        As `gaussian_filter`.

    Raises
    ------
    ValueError, TypeError
        As `gaussian_filter`.

    Notes
    -----
    As ``scipy.ndimage.laplace``.
    """
    return _filtered(x, partial(sobel_spec, axis=None), axes, pad_mode, value)


def numbers(value: Any) -> Any:
    """Numbers that can be looked up: lists and arrays of NumPy as tuples."""
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(numbers, value)) if isinstance(value, list | tuple) else value


def _filtered(x: Array, spec: Any, axes: Any, pad_mode: Any, value: Any) -> Array:
    xp, traits = inspect(x=x)
    kind = check_numeric(x, xp)
    result = default_float(xp) if kind == "integer" else x.dtype
    found: LinesSpec = spec(tuple(x.shape), axes=frozen(axes), pad_mode=frozen(pad_mode))
    check_value(xp, value, result)
    if value and found.problem.pad_mode != "constant":
        refuse("value", value, f"be left out with pad_mode='{found.problem.pad_mode}'")
    return filtered_lines(x, found, result, value, xp, traits)


def filtered_lines(
    x: Array, spec: LinesSpec, result: DType, fill: complex, xp: Namespace, traits: Traits
) -> Array:
    """The filter ``spec`` of an array, by way of the planner."""
    if 0 in x.shape:
        return xp.astype(x, result, copy=True)
    job = _prepared(xp, spec, x.dtype, result, settings())
    if fill:
        job = replace(job, fill=fill)
    inner = xp.expand_dims(xp.expand_dims(x, axis=0), axis=x.ndim + 1)  # (1, *x, 1)
    (y,) = execute(job, inner, (), xp, traits)
    return xp.squeeze(y, axis=(0, x.ndim + 1))


@plan_cache
def _prepared(xp: Namespace, spec: LinesSpec, dtype: DType, result: DType, config: Settings) -> Job:
    """All that follows from shapes, dtypes and options: one look-up for a call that has been made before."""
    compute = wide(xp, result)
    copies = 4 + 2 * (len(spec.terms) > 1) + (compute != result)
    problem = replace(
        spec.problem, itemsize=itemsize(xp, compute), cast=dtype != compute, kind="lines", copies=copies
    )
    work = partial(_lines_tile, terms=spec.terms)
    return Job(problem, work, compute, ((1,),), (result,), settings=config, repeats=True)


def _lines_tile(
    job: Job,
    x: Array,
    _: Operands,
    problem: WindowProblem,
    place: Place,
    xp: Namespace,
    *,
    terms: Terms,
) -> tuple[Array]:
    """The sum of the terms, each of them filtered along one axis after the other."""
    y = along_lines(x, terms[0], problem.outputs, xp, "line")
    for i, term in enumerate(terms[1:], 1):
        y += along_lines(x, term, problem.outputs, xp, f"line of term {i % 2}")
    if y.dtype != job.dtypes[0]:
        return (xp.astype(y, job.dtypes[0]),)
    spare = (
        place.out[0] is None and in_tiles()
    )  # a call that a tile of another one makes: y is the next one's, too
    return (copied(y, xp) if spare else y,)
