"""One layer as calls of xconv: plain, and with the weights bound by a plan."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
from layers import Layer

import xconv

PLAIN, BOUND = "xconv", "xconv bound"


def operands(layer: Layer, batch: int) -> list[np.ndarray]:
    """Input, and weights and bias where it has any: float32, channels last."""
    rng = np.random.default_rng(0)
    shapes = [(batch, *layer.shape)]
    if layer.weight_shape is not None:
        shapes += [layer.weight_shape, (layer.channels,)]
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def public_call(
    layer: Layer, arrays: list[np.ndarray]
) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """The function of xconv that a layer is, what it is called with, and its options."""
    function = getattr(xconv, layer.op)
    if layer.op in ("dense", "global_avg_pool"):
        return function, arrays, {}
    options = {"stride": layer.stride, "padding": layer.padding}
    if layer.op == "max_pool":
        return function, [*arrays, layer.kernel], options
    options["groups"] = layer.groups
    if layer.op == "conv_transpose":
        options["output_padding"] = layer.output_padding
    return function, arrays, options


def plain_call(layer: Layer, arrays: list[np.ndarray]) -> Callable[[], np.ndarray]:
    """The layer as one call."""
    function, arguments, options = public_call(layer, arrays)
    return partial(function, *arguments, **options)


def bound_call(layer: Layer, arrays: list[np.ndarray]) -> Callable[[], np.ndarray] | None:
    """The layer as one call of a plan that has the weights; None where a plan has nothing to prepare."""
    if layer.op not in ("conv", "conv_transpose"):
        return None
    function, arguments, options = public_call(layer, arrays)
    return partial(xconv.plan(function, *arguments, **options), arrays[0])


def xconv_calls(layer: Layer, arrays: list[np.ndarray]) -> dict[str, Callable[[], np.ndarray]]:
    """Every way in which xconv does a layer."""
    calls = {PLAIN: plain_call(layer, arrays), BOUND: bound_call(layer, arrays)}
    return {name: call for name, call in calls.items() if call is not None}


def algorithms_of(layer: Layer, arrays: list[np.ndarray]) -> str:
    """The algorithm that a call takes, and that of the bound call if it is another; ``-`` without a choice."""
    if layer.op in ("dense", "global_avg_pool"):
        return "-"
    function, arguments, options = public_call(layer, arrays)
    plain = xconv.explain(function, *arguments, **options).algorithm
    bound = xconv.plan(function, *arguments, **options).algorithm
    return plain if plain == bound else f"{plain} / {bound}"


def threads_for_xconv(threads: int) -> AbstractContextManager[object]:
    """In this block, calls of xconv use so many threads."""
    return xconv.config(threads=threads)
