"""A kernel that is given as one for each axis: each axis is filtered by itself, all of them on one tile.

With w[t1, t2, ...] = u[t1] v[t2] ... the sum over all taps is a sum of sums,

    y[o1, o2, ...] = sum over t1 of u[t1] (sum over t2 of v[t2] x[o1 + t1, o2 + t2, ...]),

of k1 + k2 products instead of k1 k2. Along each axis, neighbouring outputs are one product with a band matrix, of
views of what there is: (B, K) @ (K, R) for the R numbers behind an axis, (P, K) @ (K, B) for the P before the last.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

from xconv._algorithms._bands import band, band_reach
from xconv._algorithms._cost import Cost
from xconv._geometry import Axis, ConvProblem
from xconv._movers import windows, written
from xconv._namespace import Array, Namespace, Traits, is_contiguous
from xconv._products import matmul
from xconv._scratch import spare

WIDTHS = (4, 8, 16, 32, 64)  # outputs in a band
SETUP = 24  # products, for each output of a band, that take as long as what does not depend on their number


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Kernels of one axis each."""
    if not problem.separable:
        return "the kernel is not given as one kernel for each axis"
    if 0 in (problem.batch, *problem.outputs):
        return "there is nothing to compute"
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """Every axis reads what the one before it has written; the zeros of the bands are multiplied like all else."""
    size, sizes = problem.itemsize, [axis.size for axis in problem.axes]
    flops = moved = calls = largest = 0
    for i, axis in enumerate(problem.axes):
        if axis.window == 1 and axis.stride == 1:
            continue
        read = problem.batch * prod(sizes)
        sizes[i] = axis.output
        numbers = problem.batch * prod(sizes)
        width = _width(axis)
        flops += 2 * numbers * band_reach(axis, width)
        moved += size * (read * band_reach(axis, width) // (width * axis.stride) + numbers)
        behind = prod(sizes[i + 1 :])
        products = -(-axis.output // width) * (1 if behind == 1 else numbers // (axis.output * behind))
        calls += 6 + products // 8
        largest = max(largest, numbers)
    bound = sum(_width(a) * band_reach(a, _width(a)) for a in problem.axes) * size
    return Cost(flops, moved, calls, 3 * size * largest, 0, 6 * bound, bound)


def bind(w: Any, problem: ConvProblem, xp: Namespace) -> tuple[Array | None, ...]:
    """Of kernels (k,), one for each axis or None, their band matrices (B, K)."""
    return tuple(
        None if kernel is None else band(xp.reshape(kernel, (1, -1, 1)), axis, _width(axis), xp)[0, :, :, 0]
        for kernel, axis in zip(w, problem.axes, strict=True)
    )


def run(x: Array, w: Any, problem: ConvProblem, xp: Namespace, out: Array | None = None) -> Array:
    """One axis after the other, the last of them in ``out``."""
    x, problem = written(x, problem, xp)
    shape = (problem.batch, *problem.outputs, 1)
    sizes = list(x.shape[1:-1])
    long = [i for i, matrix in enumerate(w) if matrix is not None]
    for step, i in enumerate(long):
        axis, before, behind = problem.axes[i], problem.batch * prod(sizes[:i]), prod(sizes[i + 1 :])
        sizes[i] = axis.output
        front = xp.reshape(x, (before, axis.size, behind))
        target = (
            out
            if step == len(long) - 1
            else spare(f"axis {step % 2}", (before, axis.output, behind), x.dtype, x)
        )
        x = _filtered(front, w[i], axis, target, xp)
    return xp.reshape(x, shape)


def _filtered(x: Array, w: Array, axis: Axis, out: Array | None, xp: Namespace) -> Array:
    """Bands along the middle axis of x (P, n, R), and one for the outputs that are left over: (P, outputs, R)."""
    before, _, behind = x.shape
    width = w.shape[0]
    whole, rest = divmod(axis.output, width)
    target = None if out is None or not is_contiguous(out) else out.reshape(before, axis.output, behind)
    parts, placed = [], target is not None
    for start, bands, high in ((0, whole, width), (whole * width, 1, rest)):
        if not bands or not high:
            continue
        reach, stride = band_reach(axis, high), high * axis.stride
        piece = x[:, start * axis.stride : start * axis.stride + (bands - 1) * stride + reach, :]
        matrix = w[:high, :reach]  # a smaller band matrix is a corner of the larger one
        view = windows(piece, (Axis(piece.shape[1], reach, stride),), xp)  # (P, bands, K, R)
        place = None if target is None else target[:, start : start + bands * high, :]
        if behind == 1:  # (P, K) @ (K, B) for every band
            view = xp.permute_dims(view[..., 0], (1, 0, 2))
            place = None if place is None else place.reshape(before, bands, high).transpose(1, 0, 2)
            y = matmul(view, xp.permute_dims(matrix, (1, 0)), xp, place)
            placed = placed and y is place
            y = xp.permute_dims(y, (1, 0, 2))
        else:  # (B, K) @ (K, R) for every band
            place = None if place is None else place.reshape(before, bands, high, behind)
            y = matmul(xp.broadcast_to(matrix, (before, bands, *matrix.shape)), view, xp, place)
            placed = placed and y is place
        parts.append(y if placed else xp.reshape(y, (before, bands * high, behind)))
    if placed:
        return target
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)


@lru_cache(maxsize=4096)
def _width(axis: Axis) -> int:
    """Outputs in a band: the fewest products, and not too few at a time."""
    return min(WIDTHS, key=lambda width: band_reach(axis, width) * (1 + SETUP / width))
