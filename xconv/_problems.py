"""The clerk's desk: shapes and options become one closed problem, with the way in and out of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xconv._args import (
    Pads,
    Shape,
    check_bias,
    check_channels,
    check_fits,
    checked_pad_mode,
    inner_sizes,
    integer,
    kernel_rank,
    numeric_pads,
    pads,
    per_axis,
    pool_rank,
    rank_and_batch,
)
from xconv._errors import refuse, refuse_type
from xconv._geometry import Axis, ConvProblem, WindowProblem, ceil_high, has_empty_window
from xconv._layout import Layout, parse_layout, permuted


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """A convolution as asked for: the closed problem, and how the arrays get into it and out."""

    problem: ConvProblem
    layout: Layout
    batched: bool
    kernel_shape: Shape | None = None  # of the inner kernel, where it is not only permuted

    @property
    def terms(self) -> int:
        """Number of products in one output element."""
        return self.problem.taps * (self.problem.channels_in // self.problem.groups)


@lru_cache(maxsize=4096)
def conv_spec(
    x: Shape,
    w: Shape,
    b: Shape | None,
    stride: Any,
    padding: Any,
    pad_mode: Any,
    dilation: Any,
    groups: Any,
    layout: str,
    input_dilation: Any = 1,
    *,
    w_name: str = "w",
) -> ConvSpec:
    """The convolution of shapes ``x`` and ``w``; ``groups=None`` is a depthwise one."""
    spatial = kernel_rank(w, w_name)
    seats = parse_layout(layout, spatial)
    batched = rank_and_batch(x, spatial)
    batch, sizes, channels = inner_sizes(x, seats, batched=batched)
    *window, inputs, outputs = permuted(w, seats.kernel)
    kernel_shape = None
    if groups is None:
        if (
            seats.kernel[-2] < seats.kernel[-1]
        ):  # (*k, C, M) is the same kernel as (*k, 1, C * M) with C groups
            if inputs != channels:
                refuse(w_name, list(w), f"have {channels} input channels, as many as x")
            inputs, outputs = 1, channels * outputs
        elif inputs != 1 or not channels or outputs % channels:
            rule = f"have (C * M, 1) channels for the {channels} channels C of x"
            refuse(w_name, list(w), rule)
        groups, kernel_shape = channels, (*window, 1, outputs)
    groups = integer("groups", groups, least=1)
    steps = per_axis("stride", stride, spatial, least=1)
    gaps = per_axis("dilation", dilation, spatial, least=1)
    holes = per_axis("input_dilation", input_dilation, spatial, least=1)
    mode = checked_pad_mode(pad_mode)
    check_channels(channels, inputs, outputs, groups, list(x), list(w), w_name)
    spreads = [(n - 1) * hole + 1 if n else 0 for n, hole in zip(sizes, holes, strict=True)]
    widths = pads(padding, spreads, window, steps, gaps)
    axes = tuple(
        Axis(n, k, s, d, hole, low, high)
        for n, k, s, d, hole, (low, high) in zip(sizes, window, steps, gaps, holes, widths, strict=True)
    )
    if mode != "constant" and 0 in sizes:
        refuse("x", list(x), f"have no empty spatial axis with pad_mode='{mode}'")
    check_fits(axes, w_name, list(w))
    check_bias(b, outputs)
    return ConvSpec(
        ConvProblem(batch, axes, channels, outputs, groups, pad_mode=mode), seats, batched, kernel_shape
    )


@lru_cache(maxsize=4096)
def transposed_spec(
    x: Shape,
    w: Shape,
    b: Shape | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    output_shape: Any,
    dilation: Any,
    groups: Any,
    layout: str,
) -> ConvSpec:
    """The problem whose transpose is asked for: a convolution from the result's shape to that of ``x``."""
    spatial = kernel_rank(w)
    seats = parse_layout(layout, spatial)
    batched = rank_and_batch(x, spatial)
    batch, sizes, channels = inner_sizes(x, seats, batched=batched)
    *window, outputs, inputs = permuted(w, seats.kernel)  # that convolution goes from outputs to inputs
    groups = integer("groups", groups, least=1)
    steps = per_axis("stride", stride, spatial, least=1)
    gaps = per_axis("dilation", dilation, spatial, least=1)
    if inputs != channels:
        refuse("w", list(w), f"have the {channels} channels of x as its (output) channels, not {inputs}")
    if not channels or channels % groups:
        refuse("groups", groups, f"divide the {channels} channels of x")
    if 0 in window or not outputs:
        refuse("w", list(w), "have no empty axis")
    if 0 in sizes:
        refuse("x", list(x), "have no empty spatial axis")
    extra = per_axis("output_padding", output_padding, spatial, least=0)
    for e, s, d in zip(extra, steps, gaps, strict=True):
        if e >= max(s, d):
            refuse("output_padding", output_padding, "be smaller than the stride or the dilation")
    wanted = None if output_shape is None else per_axis("output_shape", output_shape, spatial, least=1)
    if wanted is not None and any(extra):
        refuse("output_padding", output_padding, "be left out when output_shape is given")
    axes = []
    for i, (m, k, s, d) in enumerate(zip(sizes, window, steps, gaps, strict=True)):
        natural = (m - 1) * s + d * (k - 1) + 1  # the output without any padding
        low, high = _transposed_pads(padding, i, spatial, m, natural, s, wanted)
        size = natural - low - high + extra[i] if wanted is None else wanted[i]
        if (
            wanted is not None
            and not isinstance(padding, str)
            and not 0 <= size - natural + low + high < max(s, d)
        ):
            least, most = natural - low - high, natural - low - high + max(s, d) - 1
            refuse(
                "output_shape", output_shape, f"be between {least} and {most} on axis {i} with this padding"
            )
        if size < 1:
            refuse("padding", padding, f"leave something of the output, {natural} long before it is cropped")
        axes.append(Axis(size, k, s, d, 1, low, (m - 1) * s + d * (k - 1) + 1 - size - low))
    check_bias(b, outputs * groups)
    return ConvSpec(ConvProblem(batch, tuple(axes), outputs * groups, channels, groups), seats, batched)


def _transposed_pads(
    padding: Any, axis: int, spatial: int, m: int, natural: int, stride: int, wanted: Shape | None
) -> tuple[int, int]:
    """Padding of the convolution that is transposed, which here crops; negative is an empty tail."""
    reach = natural - (m - 1) * stride
    if not isinstance(padding, str):
        return numeric_pads(padding, spatial)[axis]
    if padding in ("full", "causal") and wanted is None:
        return reach - 1, reach - 1 if padding == "full" else 0
    if padding not in ("valid", "same", "same_lower"):
        if padding in ("full", "causal"):
            refuse("output_shape", wanted, f"be left out with padding={padding!r}, which fixes it")
        pads(padding, (), (), (), ())  # refuses an unknown name
    if padding == "valid" and wanted is None:
        return 0, 0
    total = natural - (m * stride if wanted is None else wanted[axis])
    if total < 0:
        return 0, total
    return (total // 2, total - total // 2) if padding == "same" else (total - total // 2, total // 2)


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as asked for: the closed problem, the padding before ``ceil_mode``, and how arrays get in and out."""

    problem: WindowProblem
    pads: Pads
    layout: Layout
    batched: bool


@lru_cache(maxsize=4096, typed=True)
def pool_spec(
    x: Shape,
    window: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    layout: str,
    *,
    ceil_mode: Any = False,
    input_dilation: Any = 1,
    empty: bool = False,
) -> PoolSpec:
    """The pool over shape ``x``; ``empty`` says whether windows may lie in the padding completely."""
    spatial, batched = pool_rank(x, window)
    seats = parse_layout(layout, spatial, kernel=False)
    batch, sizes, channels = inner_sizes(x, seats, batched=batched)
    lengths = per_axis("window", window, spatial, least=1)
    steps = per_axis("stride", stride, spatial, least=1)
    gaps = per_axis("dilation", dilation, spatial, least=1)
    holes = per_axis("input_dilation", input_dilation, spatial, least=1)
    if not isinstance(ceil_mode, bool):
        refuse_type("ceil_mode", ceil_mode, "be True or False")
    spreads = [(n - 1) * hole + 1 if n else 0 for n, hole in zip(sizes, holes, strict=True)]
    widths = pads(padding, spreads, lengths, steps, gaps)
    axes = tuple(
        Axis(n, k, s, d, hole, low, high)
        for n, k, s, d, hole, (low, high) in zip(sizes, lengths, steps, gaps, holes, widths, strict=True)
    )
    if ceil_mode:
        check_fits(tuple(a._replace(high=max(a.high, ceil_high(a))) for a in axes), "window", window)
        axes = tuple(a._replace(high=ceil_high(a)) for a in axes)
    check_fits(axes, "window", window)
    if not empty and any(has_empty_window(axis) for axis in axes):
        refuse("padding", padding, "leave no window without an element of x")
    return PoolSpec(WindowProblem(batch, axes, channels), widths, seats, batched)
