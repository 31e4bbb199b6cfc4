"""Dense layers: a product with a matrix, or with a matrix for every output."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from xconv._activations import named_activation
from xconv._config import Settings, settings
from xconv._dtypes import SumDTypes, check_bias_dtype, dtype_kind, sum_dtypes
from xconv._engine import Ready, arranged, ready, right_operand
from xconv._epilogue import finish, finish_pieces, is_elementwise
from xconv._errors import door, refuse
from xconv._geometry import Axis, ConvProblem
from xconv._kernels import Call, in_use
from xconv._namespace import Array, DType, Namespace, Traits, inspect, is_compiled
from xconv._plan import plan_cache
from xconv._products import matmul


@door
def dense(
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    activation: str | Callable[[Array], Array] | None = None,
    dtype: DType | None = None,
) -> Array:
    """Multiply by a matrix: ``y = activation(x @ w + b)``.

    Parameters
    ----------
    x : array (..., I)
        Any number of leading axes.
    w : array (I, O)
        Weights. (PyTorch holds the transpose.)
    b : array (O,), optional
        Bias.
    activation, dtype
        As for `conv`.

    Returns
    -------
    array (..., O)
        In the dtype that `conv` would give.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, traits = inspect({"b": b}, x=x, w=w)
    if x.ndim < 1:
        refuse("x", list(x.shape), "have at least one axis, of features")
    if w.ndim != 2:
        refuse("w", list(w.shape), "have 2 axes: input and output features")
    inputs, outputs = w.shape
    if x.shape[-1] != inputs:
        refuse("w", list(w.shape), f"have {x.shape[-1]} input features, as many as the last axis of x")
    if b is not None and tuple(b.shape) != (outputs,):
        refuse("b", list(b.shape), f"have shape [{outputs}], one number per output feature")
    dtypes = sum_dtypes(xp, x.dtype, w.dtype, dtype, max(inputs, 1))
    check_bias_dtype(xp, b, dtypes.result)
    function = named_activation(activation, dtype_kind(xp, dtypes.result))
    keeps = in_use.get()
    call = _call(x, w, b, function, dtypes, xp, traits)
    if keeps is not None:
        keeps.keep(x, call)
    return call(x)


def _call(
    x: Array,
    w: Array,
    b: Array | None,
    function: Callable[[Array], Array] | None,
    dtypes: SumDTypes,
    xp: Namespace,
    traits: Traits,
) -> Call:
    """From inputs like ``x`` to the result."""
    *lead, inputs = x.shape
    rows, outputs = prod(lead), w.shape[1]
    if rows > 1 and in_use.get() is not None and is_compiled(xp):
        job, plans = _prepared(xp, rows, inputs, outputs, x.dtype, dtypes, function, settings())
        if job.problem.fast:  # a convolution of a row of pixels
            operands = (xp.reshape(w, (1, inputs, outputs)), b)
            convolve = arranged(job, operands, xp, traits, plans)
            return lambda x: xp.reshape(convolve(xp.reshape(x, (1, rows, inputs)))[0], (*lead, outputs))
    w = right_operand(w, tuple(lead), dtypes, xp, traits)
    blocked = outputs if w.ndim == 3 else 0
    if traits.threads and is_elementwise(function) and dtypes.result == dtypes.compute:
        b = b if b is None or b.dtype == dtypes.result else xp.astype(b, dtypes.result)
        each = finish_pieces(b, None, function, dtypes.result, xp)

        def product(x: Array) -> Array:
            x = xp.reshape(xp.astype(x, dtypes.compute, copy=False), (rows, inputs))
            return xp.reshape(matmul(x, w, xp, blocked=blocked, each=each), (*lead, outputs))

        return product

    def finished(x: Array) -> Array:
        x = xp.astype(x, dtypes.compute, copy=False)
        y = matmul(x if lead else xp.reshape(x, (1, inputs)), w, xp, blocked=blocked)
        return finish(y if lead else xp.reshape(y, (outputs,)), b, function, dtypes.result, xp)

    return finished


@plan_cache
def _prepared(
    xp: Namespace,
    rows: int,
    inputs: int,
    outputs: int,
    x: DType,
    dtypes: SumDTypes,
    activation: Callable[[Array], Array] | None,
    config: Settings,
) -> Ready:
    """All that follows from shapes, dtypes and options: one look-up for a call that has been made before."""
    problem = ConvProblem(1, (Axis(rows, 1),), inputs, outputs)
    return ready(problem, x, dtypes, activation, "direct", xp, config)


@door
def bilinear(x1: Array, x2: Array, w: Array, b: Array | None = None, /) -> Array:
    """Combine two vectors: ``y[..., o] = sum over i, j of x1[..., i] * w[o, i, j] * x2[..., j] + b[o]``.

    Parameters
    ----------
    x1 : array (..., I1)
        Any number of leading axes.
    x2 : array (..., I2)
        The same leading axes.
    w : array (O, I1, I2)
        One matrix for each output.
    b : array (O,), optional
        Bias.

    Returns
    -------
    array (..., O)
        In ``result_type(x1, x2, w)``.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, _ = inspect({"b": b}, x1=x1, x2=x2, w=w)
    if w.ndim != 3:
        refuse("w", list(w.shape), "have 3 axes: output features, features of x1, features of x2")
    outputs, first, second = w.shape
    for name, array, features in (("x1", x1, first), ("x2", x2, second)):
        if array.ndim < 1 or array.shape[-1] != features:
            refuse(name, list(array.shape), f"have {features} features along its last axis, as w has")
    if x1.shape[:-1] != x2.shape[:-1]:
        refuse("x2", list(x2.shape), f"have the leading axes of x1, {list(x1.shape[:-1])}")
    if b is not None and tuple(b.shape) != (outputs,):
        refuse("b", list(b.shape), f"have shape [{outputs}], one number per output feature")
    half = sum_dtypes(xp, x1.dtype, w.dtype, None, max(first, 1))
    dtypes = sum_dtypes(xp, half.result, x2.dtype, None, max(second, 1))
    check_bias_dtype(xp, b, dtypes.result)
    compute = dtypes.result if dtype_kind(xp, dtypes.result) == "integer" else dtypes.compute
    x1, x2, w = (xp.astype(a, compute, copy=False) for a in (x1, x2, w))
    lead = x1.shape[:-1]
    x1, x2 = xp.reshape(x1, (-1, first)), xp.reshape(x2, (-1, second))
    # (P, I1) @ (I1, O * I2) -> (P, O, I2), then the sum over I2 against x2
    y = matmul(x1, xp.reshape(xp.permute_dims(w, (1, 0, 2)), (first, outputs * second)), xp)
    y = xp.sum(xp.reshape(y, (-1, outputs, second)) * xp.expand_dims(x2, axis=1), axis=2, dtype=compute)
    y = xp.reshape(y, (*lead, outputs))
    return finish(y, b, None, dtypes.result, xp)
