"""One input channel per group: shifted inputs are multiplied by their tap and added, without any matmul."""

from __future__ import annotations

from itertools import product

from xconv._algorithms._cost import Cost
from xconv._geometry import ConvProblem
from xconv._movers import tap_slices
from xconv._namespace import Array, Namespace, Traits


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Only groups of one input channel."""
    inputs = problem.channels_in // problem.groups
    return None if inputs == 1 else f"each group has {inputs} input channels, not one"


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """Every tap reads its part of the input, writes a product and adds it to the output, all in cache."""
    output = problem.pixels * problem.channels_out * problem.itemsize
    multiplied = (
        problem.channels_out > problem.channels_in
    )  # a product that broadcasts, for which NumPy buffers
    buffers = 2 * 8192 * problem.itemsize if multiplied else 0
    return Cost(0, problem.taps * (3 if multiplied else 2) * output, 2 * problem.taps, output + buffers)


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """Tap by tap: (N, *out, C, 1) * (C, M), for M output channels per input channel."""
    window = product(*(range(size) for size in problem.window))
    taps = zip(window, tap_slices(problem.axes), strict=True)
    y = _term(x, w, *next(taps), problem, xp)
    for position, tap in taps:
        y += _term(x, w, position, tap, problem, xp)
    return xp.reshape(y, (problem.batch, *problem.outputs, problem.channels_out))


def _term(
    x: Array, w: Array, position: tuple[int, ...], tap: tuple[slice, ...], problem: ConvProblem, xp: Namespace
) -> Array:
    part, kernel = x[(slice(None), *tap, ...)], w[(*position, 0, ...)]
    multiplier = problem.channels_out // problem.channels_in
    if multiplier == 1:
        return part * kernel
    return xp.expand_dims(part, axis=-1) * xp.reshape(kernel, (problem.channels_in, multiplier))
