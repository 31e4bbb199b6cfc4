"""Batch normalisation, in training and at inference, by itself and folded into the layer before it."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from xconv._dtypes import dtype_kind, wide
from xconv._errors import door, refuse, refuse_type
from xconv._layout import channel_axis
from xconv._namespace import Array, Namespace, added, combined, inspect


@door
def batch_norm(
    x: Array,
    mean: Array | None,
    var: Array | None,
    gamma: Array | None = None,
    beta: Array | None = None,
    /,
    *,
    eps: float = 1e-5,
    layout: str = "NHWC",
) -> Array:
    """Normalise every channel: ``(x - mean) / sqrt(var + eps) * gamma + beta``.

    Parameters
    ----------
    x : array (N, *spatial, C), or (N, C)
        Real floating.
    mean, var : array (C,) or None
        Statistics of every channel, as found in training. With None for both, those of this batch, over all axes but
        that of channels: the variance is the mean square of the deviations, with no correction of its bias.
    gamma, beta : array (C,), optional
        Learned scale and shift.
    eps : float
        Added to the variance; 1e-5 as PyTorch and ONNX have it, Keras has 1e-3.
    layout : str
        ``"NHWC"`` or ``"NCHW"``, ``"channels_last"`` or ``"channels_first"``, for any number of spatial axes.

    Returns
    -------
    array
        Shape and dtype of ``x``; 16-bit floats are computed in float32.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.

    Notes
    -----
    Ioffe and Szegedy, "Batch normalization", arXiv:1502.03167.
    """
    return normalised(x, mean, var, gamma, beta, eps=eps, layout=layout).y


class Normalised(NamedTuple):
    """What `batch_norm` gives, and the statistics that it used, in the dtype of its sums."""

    y: Array
    mean: Array
    var: Array
    axis: int  # of channels


def normalised(
    x: Array,
    mean: Array | None,
    var: Array | None,
    gamma: Array | None,
    beta: Array | None,
    *,
    eps: float = 1e-5,
    layout: str = "NHWC",
) -> Normalised:
    """Check and normalise, by the statistics that were given or those of the batch."""
    xp, _ = inspect({"mean": mean, "var": var, "gamma": gamma, "beta": beta}, x=x)
    if x.ndim < 2:
        refuse("x", list(x.shape), "have at least a batch axis and a channel axis")
    if (mean is None) != (var is None):
        name = "mean" if mean is None else "var"
        refuse(name, None, "be given with the other of mean and var, or be None as it is")
    axis = channel_axis(layout, x.ndim)
    channels = x.shape[axis]
    _check(xp, channels, eps, x=x, mean=mean, var=var, gamma=gamma, beta=beta)
    others = tuple(i for i in range(x.ndim) if i != axis)
    if mean is None and not prod(x.shape[i] for i in others):
        refuse("x", list(x.shape), "have elements, to take their mean and variance")
    shape = tuple(channels if i == axis else 1 for i in range(x.ndim))
    computed = wide(xp, x.dtype)
    y = xp.astype(x, computed, copy=False)
    if mean is None:
        y, mean, var = _of_the_batch(y, others, shape, xp)
        y = y * xp.reshape(_scale(var, gamma, eps, computed, xp), shape)
    else:
        mean, var = xp.astype(mean, computed, copy=False), xp.astype(var, computed, copy=False)
        y = y - xp.reshape(mean, shape)
        y = combined(xp.multiply, y, xp.reshape(_scale(var, gamma, eps, computed, xp), shape), y)
    if beta is not None:
        y = added(y, xp.reshape(xp.astype(beta, computed, copy=False), shape), xp)
    return Normalised(xp.astype(y, x.dtype, copy=False), mean, var, axis)


def _of_the_batch(
    x: Array, others: tuple[int, ...], shape: tuple[int, ...], xp: Namespace
) -> tuple[Array, Array, Array]:
    """What is left of ``x`` less its mean; mean and biased variance of every channel.

    The deviations have a mean of their own, which is the rounding error of the first one: taking it off again keeps
    both exact for numbers far from zero.
    """
    about = xp.mean(x, axis=others)
    x = x - xp.reshape(about, shape)
    rest = xp.mean(x, axis=others)
    x = x - xp.reshape(rest, shape)
    return x, about + rest, xp.mean(x * x, axis=others)


@door
def fold_batch_norm(
    w: Array,
    b: Array | None,
    mean: Array,
    var: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    /,
    *,
    eps: float = 1e-5,
    layout: str = "NHWC",
    transposed: bool = False,
) -> tuple[Array, Array]:
    """Fold a batch normalisation into the weights of the layer before it.

    ``batch_norm(layer(x, w, b), mean, var, gamma, beta)`` equals ``layer(x, *fold_batch_norm(w, b, mean, …))``.

    Parameters
    ----------
    w : array
        Kernel of a `conv` (*kernel, I, O), of a `depthwise_conv` (*kernel, C, M), of a `conv_transpose`
        (*kernel, O / groups, I) with ``transposed=True``, or weights of a `dense` layer (I, O).
    b : array (O,) or None
        Bias.
    mean, var, gamma, beta, eps
        As for `batch_norm`, with one number for each of the O output channels.
    layout : str
        Of the layer: with ``"NCHW"`` kernels are (O, I, *kernel), transposed (I, O / groups, *kernel).
    transposed : bool
        Whether the layer is a `conv_transpose`.

    Returns
    -------
    w, b : arrays
        The new weights, shape and dtype of ``w``, and the new bias (O,).

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, _ = inspect({"b": b, "gamma": gamma, "beta": beta}, w=w, mean=mean, var=var)
    if w.ndim < 2:
        refuse("w", list(w.shape), "have at least 2 axes")
    if mean.ndim != 1:
        refuse("mean", list(mean.shape), "have one axis, of output channels")
    (outputs,) = mean.shape
    _check(xp, outputs, eps, w=w, mean=mean, var=var, gamma=gamma, beta=beta, b=b)
    computed = wide(xp, w.dtype)
    scale = _scale(var, gamma, eps, computed, xp)
    kernel = xp.astype(w, computed, copy=False) * _factor(scale, tuple(w.shape), layout, transposed, xp)
    shift = -xp.astype(mean, computed, copy=False)
    if b is not None:
        shift = xp.astype(b, computed, copy=False) + shift
    shift = shift * scale
    if beta is not None:
        shift = shift + xp.astype(beta, computed, copy=False)
    return xp.astype(kernel, w.dtype, copy=False), xp.astype(shift, w.dtype, copy=False)


def _factor(scale: Array, w: tuple[int, ...], layout: str, transposed: Any, xp: Namespace) -> Array:
    """One number per output channel, where it broadcasts against a kernel of shape ``w``."""
    if not isinstance(transposed, bool):
        refuse_type("transposed", transposed, "be True or False")
    (outputs,) = scale.shape
    rank = len(w)
    last = rank == 2 or channel_axis(layout, rank) == rank - 1
    ones = (1,) * (rank - 2)
    if not transposed:
        if w[-1 if last else 0] == outputs:
            return xp.reshape(scale, (*ones, 1, outputs) if last else (outputs, 1, *ones))
        if last and rank > 2 and w[-1] * w[-2] == outputs:  # depthwise (*k, C, M)
            return xp.reshape(scale, (*ones, w[-2], w[-1]))
        refuse("w", list(w), f"have as many output channels as mean, {outputs}")
    per_group, inputs = (w[-2], w[-1]) if last else (w[1], w[0])
    groups = outputs // per_group if per_group else 0
    if not groups or outputs % per_group or inputs % groups:
        refuse("w", list(w), f"have output channels that divide the {outputs} of mean into groups")
    # every input channel belongs to one group: (G, O / G) -> (G, I / G, O / G) -> (I, O / G)
    spread = xp.broadcast_to(xp.reshape(scale, (groups, 1, per_group)), (groups, inputs // groups, per_group))
    spread = xp.reshape(spread, (inputs, per_group))
    return (
        xp.reshape(spread.T, (*ones, per_group, inputs))
        if last
        else xp.reshape(spread, (inputs, per_group, *ones))
    )


def _scale(var: Array, gamma: Array | None, eps: float, dtype: Any, xp: Namespace) -> Array:
    scale = 1 / xp.sqrt(xp.astype(var, dtype, copy=False) + eps)
    return scale if gamma is None else scale * xp.astype(gamma, dtype, copy=False)


def _check(xp: Namespace, channels: int, eps: Any, /, **arrays: Array | None) -> None:
    if isinstance(eps, bool) or not isinstance(eps, int | float):
        refuse_type("eps", eps, "be a number")
    if not eps >= 0:
        refuse("eps", eps, "not be negative")
    for name, array in arrays.items():
        if array is None:
            continue
        if dtype_kind(xp, array.dtype) != "float":
            refuse_type(name, array, "be a real floating array")
        if name not in ("x", "w") and tuple(array.shape) != (channels,):
            refuse(name, list(array.shape), f"have shape [{channels}], one number per channel")
