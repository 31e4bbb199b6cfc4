"""All windows are laid side by side, then one matmul does the rest: y = columns(x) @ w."""

from __future__ import annotations

from xconv._algorithms._cost import Cost
from xconv._geometry import ConvProblem
from xconv._movers import columns
from xconv._namespace import Array, Namespace, Traits


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """It can do everything."""
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """The columns hold every input element once for each tap; groups are moved to the front by one more copy."""
    gathered = problem.pixels * problem.taps * problem.channels_in * problem.itemsize
    if problem.groups == 1:
        return Cost(problem.flops, 2 * gathered, 3, gathered)
    output = problem.pixels * problem.channels_out * problem.itemsize
    scattered = (
        20 * gathered // (problem.channels_in // problem.groups)
    )  # few channels a group are moved one by one
    return Cost(
        problem.flops, 4 * gathered + scattered + 2 * output, 5 + problem.groups, 2 * gathered + output
    )


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(P, T C) @ (T C, O) for P pixels and T taps; with groups (G, P, T C/G) @ (G, T C/G, O/G)."""
    gathered = columns(x, problem.axes, xp)  # (N, *out, T, C)
    shape = (problem.batch, *problem.outputs, problem.channels_out)
    pixels, taps, groups = problem.pixels, problem.taps, problem.groups
    inputs = problem.channels_in // groups
    if groups == 1:
        y = xp.matmul(
            xp.reshape(gathered, (pixels, taps * inputs)),
            xp.reshape(w, (taps * inputs, problem.channels_out)),
        )
        return xp.reshape(y, shape)
    gathered = xp.reshape(gathered, (pixels, taps, groups, inputs))
    gathered = xp.reshape(xp.permute_dims(gathered, (2, 0, 1, 3)), (groups, pixels, taps * inputs))
    w = xp.reshape(w, (taps, inputs, groups, problem.channels_out // groups))
    w = xp.reshape(xp.permute_dims(w, (2, 0, 1, 3)), (groups, taps * inputs, problem.channels_out // groups))
    y = xp.matmul(gathered, w)  # (G, P, O/G)
    return xp.reshape(xp.permute_dims(y, (1, 0, 2)), shape)
