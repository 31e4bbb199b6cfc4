"""Every tap's products at every pixel by one matmul; then the taps' images are added up, each shifted to its place."""

from __future__ import annotations

from math import prod

from xconv._algorithms._cost import Cost, blas_flops, matmul_bytes
from xconv._geometry import ConvProblem, padded_pixels
from xconv._movers import room, shifted_sum, written
from xconv._namespace import Array, Namespace, Traits, assignable
from xconv._products import matmul

SHORT = 4  # times the bytes that runs of a few numbers take, one for each output channel


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Nothing computed to be thrown away, one matrix for all channels, and taps to be shifted."""
    if problem.taps == 1:
        return "the kernel has one tap, which needs no shift"
    if problem.groups > 1:
        return f"there are {problem.groups} groups, not one"
    if any(axis.stride > 1 for axis in problem.axes):
        return "it computes the pixels that a stride leaves out"
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """An image for each tap and output channel is written, and read again to be added up."""
    pixels, images = padded_pixels(problem), problem.taps * problem.channels_out
    made, result = images * pixels, problem.channels_out * problem.pixels
    product = matmul_bytes(images, problem.channels_in, pixels, problem.itemsize, packed=True)
    moved = (made + 2 * problem.taps * result + SHORT * 2 * result) * problem.itemsize
    flops = blas_flops(problem) * pixels // max(problem.pixels, 1)
    return Cost(flops, product + moved, problem.taps + 4, (made + 2 * result) * problem.itemsize)


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(T O, C) for T taps."""
    inputs, outputs = problem.channels_in, problem.channels_out
    w = xp.permute_dims(xp.reshape(w, (problem.taps, inputs, outputs)), (0, 2, 1))
    return xp.reshape(w, (problem.taps * outputs, inputs))


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None = None) -> Array:
    """(T O, C) @ (C, P) for P pixels, then the sum over T, each tap that many pixels further: (O, N, *out)."""
    x, problem = written(x, problem, xp)
    pixels = prod(x.shape[:-1])
    place = room("images", (w.shape[0], pixels), x) if assignable(xp) else None
    images = matmul(w, xp.permute_dims(xp.reshape(x, (pixels, problem.channels_in)), (1, 0)), xp, place)
    images = xp.reshape(images, (problem.taps, problem.channels_out, *x.shape[:-1]))
    y = xp.moveaxis(shifted_sum(images, problem.axes, xp), 0, -1)  # (N, *out, O)
    if out is None:
        return xp.asarray(y, copy=True) if assignable(xp) else y
    out[...] = y
    return out
