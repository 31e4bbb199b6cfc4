"""Gradients of the activations, by themselves and inside of a layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from inspect import signature
from math import pi, sqrt
from typing import Any, NamedTuple

from xconv import _activations as forwards
from xconv._dtypes import wide
from xconv._errors import refuse, refuse_type
from xconv._gradients._rule import Call, Forward, Gradients, Rule, one
from xconv._namespace import Array, Namespace, inspect
from xconv._special import between, normal_cdf

Pull = Callable[[Array, Array, Namespace], Array]


class Through(NamedTuple):
    """The way back through an activation that a layer applies."""

    from_result: bool  # whether `pull` is given the activation's result, rather than what it was applied to
    pull: Callable[
        [Array, Array], Array
    ]  # (result or argument, cotangent) -> gradient, of 16-bit floats in float32


def through(activation: Any) -> Through | None:
    """The way back through what ``activation=`` stands for; None where there is none."""
    if activation is None:
        return None
    function: Any = forwards.named_activation(activation, "float")
    options: dict[str, Any] = {}
    if isinstance(function, partial) and not function.args:
        function, options = function.func, function.keywords
    maker = _ELEMENTWISE.get(function) if isinstance(function, Hashable) else None
    if maker is None:
        rule = "be one of xconv's activations where it is differentiated, by name or as a function"
        refuse("activation", activation, rule)
    strangers = sorted(set(options) - set(signature(maker).parameters))
    if strangers:
        refuse_type(
            "activation", activation, f"have options that {function.__name__} has, not {strangers[0]!r}"
        )
    return maker(**options)


def _through(pull: Pull, *, from_result: bool) -> Through:
    def computed(v: Array, dy: Array) -> Array:
        xp, _ = inspect(v=v, dy=dy)
        dtype = wide(xp, xp.result_type(v.dtype, dy.dtype))
        return pull(xp.astype(v, dtype, copy=False), xp.astype(dy, dtype, copy=False), xp)

    return Through(from_result, computed)


# ------------------------------------------------------------------------------ from the result y, or from its sign


def _masked(off: Array, dy: Array, xp: Namespace) -> Array:
    """The cotangent but where the function is constant; at NaN, which is on no side, it passes."""
    return xp.where(off, xp.zeros_like(dy), dy)


def _relu() -> Through:
    return _through(lambda y, dy, xp: _masked(y <= 0, dy, xp), from_result=True)


def _relu6() -> Through:
    return _through(lambda y, dy, xp: _masked((y <= 0) | (y >= 6), dy, xp), from_result=True)


def _hard_sigmoid(slope: float = 1 / 6, offset: float = 0.5) -> Through:
    return _through(lambda y, dy, xp: _masked((y <= 0) | (y >= 1), slope * dy, xp), from_result=True)


def _leaky_relu(slope: float = 0.01) -> Through:
    # with a slope that is not negative, the result is positive where the argument is
    rising = isinstance(slope, int | float) and slope >= 0
    return _through(lambda v, dy, xp: xp.where(v > 0, dy, slope * dy), from_result=rising)


def _elu(alpha: float = 1.0) -> Through:
    # alpha * exp(x) = y + alpha for negative x
    if not isinstance(alpha, int | float) or alpha >= 0:
        return _through(lambda y, dy, xp: xp.where(y > 0, dy, dy * (y + alpha)), from_result=True)
    y_of = partial(forwards.elu, alpha=alpha)
    return _through(lambda x, dy, xp: xp.where(x > 0, dy, dy * (y_of(x) + alpha)), from_result=False)


def _selu() -> Through:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    pull = lambda y, dy, xp: dy * xp.where(y > 0, xp.full_like(y, scale), y + scale * alpha)  # noqa: E731
    return _through(pull, from_result=True)


def _sigmoid() -> Through:
    return _through(lambda y, dy, xp: dy * (y * (1 - y)), from_result=True)


def _tanh() -> Through:
    return _through(lambda y, dy, xp: dy * ((1 - y) * (1 + y)), from_result=True)


# ------------------------------------------------------------------------------------------- from the argument x


def _softplus() -> Through:
    return _through(lambda x, dy, xp: dy * forwards.sigmoid(x), from_result=False)


def _silu() -> Through:
    def pull(x: Array, dy: Array, xp: Namespace) -> Array:
        s = forwards.sigmoid(x)
        return dy * (s * (1 + x * (1 - s)))

    return _through(pull, from_result=False)


def _hard_swish() -> Through:
    def pull(x: Array, dy: Array, xp: Namespace) -> Array:
        clipped = between(x / 6 + 0.5, 0, 1, xp)
        return dy * (clipped + _masked((clipped <= 0) | (clipped >= 1), x / 6, xp))

    return _through(pull, from_result=False)


def _mish() -> Through:
    def pull(x: Array, dy: Array, xp: Namespace) -> Array:
        t = xp.tanh(forwards.softplus(x))
        return dy * (t + x * ((1 - t) * (1 + t)) * forwards.sigmoid(x))

    return _through(pull, from_result=False)


def _gelu(approximate: str = "none") -> Through:
    def exact(x: Array, dy: Array, xp: Namespace) -> Array:
        return dy * (normal_cdf(x, xp) + x * xp.exp(-0.5 * x * x) / sqrt(2 * pi))

    def with_tanh(x: Array, dy: Array, xp: Namespace) -> Array:
        x = between(x, -40, 40, xp)  # the slope is 0 or 1 long before, and the powers of x do not overflow
        inner = sqrt(2 / pi)
        t = xp.tanh(inner * (x + 0.044715 * x * x * x))
        steep = inner * (1 + 3 * 0.044715 * x * x)
        return dy * (0.5 * (1 + t) + 0.5 * x * ((1 - t) * (1 + t)) * steep)

    return _through(with_tanh if approximate == "tanh" else exact, from_result=False)


# ------------------------------------------------------------------------------------------------- along an axis


def _softmax(axis: int = -1) -> Through:
    def pull(y: Array, dy: Array, xp: Namespace) -> Array:
        return y * (dy - xp.sum(y * dy, axis=axis, keepdims=True))

    return _through(pull, from_result=True)


def _log_softmax(axis: int = -1) -> Through:
    def pull(y: Array, dy: Array, xp: Namespace) -> Array:
        return dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True)

    return _through(pull, from_result=True)


_ELEMENTWISE: dict[Any, Callable[..., Through]] = {
    forwards.relu: _relu,
    forwards.relu6: _relu6,
    forwards.leaky_relu: _leaky_relu,
    forwards.elu: _elu,
    forwards.selu: _selu,
    forwards.sigmoid: _sigmoid,
    forwards.hard_sigmoid: _hard_sigmoid,
    forwards.tanh: _tanh,
    forwards.silu: _silu,
    forwards.hard_swish: _hard_swish,
    forwards.mish: _mish,
    forwards.gelu: _gelu,
    forwards.softplus: _softplus,
}
_ALL = {**_ELEMENTWISE, forwards.softmax: _softmax, forwards.log_softmax: _log_softmax}


def _activation(call: Call) -> Forward:
    y = call.run()  # which refuses bad options
    x = call.arg(0)
    way = _ALL[call.function](**call.options)

    def pull(dy: Array) -> Gradients:
        xp, _ = inspect(x=x)
        dtype = wide(xp, x.dtype)
        if not way.from_result:
            return {"x": way.pull(x, dy)}
        # a result that was rounded to 16 bits has lost how far it is from its limit
        exact = y if dtype == x.dtype else call.function(xp.astype(x, dtype), **call.options)
        return {"x": way.pull(exact, dy)}

    return one(y, pull)


def _prelu(call: Call) -> Forward:
    y = call.run()
    x, slope = call.args

    def pull(dy: Array) -> Gradients:
        xp, _ = inspect(dy=dy)
        dtype = wide(xp, dy.dtype)
        wide_x, wide_dy, factor = (xp.astype(a, dtype, copy=False) for a in (x, dy, slope))
        found = {}
        if "x" in call.wanted:
            found["x"] = xp.where(wide_x > 0, wide_dy, factor * wide_dy)
        if "slope" in call.wanted:
            found["slope"] = summed_to(_masked(wide_x > 0, wide_x * wide_dy, xp), tuple(slope.shape), xp)
        return found

    return one(y, pull)


def summed_to(gradient: Array, shape: tuple[int, ...], xp: Namespace) -> Array:
    """The gradient by an array of ``shape`` from that by what it was broadcast to."""
    theirs = (1,) * (gradient.ndim - len(shape)) + shape
    axes = tuple(i for i, (n, s) in enumerate(zip(gradient.shape, theirs, strict=True)) if s == 1 and n != 1)
    if axes:
        gradient = xp.sum(gradient, axis=axes, keepdims=True)
    return xp.reshape(gradient, shape)


RULES: dict[Callable[..., Any], Rule] = {
    **{function: Rule(("x",), _activation) for function in _ALL},
    forwards.prelu: Rule(("x", "slope"), _prelu),
}
