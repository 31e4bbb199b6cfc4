"""Every tap's products at every pixel by one matmul; then the taps' images are added up, each shifted to its place."""

from __future__ import annotations

from math import prod

from xconv._algorithms._cost import Cost, blas_flops, matmul_bytes
from xconv._geometry import ConvProblem, padded_pixels
from xconv._movers import room, shifted_sum, written
from xconv._namespace import Array, Namespace, Traits, assignable, copied, packed
from xconv._products import matmul

SHORT = 4  # times the bytes that runs of a few numbers take, one for each output channel
ALONE = 6  # times as long as planned take moves that one thread does, beside compiled ones that all share
FEW = 8  # images up to which their products are made pixel by pixel, and then laid out image by image


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Nothing computed to be thrown away, and one matrix for all channels."""
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
    if problem.fast:
        moved *= ALONE
    flops = blas_flops(problem) * pixels // max(problem.pixels, 1)
    if images <= FEW:
        made *= 2
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
    x, shape = xp.reshape(x, (pixels, problem.channels_in)), x.shape[:-1]
    count, few = w.shape[0], 1 < w.shape[0] <= FEW
    place = None
    if assignable(xp):
        place = room("products" if few else "images", (pixels, count) if few else (count, pixels), x)
    if few:
        y = matmul(x, xp.permute_dims(w, (1, 0)), xp, place)
        images = packed(xp.permute_dims(y, (1, 0)), (count, pixels), "images", xp)
    else:
        images = matmul(w, xp.permute_dims(x, (1, 0)), xp, place)
    images = xp.reshape(images, (problem.taps, problem.channels_out, *shape))
    y = xp.moveaxis(shifted_sum(images, problem.axes, xp), 0, -1)  # (N, *out, O)
    if out is None:
        return copied(y, xp) if assignable(xp) else y
    out[...] = y
    return out
