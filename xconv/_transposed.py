"""Transposed convolution: the gradient of a convolution by its input, used as a layer."""

from __future__ import annotations

from xconv._activations import ActivationOption, named_activation
from xconv._args import Ints, Padding, frozen
from xconv._config import settings
from xconv._dtypes import check_bias_dtype, dtype_kind, sum_dtypes
from xconv._engine import arranged, ready, way
from xconv._errors import door
from xconv._geometry import ConvProblem
from xconv._kernels import in_use
from xconv._namespace import Array, DType, Namespace, inspect, permuted_axes
from xconv._problems import transposed_spec
from xconv._ranks import fixed_rank


@door
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    output_padding: Ints = 0,
    output_shape: Ints | None = None,
    dilation: Ints = 1,
    groups: int = 1,
    layout: str = "NHWC",
    activation: ActivationOption = None,
    dtype: DType | None = None,
    algorithm: str = "auto",
) -> Array:
    """Transpose a convolution: spread the input by the stride and let every element paint the kernel.

    ``<conv(y, w), x> = <y, conv_transpose(x, w)>`` for every y, with the same kernel and options on both sides.

    Parameters
    ----------
    x : array (N, *spatial, C), or (*spatial, C) for one sample
        What that convolution gives.
    w : array (*kernel, O / groups, C); (C, O / groups, *kernel) with ``layout="NCHW"``
        The kernel of that convolution, which goes from O channels to C.
    b : array (O,), optional
        Bias.
    stride, dilation : int or one int per axis
        Of that convolution.
    padding : int, int per axis, (low, high) per axis, or a name
        Padding of that convolution; here it crops. ``"same"`` and ``"same_lower"`` give m * stride outputs.
    output_padding : int or one int per axis
        Outputs added at the end, where several sizes are possible: less than the stride or the dilation.
    output_shape : int or one int per axis, optional
        Spatial sizes of the result. With ``"valid"`` or ``"same_lower"`` an odd crop takes more at the start, with
        ``"same"`` at the end; with padding in numbers it takes the place of ``output_padding``.
    groups, layout, activation, dtype, algorithm
        As for `conv`.

    Returns
    -------
    array (N, *outputs, O), or (*outputs, O)
        ``outputs = (m - 1) * stride + dilation * (k - 1) + 1 - low - high + output_padding`` along every axis.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.

    Notes
    -----
    See Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, chapter 4.
    """
    xp, traits = inspect({"b": b}, x=x, w=w)
    spec = transposed_spec(
        x.shape,
        w.shape,
        None if b is None else b.shape,
        frozen(stride),
        frozen(padding),
        frozen(output_padding),
        frozen(output_shape),
        frozen(dilation),
        frozen(groups),
        frozen(layout),
    )
    problem = spec.problem.transposed()
    terms = problem.taps * (problem.channels_in // problem.groups)
    dtypes = sum_dtypes(xp, x.dtype, w.dtype, dtype, terms)
    check_bias_dtype(xp, b, dtypes.result)
    function = named_activation(activation, dtype_kind(xp, dtypes.result))
    w = transposed_kernel(permuted_axes(w, spec.layout.kernel, xp), spec.problem, xp)
    job, plans = ready(problem, x.dtype, dtypes, function, frozen(algorithm), xp, settings())
    keeps = in_use.get()
    call = way(arranged(job, (w, b), xp, traits, plans), spec.layout, xp, batched=spec.batched)
    if keeps is not None:
        keeps.keep(x, call)
    return call(x)


def transposed_kernel(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """The kernel (*k, I, G * O) of ``problem`` as its transpose needs it: flipped, (*k, O, G * I)."""
    spatial, groups = len(problem.axes), problem.groups
    inputs, outputs = problem.channels_in // groups, problem.channels_out // groups
    axes = tuple(range(spatial))
    if groups == 1:
        return xp.permute_dims(xp.flip(w, axis=axes), (*axes, spatial + 1, spatial))
    w = xp.reshape(xp.flip(w, axis=axes), (*problem.window, inputs, groups, outputs))
    w = xp.permute_dims(w, (*axes, spatial + 2, spatial + 1, spatial))  # (*k, O, G, I)
    return xp.reshape(w, (*problem.window, outputs, groups * inputs))


conv_transpose1d, conv_transpose2d, conv_transpose3d = (fixed_rank(conv_transpose, n) for n in (1, 2, 3))
