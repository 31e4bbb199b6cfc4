"""One matmul per tap of the kernel, on the shifted input, summed: y = sum over t of x[shifted by t] @ w[t]."""

from __future__ import annotations

from xconv._algorithms._cost import BEGIN, VECTOR, Cost, matmul_bytes
from xconv._finish import PLAIN, Finish
from xconv._geometry import ConvProblem
from xconv._movers import tap_slices, written
from xconv._namespace import Array, Namespace, Traits, added, compiled, empty_like
from xconv._products import matmul

RAW, LITTLE = 192, 10**7  # pixels, or multiplications, up to which weights are packed on the way
PACKING = 2**17  # bytes of traffic that take as long as beginning to pack the weights


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """It can do everything."""
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """Every tap reads its part of the input and adds to the whole output; each output row is a product of its own."""
    groups = problem.groups
    inputs, outputs = problem.channels_in // groups, problem.channels_out // groups
    if problem.fast:
        return _compiled_cost(problem, inputs, outputs)
    output = problem.pixels * problem.channels_out * problem.itemsize
    gathered = problem.pixels * problem.channels_in * problem.itemsize if groups > 1 else 0
    rows = problem.pixels // problem.outputs[-1] if groups == 1 else groups
    products = matmul_bytes(
        problem.pixels * groups // max(rows, 1), inputs, outputs, problem.itemsize, rows * problem.taps
    )
    moved = problem.taps * 3 * (output + gathered) + products
    return Cost(problem.flops, moved, problem.taps * (1 + rows), output + 2 * gathered)


def _compiled_cost(problem: ConvProblem, inputs: int, outputs: int) -> Cost:
    """One sweep over the pixels for every part of the weights that a cache holds; sums come in whole vectors."""
    size, groups = problem.itemsize, problem.groups
    lanes = VECTOR // size
    filled = -(-outputs // lanes) * lanes
    weights = problem.taps * inputs * filled * groups * size
    sums = problem.pixels * groups * -(-filled // (4 * lanes))  # each begins and ends apart from its products
    moved = 2 * weights + size * problem.pixels * problem.channels_out + BEGIN * sums
    flops = problem.flops * filled // max(outputs, 1)
    few = problem.pixels <= RAW or problem.flops <= 2 * LITTLE
    binding = weights if few else 2 * weights + PACKING
    return Cost(flops, moved, 2, 0, bind_bytes=binding, bound=weights)


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(T, C, O) for T taps; with groups (T, G, C/G, O/G). Compiled code takes (G, T C/G, O/G)."""
    taps, groups = problem.taps, problem.groups
    inputs, outputs = problem.channels_in // groups, problem.channels_out // groups
    if problem.fast:
        return xp.permute_dims(xp.reshape(w, (taps * inputs, groups, outputs)), (1, 0, 2))
    if groups == 1:
        return xp.reshape(w, (taps, inputs, outputs))
    return xp.permute_dims(xp.reshape(w, (taps, inputs, groups, outputs)), (0, 2, 1, 3))


def run(
    x: Array,
    w: Array,
    problem: ConvProblem,
    xp: Namespace,
    out: Array | None = None,
    last: Finish = PLAIN,
) -> Array:
    """Tap by tap: (N, *out, C) @ (C, O), or with groups (G, P, C/G) @ (G, C/G, O/G) over all pixels P."""
    if problem.fast:
        x, problem = written(x, problem, xp)
        y = (
            empty_like(x, (problem.batch, *problem.outputs, problem.channels_out), x.dtype)
            if out is None
            else out
        )
        return compiled().convolved(x, w, problem.axes, problem.channels_out // problem.groups, y, last)
    taps = enumerate(tap_slices(problem.axes))
    _, first = next(taps)
    y = _term(x, w[0, ...], first, problem, xp)
    for i, tap in taps:
        y = added(y, _term(x, w[i, ...], tap, problem, xp), xp)
    if problem.groups > 1:  # (G, P, O/G) -> (N, *out, O)
        y = xp.reshape(xp.permute_dims(y, (1, 0, 2)), (problem.batch, *problem.outputs, problem.channels_out))
    return y


def _term(x: Array, kernel: Array, tap: tuple[slice, ...], problem: ConvProblem, xp: Namespace) -> Array:
    part = x[(slice(None), *tap, ...)]
    if problem.groups == 1:
        return matmul(part, kernel, xp)
    part = xp.reshape(part, (problem.pixels, problem.groups, problem.channels_in // problem.groups))
    return matmul(xp.permute_dims(part, (1, 0, 2)), kernel, xp)
