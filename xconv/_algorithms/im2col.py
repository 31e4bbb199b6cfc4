"""All windows are laid side by side, then one matmul does the rest: y = columns(x) @ w."""

from __future__ import annotations

from xconv._algorithms._bias import bias_bytes, biased_product
from xconv._algorithms._cost import Cost, blas_flops, matmul_bytes
from xconv._finish import PLAIN, Finish
from xconv._geometry import ConvProblem
from xconv._movers import columns
from xconv._namespace import Array, Namespace, Traits
from xconv._products import matmul


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """It can do everything."""
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """The columns hold every input element once for each tap; groups are moved to the front by one more copy."""
    gathered = problem.pixels * problem.taps * problem.channels_in * problem.itemsize
    groups = problem.groups
    inner, outputs = problem.taps * (problem.channels_in // groups), problem.channels_out // groups
    product = matmul_bytes(problem.pixels, inner, outputs, problem.itemsize, groups)
    if groups == 1:
        kept = gathered + bias_bytes("im2col", problem, traits)
        return Cost(blas_flops(problem), 2 * gathered + product, 3, kept)
    output = problem.pixels * problem.channels_out * problem.itemsize
    scattered = 20 * gathered // (problem.channels_in // groups)  # few channels a group are moved one by one
    moved = 4 * gathered + scattered + 2 * output + product
    return Cost(blas_flops(problem), moved, 5 + groups, 2 * gathered + output)


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(T C, O) for T taps; with groups (G, T C/G, O/G)."""
    taps, groups = problem.taps, problem.groups
    inputs, outputs = problem.channels_in // groups, problem.channels_out // groups
    if groups == 1:
        return xp.reshape(w, (taps * inputs, outputs))
    w = xp.permute_dims(xp.reshape(w, (taps, inputs, groups, outputs)), (2, 0, 1, 3))
    return xp.reshape(w, (groups, taps * inputs, outputs))


def run(
    x: Array,
    w: Array,
    problem: ConvProblem,
    xp: Namespace,
    out: Array | None = None,
    last: Finish = PLAIN,
) -> Array:
    """(P, T C) @ (T C, O) for P pixels and T taps; with groups (G, P, T C/G) @ (G, T C/G, O/G).

    A kernel that is kept may be in blocks.
    """
    if last.bias is not None:
        return biased_product(x, w, last.bias, problem, xp, out)
    gathered = columns(x, problem.axes, xp, fast=problem.fast)  # (N, *out, T, C)
    shape = (problem.batch, *problem.outputs, problem.channels_out)
    pixels, taps, groups = problem.pixels, problem.taps, problem.groups
    inputs = problem.channels_in // groups
    blocked = problem.channels_out // groups if w.ndim == 3 + (groups > 1) else 0
    if groups == 1:
        y = matmul(xp.reshape(gathered, (pixels, taps * inputs)), w, xp, out, blocked=blocked)
        return xp.reshape(y, shape)
    gathered = xp.reshape(gathered, (pixels, taps, groups, inputs))
    gathered = xp.reshape(xp.permute_dims(gathered, (2, 0, 1, 3)), (groups, pixels, taps * inputs))
    y = matmul(gathered, w, xp, blocked=blocked)  # (G, P, O/G)
    return xp.reshape(xp.permute_dims(y, (1, 0, 2)), shape)
