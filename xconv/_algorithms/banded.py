"""Neighbouring outputs are computed together: a row of the kernel, repeated with a shift, becomes a band matrix.

Along one axis with stride s, B neighbouring outputs read (B - 1) s + reach neighbouring inputs,

    y[o + b] = sum over c of x[o s + c] band[c, b]      with band[b s + t d, b] = w[t] and zeros elsewhere,

so one product does the work of B, and an input is copied once for all of them. There are two forms:

- *rows*, for groups of one input channel: the band runs along the last axis but one, and whole rows of the image are
  the columns of the product, (B, K) @ (K, W). Nothing is copied but the shifts of a row, and the result is in order.
  A long row of the kernel is cut into parts: they share the shifts of the first part, each has B outputs of its own in
  the product, and these are added up, each part as far along the row as it begins in the kernel.
- *columns*, for one group of few channels: the band runs along the last axis, (P / B, K) @ (K, B O).
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from xconv._algorithms._bands import (
    band,
    band_reach,
    images_together,
    part_length,
    places,
    row_bands,
    row_bytes,
    row_parts,
    run_rows,
)
from xconv._algorithms._cost import Cost, matmul_bytes
from xconv._geometry import Axis, ConvProblem
from xconv._movers import columns, written
from xconv._namespace import Array, Namespace, Traits
from xconv._products import matmul

ROWS = 4  # outputs in a band of rows: as many as a BLAS kernel computes at once
WIDTHS = (2, 4, 8, 16, 32)  # outputs in a band of columns
WASTE = 4  # times as many products as the direct sum has
LARGEST = 4 * 2**20  # bytes of a band matrix
STRIDED = 6  # bytes of traffic for a byte that changes its place among the axes
COPY = 16  # products in a matmul that take as long as one number copied


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Few channels, and a kernel that is longer than one along the band."""
    if 0 in (problem.batch, *problem.outputs, problem.channels_in, problem.channels_out):
        return "there is nothing to compute"
    rows, groups = _by_rows(problem), problem.groups
    if groups > 1 and groups < problem.channels_in:
        return f"each of the {groups} groups has {problem.channels_in // groups} input channels, not one"
    if groups > 1 and not rows:
        return f"there are {groups} groups and one axis; they need two"
    axis = problem.axes[-2 if rows else -1]
    if axis.window == 1 and rows:
        return "the kernel has one tap along the last axis but one, where the band would be"
    if axis.window == 1:
        return "the kernel has one tap along the last axis, where the band would be"
    if _width(problem):
        return None
    least = ROWS if rows else WIDTHS[0]
    waste, size = (
        round(band_reach(axis, least) / axis.window, 1),
        round(_band_bytes(problem, least) / 2**20, 1),
    )
    if band_reach(axis, least) > WASTE * axis.window:
        return f"a band of {least} outputs takes {waste} times the products, more than {WASTE}"
    return f"a band matrix of {least} outputs takes {size} MiB, more than {LARGEST // 2**20}"


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """What a band reads is written and read once; the zeros of the band are multiplied like all else."""
    width, size, by_rows = _width(problem), problem.itemsize, _by_rows(problem)
    axis = problem.axes[-2 if by_rows else -1]
    taps, outputs = problem.taps // axis.window, problem.channels_out
    inputs = problem.channels_in // problem.groups
    whole, rest = divmod(axis.output, width)
    lines = problem.pixels // axis.output  # along the band
    read = whole * band_reach(axis, width) + (band_reach(axis, rest) if rest else 0)
    products = whole * width * band_reach(axis, width) + (rest * band_reach(axis, rest) if rest else 0)
    flops = 2 * lines * products * taps * inputs * outputs
    bound = _band_bytes(problem, width)
    output = problem.pixels * outputs * size
    joined = 2 * output if whole and rest else 0
    inner = taps * inputs * band_reach(axis, width)
    if not by_rows:
        copied = lines * read * taps * inputs * size
        moved = 2 * copied + matmul_bytes(lines * (whole + (rest > 0)), inner, width * outputs, size) + joined
        return Cost(flops, moved, 6, copied + joined // 2, 0, 6 * bound, bound, width)
    count, wide, along = len(row_parts(problem)), problem.axes[-1].output, places(problem)
    shifts = taps // problem.window[-1] * part_length(problem)
    images = problem.batch * problem.channels_in
    shifted, added = (images * part for part in row_bytes(problem))
    flops = flops * along * shifts * count // (wide * taps)
    inner = shifts * band_reach(axis, width)
    bands = lines // wide // problem.batch * images * (whole + (rest > 0))
    several = outputs > 1
    entered = images * prod(a.size for a in problem.axes) * size if several else 0
    # Bands overlap: half of what a product reads is in the nearest cache. Its own price is small.
    moved = 2 * shifted + bands * inner * along * size // 2 + output + 2 * added
    moved += joined + STRIDED * (entered + output * several)
    if not several and traits.threads:  # a few images at a time, straight into the result
        at_once = images_together(problem)
        workspace = at_once * sum(row_bytes(problem)) + output
    else:
        workspace = shifted + output + added + max(joined // 2, entered)
    return Cost(flops, moved, 8 + bands // 4, workspace, 0, 6 * bound, bound, width)


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """The band matrix: by rows (C, G B M, K) for M outputs a channel and G parts, by columns (K, B O)."""
    width = _width(problem)
    if not _by_rows(problem):
        *lead, last = problem.window
        taps, channels = prod(lead), problem.channels_in * problem.channels_out
        w = band(xp.reshape(w, (taps, last, channels)), problem.axes[-1], width, xp)
        reach = w.shape[2]
        w = xp.reshape(w, (taps, width, reach, problem.channels_in, problem.channels_out))
        w = xp.permute_dims(w, (0, 2, 3, 1, 4))
        return xp.reshape(w, (taps * reach * problem.channels_in, width * problem.channels_out))
    return row_bands(w, problem, width, xp)


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None = None) -> Array:
    """One product for all whole bands, and one for the outputs that are left over."""
    x, problem = written(x, problem, xp)
    if _by_rows(problem):
        return run_rows(x, w, problem, xp, out)
    *lead, last = problem.axes
    outputs = problem.channels_out
    width = w.shape[-1] // outputs
    whole, rest = divmod(last.output, width)
    reach = band_reach(last, width)
    front = (problem.batch, *(axis.output for axis in lead))
    parts = []
    if whole:
        axis = last._replace(window=reach, stride=width * last.stride, dilation=1)
        axis = axis._replace(size=(whole - 1) * axis.stride + reach)
        y = _product(x, w, (*lead, axis), None if rest else out, xp)
        parts.append(xp.reshape(y, (*front, whole * width, outputs)))
    if rest:
        # A smaller band matrix is a corner of the larger one.
        w = xp.reshape(w, (-1, reach, problem.channels_in, width, outputs))
        reach = band_reach(last, rest)
        w = xp.reshape(w[:, :reach, :, :rest, :], (-1, rest * outputs))
        x = x[(..., slice(whole * width * last.stride, None), slice(None))]
        y = _product(x, w, (*lead, last._replace(size=reach, window=reach, stride=1, dilation=1)), None, xp)
        parts.append(xp.reshape(y, (*front, rest, outputs)))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)


def _product(x: Array, w: Array, axes: tuple[Axis, ...], out: Array | None, xp: Namespace) -> Array:
    """(P, K) @ (K, B O) over the windows of whole bands."""
    x = x[(..., slice(0, axes[-1].size), slice(None))]
    return matmul(xp.reshape(columns(x, axes, xp), (-1, w.shape[0])), w, xp, out)


def _by_rows(problem: ConvProblem) -> bool:
    """Whether the band runs along the last axis but one."""
    channels, outputs = problem.channels_in, problem.channels_out
    if len(problem.axes) < 2 or problem.groups != channels:
        return False
    return channels > 1 or (problem.window[-2] > 1 and outputs <= ROWS)


@lru_cache(maxsize=4096)
def _width(problem: ConvProblem) -> int:
    """Outputs in a band; zero where no band is worth it. It depends on nothing that a tile changes."""
    rows = _by_rows(problem)
    axis = problem.axes[-2 if rows else -1]

    def work(width: int) -> float:  # of one output: products, and copies of what they read
        return band_reach(axis, width) * (problem.channels_out + COPY / width)

    fitting = [
        width
        for width in ((ROWS,) if rows else WIDTHS)
        if band_reach(axis, width) <= WASTE * axis.window and _band_bytes(problem, width) <= LARGEST
    ]
    return min(fitting, key=work, default=0)


def _band_bytes(problem: ConvProblem, width: int) -> int:
    axis = problem.axes[-2 if _by_rows(problem) else -1]
    taps = problem.taps // axis.window * band_reach(axis, width)
    return taps * (problem.channels_in // problem.groups) * width * problem.channels_out * problem.itemsize
