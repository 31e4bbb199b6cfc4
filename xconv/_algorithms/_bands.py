"""Band matrices: a kernel repeated with a shift, so that one product gives neighbouring outputs of one axis.

And what is made of them along the last axis but one, where whole rows of the image are the columns of the product.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod

from xconv._geometry import Axis, ConvProblem
from xconv._movers import one_axis_taps, room, spread, windows
from xconv._namespace import Array, Namespace, combined, empty_like, full_like, packed, window_view
from xconv._products import matmul
from xconv._scratch import spare
from xconv._strides import can_sum_products

WHOLE = (
    6  # taps up to which a row of the kernel is left in one piece: to copy a shift for each takes no longer
)
PART = 4  # taps in a part of a longer row
NEAR = 3 * 2**19  # bytes of shifts and products that one core's cache holds beside other things
LONG_PART = 8  # the same where there would be more than four parts


def band_reach(axis: Axis, width: int) -> int:
    """How many inputs ``width`` neighbouring outputs read."""
    return (width - 1) * axis.stride + axis.reach


def band(k: Array, axis: Axis, width: int, xp: Namespace) -> Array:
    """(F, window, J) -> (F, width, reach, J): ``width`` copies of a kernel, each shifted by the stride.

    Rows that are repeated at one period and read at a shorter one move by the difference with every row.
    """
    k = spread(k, 1, axis.dilation, 0, xp)
    first, length, inner = k.shape
    reach = band_reach(axis, width)
    period = reach + axis.stride
    zeros = full_like(k, (first, period - length, inner), 0, k.dtype)
    k = xp.expand_dims(xp.concat([k, zeros], axis=1), axis=1)
    k = xp.reshape(xp.broadcast_to(k, (first, width, period, inner)), (first, width * period, inner))
    return xp.reshape(k[:, : width * reach, :], (first, width, reach, inner))


def row_bands(w: Array, problem: ConvProblem, width: int, xp: Namespace) -> Array:
    """The band matrix of a kernel for `run_rows`: (C, G B M, K) for M outputs a channel and G parts."""
    rank, outputs = len(problem.axes), problem.channels_out
    # (*lead, H, W, 1, C M) -> (C M, H, W, *lead)
    w = xp.permute_dims(w, (rank + 1, rank - 2, rank - 1, *range(rank - 2), rank))
    w = xp.reshape(w, (outputs, *problem.window[-2:], -1))
    parts = [_part_band(w, start, part, problem, width, xp) for start, part in row_parts(problem)]
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)


def _part_band(w: Array, start: int, part: slice, problem: ConvProblem, width: int, xp: Namespace) -> Array:
    """The band of one part of the rows of the kernel (C M, H, W, L), in which the taps before ``start`` are zero."""
    channels, outputs = problem.channels_in, problem.channels_out
    piece = w[:, :, start : part.stop, :]
    if start > part.start:
        zeros = full_like(w, (*w.shape[:2], start - part.start, w.shape[3]), 0, w.dtype)
        piece = xp.concat([zeros, piece], axis=2)
    piece = xp.reshape(piece, (*w.shape[:2], -1))
    found = band(piece, problem.axes[-2], width, xp)
    inner = found.shape[2] * piece.shape[2]
    found = xp.reshape(found, (channels, outputs // channels, width, inner))
    return xp.reshape(xp.permute_dims(found, (0, 2, 1, 3)), (channels, width * outputs // channels, inner))


def run_rows(x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None) -> Array:
    """(G B M, K) @ (K, W) for every image, channel and band of rows, and the sums over G parts of the kernel.

    On NumPy arrays of one channel a few images are done at a time, so that their shifts and products stay in cache.
    """
    rank, channels = len(problem.axes), problem.channels_in
    multiplier = problem.channels_out // channels
    *lead, rows, last = problem.axes
    parts, together = len(row_parts(problem)), problem.batch
    grouped = problem.channels_out == 1 and can_sum_products(x)
    if grouped:
        together = images_together(problem)
        out = empty_like(x, (problem.batch, *problem.outputs, 1), x.dtype) if out is None else out
    width = w.shape[1] // (multiplier * parts)
    inside = (0, rank + 1, *range(1, rank + 1))  # (N, *n, C) -> (N, C, *n)
    shifts = _shifted(xp.permute_dims(x, inside), problem, xp)
    front = (together, channels, *(axis.output for axis in lead))
    along, taps = places(problem), prod(axis.window for axis in lead) * part_length(problem)
    if together < problem.batch:
        near = room("windows", (together, *shifts.shape[1:]), x)
    else:
        near = packed(shifts, shifts.shape, "windows", xp)
    lines = xp.reshape(near, (prod(front), rows.size, taps * along))
    w = xp.reshape(w, (channels, *(1,) * (rank - 1), parts, width * multiplier, w.shape[-1]))
    place = xp.permute_dims(out, inside) if grouped else None
    whole, rest = divmod(rows.output, width)
    steps: list[tuple[Array, Array, Array]] = []
    for start, bands, high in ((0, whole, width), (whole * width, 1, rest)):
        if not bands or not high:
            continue
        reach, stride = band_reach(rows, high), high * rows.stride
        axis = Axis((bands - 1) * stride + reach, reach, stride)
        view = windows(lines[:, start * rows.stride :, :], (axis,), xp)
        view = xp.reshape(view, (*front, bands, reach * taps, along))
        # A smaller band matrix is a corner of the larger one.
        part = xp.reshape(w[..., : high * multiplier, : reach * taps], (*w.shape[:-3], -1, reach * taps))
        part = xp.broadcast_to(part, (*front, bands, *part.shape[-2:]))
        target = None
        if place is not None:
            target = place[(..., slice(start, start + bands * high), slice(None))]
            target = xp.reshape(target, (problem.batch, *front[1:], bands, high, last.output))
        steps.append((part, view, target))
    if place is None:
        found = [
            xp.reshape(_summed(part, view, problem, None, xp), (*front, -1, multiplier, last.output))
            for part, view, _ in steps
        ]
        y = found[0] if len(found) == 1 else xp.concat(found, axis=-3)  # (N, C, *lead, H, M, W)
        y = xp.permute_dims(y, (0, *range(2, rank + 1), rank + 2, 1, rank + 1))
        return xp.reshape(y, (problem.batch, *problem.outputs, problem.channels_out))
    for first in range(0, problem.batch, together):
        count = min(together, problem.batch - first)
        if together < problem.batch:
            near[:count] = shifts[first : first + count]
        for part, view, targets in steps:
            target = targets[first : first + count]
            y = _summed(part[:count], view[:count], problem, target, xp)
            if y is not target:
                target[...] = y
    return out


def images_together(problem: ConvProblem) -> int:
    """How many images have their shifts and products in cache at the same time."""
    return min(max(NEAR // max(sum(row_bytes(problem)), 1), 1), problem.batch)


@lru_cache(maxsize=4096)
def row_bytes(problem: ConvProblem) -> tuple[int, int]:
    """Bytes of the shifts of one image and channel, and of the products that are added up."""
    *lead, rows, _ = problem.axes
    along = prod(axis.output for axis in lead) * places(problem) * problem.itemsize
    shifts = rows.size * prod(axis.window for axis in lead) * part_length(problem)
    count, multiplier = len(row_parts(problem)), problem.channels_out // problem.channels_in
    return along * shifts, along * rows.output * multiplier * count if count > 1 else 0


def _summed(w: Array, view: Array, problem: ConvProblem, target: Array | None, xp: Namespace) -> Array:
    """(G B M, K) @ (K, W), and the sum over the G parts, each of which begins later in the row: (..., B M, W)."""
    parts, last = row_parts(problem), problem.axes[-1]
    if len(parts) == 1:
        return matmul(w, view, xp, target)
    shape = (*w.shape[:-1], view.shape[-1])
    z = matmul(w, view, xp, spare("bands", shape, view.dtype, view))
    z = xp.reshape(z, (*shape[:-2], len(parts), -1, shape[-1]))
    starts = [part.start * last.dilation for _, part in parts]
    first, second, *others = (
        z[(..., i, slice(None), slice(start, start + last.output))] for i, start in enumerate(starts)
    )
    y = combined(xp.add, first, second, target)
    for other in others:
        y += other
    return y


def _shifted(x: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(N, C, *n) -> (N, C, *lead, H, T, W): beside each other what the taps of a part of a row of the kernel meet."""
    *lead, rows, last = problem.axes
    wide = places(problem)
    steps = ((1, 1, 1), *((a.window, a.stride, a.dilation) for a in lead), (1, 1, 1))
    outputs = (problem.channels_in, *(axis.output for axis in lead), rows.size, part_length(problem))
    # A row of outputs is seen as a window here, and the taps as the places where it stands.
    view = window_view(xp.expand_dims(x, axis=-1), outputs, (*steps, (wide, last.dilation, last.stride)))
    if view is not None:
        return view
    part = last._replace(window=part_length(problem))
    taps = product(one_axis_taps(part), *map(one_axis_taps, lead))
    front = (slice(None), slice(None))
    return xp.stack([x[(*front, *tap, slice(None), shift)] for shift, *tap in taps], axis=-2)


@lru_cache(maxsize=4096)
def row_parts(problem: ConvProblem) -> tuple[tuple[int, slice], ...]:
    """The parts of a row of the kernel, all of one length: where its own taps begin, and where it stands.

    The last one may begin in the one before it.
    """
    last = problem.axes[-1]
    if last.window <= WHOLE or last.stride > 1 or problem.channels_out > problem.channels_in:
        return ((0, slice(0, last.window)),)
    count = -(-last.window // PART)
    if count > PART:
        count = -(-last.window // LONG_PART)
    length = -(-last.window // count)
    starts = (min(i * length, last.window - length) for i in range(count))
    return tuple((i * length, slice(start, start + length)) for i, start in enumerate(starts))


def part_length(problem: ConvProblem) -> int:
    """Taps in a part of a row of the kernel."""
    (_, part), *_ = row_parts(problem)
    return int(part.stop - part.start)


def places(problem: ConvProblem) -> int:
    """Places along a row that a part of the kernel is summed at."""
    last = problem.axes[-1]
    return (
        last.output + (last.window - part_length(problem)) * last.dilation
        if last.stride == 1
        else last.output
    )
