"""The clerk's desk for filters of one kernel per axis: sigmas, sizes and orders become kernels and a closed problem."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp, fsum
from typing import Any

from xconv._args import Shape, checked_pad_mode, integer
from xconv._errors import refuse, refuse_type
from xconv._footprints import axis_options, chosen_axes, window_start
from xconv._geometry import Axis, WindowProblem

Kernel = tuple[float, ...]
Terms = tuple[tuple[Kernel | None, ...], ...]  # to be added: of each, a kernel for every axis of x, or none


@dataclass(frozen=True, slots=True)
class LinesSpec:
    """A filter as asked for: the closed problem, and the kernels."""

    problem: WindowProblem
    terms: Terms

    def __hash__(self) -> int:  # of its kernels there may be thousands of elements
        return hash(self.problem)


@lru_cache(maxsize=1024, typed=True)
def gaussian_spec(
    x: Shape, *, sigma: Any, order: Any, truncate: Any, radius: Any, axes: Any, pad_mode: Any
) -> LinesSpec:
    """Gaussians, or derivatives of them; of order None, the second one along each axis, added."""
    chosen = chosen_axes(axes, len(x))
    sigmas = _per_axis("sigma", sigma, len(chosen))
    (end,) = _per_axis("truncate", truncate, 1)
    if radius is None:
        radii = tuple(int(end * s + 0.5) for s in sigmas)
    else:
        radii = axis_options("radius", radius, chosen, least=0)
    orders = [tuple(2 * (a == b) for b in chosen) for a in chosen]
    if order is not None:
        orders = [axis_options("order", order, chosen, least=0)]
    return _spec(
        x,
        chosen,
        [tuple(map(_gaussian, sigmas, some, radii)) for some in orders],
        [(r, r) for r in radii],
        pad_mode,
    )


@lru_cache(maxsize=1024, typed=True)
def uniform_spec(x: Shape, *, size: Any, origin: Any, axes: Any, pad_mode: Any) -> LinesSpec:
    """Means over windows of a size."""
    chosen = chosen_axes(axes, len(x))
    sizes = axis_options("size", size, chosen, least=1)
    shifts = axis_options("origin", origin, chosen)
    starts = [window_start(k, shift, axis) for k, shift, axis in zip(sizes, shifts, chosen, strict=True)]
    reaches = [(start, k - 1 - start) for k, start in zip(sizes, starts, strict=True)]
    return _spec(x, chosen, [tuple((1 / k,) * k for k in sizes)], reaches, pad_mode)


@lru_cache(maxsize=1024, typed=True)
def sobel_spec(x: Shape, *, axis: Any, axes: Any, pad_mode: Any) -> LinesSpec:
    """The slope along an axis, smoothed along the others; of no axis, second differences along each, added."""
    chosen = chosen_axes(axes, len(x))
    reaches = [(1, 1)] * len(chosen)
    if axis is None:
        second = [tuple((1.0, -2.0, 1.0) if a == b else None for b in chosen) for a in chosen]
        return _spec(x, chosen, second, reaches, pad_mode)
    number = integer("axis", axis)
    if not -len(x) <= number < len(x) or number % len(x) not in chosen:
        refuse("axis", axis, f"be one of the axes that are filtered, {chosen}")
    term = tuple((-1.0, 0.0, 1.0) if a == number % len(x) else (1.0, 2.0, 1.0) for a in chosen)
    return _spec(x, chosen, [term], reaches, pad_mode)


def _spec(x: Shape, chosen: Shape, terms: Any, reaches: list[tuple[int, int]], pad_mode: Any) -> LinesSpec:
    whole = [Axis(n, 1) for n in x]
    for axis, (low, high) in zip(chosen, reaches, strict=True):
        whole[axis] = Axis(x[axis], low + high + 1, low=low, high=high)
    placed = [dict(zip(chosen, term, strict=True)) for term in terms]
    problem = WindowProblem(1, tuple(whole), 1, pad_mode=checked_pad_mode(pad_mode))
    return LinesSpec(problem, tuple(tuple(term.get(axis) for axis in range(len(x))) for term in placed))


@lru_cache(maxsize=256)
def _gaussian(sigma: float, order: int, radius: int) -> Kernel:
    """What is correlated with, for a derivative of the smooth image: that of the Gaussian, turned round.

    With g = exp(-i ** 2 / (2 sigma ** 2)) and a polynomial q, (q g)' = (q' - q i / sigma ** 2) g.
    """
    values = [exp(-0.5 / (sigma * sigma) * i * i) for i in range(-radius, radius + 1)]
    total = fsum(values)
    q = [1.0] + [0.0] * order
    for _ in range(order):
        slope = [*(n * c for n, c in enumerate(q[1:], 1)), 0.0]
        q = [a - b / (sigma * sigma) for a, b in zip(slope, [0.0, *q[:-1]], strict=True)]
    kernel = (
        g / total * fsum(c * float(i) ** n for n, c in enumerate(q)) for i, g in enumerate(values, -radius)
    )
    return tuple(kernel)[::-1]


def _per_axis(name: str, value: Any, count: int) -> tuple[float, ...]:
    given = value if isinstance(value, tuple) else (value,) * count
    several = " or one number per axis that is filtered" if name == "sigma" else ""
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in given):
        refuse_type(name, value, f"be a number{several}")
    if len(given) != count:
        refuse(name, value, f"have one number for each of the {count} axes that are filtered")
    if not all(0 < v < float("inf") for v in given):
        rest = "; leave an axis out of axes= that is not to be smoothed" if name == "sigma" else ""
        refuse(name, value, f"be positive and finite{rest}")
    return tuple(map(float, given))
