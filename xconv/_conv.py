"""Convolution: any number of spatial axes, one call for every array library."""

from __future__ import annotations

from typing import Any

from xconv._activations import ActivationOption, named_activation
from xconv._args import Ints, Padding, Shape, frozen
from xconv._config import Settings, settings
from xconv._dtypes import SumDTypes, check_bias_dtype, dtype_kind, sum_dtypes
from xconv._engine import Ready, arranged, ready, way
from xconv._errors import door, refuse
from xconv._kernels import in_use
from xconv._layout import permuted
from xconv._namespace import Array, DType, Namespace, inspect, permuted_axes
from xconv._plan import plan_cache
from xconv._problems import ConvSpec, conv_spec
from xconv._ranks import fixed_rank


@door
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    pad_mode: str = "constant",
    dilation: Ints = 1,
    groups: int = 1,
    layout: str = "NHWC",
    residual: Array | None = None,
    activation: ActivationOption = None,
    dtype: DType | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve a batch of arrays with a kernel, as neural networks do (no flip), over any number of axes.

    ``y[n, o, c] = sum over t, i of x[n, o * stride + t * dilation - low, i] * w[t, i, c] + b[c]``

    Parameters
    ----------
    x : array (N, *spatial, C), or (*spatial, C) for one sample
        Any number of spatial axes; other arrangements through ``layout``.
    w : array (*kernel, C / groups, O)
        The kernel. The number of its spatial axes decides that of ``x``.
    b : array (O,), optional
        Bias, one number per output channel.
    stride, dilation : int or one int per axis
        Steps of the window over the input, and of the taps inside the window.
    padding : int, int per axis, (low, high) per axis, or a name
        Elements put around the input; negative numbers crop. ``"valid"`` pads nothing; ``"same"`` gives
        ceil(n / stride) outputs with an odd extra element at the end, ``"same_lower"`` at the start; ``"full"``
        gives every output that meets the input; ``"causal"`` lets no output see a later input.
    pad_mode : {"constant", "edge", "reflect", "symmetric", "wrap"}
        What the padding holds, by NumPy's names; ``"constant"`` is zeros.
    groups : int
        Number of groups that channels are divided into; output channels are group-major.
    layout : str
        ``"NHWC"`` (kernel HWIO) or ``"NCHW"`` (kernel OIHW), also as ``"channels_last"`` and ``"channels_first"``,
        each for any number of spatial axes; or all three named, as in ``"NCHW,HWIO->NHWC"``.
    residual : array of the result's shape, optional
        Added after the bias and before the activation.
    activation : str or callable, optional
        Applied to the result tile by tile, while it is in cache: the name of one of xconv's activations, or a
        function of one array that works element by element.
    dtype : dtype, optional
        What sums are accumulated and given in. By default ``result_type(x, w)``. 16-bit floats are accumulated in
        float32; integers are exact and have the dtype that ``sum`` gives them; an integer array beside a floating one
        takes the floating dtype.
    algorithm : str
        ``"auto"``, ``"pointwise"``, ``"direct"``, ``"im2col"``, ``"kn2row"``, ``"banded"``, ``"depthwise"``,
        ``"winograd"``, ``"spectral"`` or ``"fft"``.

    Returns
    -------
    array (N, *outputs, O), or (*outputs, O)
        ``outputs = floor((n + low + high - dilation * (k - 1) - 1) / stride) + 1`` along every axis.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.

    Notes
    -----
    What deep learning calls convolution is cross-correlation; see Dumoulin and Visin, "A guide to convolution
    arithmetic for deep learning", arXiv:1603.07285. Complex inputs are not conjugated.

    Whatever the layout, results are computed channels-last; a channels-first result is a view of that memory, where the
    library has views.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> x = np.arange(1.0, 5.0).reshape(1, 4, 1)
    >>> w = np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    >>> xconv.conv(x, w, stride=2, padding="same").ravel()
    array([321.,  43.])
    """
    return _conv(
        x,
        w,
        b,
        stride,
        padding,
        pad_mode,
        dilation,
        groups,
        layout,
        activation,
        dtype,
        algorithm,
        residual=residual,
    )


def _conv(
    x: Array,
    w: Array,
    b: Array | None,
    stride: Any,
    padding: Any,
    pad_mode: str,
    dilation: Any,
    groups: Any,
    layout: str,
    activation: ActivationOption,
    dtype: DType | None,
    algorithm: str,
    input_dilation: Any = 1,
    residual: Array | None = None,
) -> Array:
    xp, traits = inspect({"b": b, "residual": residual}, x=x, w=w)
    # A function may be made for one call only: what is kept would keep it.
    prepare = _prepared if activation is None or isinstance(activation, str) else _prepared_once
    spec, dtypes, (job, plans) = prepare(
        xp,
        (x.shape, w.shape, None if b is None else b.shape),
        (x.dtype, w.dtype, dtype),
        (frozen(stride), frozen(padding), frozen(pad_mode), frozen(dilation), frozen(groups), frozen(layout)),
        frozen(input_dilation),
        activation,
        frozen(algorithm),
        0 if residual is None else 1,
        settings(),
    )
    if b is not None:
        check_bias_dtype(xp, b, dtypes.result)
    w = permuted_axes(w, spec.layout.kernel, xp)
    if spec.kernel_shape is not None:
        w = xp.reshape(w, spec.kernel_shape)
    operands = (w, b) if residual is None else (w, b, _inner_residual(residual, spec, dtypes, xp))
    keeps = in_use.get()
    call = way(arranged(job, operands, xp, traits, plans), spec.layout, xp, batched=spec.batched)
    if keeps is not None and residual is None:
        keeps.keep(x, call)
    return call(x)


def _prepared_once(
    xp: Namespace,
    shapes: tuple[Shape, Shape, Shape | None],
    dtypes: tuple[DType, DType, DType | None],
    options: tuple[Any, ...],
    input_dilation: Any,
    activation: ActivationOption,
    algorithm: str,
    aligned: int,
    config: Settings,
) -> tuple[ConvSpec, SumDTypes, Ready]:
    """All that follows from shapes, dtypes and options: one look-up for a call that has been made before."""
    spec = conv_spec(*shapes, *options, input_dilation)
    sums = sum_dtypes(xp, *dtypes, spec.terms)
    function = named_activation(activation, dtype_kind(xp, sums.result))
    todo = ready(spec.problem, dtypes[0], sums, function, algorithm, xp, config, aligned=aligned)
    return spec, sums, todo


_prepared = plan_cache(_prepared_once)


def _inner_residual(residual: Array, spec: ConvSpec, dtypes: SumDTypes, xp: Namespace) -> Array:
    """What is added to the result, (N, *out, O), from an array of the result's own shape."""
    shape = (spec.problem.batch, *spec.problem.outputs, spec.problem.channels_out)
    order = spec.layout.leave(batched=spec.batched)
    expected = permuted(shape if spec.batched else shape[1:], order)
    if tuple(residual.shape) != expected:
        refuse("residual", residual, f"have the shape of the result, {list(expected)}")
    check_bias_dtype(xp, residual, dtypes.result, "residual")
    back = tuple(order.index(i) for i in range(len(order)))
    residual = permuted_axes(residual, back, xp)
    return residual if spec.batched else xp.expand_dims(residual, axis=0)


conv1d, conv2d, conv3d = (fixed_rank(conv, spatial) for spatial in (1, 2, 3))


@door
def conv_general(
    x: Array,
    w: Array,
    /,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    input_dilation: Ints = 1,
    dilation: Ints = 1,
    groups: int = 1,
    layout: str = "NHWC",
    dtype: DType | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve in the closed form: with holes in the input as well, and padding of any sign.

    Every gradient of a convolution, and every transposed convolution, is a call of this function.

    Parameters
    ----------
    x : array (N, *spatial, C), or (*spatial, C)
        Input.
    w : array (*kernel, C / groups, O)
        Kernel.
    input_dilation : int or one int per axis
        Distance between neighbouring input elements; the holes between them are zeros.
    stride, padding, dilation, groups, layout, dtype, algorithm
        As for `conv`; padding is counted around the input with its holes, and negative padding crops it.

    Returns
    -------
    array (N, *outputs, O), or (*outputs, O)
        ``outputs = floor(((n - 1) * input_dilation + 1 + low + high - dilation * (k - 1) - 1) / stride) + 1``.

    Raises
    ------
    ValueError, TypeError
        As `conv`.
    """
    return _conv(
        x,
        w,
        None,
        stride,
        padding,
        "constant",
        dilation,
        groups,
        layout,
        None,
        dtype,
        algorithm,
        input_dilation,
    )


@door
def depthwise_conv(
    x: Array,
    w: Array,
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
    """Convolve every channel with kernels of its own.

    Parameters
    ----------
    x : array (N, *spatial, C), or (*spatial, C)
        Input.
    w : array (*kernel, C, M); (C * M, 1, *kernel) with ``layout="NCHW"``
        M kernels for each of the C channels.
    b : array (C * M,), optional
        Bias.
    stride, padding, pad_mode, dilation, layout, activation, dtype, algorithm
        As for `conv`.

    Returns
    -------
    array (N, *outputs, C * M), or (*outputs, C * M)
        Channel-major: the M results of the first channel come first.

    Raises
    ------
    ValueError, TypeError
        As `conv`.
    """
    return _conv(x, w, b, stride, padding, pad_mode, dilation, None, layout, activation, dtype, algorithm)
