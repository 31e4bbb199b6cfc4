"""One layer as calls of xconv: plain, and with the weights bound by a plan; on NumPy alone, or compiled movers too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from layers import Layer

import xconv
from xconv._bridges import numba as bridge

PLAIN, BOUND = "xconv", "xconv bound"  # on NumPy alone, whether or not numba is installed
FAST, FAST_BOUND = "xconv[fast]", "xconv[fast] bound"
OURS = (PLAIN, BOUND, FAST, FAST_BOUND)

Call = Callable[[], np.ndarray]


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


def need_compiled_movers() -> str:
    """The version of the numba that xconv uses; the program ends where it uses none."""
    if bridge.load() is None:
        sys.exit(f"--fast needs compiled movers, those of numba: {bridge.state(wanted=True)}")
    return version("numba")


def compiled(call: Callable[..., Any], *, fast: bool) -> Callable[..., Any]:
    """The same call with compiled movers, or without. To enter the setting is a microsecond of every call."""
    setting = xconv.config(fast=fast)

    def under_the_setting(*arguments: Any) -> Any:
        with setting:
            return call(*arguments)

    return under_the_setting


def plain_call(layer: Layer, arrays: list[np.ndarray], *, fast: bool = False) -> Call:
    """The layer as one call."""
    function, arguments, options = public_call(layer, arrays)
    return compiled(partial(function, *arguments, **options), fast=fast)


def bound_call(layer: Layer, arrays: list[np.ndarray], *, fast: bool = False) -> Call:
    """The layer as one call of a plan that has the weights."""
    function, arguments, options = public_call(layer, arrays)
    with xconv.config(fast=fast):
        plan = xconv.plan(function, *arguments, **options)
    return compiled(partial(plan, arrays[0]), fast=fast)


def makers(layer: Layer, arrays: list[np.ndarray], *, fast: bool = False) -> dict[str, Callable[[], Call]]:
    """What makes each of the calls below; but for convolutions and dense layers a plan has nothing to prepare."""
    plain, bound = (FAST, FAST_BOUND) if fast else (PLAIN, BOUND)
    made = {plain: partial(plain_call, layer, arrays, fast=fast)}
    if layer.op in ("conv", "conv_transpose", "dense"):
        made[bound] = partial(bound_call, layer, arrays, fast=fast)
    return made


def xconv_calls(layer: Layer, arrays: list[np.ndarray], *, fast: bool = False) -> dict[str, Call]:
    """Every way in which xconv does a layer on NumPy alone, or with compiled movers."""
    return {name: make() for name, make in makers(layer, arrays, fast=fast).items()}


def algorithms_of(layer: Layer, arrays: list[np.ndarray], *, fast: bool = False) -> str:
    """The algorithm that a call takes, and that of the bound call if it is another; ``-`` without a choice."""
    if layer.op in ("dense", "global_avg_pool"):
        return "-"
    function, arguments, options = public_call(layer, arrays)
    with xconv.config(fast=fast):
        plain = xconv.explain(function, *arguments, **options).algorithm
        bound = xconv.plan(function, *arguments, **options).algorithm
    return plain if plain == bound else f"{plain} / {bound}"


def threads_for_xconv(threads: int) -> AbstractContextManager[object]:
    """In this block, calls of xconv use so many threads."""
    return xconv.config(threads=threads)
