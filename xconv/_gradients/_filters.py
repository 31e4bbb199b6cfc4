"""Gradients of the linear filters: those of a convolution, with the axes as a filter chooses them.

What a convolution does to batch and channels, a filter does to the axes that are not chosen; the smoothing filters
have kernels of their own, one for each axis, so that only the image has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from xconv._args import frozen
from xconv._dtypes import wide
from xconv._filter import convolve, correlate, turned
from xconv._filter_spec import FilterSpec, filter_spec
from xconv._geometry import materialised
from xconv._gradients._around import folded_back
from xconv._gradients._convolutions import conjugate, input_gradient, inverse, kernel_gradient
from xconv._gradients._dense import widened
from xconv._gradients._rule import Call, Forward, Gradients, Rule, one
from xconv._namespace import Array, Namespace, Traits, copied, inspect, permuted_axes
from xconv._smooth import (
    filtered_lines,
    gaussian_filter,
    gaussian_laplace,
    laplace,
    numbers,
    sobel,
    uniform_filter,
)
from xconv._smoothers import LinesSpec, gaussian_spec, sobel_spec, uniform_spec


def _filtered(call: Call, *, flip: bool) -> Forward:
    y = call.run()
    x, kernel, options = call.args[0], call.args[1], call.options
    separable = isinstance(kernel, list | tuple)
    kernels = tuple(kernel) if separable else (kernel,)

    def pull(dy: Array) -> Gradients:
        xp, traits = inspect(x=x, dy=dy)
        spec = filter_spec(
            tuple(x.shape),
            tuple(tuple(k.shape) for k in kernels),
            *(frozen(options.get(name, default)) for name, default in _OPTIONS),
            flip=flip,
            separable=separable,
            chunked=traits.chunked,
        )
        g, found = _entered(dy, spec, xp), {}
        if "x" in call.wanted:
            wanted = (
                g if spec.problem.pad_mode == "constant" else widened(g, xp)
            )  # before borders are added up
            dx = input_gradient(wanted, turned(kernels, spec, xp, flip=flip), spec.problem, xp, traits)
            found["x"] = _left(dx, tuple(x.shape), spec.x[0], xp)
        if "kernel" in call.wanted:
            order, shape = spec.x
            inner = xp.reshape(permuted_axes(conjugate(x, xp), order, xp), shape)
            fill = complex(options.get("value", 0)).conjugate()
            dw, _ = kernel_gradient(inner, g, spec.problem, xp, traits, fill if fill.imag else fill.real)
            along = tuple(range(len(spec.problem.axes)))
            dw = xp.flip(dw, axis=along) if flip else conjugate(dw, xp)
            found["kernel"] = _left(dw, tuple(kernel.shape), spec.kernel[0], xp)
        return found

    return one(y, pull)


_OPTIONS = (
    ("axes", None),
    ("mode", "full"),
    ("pad_mode", "constant"),
    ("stride", 1),
    ("dilation", 1),
    ("origin", 0),
)


def _entered(dy: Array, spec: FilterSpec, xp: Namespace) -> Array:
    """The gradient by the result as (N, *out, O)."""
    problem, (_, order) = spec.problem, spec.y
    return xp.reshape(
        permuted_axes(dy, inverse(order), xp), (problem.batch, *problem.outputs, problem.channels_out)
    )


def _left(a: Array, shape: tuple[int, ...], order: tuple[int, ...], xp: Namespace) -> Array:
    """An inner gradient in the shape of the argument, whose axes entered in this order."""
    return permuted_axes(xp.reshape(a, tuple(shape[i] for i in order)), inverse(order), xp)


def _smooth(call: Call, spec_of: Callable[[Call], LinesSpec]) -> Forward:
    return one(call.run(), lambda dy: {"x": _back_along_lines(dy, spec_of(call), *inspect(dy=dy))})


def _back_along_lines(dy: Array, spec: LinesSpec, xp: Namespace, traits: Traits) -> Array:
    """The same filter with its kernels turned round, over all that an axis was continued to, which is folded back."""
    if 0 in dy.shape:
        return copied(dy, xp)
    mode = spec.problem.pad_mode
    whole = spec.problem if mode == "constant" else materialised(spec.problem)
    back = LinesSpec(
        replace(whole, axes=tuple(axis.transposed() for axis in whole.axes)),
        tuple(tuple(None if k is None else k[::-1] for k in term) for term in spec.terms),
    )
    if mode == "constant":
        return filtered_lines(dy, back, dy.dtype, 0, xp, traits)
    dx = filtered_lines(dy, back, wide(xp, dy.dtype), 0, xp, traits)
    for axis, a in enumerate(spec.problem.axes):
        if a.low or a.high:
            dx = folded_back(dx, axis, a.size, a.low, a.high, mode, xp)
    return dx


def _gaussian(call: Call) -> LinesSpec:
    x, sigma, options = call.args[0], call.args[1], call.options
    return gaussian_spec(
        tuple(x.shape),
        sigma=numbers(sigma),
        order=None if call.function is gaussian_laplace else frozen(options.get("order", 0)),
        truncate=numbers(options.get("truncate", 4.0)),
        radius=frozen(options.get("radius")),
        **_lines(call),
    )


def _uniform(call: Call) -> LinesSpec:
    x, size = call.args[0], call.args[1]
    origin = frozen(call.options.get("origin", 0))
    return uniform_spec(tuple(x.shape), size=frozen(size), origin=origin, **_lines(call))


def _differences(call: Call) -> LinesSpec:
    axis = frozen(call.options.get("axis", -1)) if call.function is sobel else None
    return sobel_spec(tuple(call.args[0].shape), axis=axis, **_lines(call))


def _lines(call: Call) -> dict[str, Any]:
    axes, pad_mode = call.options.get("axes"), call.options.get("pad_mode", "symmetric")
    return {"axes": frozen(axes), "pad_mode": frozen(pad_mode)}


RULES: dict[Callable[..., Any], Rule] = {
    convolve: Rule(("x", "kernel"), partial(_filtered, flip=True), several=("kernel",)),
    correlate: Rule(("x", "kernel"), partial(_filtered, flip=False), several=("kernel",)),
    gaussian_filter: Rule(("x", None), partial(_smooth, spec_of=_gaussian)),
    gaussian_laplace: Rule(("x", None), partial(_smooth, spec_of=_gaussian)),
    uniform_filter: Rule(("x", None), partial(_smooth, spec_of=_uniform)),
    sobel: Rule(("x",), partial(_smooth, spec_of=_differences)),
    laplace: Rule(("x",), partial(_smooth, spec_of=_differences)),
}
