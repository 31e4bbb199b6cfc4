"""Separable convolution: channels by themselves, then mixed, tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from xconv._activations import ActivationOption, named_activation
from xconv._args import Ints, Padding, check_bias, frozen
from xconv._config import settings
from xconv._dtypes import check_bias_dtype, dtype_kind, itemsize, sum_dtypes
from xconv._engine import convolve_block, enter, execute, leave, typed
from xconv._epilogue import finish
from xconv._errors import door, refuse
from xconv._geometry import ConvProblem
from xconv._layout import permuted
from xconv._namespace import Array, DType, Namespace, inspect, permuted_axes
from xconv._problems import conv_spec
from xconv._products import matmul
from xconv._tiles import Job, Operands, Place


@door
def separable_conv(
    x: Array,
    depthwise: Array,
    pointwise: Array,
    b: Array | None = None,
    /,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    pad_mode: str = "constant",
    dilation: Ints = 1,
    layout: str = "NHWC",
    activation: ActivationOption = None,
    dtype: DType | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve every channel by itself, then mix the channels with a kernel of one element.

    Parameters
    ----------
    x : array (N, *spatial, C), or (*spatial, C)
        Input.
    depthwise : array (*kernel, C, M); (C * M, 1, *kernel) with ``layout="NCHW"``
        Kernel of the `depthwise_conv`, to which stride, padding and dilation belong.
    pointwise : array (*ones, C * M, O); (O, C * M, *ones) with ``layout="NCHW"``
        Kernel of the mixing convolution.
    b : array (O,), optional
        Bias, added at the end.
    stride, padding, pad_mode, dilation, layout, activation, dtype
        As for `conv`.
    algorithm : str
        Of the depthwise convolution.

    Returns
    -------
    array (N, *outputs, O), or (*outputs, O)
        As `conv`.

    Raises
    ------
    ValueError, TypeError
        As `conv`.
    """
    xp, traits = inspect({"b": b}, x=x, depthwise=depthwise, pointwise=pointwise)
    if len(pointwise.shape) != len(depthwise.shape):
        refuse("pointwise", list(pointwise.shape), f"have {len(depthwise.shape)} axes, as many as depthwise")
    options = (frozen(stride), frozen(padding), frozen(pad_mode), frozen(dilation), None, frozen(layout))
    first = conv_spec(x.shape, depthwise.shape, None, *options, w_name="depthwise")
    seats, problem = first.layout, first.problem
    *window, channels, outputs = permuted(pointwise.shape, seats.kernel)
    if prod(window) != 1:
        refuse("pointwise", list(pointwise.shape), "have a kernel of one element")
    if channels != problem.channels_out:
        rule = f"have {problem.channels_out} input channels, as many as depthwise gives"
        refuse("pointwise", list(pointwise.shape), rule)
    check_bias(None if b is None else b.shape, outputs)
    half = sum_dtypes(xp, x.dtype, depthwise.dtype, dtype, first.terms)
    dtypes = sum_dtypes(xp, half.result, pointwise.dtype, dtype, channels)
    check_bias_dtype(xp, b, dtypes.result)
    function = named_activation(activation, dtype_kind(xp, dtypes.result))
    extra = outputs * (2 if function is None else 6) * max(dtypes.itemsize, itemsize(xp, dtypes.result))
    problem = typed(problem, half, extra, xp, cast=x.dtype != half.compute)
    work = partial(_separable_tile, activation=function, compute=dtypes.compute)
    job = Job(
        problem,
        work,
        half.compute,
        ((outputs,),),
        (dtypes.result,),
        0,
        frozen(algorithm),
        settings(),
    )
    w = xp.reshape(permuted_axes(depthwise, seats.kernel, xp), first.kernel_shape)
    mix = xp.reshape(permuted_axes(pointwise, seats.kernel, xp), (channels, outputs))
    operands = (w, xp.astype(mix, dtypes.compute, copy=False), b)
    (y,) = execute(job, enter(x, seats, xp, batched=first.batched), operands, xp, traits)
    return leave(y, seats, xp, batched=first.batched)


def _separable_tile(
    job: Job,
    block: Array,
    operands: Operands,
    problem: ConvProblem,
    place: Place,
    xp: Namespace,
    *,
    activation: Callable[[Array], Array] | None,
    compute: DType,
) -> tuple[Array, ...]:
    """Both halves on one tile, so that what stands between them never leaves the cache."""
    w, mix, b = operands
    y = convolve_block(w, block, problem, None, xp)
    return (finish(matmul(xp.astype(y, compute, copy=False), mix, xp), b, activation, job.dtypes[0], xp),)
