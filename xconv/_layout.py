"""Layouts: where the batch, the channels and the spatial axes of an array stand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from xconv._errors import refuse, refuse_type

Permutation = tuple[int, ...]
_SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Permutations between the caller's arrays and (N, *spatial, C), and from their kernel to (*spatial, I, O)."""

    to_inner: Permutation
    kernel: Permutation
    from_inner: Permutation
    to_inner_sample: Permutation  # the same for one sample, without the batch axis
    from_inner_sample: Permutation

    def enter(self, *, batched: bool) -> Permutation:
        """Of the input, to channels-last."""
        return self.to_inner if batched else self.to_inner_sample

    def leave(self, *, batched: bool) -> Permutation:
        """Of the result, from channels-last."""
        return self.from_inner if batched else self.from_inner_sample


@lru_cache
def parse_layout(layout: str, spatial: int, *, kernel: bool = True) -> Layout:
    """Read a layout for arrays with ``spatial`` spatial axes; ``kernel`` says whether there is one to name."""
    if not isinstance(layout, str):
        refuse_type("layout", layout, "be a string such as 'NHWC', 'channels_first' or 'NCHW,HWIO->NHWC'")
    names = _SPATIAL.get(spatial) or "".join(chr(ord("a") + i) for i in range(spatial))
    last, first = {"NHWC", "channels_last", f"N{names}C"}, {"NCHW", "channels_first", f"NC{names}"}
    if layout in last:
        given = f"N{names}C", f"{names}IO", f"N{names}C"
    elif layout in first:
        given = f"NC{names}", f"OI{names}", f"NC{names}"
    elif kernel and layout.count(",") == 1 and layout.count("->") == 1:
        head, _, output = layout.replace(" ", "").partition("->")
        input_, _, weights = head.partition(",")
        given = input_, weights, output
        names = "".join(letter for letter in input_ if letter not in "NC")
    else:
        full = ", or name all three like 'NCHW,HWIO->NHWC'" if kernel else ""
        rule = f"be 'NHWC', 'NCHW', 'channels_last' or 'channels_first' for {spatial} spatial axes{full}"
        refuse("layout", layout, rule)
    input_, weights, output = given
    if len(set(names)) != len(names):
        refuse("layout", layout, f"name every axis once in '{input_}'")
    if len(names) != spatial:
        refuse("layout", layout, f"name {spatial} spatial axes, as many as the kernel has")
    for part, channels in ((input_, "NC"), (weights, "IO"), (output, "NC")):
        if sorted(part) != sorted(names + channels):
            refuse("layout", layout, f"name each of {', '.join(names + channels)} once in '{part}'")
    sample_in, sample_out = input_.replace("N", ""), output.replace("N", "")
    return Layout(
        to_inner=tuple(input_.index(letter) for letter in f"N{names}C"),
        kernel=tuple(weights.index(letter) for letter in f"{names}IO"),
        from_inner=tuple(f"N{names}C".index(letter) for letter in output),
        to_inner_sample=tuple(sample_in.index(letter) for letter in f"{names}C"),
        from_inner_sample=tuple(f"{names}C".index(letter) for letter in sample_out),
    )


def permuted(shape: tuple[int, ...], order: Permutation) -> tuple[int, ...]:
    """The shape after a permutation of its axes."""
    return tuple(shape[i] for i in order)


def channel_axis(layout: str, ndim: int) -> int:
    """Where the channels of a batched array stand."""
    if not isinstance(layout, str):
        refuse_type("layout", layout, "be a string such as 'NHWC' or 'channels_first'")
    spatial = _SPATIAL.get(ndim - 2, "")
    if layout in ("NHWC", "channels_last", f"N{spatial}C"):
        return ndim - 1
    if layout in ("NCHW", "channels_first", f"NC{spatial}"):
        return min(1, ndim - 1)
    refuse("layout", layout, "be 'NHWC', 'NCHW', 'channels_last' or 'channels_first'")
