"""One input channel per group: shifted inputs are multiplied by their tap and added, without any matmul."""

from __future__ import annotations

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


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(T, C, M) for T taps and M output channels per input channel."""
    return xp.reshape(w, (problem.taps, problem.channels_in, problem.channels_out // problem.channels_in))


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None = None) -> Array:
    """Tap by tap: (N, *out, C, 1) * (C, M)."""
    taps = enumerate(tap_slices(problem.axes))
    _, first = next(taps)
    y = _term(x, w[0, ...], first, xp)
    for i, tap in taps:
        y += _term(x, w[i, ...], tap, xp)
    return xp.reshape(y, (problem.batch, *problem.outputs, problem.channels_out))


def _term(x: Array, kernel: Array, tap: tuple[slice, ...], xp: Namespace) -> Array:
    part = x[(slice(None), *tap, ...)]
    if kernel.shape[-1] == 1:
        return part * kernel[:, 0]
    return xp.expand_dims(part, axis=-1) * kernel
