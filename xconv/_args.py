"""The clerk: every spelling of every option becomes one closed problem, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import Any, TypeAlias

from xconv._errors import refuse, refuse_type
from xconv._geometry import Axis, ConvProblem, WindowProblem, ceil_high, has_empty_window, same_pads
from xconv._layout import Layout, parse_layout, permuted

Ints: TypeAlias = int | Sequence[int]
Padding: TypeAlias = str | int | Sequence[int] | Sequence[Sequence[int]]
Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]

PAD_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
_FOREIGN_PAD_MODES = {
    "replicate": "edge",
    "nearest": "edge",
    "circular": "wrap",
    "grid-wrap": "wrap",
    "mirror": "reflect",
    "zeros": "constant",
    "grid-constant": "constant",
    "grid-mirror": "symmetric",
}
_PADDINGS = "'valid', 'same', 'same_lower', 'full' or 'causal'"


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


def frozen(value: Any) -> Any:
    """Lists as tuples, so that options can be looked up; an array is no option."""
    if isinstance(value, list | tuple):
        return tuple(frozen(v) for v in value)
    if hasattr(value, "shape") and getattr(value, "ndim", 0) > 0:
        return tuple(frozen(v) for v in value.tolist()) if hasattr(value, "tolist") else value
    if type(value).__hash__ is None:
        refuse_type("every option", value, "be a number, a string, None, or a tuple or list of these")
    return value


def integer(name: str, value: Any, *, least: int | None = None) -> int:
    """One int, of any integer type, at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        refuse_type(name, value, "be an int")
    number = index(value)
    if least is not None and number < least:
        refuse(name, value, "be positive" if least == 1 else f"be at least {least}")
    return number


def per_axis(name: str, value: Any, spatial: int, *, least: int | None = None) -> Shape:
    """One int for all spatial axes, or one for each."""
    if not isinstance(value, tuple):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            refuse_type(name, value, "be an int or one int per spatial axis")
        return (integer(name, value, least=least),) * spatial
    if len(value) != spatial:
        refuse(name, value, f"have one int for each of the {spatial} spatial axes")
    for number in value:
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            refuse_type(name, value, "be an int or one int per spatial axis")
        if least is not None and number < least:
            refuse(name, value, "be positive" if least == 1 else f"be at least {least}")
    return tuple(index(number) for number in value)


def pads(
    padding: Any, sizes: Sequence[int], window: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Pads:
    """Every spelling of padding as one (low, high) pair per spatial axis."""
    axes = list(zip(sizes, window, stride, dilation, strict=True))
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * len(axes)
        if padding in ("same", "same_lower"):
            return tuple(same_pads(*axis, lower=padding == "same_lower") for axis in axes)
        if padding == "full":
            return tuple((d * (k - 1), d * (k - 1)) for _, k, _, d in axes)
        if padding == "causal":
            return tuple((d * (k - 1), 0) for _, k, _, d in axes)
        refuse("padding", padding, f"be {_PADDINGS}, an int, an int per axis, or a (low, high) pair per axis")
    return numeric_pads(padding, len(axes))


def numeric_pads(padding: Any, count: int, name: str = "padding") -> Pads:
    """Padding given in numbers as one (low, high) pair for each of ``count`` axes."""
    names = f"{_PADDINGS}, " if name == "padding" else ""
    rule = f"be {names}an int, an int per axis, or a (low, high) pair per axis ({count} axes)"
    if not isinstance(padding, tuple):
        if isinstance(padding, bool) or not hasattr(padding, "__index__"):
            refuse_type(name, padding, rule)
        return ((index(padding), index(padding)),) * count
    if len(padding) != count:
        refuse(name, padding, rule)
    found = []
    for entry in padding:
        pair = entry if isinstance(entry, tuple) else (entry, entry)
        if any(isinstance(p, bool) or not hasattr(p, "__index__") for p in pair):
            refuse_type(name, padding, rule)
        if len(pair) != 2:
            refuse(name, padding, rule)
        found.append((index(pair[0]), index(pair[1])))
    return tuple(found)


def checked_pad_mode(pad_mode: Any, argument: str = "pad_mode") -> str:
    """A pad mode by NumPy's name; a foreign name is answered with the NumPy name that means the same."""
    if pad_mode in PAD_MODES:
        return str(pad_mode)
    if isinstance(pad_mode, str) and pad_mode in _FOREIGN_PAD_MODES:
        same = _FOREIGN_PAD_MODES[pad_mode]
        refuse(argument, pad_mode, f"be one of NumPy's names; '{pad_mode}' is called '{same}' here")
    refuse(argument, pad_mode, f"be one of {', '.join(map(repr, PAD_MODES))}")


def rank_and_batch(x: Shape, spatial: int, name: str = "x") -> bool:
    """Whether ``x`` has a batch axis; refuses any other rank than with it or one fewer."""
    if len(x) not in (spatial + 1, spatial + 2):
        rule = f"have {spatial + 2} axes (or {spatial + 1}, unbatched) for {spatial} spatial axes"
        refuse(name, list(x), f"{rule}, not {len(x)}")
    return len(x) == spatial + 2


def inner_sizes(x: Shape, layout: Layout, *, batched: bool) -> tuple[int, Shape, int]:
    """Batch, spatial sizes and channels of the caller's input."""
    shape = permuted(x, layout.enter(batched=batched))
    return (shape[0], shape[1:-1], shape[-1]) if batched else (1, shape[:-1], shape[-1])


def kernel_rank(w: Shape, name: str = "w") -> int:
    """Number of spatial axes of a kernel."""
    if len(w) < 3:
        refuse(name, list(w), "have at least 3 axes: one spatial, input and output channels")
    return len(w) - 2


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
        if inputs == channels:  # (*k, C, M) is the same kernel as (*k, 1, C * M) with C groups
            inputs, outputs = 1, channels * outputs
        elif inputs != 1 or not channels or outputs % channels:
            refuse(w_name, list(w), f"have (C, M) channels for the {channels} channels C of x, or (1, C * M)")
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


def check_channels(
    channels: int, inputs: int, outputs: int, groups: int, x: list[int], w: list[int], w_name: str
) -> None:
    """Channels that match, groups that divide."""
    if not channels:
        refuse("x", x, "have at least one channel")
    if channels % groups:
        refuse("groups", groups, f"divide the {channels} channels of x")
    if not outputs:
        refuse(w_name, w, "have at least one output channel")
    if outputs % groups:
        refuse("groups", groups, f"divide the {outputs} output channels of {w_name}")
    if inputs != channels // groups:
        rule = f"have {channels // groups} input channels, the {channels} of x"
        refuse(w_name, w, f"{rule} divided by groups={groups}" if groups > 1 else rule)


def check_fits(axes: Sequence[Axis], name: str, value: object) -> None:
    """A window that is not empty and not longer than the padded input."""
    for i, axis in enumerate(axes):
        if axis.window < 1:
            refuse(name, value, "have at least one element along every axis")
        if axis.output < 1:
            padded = axis.spread + axis.low + axis.high
            rule = f"fit into the padded input: along spatial axis {i} it reaches over {axis.reach} elements"
            refuse(name, value, f"{rule} and the padded input has {padded}")


def check_bias(b: Shape | None, outputs: int) -> None:
    """One number per output channel."""
    if b is not None and tuple(b) != (outputs,):
        refuse("b", list(b), f"have shape [{outputs}], one number per output channel")


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as asked for: the closed problem, the padding before ``ceil_mode``, and how arrays get in and out."""

    problem: WindowProblem
    pads: Pads
    layout: Layout
    batched: bool


def pool_rank(x: Shape, window: Any) -> tuple[int, bool]:
    """Number of spatial axes, and whether there is a batch axis."""
    if isinstance(window, tuple):
        return len(window), rank_and_batch(x, len(window))
    if len(x) < 3:
        refuse("x", list(x), "have a batch axis, a channel axis and at least one spatial axis")
    return len(x) - 2, True


@lru_cache(maxsize=4096)
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
