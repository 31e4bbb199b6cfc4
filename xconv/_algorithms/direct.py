"""One matmul per tap of the kernel, on the shifted input, summed: y = sum over t of x[shifted by t] @ w[t]."""

from __future__ import annotations

from itertools import product

from xconv._algorithms._cost import Cost
from xconv._geometry import ConvProblem
from xconv._movers import tap_slices
from xconv._namespace import Array, Namespace, Traits


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """It can do everything."""
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """Every tap reads its part of the input and adds to the whole output; each output row is a product of its own."""
    output = problem.pixels * problem.channels_out * problem.itemsize
    gathered = problem.pixels * problem.channels_in * problem.itemsize if problem.groups > 1 else 0
    rows = problem.pixels // problem.outputs[-1] if problem.groups == 1 else problem.groups
    return Cost(
        problem.flops,
        problem.taps * 3 * (output + gathered),
        problem.taps * (1 + rows),
        output + 2 * gathered,
    )


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """Tap by tap: (N, *out, C) @ (C, O), or with groups (G, P, C/G) @ (G, C/G, O/G) over all pixels P."""
    window = product(*(range(size) for size in problem.window))
    taps = zip(window, tap_slices(problem.axes), strict=True)
    y = _term(x, w, *next(taps), problem, xp)
    for position, tap in taps:
        y += _term(x, w, position, tap, problem, xp)
    if problem.groups > 1:  # (G, P, O/G) -> (N, *out, O)
        y = xp.reshape(xp.permute_dims(y, (1, 0, 2)), (problem.batch, *problem.outputs, problem.channels_out))
    return y


def _term(
    x: Array, w: Array, position: tuple[int, ...], tap: tuple[slice, ...], problem: ConvProblem, xp: Namespace
) -> Array:
    part, kernel = x[(slice(None), *tap, ...)], w[(*position, ...)]
    if problem.groups == 1:
        return xp.matmul(part, kernel)
    groups, inputs = problem.groups, problem.channels_in // problem.groups
    part = xp.reshape(part, (problem.pixels, groups, inputs))
    kernel = xp.reshape(kernel, (inputs, groups, problem.channels_out // groups))
    return xp.matmul(xp.permute_dims(part, (1, 0, 2)), xp.permute_dims(kernel, (1, 0, 2)))
