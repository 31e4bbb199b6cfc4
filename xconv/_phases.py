"""Convolution of an input with holes, without multiplying the holes: pure integers.

Along one axis output o meets tap t at position o * s + t * d - low of the spread input, which holds an element where
this is a multiple of the input dilation e. With g = gcd(s, e), the remainder of o * s by e depends only on the *phase*
r = o mod (e / g). The taps that meet elements in phase r are t = t0 + u * e / gcd(d, e), and for o = q * (e / g) + r

    (o * s + t * d - low) / e  =  q * s / g  +  u * d / gcd(d, e)  +  (r * s + t0 * d - low) / e,

which is again a window sliding over the input, now without holes. So every phase is a convolution with part of the
kernel, and the phases interleave to the result. (A transposed convolution with stride e has e phases an axis.)
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import gcd
from typing import NamedTuple

from xconv._geometry import Axis, ConvProblem


class Phase(NamedTuple):
    """The outputs of one remainder, as a convolution of their own."""

    source: tuple[slice, ...]  # spatial axes of the input
    kernel: tuple[slice, ...]  # spatial axes of the kernel
    problem: ConvProblem


def periods(problem: ConvProblem) -> tuple[int, ...]:
    """Along every axis, how many phases there are: as many as outputs at most."""
    return tuple(
        min(a.input_dilation // gcd(a.stride, a.input_dilation), max(a.output, 1)) for a in problem.axes
    )


@lru_cache(maxsize=4096)
def phases(problem: ConvProblem) -> dict[tuple[int, ...], Phase]:
    """The phases that meet any element, by their remainders."""
    found = {}
    for remainders in product(*map(range, periods(problem))):
        parts = [_phase(axis, r) for axis, r in zip(problem.axes, remainders, strict=True)]
        met = [part for part in parts if part is not None]
        if len(met) == len(parts):
            source, kernel, axes = zip(*met, strict=True)
            found[remainders] = Phase(source, kernel, replace(problem, axes=axes))
    return found


def _phase(axis: Axis, r: int) -> tuple[slice, slice, Axis] | None:
    e, s, d = axis.input_dilation, axis.stride, axis.dilation
    period, step = e // gcd(s, e), e // gcd(d, e)
    if not axis.size:
        return None
    first = next((t for t in range(min(step, axis.window)) if (r * s + t * d - axis.low) % e == 0), None)
    if first is None:
        return None
    outputs = -(-(axis.output - r) // period)
    window = -(-(axis.window - first) // step)
    low = -(r * s + first * d - axis.low) // e
    part = Axis(axis.size, window, s // gcd(s, e), d // gcd(d, e), 1, low, 0)
    part = part._replace(high=(outputs - 1) * part.stride + part.reach - part.spread - low)
    begin, end, part = part.tile(0, outputs)
    return slice(begin, end), slice(first, None, step), part
