"""One input channel per group: shifted inputs are multiplied by their tap and added, without any matmul."""

from __future__ import annotations

from xconv._algorithms._cost import VECTOR, Cost
from xconv._finish import PLAIN, Finish
from xconv._geometry import ConvProblem, padded_pixels
from xconv._movers import tap_slices, weighted_windows
from xconv._namespace import Array, Namespace, Traits, added, compiled, empty_like

RUN = 1024  # numbers that are worth a loop of their own
TAP = 3  # times what the same multiplications take in sums over channels
STEP = 1600  # bytes of traffic that take as long as going from one loop to the next


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Only groups of one input channel."""
    inputs = problem.channels_in // problem.groups
    return None if inputs == 1 else f"each group has {inputs} input channels, not one"


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """Every tap reads its part of the input and adds its product to the output: in one go, or by way of a product."""
    output = problem.pixels * problem.channels_out * problem.itemsize
    if problem.fast:
        repeated = problem.channels_out > problem.channels_in
        kept = padded_pixels(problem) * problem.channels_out * problem.itemsize if repeated else 0
        lanes = VECTOR // problem.itemsize  # numbers that compiled code multiplies at once, all there or not
        filled = -(-problem.channels_out // lanes) * lanes
        return Cost(TAP * 2 * problem.pixels * problem.taps * filled, output + 2 * kept, 1, kept)
    bound = problem.taps * _pixels(problem) * problem.channels_out * problem.itemsize
    if traits.threads and problem.channels_out == problem.channels_in:
        row = max(problem.outputs[-1], 1)
        runs = (
            problem.pixels // row * -(-row // _pixels(problem))
            if problem.axes[-1].stride == 1
            else problem.pixels
        )
        return Cost(0, problem.taps * (output + STEP * runs), 4, 0, bound=bound)
    multiplied = (
        problem.channels_out > problem.channels_in
    )  # a product that broadcasts, for which NumPy buffers
    buffers = 2 * 8192 * problem.itemsize if multiplied else 0
    moved = problem.taps * (3 if multiplied else 2) * output
    return Cost(0, moved, 2 * problem.taps, output + buffers, bound=bound)


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(T, P, C, M) for T taps and M output channels per input channel, the same for P neighbouring pixels.

    Compiled code needs no repetition: (T, C M).
    """
    channels = problem.channels_in
    if problem.fast:
        return xp.reshape(w, (problem.taps, problem.channels_out))
    w = xp.reshape(w, (problem.taps, 1, channels, problem.channels_out // channels))
    return xp.tile(w, (1, _pixels(problem), 1, 1))


def run(
    x: Array,
    w: Array,
    problem: ConvProblem,
    xp: Namespace,
    out: Array | None = None,
    last: Finish = PLAIN,
) -> Array:
    """All taps at once where the library can; else tap by tap, (N, *out, C, 1) * (C, M)."""
    if problem.fast:
        y = (
            empty_like(x, (problem.batch, *problem.outputs, problem.channels_out), x.dtype)
            if out is None
            else out
        )
        return compiled().depthwise(x, w, problem.axes, y, last)
    if w.shape[-1] == 1:
        y = weighted_windows(x, problem.axes, w[..., 0], out, xp)
        if y is not None:
            return y
    taps = enumerate(tap_slices(problem.axes))
    _, first = next(taps)
    y = _term(x, w[0, 0, ...], first, xp)
    for i, tap in taps:
        y = added(y, _term(x, w[i, 0, ...], tap, xp), xp)
    return xp.reshape(y, (problem.batch, *problem.outputs, problem.channels_out))


def _term(x: Array, kernel: Array, tap: tuple[slice, ...], xp: Namespace) -> Array:
    part = x[(slice(None), *tap, ...)]
    if kernel.shape[-1] == 1:
        return part * kernel[:, 0]
    return xp.expand_dims(part, axis=-1) * kernel


def _pixels(problem: ConvProblem) -> int:
    return max(RUN // problem.channels_in, 1) if problem.channels_out == problem.channels_in else 1
