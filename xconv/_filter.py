"""Filters of images, volumes and stacks of them: convolution and correlation over chosen axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Complex, Integral, Real
from operator import index
from typing import Any

from xconv._args import Ints, Shape, frozen
from xconv._config import Settings, settings
from xconv._dtypes import SumDTypes, dtype_kind, sum_dtypes
from xconv._engine import Ready, execute, ready
from xconv._errors import calling, door, refuse, refuse_type
from xconv._filter_spec import FilterSpec, filter_spec
from xconv._namespace import Array, DType, Namespace, inspect, permuted_axes
from xconv._plan import plan_cache


@door
def convolve(
    x: Array,
    kernel: Array | Sequence[Array],
    /,
    *,
    axes: Ints | None = None,
    mode: str = "full",
    pad_mode: str = "constant",
    value: complex = 0,
    stride: Ints = 1,
    dilation: Ints = 1,
    origin: Ints = 0,
    method: str = "auto",
) -> Array:
    """Convolve an array with a kernel over chosen axes; all other axes are a batch.

    ``y[o] = sum over t of kernel[t] * x[o + c - t]`` along every chosen axis, with the centre c by ``mode``.

    Parameters
    ----------
    x : array of any shape
        One image or signal, or a stack of them.
    kernel : array (*k) for the chosen axes, or with batch axes; or a tuple of 1-D arrays
        With as many axes as are chosen, they belong to these in the order of ``axes``. With more, they stand beside
        the axes of ``x`` as in broadcasting, and those that are not chosen broadcast with those of ``x``. Several
        kernels of one axis, one for each chosen axis, are the factors of a separable filter.
    axes : int or tuple of ints, optional
        The axes to be filtered. By default the last ones, as many as the kernel has: all of them if it has as many as
        ``x``.
    mode : {"full", "same", "valid"}
        ``"full"`` gives every output in which the kernel meets ``x``, n + k - 1 of them, ``c = 0``; ``"same"`` as
        many as ``x`` has, ``c = (k - 1) // 2 + origin``; ``"valid"`` those that need nothing beyond ``x``,
        n - k + 1 of them, ``c = k - 1``.
    pad_mode : {"constant", "edge", "reflect", "symmetric", "wrap"}
        What stands beyond the border, by NumPy's names.
    value : number
        For ``pad_mode="constant"``.
    stride, dilation : int or one int per chosen axis
        Every so many outputs are computed; the elements of the kernel stand so far apart, and k is the length that it
        has then.
    origin : int or one int per chosen axis
        Moves the centre within the kernel, with ``mode="same"``. ``scipy.ndimage.convolve`` with its ``origin=o`` is
        ``origin=o`` here for kernels of odd length, and ``origin=o + 1`` for those of even length.
    method : str
        ``"auto"`` or an algorithm, as for `conv`, or ``"separable"`` for a tuple of kernels.

    Returns
    -------
    array
        The axes of ``x`` in their order, broadcast with the batch axes of the kernel; ``ceil(length / stride)`` along
        a chosen axis. In ``result_type(x, kernel)``: integers are exact and have the dtype that ``sum`` gives them; an
        integer array beside a floating one takes the floating dtype.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call. A kernel longer than ``x``
        is refused with ``mode="valid"``, where SciPy exchanges the two.

    See Also
    --------
    correlate : without turning the kernel round.

    Notes
    -----
    Lengths and centring of ``mode`` are those of ``scipy.signal.convolve``.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> stack = np.ones((10, 64, 64))
    >>> xconv.convolve(stack, np.ones((5, 5)), mode="same", pad_mode="reflect").shape
    (10, 64, 64)
    >>> xconv.convolve(np.array([1.0, 2.0]), np.array([1.0, 10.0, 100.0]))
    array([  1.,  12., 120., 200.])
    """
    return _filtered(x, kernel, axes, mode, pad_mode, value, stride, dilation, origin, method, flip=True)


@door
def correlate(
    x: Array,
    kernel: Array | Sequence[Array],
    /,
    *,
    axes: Ints | None = None,
    mode: str = "full",
    pad_mode: str = "constant",
    value: complex = 0,
    stride: Ints = 1,
    dilation: Ints = 1,
    origin: Ints = 0,
    method: str = "auto",
) -> Array:
    """Correlate an array with a kernel over chosen axes; all other axes are a batch.

    ``y[o] = sum over t of conj(kernel[t]) * x[o + t - c]`` along every chosen axis, with the centre c by ``mode``.

    Parameters
    ----------
    x : array of any shape
        One image or signal, or a stack of them.
    kernel : array (*k) for the chosen axes, or with batch axes; or a tuple of 1-D arrays
        As for `convolve`; a complex kernel is conjugated.
    mode : {"full", "same", "valid"}
        As for `convolve`, with ``c = k - 1``, ``k // 2 + origin`` and 0.
    origin : int or one int per chosen axis
        Moves the centre within the kernel, with ``mode="same"``; that of ``scipy.ndimage.correlate``.
    axes, pad_mode, value, stride, dilation, method
        As for `convolve`.

    Returns
    -------
    array
        As `convolve`.

    Raises
    ------
    ValueError, TypeError
        As `convolve`.

    Notes
    -----
    Lengths and centring of ``mode`` are those of ``scipy.signal.correlate``.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> xconv.correlate(np.array([0.0, 0.0, 1.0, 0.0, 0.0]), np.array([1.0, 2.0, 3.0]), mode="same")
    array([0., 3., 2., 1., 0.])
    """
    return _filtered(x, kernel, axes, mode, pad_mode, value, stride, dilation, origin, method, flip=False)


def _filtered(
    x: Array,
    kernel: Any,
    axes: Any,
    mode: Any,
    pad_mode: Any,
    value: Any,
    stride: Any,
    dilation: Any,
    origin: Any,
    method: Any,
    *,
    flip: bool,
) -> Array:
    separable = isinstance(kernel, list | tuple)
    kernels = tuple(kernel) if separable else (kernel,)
    names = [f"kernel[{i}]" for i in range(len(kernels))] if separable else ["kernel"]
    xp, traits = inspect(x=x, **dict(zip(names, kernels, strict=True)))
    spec, (job, plans) = _prepared(
        xp,
        tuple(x.shape),
        tuple(tuple(k.shape) for k in kernels),
        (x.dtype, *(k.dtype for k in kernels)),
        tuple(map(frozen, (axes, mode, pad_mode, stride, dilation, origin, method))),
        settings(),
        flip=flip,
        separable=separable,
        chunked=traits.chunked,
    )
    fill = _checked_value(value, job.problem.pad_mode, x.dtype, job.dtypes[0], xp)
    if fill != 0:
        job = replace(job, fill=fill)
    w = turned(kernels, spec, xp, flip=flip)
    order, shape = spec.x
    x = permuted_axes(x, order, xp)
    x = x if tuple(x.shape) == shape else xp.reshape(x, shape)
    with calling(algorithm="method"):
        (y,) = execute(job, x, (w, None), xp, traits, plans)
    shape, order = spec.y
    y = y if tuple(y.shape) == shape else xp.reshape(y, shape)
    return permuted_axes(y, order, xp)


@plan_cache
def _prepared(
    xp: Namespace,
    x: Shape,
    kernels: tuple[Shape, ...],
    dtypes: tuple[DType, ...],
    options: tuple[Any, ...],
    config: Settings,
    *,
    flip: bool,
    separable: bool,
    chunked: bool,
) -> tuple[FilterSpec, Ready]:
    """All that follows from shapes, dtypes and options: one look-up for a call that has been made before."""
    *others, method = options
    spec = filter_spec(x, kernels, *others, flip=flip, separable=separable, chunked=chunked)
    sums = _sum_dtypes(xp, dtypes, spec)
    return spec, ready(spec.problem, dtypes[0], sums, None, method, xp, config)


def _sum_dtypes(xp: Namespace, dtypes: tuple[DType, ...], spec: FilterSpec) -> SumDTypes:
    """What is computed in what; a tap of a separable filter is a product of as many numbers as there are kernels."""
    x, first, *others = dtypes
    if any(dtype != first for dtype in others):
        refuse_type("kernel", tuple(map(str, dtypes[1:])), "hold kernels of one dtype")
    terms = spec.problem.taps
    if others and dtype_kind(xp, first) == "integer":
        terms *= max(-int(xp.iinfo(first).min), int(xp.iinfo(first).max)) ** len(others)
    with calling(w="kernel"):
        return sum_dtypes(xp, x, first, None, terms)


def turned(
    kernels: tuple[Array, ...], spec: FilterSpec, xp: Namespace, *, flip: bool
) -> Array | tuple[Array | None, ...]:
    """The kernel as the problem reads it, from left to right: (*k, 1, O), or those of a separable filter (k,)."""
    if spec.problem.separable:
        return tuple(None if i is None else _from_left(kernels[i], (0,), xp, flip=flip) for i in spec.factors)
    order, shape = spec.kernel
    w = xp.reshape(permuted_axes(kernels[0], order, xp), shape)
    return _from_left(w, tuple(i for i, size in enumerate(shape[:-2]) if size > 1), xp, flip=flip)


def _from_left(w: Array, axes: tuple[int, ...], xp: Namespace, *, flip: bool) -> Array:
    if flip:
        return xp.flip(w, axis=axes) if axes else w
    return xp.conj(w) if dtype_kind(xp, w.dtype) == "complex" else w


def _checked_value(value: Any, pad_mode: str, x: DType, result: DType, xp: Namespace) -> complex:
    """The number beyond the border, which the result's kind can hold."""
    kind = dtype_kind(xp, result)
    allowed: Any = {"integer": Integral, "float": Real, "complex": Complex}[kind]
    if isinstance(value, bool) or not isinstance(value, allowed):
        refuse_type(
            "value", value, f"be a number that {'an' if kind == 'integer' else 'a'} {kind} array can hold"
        )
    if pad_mode != "constant" and value != 0:
        refuse("value", value, f"be left out with pad_mode='{pad_mode}'")
    if kind != "integer":
        return complex(value) if kind == "complex" else float(value)
    number, info = index(value), xp.iinfo(x)
    if not int(info.min) <= number <= int(info.max):
        refuse("value", value, f"be a number of {x}, the dtype of x")
    return number
