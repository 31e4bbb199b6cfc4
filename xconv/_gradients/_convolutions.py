"""Gradients of the convolutions: by the input the transposed problem, by the kernel a long sum.

y[n, o, c] = sum over t, i of x[n, o * stride + t * dilation - low, i] * w[t, i, c] + b[c]

is linear in x, in w and in b. Its transpose in x is the convolution that `ConvProblem.transposed` describes, of the
gradient with holes between its elements; in w it is a sum over all pixels, and so it is in b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from xconv._activations import named_activation
from xconv._args import frozen
from xconv._config import settings
from xconv._conv import conv, conv1d, conv2d, conv3d, conv_general, depthwise_conv
from xconv._dtypes import dtype_kind, sum_dtypes, wide
from xconv._engine import enter, execute, ready
from xconv._geometry import ConvProblem, materialised
from xconv._gradients._activations import through
from xconv._gradients._around import folded_back
from xconv._gradients._rule import Call, Forward, Gradients, Rule, one
from xconv._layout import Permutation
from xconv._namespace import Array, Namespace, Traits, inspect, permuted_axes
from xconv._problems import ConvSpec, conv_spec, transposed_spec
from xconv._separable import separable_conv
from xconv._transposed import (
    conv_transpose,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    transposed_kernel,
)
from xconv._weights import weight_gradient

Kernel: TypeAlias = Array | tuple[Array | None, ...]  # or its factors, None along axes that have none


def _activated(call: Call, linear: Callable[[Call, Array], Gradients]) -> Forward:
    """A call with an activation, whose way back to the sums ``linear(call, gradient)`` goes on from."""
    activation = call.options.get("activation")
    way = through(activation)
    if way is None or way.from_result:
        y = kept = call.run()
    else:
        kept = replace(call, options={**call.options, "activation": None}).run()
        xp, _ = inspect(y=kept)
        y = named_activation(activation, dtype_kind(xp, kept.dtype))(kept)  # type: ignore[misc]
    return one(y, lambda dy: linear(call, dy if way is None else way.pull(kept, dy)))


def _conv(call: Call) -> Forward:
    return _activated(call, _conv_back)


def _conv_back(call: Call, dy: Array) -> Gradients:
    x, w, b, o = call.args[0], call.args[1], call.arg(2), call.options
    depthwise = call.function is depthwise_conv
    spec = conv_spec(
        tuple(x.shape),
        tuple(w.shape),
        None if b is None else tuple(b.shape),
        *(frozen(o.get(name, default)) for name, default in _OPTIONS),
        None if depthwise else frozen(o.get("groups", 1)),
        frozen(o.get("layout", "NHWC")),
        frozen(o.get("input_dilation", 1)),
    )
    xp, traits = inspect(x=x, w=w, dy=dy)
    found = {"residual": dy} if "residual" in call.wanted else {}
    g = _entered(dy, spec, xp)
    if "x" in call.wanted:
        kernel = _inner_kernel(w, spec, xp)
        found["x"] = leave_input(input_gradient(g, kernel, spec.problem, xp, traits), spec, xp)
    if "w" in call.wanted:
        inner = enter(conjugate(x, xp), spec.layout, xp, batched=spec.batched)
        dw, db = kernel_gradient(inner, g, spec.problem, xp, traits, bias="b" in call.wanted)
        found |= {"w": _outer_kernel(dw, w, spec, xp)} | ({"b": db} if "b" in call.wanted else {})
    elif "b" in call.wanted:
        found["b"] = _bias_gradient(g, xp)
    return found


_OPTIONS = (("stride", 1), ("padding", "valid"), ("pad_mode", "constant"), ("dilation", 1))


def _transpose(call: Call) -> Forward:
    return _activated(call, _transpose_back)


def _transpose_back(call: Call, dy: Array) -> Gradients:
    """The transpose of a transpose is the convolution itself; its two arrays change places in the sum for w."""
    x, w, b, o = call.args[0], call.args[1], call.arg(2), call.options
    spec = transposed_spec(
        tuple(x.shape),
        tuple(w.shape),
        None if b is None else tuple(b.shape),
        *(
            frozen(o.get(name, default))
            for name, default in (
                ("stride", 1),
                ("padding", "valid"),
                ("output_padding", 0),
                ("output_shape", None),
                ("dilation", 1),
                ("groups", 1),
                ("layout", "NHWC"),
            )
        ),
    )
    xp, traits = inspect(x=x, w=w, dy=dy)
    found = {}
    g = _entered(dy, spec, xp)
    if "x" in call.wanted:
        kernel = conjugate(_inner_kernel(w, spec, xp), xp)
        found["x"] = leave_input(_convolved(g, kernel, spec.problem, xp, traits), spec, xp)
    if "w" in call.wanted:
        inner = enter(conjugate(x, xp), spec.layout, xp, batched=spec.batched)
        dw, _ = kernel_gradient(g, inner, spec.problem, xp, traits)
        found["w"] = _outer_kernel(dw, w, spec, xp)
    if "b" in call.wanted:
        found["b"] = _bias_gradient(g, xp)
    return found


def _separable(call: Call) -> Forward:
    """The depthwise half, then the mixing one."""
    through(call.options.get("activation"))  # refused, if it must be, before any work
    x, depthwise, pointwise, b = (call.arg(i) for i in range(4))
    common = {name: call.options[name] for name in ("layout", "dtype") if name in call.options}
    own = {name: value for name, value in call.options.items() if name != "activation"}
    wanted = {"x": "x", "depthwise": "w"}
    first = _conv(
        Call(depthwise_conv, (x, depthwise), own, frozenset(wanted[n] for n in call.wanted & set(wanted)))
    )
    rest = {"pointwise": "w", "b": "b"}
    names = {rest[name] for name in call.wanted & set(rest)}
    through_first = bool(call.wanted & set(wanted))
    options = {**common, "activation": call.options.get("activation")}
    second = _conv(
        Call(
            conv,
            (first.result, pointwise, b),
            options,
            frozenset(names | ({"x"} if through_first else set())),
        )
    )

    def pull(dy: Array) -> Gradients:
        after = second.pull(dy)
        before = first.pull(after["x"]) if through_first else {}
        found = {name: after[inner] for name, inner in rest.items() if inner in after}
        return found | {name: before[inner] for name, inner in wanted.items() if inner in before}

    return one(second.result, pull)


def input_gradient(g: Array, w: Kernel, problem: ConvProblem, xp: Namespace, traits: Traits) -> Array:
    """(N, *out, O) and the kernel (*k, I, O), or its factors, to (N, *n, I), through the pad mode."""
    constant = problem.pad_mode == "constant"
    whole = problem if constant else materialised(problem)
    kernel: Kernel
    if isinstance(w, tuple):
        kernel = tuple(None if factor is None else xp.flip(conjugate(factor, xp)) for factor in w)
    else:
        kernel = transposed_kernel(conjugate(w, xp), whole, xp)
    y = _convolved(g, kernel, whole.transposed(), xp, traits)
    if not constant:
        for axis, a in enumerate(problem.axes, 1):
            y = folded_back(y, axis, a.size, a.low, a.high, problem.pad_mode, xp)
    return y


def _convolved(x: Array, w: Kernel, problem: ConvProblem, xp: Namespace, traits: Traits) -> Array:
    """The convolution ``problem`` of inner arrays, by way of the planner."""
    kernel = next(factor.dtype for factor in w if factor is not None) if isinstance(w, tuple) else w.dtype
    dtypes = sum_dtypes(xp, x.dtype, kernel, None, problem.taps * (problem.channels_in // problem.groups))
    job, plans = ready(problem, x.dtype, dtypes, None, "auto", xp, settings())
    (y,) = execute(job, x, (w, None), xp, traits, plans)
    return y


def kernel_gradient(
    x: Array,
    g: Array,
    problem: ConvProblem,
    xp: Namespace,
    traits: Traits,
    fill: complex = 0,
    *,
    bias: bool = False,
) -> tuple[Array, Array]:
    """(N, *n, I), ``fill`` around it, and (N, *out, O) to (*k, I / groups, O) and (O,), in the dtype of the sums."""
    dtypes = sum_dtypes(xp, x.dtype, g.dtype, None, problem.pixels)
    problem = replace(problem, kind=dtypes.kind, itemsize=dtypes.itemsize)
    return weight_gradient(x, g, problem, dtypes.compute, settings(), xp, traits, fill, bias=bias)


def _bias_gradient(g: Array, xp: Namespace) -> Array:
    """Row by row first: a long sum of floats, one after the other, would lose digits."""
    dtype = wide(xp, g.dtype)
    return xp.sum(xp.sum(g, axis=-2, dtype=dtype), axis=tuple(range(g.ndim - 2)), dtype=dtype)


def conjugate(a: Array, xp: Namespace) -> Array:
    return xp.conj(a) if dtype_kind(xp, a.dtype) == "complex" else a


def _entered(dy: Array, spec: ConvSpec, xp: Namespace) -> Array:
    """The gradient by the result as (N, *out, O)."""
    dy = permuted_axes(dy, inverse(spec.layout.leave(batched=spec.batched)), xp)
    return dy if spec.batched else xp.expand_dims(dy, axis=0)


def leave_input(dx: Array, spec: ConvSpec, xp: Namespace) -> Array:
    """The gradient by the input (N, *n, I) as the caller has the input."""
    dx = dx if spec.batched else xp.squeeze(dx, axis=0)
    return permuted_axes(dx, inverse(spec.layout.enter(batched=spec.batched)), xp)


def _inner_kernel(w: Array, spec: ConvSpec, xp: Namespace) -> Array:
    w = permuted_axes(w, spec.layout.kernel, xp)
    return w if spec.kernel_shape is None else xp.reshape(w, spec.kernel_shape)


def _outer_kernel(dw: Array, w: Array, spec: ConvSpec, xp: Namespace) -> Array:
    """The gradient by the kernel as the caller has the kernel."""
    dw = xp.reshape(dw, tuple(w.shape[i] for i in spec.layout.kernel))
    return permuted_axes(dw, inverse(spec.layout.kernel), xp)


def inverse(order: Permutation) -> Permutation:
    return tuple(order.index(i) for i in range(len(order)))


_CONV = Rule(("x", "w", "b"), _conv, keywords=("residual",))
_TRANSPOSE = Rule(("x", "w", "b"), _transpose)
RULES: dict[Callable[..., Any], Rule] = {
    **dict.fromkeys((conv, conv1d, conv2d, conv3d), _CONV),
    conv_general: Rule(("x", "w"), _conv),
    depthwise_conv: Rule(("x", "w", "b"), _conv),
    **dict.fromkeys((conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d), _TRANSPOSE),
    separable_conv: Rule(("x", "depthwise", "pointwise", "b"), _separable),
}
