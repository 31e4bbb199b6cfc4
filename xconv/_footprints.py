"""The clerk's desk for filters by window: sizes, footprints and origins over chosen axes become one closed problem.

Every axis of the image is an axis of the problem. Those that are not filtered have a window of one element, so the
image is not moved about, and the tiles are cut along them first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from xconv._args import Ints, Shape, checked_pad_mode, integer, is_integer, per_axis
from xconv._errors import refuse, refuse_type
from xconv._geometry import Axis, WindowProblem
from xconv._namespace import NumPyArray
from xconv._networks import Pattern, box, reach

Axes: TypeAlias = int | Sequence[int] | None
Footprint: TypeAlias = Sequence[Any] | None
Origin: TypeAlias = Ints


@dataclass(frozen=True, slots=True)
class RankSpec:
    """A filter over windows as asked for: the closed problem, and the offsets of a window along all its axes."""

    problem: WindowProblem
    pattern: Pattern

    def __hash__(self) -> int:  # of its pattern there may be a thousand offsets
        return hash((self.problem, len(self.pattern)))


@lru_cache(maxsize=4096, typed=True)
def rank_spec(x: Shape, size: Any, footprint: Any, axes: Any, origin: Any, pad_mode: Any) -> RankSpec:
    """The windows over an image of shape ``x``, by their size or as a footprint."""
    chosen = chosen_axes(axes, len(x))
    mode = checked_pad_mode(pad_mode)
    if footprint is None:
        if size is None:
            refuse("size", size, "be given, or a footprint in its place")
        sizes = axis_options("size", size, chosen, least=1)
        inner = box(sizes)
    else:
        if size is not None:
            refuse("size", size, "be left out when a footprint is given")
        sizes, inner = _footprint(footprint, len(chosen))
    shifts = axis_options("origin", origin, chosen)
    first = tuple(map(min, zip(*inner, strict=True)))
    whole, places = [Axis(n, 1) for n in x], dict(zip(chosen, range(len(chosen)), strict=True))
    for axis, k, shift, least, most in zip(chosen, sizes, shifts, first, reach(inner), strict=True):
        before = window_start(k, shift, axis) - least
        whole[axis] = Axis(x[axis], most - least + 1, low=before, high=most - least - before)
    pattern = tuple(
        tuple(offset[places[a]] - first[places[a]] if a in places else 0 for a in range(len(x)))
        for offset in inner
    )
    return RankSpec(WindowProblem(1, tuple(whole), 1, pad_mode=mode), tuple(sorted(pattern)))


def chosen_axes(axes: Any, rank: int) -> Shape:
    """The axes to be filtered, counted from the first, in the order they are given; None is all."""
    if not rank:
        refuse("x", [], "have at least one axis")
    if axes is None:
        return tuple(range(rank))
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
    return found


def axis_options(name: str, value: Any, chosen: Shape, *, least: int | None = None) -> Shape:
    """One int for all axes that are filtered, or one for each."""
    if isinstance(value, tuple) and len(value) != len(chosen):
        refuse(name, value, f"have one int for each of the {len(chosen)} axes that are filtered")
    if not all(map(is_integer, value if isinstance(value, tuple) else (value,))):
        refuse_type(name, value, "be an int or one int per axis that is filtered")
    return per_axis(name, value, len(chosen), least=least)


def window_start(size: int, origin: int, axis: int) -> int:
    """How many elements before its centre a window begins: half of it, and the origin."""
    before = size // 2 + origin
    if not 0 <= before < size:
        rule = f"be from {-(size // 2)} to {size - 1 - size // 2} along axis {axis}"
        refuse("origin", origin, f"{rule}, so that the centre is in the window")
    return before


def frozen_footprint(footprint: Any) -> Any:
    """Nested tuples of integers, from nested sequences or an array of NumPy; None stays None."""
    if isinstance(footprint, NumPyArray):
        footprint = footprint.tolist()
    if footprint is None or not isinstance(footprint, list | tuple):
        return footprint if footprint is None or isinstance(footprint, int) else _Unknown(footprint)
    return tuple(frozen_footprint(part) for part in footprint)


class _Unknown:
    """What is no footprint, and equal to nothing."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.shape, self.dtype = getattr(value, "shape", None), getattr(value, "dtype", None)

    def __repr__(self) -> str:
        return repr(self.value)


def _footprint(footprint: Any, rank: int) -> tuple[Shape, Pattern]:
    """Its sizes, and the offsets of what it covers."""
    rule = f"be nested sequences of booleans, {rank} deep as there are axes that are filtered, or such a NumPy array"
    sizes: list[int] = []
    cells: list[tuple[Shape, Any]] = [((), footprint)]
    for _ in range(rank):
        if not all(isinstance(cell, tuple) for _, cell in cells):
            refuse_type("footprint", footprint, rule)
        if len({len(cell) for _, cell in cells}) > 1:
            refuse("footprint", footprint, "have rows of one length")
        sizes.append(len(cells[0][1]) if cells else 0)
        cells = [((*place, i), part) for place, cell in cells for i, part in enumerate(cell)]
    if not all(isinstance(cell, int) for _, cell in cells):
        refuse_type("footprint", footprint, rule)
    if any(cell not in (0, 1) for _, cell in cells):
        refuse("footprint", footprint, "hold booleans, or 0 and 1")
    pattern = tuple(place for place, cell in cells if cell)
    if not pattern:
        refuse("footprint", footprint, "cover at least one element")
    return tuple(sizes), pattern


def checked_rank(rank: Any, taps: int) -> int:
    """A rank counted from the smallest; negative ones count from the largest."""
    number = integer("rank", rank)
    if not -taps <= number < taps:
        refuse("rank", rank, f"be from {-taps} to {taps - 1}, of the {taps} elements of a window")
    return number % taps


def percentile_rank(percentile: Any, taps: int) -> int:
    """The rank below which so many per cent lie; negative ones count from 100."""
    if isinstance(percentile, bool) or not isinstance(percentile, int | float):
        refuse_type("percentile", percentile, "be a number")
    if not -100 <= percentile <= 100:
        refuse("percentile", percentile, "be from -100 to 100")
    percentile = percentile + 100.0 if percentile < 0 else percentile
    return taps - 1 if percentile == 100 else int(float(taps) * percentile / 100.0)
