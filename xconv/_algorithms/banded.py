"""Neighbouring outputs are computed together: a row of the kernel, repeated with a shift, becomes a band matrix.

Along one axis with stride s, B neighbouring outputs read (B - 1) s + reach neighbouring inputs,

    y[o + b] = sum over c of x[o s + c] band[c, b]      with band[b s + t d, b] = w[t] and zeros elsewhere,

so one product does the work of B, and an input is copied once for all of them. There are two forms:

- *rows*, for groups of one input channel: the band runs along the last axis but one, and whole rows of the image are
  the columns of the product, (B, K) @ (K, W). Nothing is copied but the shifts of a row, and the result is in order.
- *columns*, for one group of few channels: the band runs along the last axis, (P / B, K) @ (K, B O).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod

from xconv._algorithms._cost import Cost, matmul_bytes
from xconv._geometry import Axis, ConvProblem
from xconv._movers import columns, one_axis_taps, spread, windows, written
from xconv._namespace import Array, Namespace, Traits, full_like, packed, window_view
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
    waste, size = round(_reach(axis, least) / axis.window, 1), round(_band_bytes(problem, least) / 2**20, 1)
    if _reach(axis, least) > WASTE * axis.window:
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
    read = whole * _reach(axis, width) + (_reach(axis, rest) if rest else 0)
    products = whole * width * _reach(axis, width) + (rest * _reach(axis, rest) if rest else 0)
    flops = 2 * lines * products * taps * inputs * outputs
    bound = _band_bytes(problem, width)
    output = problem.pixels * outputs * size
    joined = 2 * output if whole and rest else 0
    inner = taps * inputs * _reach(axis, width)
    if not by_rows:
        copied = lines * read * taps * inputs * size
        moved = 2 * copied + matmul_bytes(lines * (whole + (rest > 0)), inner, width * outputs, size) + joined
        return Cost(flops, moved, 6, copied + joined // 2, 0, 6 * bound, bound, width)
    wide = problem.axes[-1].output
    images = problem.batch * problem.channels_in
    shifted = lines // wide // problem.batch * images * axis.size * taps * wide * size
    bands = lines // wide // problem.batch * images * (whole + (rest > 0))
    several = outputs > 1
    entered = images * prod(a.size for a in problem.axes) * size if several else 0
    # Bands overlap: half of what a product reads is in the nearest cache. Its own price is small.
    moved = 2 * shifted + bands * inner * wide * size // 2 + output
    moved += joined + STRIDED * (entered + output * several)
    workspace = shifted + output + max(joined // 2, entered)
    return Cost(flops, moved, 8 + bands // 4, workspace, 0, 6 * bound, bound, width)


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """The band matrix: by rows (C, B M, K) for M outputs a channel, by columns (K, B O)."""
    width = _width(problem)
    if not _by_rows(problem):
        *lead, last = problem.window
        taps, channels = prod(lead), problem.channels_in * problem.channels_out
        band = _band(xp.reshape(w, (taps, last, channels)), problem.axes[-1], width, xp)
        reach = band.shape[2]
        band = xp.reshape(band, (taps, width, reach, problem.channels_in, problem.channels_out))
        band = xp.permute_dims(band, (0, 2, 3, 1, 4))
        return xp.reshape(band, (taps * reach * problem.channels_in, width * problem.channels_out))
    rank, channels, outputs = len(problem.axes), problem.channels_in, problem.channels_out
    # (*lead, H, W, 1, C M) -> (C M, H, W, *lead)
    w = xp.permute_dims(w, (rank + 1, rank - 2, rank - 1, *range(rank - 2), rank))
    taps = problem.taps // problem.window[-2]
    band = _band(xp.reshape(w, (outputs, problem.window[-2], taps)), problem.axes[-2], width, xp)
    inner = band.shape[2] * taps
    band = xp.reshape(band, (channels, outputs // channels, width, inner))
    return xp.reshape(xp.permute_dims(band, (0, 2, 1, 3)), (channels, width * outputs // channels, inner))


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None = None) -> Array:
    """One product for all whole bands, and one for the outputs that are left over."""
    x, problem = written(x, problem, xp)
    if _by_rows(problem):
        return _run_rows(x, w, problem, xp, out)
    *lead, last = problem.axes
    outputs = problem.channels_out
    width = w.shape[-1] // outputs
    whole, rest = divmod(last.output, width)
    reach = _reach(last, width)
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
        reach = _reach(last, rest)
        w = xp.reshape(w[:, :reach, :, :rest, :], (-1, rest * outputs))
        x = x[(..., slice(whole * width * last.stride, None), slice(None))]
        y = _product(x, w, (*lead, last._replace(size=reach, window=reach, stride=1, dilation=1)), None, xp)
        parts.append(xp.reshape(y, (*front, rest, outputs)))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)


def _product(x: Array, w: Array, axes: tuple[Axis, ...], out: Array | None, xp: Namespace) -> Array:
    """(P, K) @ (K, B O) over the windows of whole bands."""
    x = x[(..., slice(0, axes[-1].size), slice(None))]
    return matmul(xp.reshape(columns(x, axes, xp), (-1, w.shape[0])), w, xp, out)


def _run_rows(x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None) -> Array:
    """(B M, K) @ (K, W) for every image, channel and band of rows."""
    rank, channels = len(problem.axes), problem.channels_in
    multiplier = problem.channels_out // channels
    *lead, rows, last = problem.axes
    width = w.shape[1] // multiplier
    x = xp.permute_dims(x, (0, rank + 1, *range(1, rank + 1)))
    front = (problem.batch, channels, *(axis.output for axis in lead))
    taps, wide = problem.taps // rows.window, last.output
    x = packed(_shifted(x, problem, xp), (prod(front), rows.size, taps * wide), "windows", xp)
    w = xp.reshape(w, (channels, *(1,) * (rank - 1), *w.shape[1:]))  # beside *lead and the bands
    whole, rest = divmod(rows.output, width)
    parts = []
    if whole:
        reach, stride = _reach(rows, width), width * rows.stride
        axis = Axis((whole - 1) * stride + reach, reach, stride)
        view = xp.reshape(windows(x, (axis,), xp), (*front, whole, reach * taps, wide))
        w_all = xp.broadcast_to(w, (*front, whole, *w.shape[-2:]))
        y = matmul(w_all, view, xp, out if not rest and problem.channels_out == 1 else None)
        parts.append(xp.reshape(y, (*front, whole * width, multiplier, wide)))
    if rest:
        start, reach = whole * width * rows.stride, _reach(rows, rest)
        view = xp.reshape(x[:, start : start + reach, :], (*front, 1, reach * taps, wide))
        y = matmul(
            xp.broadcast_to(w, (*front, 1, *w.shape[-2:]))[..., : rest * multiplier, : reach * taps], view, xp
        )
        parts.append(xp.reshape(y, (*front, rest, multiplier, wide)))
    y = parts[0] if len(parts) == 1 else xp.concat(parts, axis=-3)  # (N, C, *lead, H, M, W)
    if problem.channels_out > 1:
        y = xp.permute_dims(y, (0, *range(2, rank + 1), rank + 2, 1, rank + 1))
    return xp.reshape(y, (problem.batch, *problem.outputs, problem.channels_out))


def _shifted(x: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(N, C, *n) -> (N, C, *lead, H, T, W): beside each other what the taps of a row of the kernel meet."""
    *lead, rows, last = problem.axes
    wide = last.output
    steps = ((1, 1, 1), *((a.window, a.stride, a.dilation) for a in lead), (1, 1, 1))
    outputs = (problem.channels_in, *(axis.output for axis in lead), rows.size, last.window)
    # A row of outputs is seen as a window here, and the taps as the places where it stands.
    view = window_view(xp.expand_dims(x, axis=-1), outputs, (*steps, (wide, last.dilation, last.stride)))
    if view is not None:
        return view
    taps = product(one_axis_taps(last), *map(one_axis_taps, lead))
    front = (slice(None), slice(None))
    return xp.stack([x[(*front, *tap, slice(None), shift)] for shift, *tap in taps], axis=-2)


def _band(k: Array, axis: Axis, width: int, xp: Namespace) -> Array:
    """(F, window, J) -> (F, width, reach, J): ``width`` copies of a kernel, each shifted by the stride.

    Rows that are repeated at one period and read at a shorter one move by the difference with every row.
    """
    k = spread(k, 1, axis.dilation, 0, xp)
    first, length, inner = k.shape
    reach = _reach(axis, width)
    period = reach + axis.stride
    zeros = full_like(k, (first, period - length, inner), 0, k.dtype)
    k = xp.expand_dims(xp.concat([k, zeros], axis=1), axis=1)
    k = xp.reshape(xp.broadcast_to(k, (first, width, period, inner)), (first, width * period, inner))
    return xp.reshape(k[:, : width * reach, :], (first, width, reach, inner))


def _by_rows(problem: ConvProblem) -> bool:
    """Whether the band runs along the last axis but one."""
    channels, outputs = problem.channels_in, problem.channels_out
    if len(problem.axes) < 2 or problem.groups != channels:
        return False
    return channels > 1 or (problem.window[-2] > 1 and outputs <= ROWS)


def _reach(axis: Axis, width: int) -> int:
    """How many inputs ``width`` neighbouring outputs read."""
    return (width - 1) * axis.stride + axis.reach


@lru_cache(maxsize=4096)
def _width(problem: ConvProblem) -> int:
    """Outputs in a band; zero where no band is worth it. It depends on nothing that a tile changes."""
    rows = _by_rows(problem)
    axis = problem.axes[-2 if rows else -1]

    def work(width: int) -> float:  # of one output: products, and copies of what they read
        return _reach(axis, width) * (problem.channels_out + COPY / width)

    fitting = [
        width
        for width in ((ROWS,) if rows else WIDTHS)
        if _reach(axis, width) <= WASTE * axis.window and _band_bytes(problem, width) <= LARGEST
    ]
    return min(fitting, key=work, default=0)


def _band_bytes(problem: ConvProblem, width: int) -> int:
    axis = problem.axes[-2 if _by_rows(problem) else -1]
    taps = problem.taps // axis.window * _reach(axis, width)
    return taps * (problem.channels_in // problem.groups) * width * problem.channels_out * problem.itemsize
