"""A 1x1 kernel is one matmul over the channels: y = x @ w."""

from __future__ import annotations

from xconv._algorithms._bias import bias_bytes, biased_product
from xconv._algorithms._cost import Cost, blas_flops, matmul_bytes
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis, ConvProblem
from xconv._movers import written
from xconv._namespace import Array, Namespace, Traits
from xconv._products import Each, matmul


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Only kernels of one element, only one group."""
    if problem.taps > 1:
        return f"the kernel has {problem.taps} taps, not one"
    if problem.groups > 1:
        return f"there are {problem.groups} groups, not one"
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """One product; a stride costs a copy of the pixels it keeps."""
    strided = any(axis.stride > 1 for axis in problem.axes)
    moved = problem.pixels * problem.channels_in * problem.itemsize if strided else 0
    product = matmul_bytes(problem.pixels, problem.channels_in, problem.channels_out, problem.itemsize)
    kept = max(moved, bias_bytes("pointwise", problem, traits))
    return Cost(blas_flops(problem), product + 2 * moved, 1, kept)


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(C, O)."""
    return xp.reshape(w, (problem.channels_in, problem.channels_out))


def run(
    x: Array,
    w: Array,
    problem: ConvProblem,
    xp: Namespace,
    out: Array | None = None,
    last: Finish = PLAIN,
    each: Each | None = None,
) -> Array:
    """(P, C) @ (C, O) = (P, O) for P pixels; a kernel that is kept may be in blocks."""
    if last.bias is not None:
        return biased_product(x, w, last.bias, problem, xp, out, each)
    x, problem = written(x, problem, xp)
    if any(axis != Axis(axis.size, 1) for axis in problem.axes):
        steps = (slice(None, (a.output - 1) * a.stride + 1, a.stride) for a in problem.axes)
        x = x[(slice(None), *steps, ...)]
    blocked = problem.channels_out if w.ndim == 3 else 0
    y = matmul(xp.reshape(x, (problem.pixels, problem.channels_in)), w, xp, out, blocked=blocked, each=each)
    return xp.reshape(y, (problem.batch, *problem.outputs, problem.channels_out))
