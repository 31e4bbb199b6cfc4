"""The clerk's desk for filters: axes, batches and centring become one closed problem, with the way in and out of it.

Every axis of the image that is not chosen is a batch axis. How it enters the problem follows from the sizes that
image and kernel have there:

- one in the kernel: a batch of images. Those before the chosen axes are N; others become axes of the problem with a
  window of one element, so that the image is not moved about;
- the same in both: groups, each image with a kernel of its own;
- one in the image: as many outputs of each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from xconv._args import Shape, checked_pad_mode, is_integer, per_axis
from xconv._errors import refuse, refuse_type
from xconv._geometry import Axis, ConvProblem

MODES = ("full", "same", "valid")


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """A filter as asked for: the closed problem, and how image, kernel and result get into it and out."""

    problem: ConvProblem
    x: tuple[Shape, Shape]  # order of the axes, then the shape
    kernel: tuple[Shape, Shape]  # the same
    y: tuple[Shape, Shape]  # the shape, then the order of the axes
    factors: tuple[
        int | None, ...
    ]  # of a separable filter: which kernel stands along which axis of the problem


@lru_cache(maxsize=4096)
def filter_spec(
    x: Shape,
    kernels: tuple[Shape, ...],
    axes: Any,
    mode: Any,
    pad_mode: Any,
    stride: Any,
    dilation: Any,
    origin: Any,
    *,
    flip: bool,
    separable: bool,
    chunked: bool,
) -> FilterSpec:
    """The filter of shapes ``x`` and one of ``kernels``, or all of them where it is ``separable``.

    Of a ``chunked`` array no batch axes are put together.
    """
    if separable:
        _check_factors(kernels)
    kernel = tuple(shape[0] for shape in kernels) if separable else kernels[0]
    chosen = _chosen(axes, len(x), len(kernel), separable=separable)
    if mode not in MODES:
        refuse("mode", mode, f"be one of {', '.join(map(repr, MODES))}")
    pad_mode = checked_pad_mode(pad_mode)
    options = (
        per_axis("stride", stride, len(chosen), least=1),
        per_axis("dilation", dilation, len(chosen), least=1),
        per_axis("origin", origin, len(chosen)),
    )
    rank = max(len(x), len(kernel))
    front = rank - len(x)  # batch axes that only the kernel has
    sizes, chosen = (*(1,) * front, *x), tuple(front + axis for axis in chosen)
    seats = _seats(kernel, chosen, rank)  # where in the kernel each axis stands
    taps = {axis: kernel[seat] for axis, seat in seats.items()}
    if 0 in kernel:
        refuse("kernel", _given(kernels, separable=separable), "have no empty axis")
    windows = {}
    for axis, s, d, shift in zip(chosen, *options, strict=True):
        if not sizes[axis]:
            refuse("x", list(x), f"have no empty axis among those that are filtered, as axis {axis - front}")
        given = _given(kernels, separable=separable)
        windows[axis] = _window(sizes[axis], taps[axis], s, d, shift, mode, axis - front, given, flip=flip)
    images, shared, several, units = _batches(sizes, taps, windows, list(kernel), front, chunked=chunked)
    first = min(windows)
    batch = max(
        (run for run in images if run[0] < first), key=lambda run: prod(sizes[a] for a in run), default=()
    )
    images.remove(batch) if batch else None
    places = sorted([(axis,) for axis in windows] + images)  # the axes of the problem, in the order of x
    axes_ = tuple(windows.get(place[0]) or Axis(prod(sizes[a] for a in place), 1) for place in places)
    spatial = [axis for place in places for axis in place]
    groups, multiplier = prod(sizes[a] for a in shared), prod(taps[a] for a in several)
    problem = ConvProblem(
        prod(sizes[a] for a in batch),
        axes_,
        groups,
        groups * multiplier,
        groups,
        pad_mode=pad_mode,
        separable=separable,
    )
    entering = [a - front for a in (*batch, *spatial, *shared, *several, *units) if a >= front]
    lasting = [*(a for a in spatial if a in seats), *shared, *several]
    lasting += [a for a in seats if a not in lasting]
    leaving = [*batch, *spatial, *shared, *several, *units]
    outputs = [windows[a].output if a in windows else taps[a] if a in several else sizes[a] for a in leaving]
    return FilterSpec(
        problem,
        (tuple(entering), (problem.batch, *(axis.size for axis in axes_), groups)),
        (
            () if separable else tuple(seats[a] for a in lasting),
            (*problem.window, 1, problem.channels_out),
        ),
        (tuple(outputs), tuple(leaving.index(a) for a in range(rank))),
        tuple(chosen.index(place[0]) if place[0] in windows else None for place in places),
    )


def _given(kernels: tuple[Shape, ...], *, separable: bool) -> object:
    """The kernel as an error shows it."""
    return tuple(map(list, kernels)) if separable else list(kernels[0])


def _check_factors(kernels: tuple[Shape, ...]) -> None:
    if not kernels or any(len(shape) != 1 for shape in kernels):
        refuse(
            "kernel", _given(kernels, separable=True), "hold one 1-D kernel for each axis where it is a tuple"
        )


def _chosen(axes: Any, rank: int, kernel: int, *, separable: bool) -> Shape:
    """The axes to be filtered, counted from the first one of x, in the order they are given."""
    if axes is None:
        if not kernel:
            refuse("kernel", [], "have at least one axis")
        if kernel > rank:
            what = "hold no more kernels than x has axes" if separable else "have no more axes than x"
            refuse("kernel", kernel, f"{what}, {rank}, unless axes= says which axes are filtered")
        return tuple(range(rank - kernel, rank))
    given = axes if isinstance(axes, tuple) else (axes,)
    if not all(map(is_integer, given)):
        refuse_type("axes", axes, "be an int, a tuple of ints, or None")
    if not given:
        refuse("axes", axes, "name at least one axis")
    if not all(-rank <= axis < rank for axis in given):
        refuse("axes", axes, f"name axes of x, which has {rank}")
    found = tuple(axis % rank for axis in given)
    if len(set(found)) != len(found):
        refuse("axes", axes, "name every axis once")
    if separable and kernel != len(found):
        refuse("kernel", kernel, f"hold as many kernels as there are axes, {len(found)}")
    if kernel < len(found):
        refuse("kernel", kernel, f"have at least as many axes as are filtered, {len(found)}")
    return found


def _seats(kernel: Shape, chosen: Shape, rank: int) -> dict[int, int]:
    """Which axis of the kernel belongs to which axis of the whole: as they are chosen, or aligned as they broadcast."""
    if len(kernel) == len(chosen):
        return {axis: seat for seat, axis in enumerate(chosen)}
    short = rank - len(kernel)
    if any(axis < short for axis in chosen):
        refuse("kernel", list(kernel), "have every axis that is filtered, if it has others, or these alone")
    return {short + seat: seat for seat in range(len(kernel))}


def _window(
    size: int,
    taps: int,
    stride: int,
    dilation: int,
    origin: int,
    mode: str,
    axis: int,
    kernel: Any,
    *,
    flip: bool,
) -> Axis:
    """One filtered axis: what the kernel reaches beyond the image on either side.

    With a centre c, output o adds up kernel[t] x[o + t - c] in a correlation, kernel[t] x[o + c - t] in a convolution,
    whose kernel is turned round: there the window begins reach - 1 - c before o.
    """
    reach = dilation * (taps - 1) + 1
    if mode != "same":
        if origin:
            refuse("origin", origin, f"be 0 with mode='{mode}', which centres nothing")
        if mode == "full":
            return Axis(size, taps, stride, dilation, 1, reach - 1, reach - 1)
        if reach > size:
            rule = (
                f"be no longer than x with mode='valid': along axis {axis} it reaches over {reach} elements"
            )
            refuse("kernel", kernel, f"{rule} and x has {size}")
        return Axis(size, taps, stride, dilation)
    centre = (reach - 1) // 2 if flip else reach // 2
    if not 0 <= centre + origin < reach:
        rule = f"be from {-centre} to {reach - 1 - centre} along axis {axis}, so that the centre is in the kernel"
        refuse("origin", origin, rule)
    before = reach - 1 - centre - origin if flip else centre + origin
    return Axis(size, taps, stride, dilation, 1, before, reach - 1 - before)


def _batches(
    sizes: Sequence[int],
    taps: dict[int, int],
    windows: dict[int, Axis],
    kernel: Any,
    front: int,
    *,
    chunked: bool,
) -> tuple[list[Shape], Shape, Shape, Shape]:
    """The axes of images alone, by runs that stand side by side; of images and kernels; of kernels; of neither."""
    runs: list[Shape] = []
    shared: list[int] = []
    several: list[int] = []
    units: list[int] = []
    beside = False
    for axis, size in enumerate(sizes):
        count = taps.get(axis, 1)
        if axis not in windows and size == count == 1:
            units.append(axis)
            continue
        alone = axis not in windows and count == 1
        if alone and beside and not chunked:
            runs[-1] = (*runs[-1], axis)
        elif alone:
            runs.append((axis,))
        elif axis not in windows:
            if size not in (1, count):
                rule = (
                    f"broadcast with the batch axes of x: along axis {axis - front} it has {count} elements"
                )
                refuse("kernel", kernel, f"{rule} and x has {size}")
            (shared if size == count else several).append(axis)
        beside = alone
    return runs, tuple(shared), tuple(several), tuple(units)
