"""The activations a convolutional network uses, element by element."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, sqrt
from typing import Any, ParamSpec, TypeAlias, TypeVar

from xconv._dtypes import dtype_kind, wide
from xconv._errors import door, refuse, refuse_type
from xconv._namespace import Array, Namespace, differentiates, inspect
from xconv._special import at_least, between, log1p_exp, logistic, negative_part, normal_cdf

ActivationOption: TypeAlias = str | Callable[[Array], Array] | None
P = ParamSpec("P")
R = TypeVar("R")

_ALIKE = """
    Returns
    -------
    array
        Shape and dtype of ``x``; 16-bit floats are computed in float32.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """


def _activation(function: Callable[P, R]) -> Callable[P, R]:
    """An outer door whose description ends as those of all activations do."""
    function.__doc__ = f"{(function.__doc__ or '').rstrip()}\n{_ALIKE}"
    return door(function)


@_activation
def relu(x: Array, /) -> Array:
    """Rectify: max(x, 0); NaN stays NaN.

    Parameters
    ----------
    x : array of any shape
        Real numbers, integers included.
    """
    xp = _ordered(x)
    return at_least(x, 0, xp)


@_activation
def relu6(x: Array, /) -> Array:
    """Rectify and saturate: min(max(x, 0), 6); NaN stays NaN.

    Parameters
    ----------
    x : array of any shape
        Real numbers, integers included.
    """
    xp = _ordered(x)
    return between(x, 0, 6, xp)


@_activation
def leaky_relu(x: Array, /, *, slope: float = 0.01) -> Array:
    """Rectify, but not fully: x where x > 0, slope * x elsewhere.

    Parameters
    ----------
    x : array of any shape
        Real floating.
    slope : float
        Factor of negative numbers.
    """
    _parameter("slope", slope)
    return _apply(x, lambda x, xp: xp.where(x > 0, x, slope * x))


@_activation
def prelu(x: Array, slope: Array, /) -> Array:
    """Rectify with a learned slope: x where x > 0, slope * x elsewhere (He et al., arXiv:1502.01852).

    Parameters
    ----------
    x : array (..., C)
        Real floating.
    slope : array (C,), or of any shape that broadcasts against x
        Factor of negative numbers, real floating.
    """
    xp, _ = inspect(x=x, slope=slope)
    for name, array in (("x", x), ("slope", slope)):
        if dtype_kind(xp, array.dtype) != "float":
            refuse_type(name, array, "be a real floating array")
    theirs = (1,) * (x.ndim - slope.ndim) + tuple(slope.shape)
    if len(theirs) != x.ndim or any(s not in (1, n) for s, n in zip(theirs, x.shape, strict=True)):
        refuse("slope", list(slope.shape), f"broadcast against x of shape {list(x.shape)}")
    slope = xp.astype(slope, x.dtype)
    return xp.where(x > 0, x, slope * x)


@_activation
def elu(x: Array, /, *, alpha: float = 1.0) -> Array:
    """Exponential linear unit: x where x > 0, alpha * (exp(x) - 1) elsewhere (Clevert et al., arXiv:1511.07289).

    Parameters
    ----------
    x : array of any shape
        Real floating.
    alpha : float
        What large negative numbers tend to, negated.
    """
    _parameter("alpha", alpha)
    return _apply(x, lambda x, xp: xp.where(x > 0, x, alpha * xp.expm1(negative_part(x, xp))))


@_activation
def selu(x: Array, /) -> Array:
    """Scaled exponential linear unit, which keeps mean 0 and variance 1 (Klambauer et al., arXiv:1706.02515).

    1.0507 * elu(x, alpha=1.6733), with more digits.

    Parameters
    ----------
    x : array of any shape
        Real floating.
    """
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return _apply(x, lambda x, xp: scale * xp.where(x > 0, x, alpha * xp.expm1(negative_part(x, xp))))


@_activation
def sigmoid(x: Array, /) -> Array:
    """Logistic function: 1 / (1 + exp(-x)), without overflow.

    Parameters
    ----------
    x : array of any shape
        Real floating.
    """
    return _apply(x, logistic)


@_activation
def hard_sigmoid(x: Array, /, *, slope: float = 1 / 6, offset: float = 0.5) -> Array:
    """Piecewise linear sigmoid: min(max(slope * x + offset, 0), 1).

    Parameters
    ----------
    x : array of any shape
        Real floating.
    slope, offset : float
        The defaults are those of PyTorch; ONNX has a slope of 0.2.
    """
    _parameter("slope", slope)
    _parameter("offset", offset)
    return _apply(x, lambda x, xp: between(slope * x + offset, 0, 1, xp))


@_activation
def tanh(x: Array, /) -> Array:
    """Hyperbolic tangent.

    Parameters
    ----------
    x : array of any shape
        Real floating.
    """
    return _apply(x, lambda x, xp: xp.tanh(x))


@_activation
def silu(x: Array, /) -> Array:
    """Sigmoid linear unit, also called swish: x * sigmoid(x) (Elfwing et al., arXiv:1702.03118).

    Parameters
    ----------
    x : array of any shape
        Real floating.
    """
    return _apply(x, lambda x, xp: x * logistic(x, xp))


@_activation
def hard_swish(x: Array, /) -> Array:
    """Piecewise approximation of silu: x * min(max(x + 3, 0), 6) / 6 (Howard et al., arXiv:1905.02244).

    Parameters
    ----------
    x : array of any shape
        Real floating.
    """
    return _apply(x, lambda x, xp: x * between(x / 6 + 0.5, 0, 1, xp))


@_activation
def mish(x: Array, /) -> Array:
    """Smooth rectifier: x * tanh(softplus(x)) (Misra, arXiv:1908.08681).

    Parameters
    ----------
    x : array of any shape
        Real floating.
    """
    return _apply(x, lambda x, xp: x * xp.tanh(log1p_exp(x, xp)))


@_activation
def gelu(x: Array, /, *, approximate: str = "none") -> Array:
    """Gaussian error linear unit: x * P(X <= x) for a standard normal X (arXiv:1606.08415).

    Parameters
    ----------
    x : array of any shape
        Real floating.
    approximate : {"none", "tanh"}
        ``"none"`` is 0.5 x (1 + erf(x / sqrt(2))); ``"tanh"`` is 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    """
    if approximate == "tanh":
        inner = sqrt(2 / 3.141592653589793)

        def core(x: Array, xp: Namespace) -> Array:
            # Beyond 10 the tangent is one, but its argument has derivatives that overflow.
            z = between(x, -10, 10, xp) if differentiates(xp) else x
            return 0.5 * x * (1 + xp.tanh(inner * (z + 0.044715 * z * z * z)))

        return _apply(x, core)
    if approximate != "none":
        refuse("approximate", approximate, "be 'none' or 'tanh'")
    return _apply(x, lambda x, xp: x * normal_cdf(x, xp))


@_activation
def softplus(x: Array, /) -> Array:
    """Smooth rectifier: log(1 + exp(x)), without overflow.

    Parameters
    ----------
    x : array of any shape
        Real floating.
    """
    return _apply(x, log1p_exp)


@_activation
def softmax(x: Array, /, *, axis: int = -1) -> Array:
    """Turn scores into probabilities: exp(x) / sum(exp(x)) along an axis, without overflow.

    Parameters
    ----------
    x : array of any shape
        Real floating.
    axis : int
        The axis that sums to one.
    """
    _axis(x, axis)

    def core(x: Array, xp: Namespace) -> Array:
        e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
        return e / xp.sum(e, axis=axis, keepdims=True)

    return _apply(x, core)


@_activation
def log_softmax(x: Array, /, *, axis: int = -1) -> Array:
    """Turn scores into logarithms of probabilities: x - log(sum(exp(x))), without overflow.

    Parameters
    ----------
    x : array of any shape
        Real floating.
    axis : int
        The axis whose exponentials sum to one.
    """
    _axis(x, axis)

    def core(x: Array, xp: Namespace) -> Array:
        x = x - xp.max(x, axis=axis, keepdims=True)
        return x - xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=True))

    return _apply(x, core)


_NAMED: dict[str, Callable[[Array], Array]] = {
    f.__name__: f
    for f in (
        relu, relu6, leaky_relu, elu, selu, sigmoid, hard_sigmoid, tanh, silu, hard_swish, mish, gelu, softplus
    )
}  # fmt: skip

for _function in _NAMED.values():  # of every number by itself: a result may be given to them in any pieces
    _function._xconv_elementwise = True  # type: ignore[attr-defined]

# What is done to a result where it stands, by compiled movers on the way: it is held between two bounds.
relu._xconv_bounds = (0.0, float("inf"))  # type: ignore[attr-defined]
relu6._xconv_bounds = (0.0, 6.0)  # type: ignore[attr-defined]


def named_activation(activation: Any, kind: str) -> Callable[[Array], Array] | None:
    """What ``activation=`` stands for, on results of this kind."""
    if activation is None or (callable(activation) and not isinstance(activation, str)):
        return activation
    if isinstance(activation, str) and activation in _NAMED:
        if kind != "float" and not (kind == "integer" and activation in ("relu", "relu6")):
            refuse("activation", activation, f"be defined for results of {kind} dtype")
        return _NAMED[activation]
    rule = f"be a function of one array or one of {', '.join(_NAMED)}"
    if isinstance(activation, str):
        refuse("activation", activation, rule)
    refuse_type("activation", activation, rule)


def _apply(x: Array, core: Callable[[Array, Namespace], Array]) -> Array:
    """Floating arrays only; 16-bit floats are computed in float32 and given back in 16 bits."""
    xp, _ = inspect(x=x)
    if dtype_kind(xp, x.dtype) != "float":
        refuse_type("x", x, "be a real floating array")
    computed = wide(xp, x.dtype)
    if computed == x.dtype:
        return core(x, xp)
    return xp.astype(core(xp.astype(x, computed), xp), x.dtype)


def _ordered(x: Array) -> Namespace:
    xp, _ = inspect(x=x)
    if dtype_kind(xp, x.dtype) not in ("float", "integer"):
        refuse_type("x", x, "be an array of real numbers")
    return xp


def _parameter(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse_type(name, value, "be a number")
    if not isfinite(value):
        refuse(name, value, "be finite")


def _axis(x: Array, axis: Any) -> None:
    inspect(x=x)
    if isinstance(axis, bool) or not isinstance(axis, int):
        refuse_type("axis", axis, "be an int")
    if not -x.ndim <= axis < x.ndim:
        refuse("axis", axis, f"be an axis of x, which has {x.ndim}")
    if not x.shape[axis]:
        refuse("axis", axis, "be an axis of x with elements")
