"""The clerk: every spelling of every option becomes integers and pairs, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, TypeAlias

from xconv._errors import refuse, refuse_type
from xconv._geometry import Axis, same_pads
from xconv._layout import Layout, permuted

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


class _NotAnInt:
    """A value where an int belongs. It is equal to nothing: 1.0 and True must not be looked up as 1."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def frozen(value: Any) -> Any:
    """An option that can be looked up: lists as tuples, every kind of integer as int, strings and None."""
    if type(value) is int or value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return tuple(frozen(v) for v in value)
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        return frozen(value.tolist())
    return index(value) if is_integer(value) else _NotAnInt(value)


def is_integer(value: Any) -> bool:
    """Whether ``value`` is of an integer type, which bool is not."""
    return not isinstance(value, bool) and hasattr(value, "__index__")


def integer(name: str, value: Any, *, least: int | None = None) -> int:
    """One int, of any integer type, at least ``least``."""
    if not is_integer(value):
        refuse_type(name, value, "be an int")
    number = index(value)
    if least is not None and number < least:
        refuse(name, value, "be positive" if least == 1 else f"be at least {least}")
    return number


def per_axis(name: str, value: Any, spatial: int, *, least: int | None = None) -> Shape:
    """One int for all spatial axes, or one for each."""
    if not isinstance(value, tuple):
        if not is_integer(value):
            refuse_type(name, value, "be an int or one int per spatial axis")
        return (integer(name, value, least=least),) * spatial
    if len(value) != spatial:
        refuse(name, value, f"have one int for each of the {spatial} spatial axes")
    for number in value:
        if not is_integer(number):
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
        if not is_integer(padding):
            refuse_type(name, padding, rule)
        return ((index(padding), index(padding)),) * count
    if len(padding) != count:
        refuse(name, padding, rule)
    found = []
    for entry in padding:
        pair = entry if isinstance(entry, tuple) else (entry, entry)
        if not all(map(is_integer, pair)):
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


def pool_rank(x: Shape, window: Any) -> tuple[int, bool]:
    """Number of spatial axes, and whether there is a batch axis."""
    if isinstance(window, tuple):
        return len(window), rank_and_batch(x, len(window))
    if len(x) < 3:
        refuse("x", list(x), "have a batch axis, a channel axis and at least one spatial axis")
    return len(x) - 2, True
