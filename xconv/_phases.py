"""Convolution of an input with holes, without multiplying the holes: pure integers.

Along one axis output o meets tap t at position o * s + t * d - low of the spread input, which holds an element where
this is a multiple of the input dilation e. With g = gcd(s, e), the remainder of o * s by e depends only on the *phase*
r = o mod (e / g). The taps that meet elements in phase r are t = t0 + u * e / gcd(d, e), and for o = q * (e / g) + r

    (o * s + t * d - low) / e  =  q * s / g  +  u * d / gcd(d, e)  +  (r * s + t0 * d - low) / e,

which is again a window sliding over the input, now without holes. So every phase is a convolution with part of the
kernel, and the phases interleave to the result. (A transposed convolution with stride e has e phases an axis.)

Where all phases of the last axis meet the same elements, as those of a transposed convolution do whose kernel is as
long as its stride, they are one convolution with e times as many output channels: its result (..., W / e, e * O) is the
result (..., W, O) as it stands in memory.
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


@lru_cache(maxsize=4096)
def side_by_side(problem: ConvProblem) -> ConvProblem:
    """The problem without holes along its last axis, phases side by side in the channels; or as it is.

    With s = d = 1, phase r begins with the tap t0 = (low - r) mod e and reads from (r + t0 - low) / e on, which is the
    same for all of them where low + 1 is a multiple of e; then t0 = e - 1 - r, and all have as many taps and outputs if
    window and output are multiples, too.
    """
    *others, last = problem.axes
    holes = last.input_dilation
    grey = problem.channels_in == problem.channels_out == 1  # for which there are algorithms of its own
    if grey or problem.groups > 1 or problem.separable or (last.stride, last.dilation) != (1, 1):
        return problem
    if holes == 1 or (last.low + 1) % holes or last.window % holes or last.output % holes:
        return problem
    if not last.output or not last.size:
        return problem
    axis = Axis(last.size, last.window // holes, low=(last.low + 1) // holes - 1)
    axis = axis._replace(high=last.output // holes - axis.output)
    return replace(
        problem,
        axes=(*others, axis),
        channels_out=holes * problem.channels_out,
        extra=holes * problem.extra,
        beside=holes,
    )


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
