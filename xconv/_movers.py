"""The movers: the only code that moves memory between two matmuls. Pure, written once in the standard.

Everything here is channels-last: (N, *spatial, C). For arrays of NumPy some of it has a compiled twin, which a problem
asks for by its ``fast``; twins write padding out on the way, so blocks of such problems come without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, reduce
from itertools import accumulate, product
from math import prod

from xconv._borders import Run, runs
from xconv._dtypes import default_integer
from xconv._finish import Finish
from xconv._geometry import Axis, T, WindowProblem, materialised
from xconv._namespace import (
    Array,
    DType,
    Namespace,
    added,
    assignable,
    combined,
    compiled,
    copied,
    count_up,
    empty_like,
    full_like,
    is_contiguous,
    packed,
    window_view,
)
from xconv._products import product_into
from xconv._scratch import spare
from xconv._strides import (
    can_slide,
    can_sum_products,
    longer_runs,
    rows_are_runs,
    slide,
    sum_products,
    window_runs,
)

SMALL = 4096  # elements that are filled at once, border or not


def block(
    x: Array, axes: Sequence[Axis], dtype: DType, fill: complex, xp: Namespace, purpose: str = "block"
) -> Array:
    """Write out the padding and the holes of ``x`` (N, *n, C) as ``axes`` describe them, in ``dtype``.

    The result may stand in spare memory for ``purpose``, and so must not ``x``.
    """
    x = x if x.dtype == dtype else xp.astype(x, dtype)
    framed = _frame(tuple(axes))
    if framed is None:
        return x
    if not assignable(xp):
        for axis, a in enumerate(axes, 1):
            x = spread(x, axis, a.input_dilation, fill, xp)
            x = continued(x, axis, runs(-a.low, a.spread + a.high, a.spread, "constant"), fill, xp)
        return x
    sizes, inside, border = framed
    shape = (x.shape[0], *sizes, x.shape[-1])
    target = spare(purpose, shape, dtype, x)
    if target is None:
        target = full_like(x, shape, fill, dtype)
    else:
        for place in border:
            target[place] = fill
    target[inside] = x
    return target


def written(x: Array, problem: T, xp: Namespace) -> tuple[Array, T]:
    """A block and its problem, with whatever padding there still is written out as zeros."""
    if not problem.fast:
        return x, problem
    maps, sizes, core = _padding(problem)
    if not maps:
        return x, problem
    target = room("block", (x.shape[0], *sizes, x.shape[-1]), x)
    return compiled().gathered(x, maps, 0.0, target), core


@lru_cache(maxsize=4096)
def _padding(problem: T) -> tuple[tuple[Array, ...], tuple[int, ...], T]:
    """For compiled movers: maps that write the padding out, if any; the sizes that gives; what is left to do."""
    if not any(a.low or a.high for a in problem.axes):
        return (), (), problem
    maps = tuple(compiled().maps(a.size, -a.low, a.size + a.high, 1, "constant") for a in problem.axes)
    return maps, tuple(map(len, maps)), materialised(problem)


def gathered(x: Array, maps: tuple[Array, ...], dtype: DType, fill: complex) -> Array:
    """Compiled only: the elements of ``x`` (N, *n, C) that maps along every axis name, in ``dtype``; -1 is ``fill``."""
    fast = compiled()
    shape = (x.shape[0], *map(len, maps), x.shape[-1])
    found = spare("read", shape, dtype, x)
    y = empty_like(x, shape, dtype) if found is None else found
    return fast.gathered(x if fast.can_gather(x.dtype, y.dtype) else x.astype(y.dtype), maps, fill, y)


def source_map(size: int, start: int, stop: int, input_dilation: int, pad_mode: str) -> Array:
    """Compiled only: which element of an axis stands at each of these positions of it, padding -1."""
    return compiled().maps(size, start, stop, input_dilation, pad_mode)


def room(purpose: str, shape: tuple[int, ...], like: Array) -> Array:
    """Unset memory of a shape, spare if there is any."""
    found = spare(purpose, shape, like.dtype, like)
    return empty_like(like, shape, like.dtype) if found is None else found


def ready_to_read(x: Array, dtype: DType) -> bool:
    """Whether compiled movers can read an array of NumPy as it is: in this dtype, channels side by side."""
    return bool(x.dtype == dtype and (x.strides[-1] == x.itemsize or x.shape[-1] == 1))


@lru_cache(maxsize=1024)
def _frame(
    axes: tuple[Axis, ...],
) -> tuple[tuple[int, ...], tuple[slice, ...], tuple[tuple[slice, ...], ...]] | None:
    """Sizes with padding and holes written out, where in them the input stands, and parts that hold all the rest.

    None if there is nothing to be written out.
    """
    if not any(a.low or a.high or a.input_dilation > 1 for a in axes):
        return None
    sizes = tuple(a.spread + a.low + a.high for a in axes)
    places = tuple(slice(max(a.low, 0), max(a.low, 0) + a.spread, a.input_dilation) for a in axes)
    inside = (slice(None), *places, slice(None))
    if any(a.input_dilation > 1 for a in axes) or prod(sizes) < SMALL:
        return sizes, inside, ((slice(None),) * len(inside),)
    border = []
    for i, (size, place) in enumerate(zip(sizes, places, strict=True), 1):
        for part in (slice(0, place.start), slice(place.stop, size)):
            if part.stop > part.start:  # what the axes before this one have left
                border.append((slice(None), *places[: i - 1], part, *(slice(None),) * (len(places) - i + 1)))
    return sizes, inside, tuple(border)


def continued(x: Array, axis: int, pieces: Sequence[Run], fill: complex, xp: Namespace) -> Array:
    """Continue ``x`` along ``axis`` by runs of its own elements and of ``fill``."""
    if pieces == (Run(0, x.shape[axis], 1),):
        return x
    before = (slice(None),) * axis
    if not pieces:
        return x[(*before, slice(0, 0), ...)]
    parts = []
    for first, count, step in pieces:
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        if step is None:
            parts.append(full_like(x, shape, fill, x.dtype))
        elif step == 0:
            parts.append(xp.broadcast_to(x[(*before, slice(first, first + 1), ...)], shape))
        elif step == 1:
            parts.append(x[(*before, slice(first, first + count), ...)])
        else:
            parts.append(xp.flip(x[(*before, slice(first - count + 1, first + 1), ...)], axis=axis))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=axis)


FEW_RUNS = 128  # pieces that a block is put together from one by one


def continued_block(x: Array, pieces: Sequence[Sequence[Run]], dtype: DType, fill: complex) -> Array | None:
    """Every axis of space of ``x`` (N, *n, C) continued by runs, in spare memory; None where there is none.

    For arrays of NumPy: every element is copied once, and none of the memory is fresh.
    """
    if prod(map(len, pieces)) > FEW_RUNS:
        return None
    sizes = tuple(sum(run.length for run in along) for along in pieces)
    target = spare("continued", (x.shape[0], *sizes, x.shape[-1]), dtype, x)
    if target is None:
        return None
    ends = [tuple(accumulate((run.length for run in along), initial=0)) for along in pieces]
    for numbers in product(*(range(len(along)) for along in pieces)):
        chosen = [along[i] for along, i in zip(pieces, numbers, strict=True)]
        places = (slice(end[i], end[i + 1]) for end, i in zip(ends, numbers, strict=True))
        place = target[(slice(None), *places, slice(None))]
        if any(run.step is None for run in chosen):
            place[...] = fill
        else:
            place[...] = x[(slice(None), *map(_run_slice, chosen), slice(None))]
    return target


def _run_slice(run: Run) -> slice:
    """The elements of a run as a slice; of one that is repeated, that element."""
    if not run.step:
        return slice(run.first, run.first + 1)
    if run.step == 1:
        return slice(run.first, run.first + run.length)
    last = run.first - run.length
    return slice(run.first, last if last >= 0 else None, -1)


def spread(x: Array, axis: int, step: int, fill: complex, xp: Namespace) -> Array:
    """Put ``step - 1`` holes between neighbours along ``axis``."""
    size = x.shape[axis]
    if step == 1 or size < 2:
        return x
    shape = x.shape
    x = xp.expand_dims(x, axis=axis + 1)
    holes = full_like(x, (*shape[: axis + 1], step - 1, *shape[axis + 1 :]), fill, x.dtype)
    x = xp.reshape(xp.concat([x, holes], axis=axis + 1), (*shape[:axis], size * step, *shape[axis + 1 :]))
    return x[(*(slice(None),) * axis, slice(0, (size - 1) * step + 1), ...)]


def tap_slices(axes: Sequence[Axis]) -> Iterator[tuple[slice, ...]]:
    """For every tap of the window, in raster order, the part of a padded block that it meets."""
    return product(*(one_axis_taps(a) for a in axes))


def one_axis_taps(axis: Axis) -> list[slice]:
    """For every tap along one axis the slice of the padded input that it meets."""
    length = (axis.output - 1) * axis.stride + 1
    return [slice(t * axis.dilation, t * axis.dilation + length, axis.stride) for t in range(axis.window)]


def windows(x: Array, axes: Sequence[Axis], xp: Namespace) -> Array:
    """All windows of a padded block (N, *n, C), viewed where that is possible: (N, *out, *window, C)."""
    outputs, steps, _ = _steps(tuple(axes))
    view = window_view(x, outputs, steps)
    if view is not None:
        return view
    stacked = xp.stack([x[(slice(None), *tap, ...)] for tap in tap_slices(axes)], axis=len(axes) + 1)
    return xp.reshape(stacked, (x.shape[0], *outputs, *(window for window, _, _ in steps), x.shape[-1]))


def columns(x: Array, axes: Sequence[Axis], xp: Namespace, *, fast: bool = False) -> Array:
    """All windows of a padded block (N, *n, C) side by side: (N, *out, taps, C)."""
    outputs, steps, taps = _steps(tuple(axes))
    if fast:
        shape = (x.shape[0], *outputs, taps, x.shape[-1])
        y = room("windows", (*shape[:-2], taps * x.shape[-1]), x)
        return compiled().columns(x, tuple(axes), y).reshape(shape)
    gathered = window_runs(x, outputs, steps)
    gathered = windows(x, axes, xp) if gathered is None else gathered
    return packed(gathered, (x.shape[0], *outputs, taps, x.shape[-1]), "windows", xp)


def columns_and_one(x: Array, axes: Sequence[Axis], xp: Namespace) -> Array:
    """Of NumPy: the same with a one behind every window, which is multiplied by a bias: (N, *out, T C + 1)."""
    outputs, steps, taps = _steps(tuple(axes))
    inner = taps * x.shape[-1]
    y = room("windows", (x.shape[0], *outputs, inner + 1), x)
    y[..., inner] = 1
    target = y[..., :inner]
    if window_runs(x, outputs, steps, target) is None:
        view = windows(x, axes, xp)
        target.reshape(view.shape)[...] = view
    return y


@lru_cache(maxsize=1024)
def _steps(axes: tuple[Axis, ...]) -> tuple[tuple[int, ...], tuple[tuple[int, int, int], ...], int]:
    """Number of windows along every axis; (window, stride, dilation) of every axis; number of taps."""
    steps = tuple((a.window, a.stride, a.dilation) for a in axes)
    return tuple(a.output for a in axes), steps, prod(a.window for a in axes)


def weighted_windows(
    x: Array, axes: Sequence[Axis], w: Array, out: Array | None, xp: Namespace
) -> Array | None:
    """Every window of a padded block (N, *n, C), times its weights, summed: (N, *out, C). None if it cannot be done.

    The weights (taps, P, C) are the same for P neighbouring pixels: where windows stand side by side, that many are
    done in one loop.
    """
    if not can_sum_products(x):
        return None
    *lead, last = axes
    batch, channels = x.shape[0], x.shape[-1]
    outputs, window = tuple(a.output for a in lead), tuple(a.window for a in axes)
    if out is None or not is_contiguous(out):
        out = empty_like(x, (batch, *outputs, last.output, channels), x.dtype)
    pixels = min(w.shape[1], last.output) if last.stride == 1 and rows_are_runs(x) else 1
    whole = last.output // pixels
    for start, count, width in ((0, whole, pixels), (whole * pixels, 1, last.output - whole * pixels)):
        if not count or not width:
            continue
        steps = (last.window, width * last.stride, last.dilation)
        part = x[(..., slice(start * last.stride, None), slice(None))]
        view = window_view(
            part, (*outputs, count), (*((a.window, a.stride, a.dilation) for a in lead), steps)
        )
        place = out[(..., slice(start, start + count * width), slice(None))]
        sum_products(
            longer_runs(view, width * channels),
            xp.reshape(w[:, :width, :], (*window, width * channels)),
            xp.reshape(place, (batch, *outputs, count, width * channels)),
        )
    return out


def shifted_sum(images: Array, axes: Sequence[Axis], xp: Namespace) -> Array:
    """Add up the images (T, O, N, *n) of all taps, each as far along as its tap: (O, N, *out), in spare memory."""
    y = target = None
    for i, tap in enumerate(tap_slices(axes)):
        part = images[(i, slice(None), slice(None), *tap)]
        if y is None:
            y, target = part, spare("image", part.shape, part.dtype, part)
            continue
        y = target = combined(xp.add, y, part, target)
    return y


def running(
    x: Array,
    axes: Sequence[Axis],
    reduction: str,
    xp: Namespace,
    out: Array | None = None,
    *,
    fill: complex = 0,
    fast: bool = False,
) -> Array:
    """Reduce every window of x (N, *n, C), one axis after the other, in ``out`` if given: (N, *out, C).

    Padding holds ``fill``, the identity; where a result can be written to, it is skipped instead.
    """
    if fast:
        if out is None:
            out = empty_like(x, (x.shape[0], *(a.output for a in axes), x.shape[-1]), x.dtype)
        return compiled().running(x, tuple(axes), reduction, out)
    combine = {"max": xp.maximum, "min": xp.minimum, "sum": xp.add, "prod": xp.multiply}[reduction]
    sliding = can_slide(x)
    if not sliding:
        x = block(x, axes, x.dtype, fill, xp)
        axes = [a.materialised() for a in axes]
    steps = [(axis, a) for axis, a in enumerate(axes, 1) if a != Axis(a.size, 1)]
    for axis, a in steps:
        if sliding and (a.window > 1 or a.low or a.high):
            shape = (*x.shape[:axis], a.output, *x.shape[axis + 1 :])
            target = out if axis == steps[-1][0] else spare(f"axis {axis}", shape, x.dtype, x)
            x = slide(combine, x, axis, a, fill, empty_like(x, shape, x.dtype) if target is None else target)
        else:
            x = reduce(combine, (x[(*(slice(None),) * axis, tap, ...)] for tap in one_axis_taps(a)))
    return x if any(a.window > 1 for a in axes) else copied(x, xp)  # never the caller's own memory


def tap_positions(axis: Axis, start: int, count: int, like: Array, dtype: DType) -> list[Array]:
    """For every tap along one axis, where windows ``start`` to ``start + count`` put it in the unpadded input."""
    steps = count_up(like, count, dtype) * axis.stride
    return [steps + (start * axis.stride - axis.low + t * axis.dilation) for t in range(axis.window)]


def window_counts(
    axes: Sequence[Axis],
    counted: Sequence[tuple[int, int]],
    problem: WindowProblem,
    origin: Sequence[int],
    like: Array,
    dtype: DType,
    xp: Namespace,
) -> Array:
    """How many elements every window holds, counting also ``counted`` (low, high) pad cells: (*out, 1)."""
    total = full_like(like, (1,) * (len(axes) + 1), 1, dtype)
    for i, (axis, (low, high), outputs) in enumerate(zip(axes, counted, problem.outputs, strict=True)):
        count = full_like(like, (outputs,), 0, dtype)
        for p in tap_positions(axis, origin[i], outputs, like, default_integer(xp)):
            real = (p >= -low) & (p < axis.spread + high)
            if axis.input_dilation > 1:
                real = real & (p % axis.input_dilation == 0)
            count = count + xp.astype(real, dtype)
        total = total * xp.reshape(count, (outputs, *(1,) * (len(axes) - i)))
    return total


def ahead(b: Array, a: Array, reduction: str, xp: Namespace) -> Array:
    """Where ``b`` is larger ("max") or smaller ("min") than ``a``, or the first NaN."""
    better = b > a if reduction == "max" else b < a
    if xp.isdtype(b.dtype, "real floating"):
        better = better | (xp.isnan(b) & ~xp.isnan(a))
    return better


def first_maximum(
    x: Array, axes: Sequence[Axis], problem: WindowProblem, origin: Sequence[int], dtype: DType, xp: Namespace
) -> tuple[Array, Array]:
    """The largest element of every window of a padded block, and where it stands in the unpadded input.

    The first of equals is taken and the first NaN, if any; a window without anything larger than the padding gives its
    first element inside the input. ``axes`` are those of the whole input, ``origin`` is where the block's windows
    stand in it.
    """
    if problem.fast:
        shape = (problem.batch, *problem.outputs, x.shape[-1])
        y, indices = empty_like(x, shape, x.dtype), empty_like(x, shape, dtype)
        compiled().first_maximum(x, problem.axes, tuple(axes), tuple(origin), y, indices)
        return y, indices
    places: list[list[Array]] = []  # by axis and tap, shaped to broadcast, in elements of the flattened input
    worth = 1
    best_place = None
    for i in reversed(range(len(axes))):
        shape = (problem.outputs[i], *(1,) * (len(axes) - i))
        positions = tap_positions(axes[i], origin[i], problem.outputs[i], x, dtype)
        inside = positions[0]
        for p in positions[1:]:
            inside = xp.where(inside < 0, p, inside)
        places.insert(0, [xp.reshape(p * worth, shape) for p in positions])
        inside = xp.reshape(inside * worth, shape)
        best_place = inside if best_place is None else best_place + inside
        worth *= axes[i].size
    best = None
    for tap, terms in zip(tap_slices(problem.axes), product(*places), strict=True):
        value, place = x[(slice(None), *tap, ...)], sum(terms[1:], terms[0])
        if best is None:
            best, best_place = value, xp.broadcast_to(best_place, value.shape)
            continue
        better = ahead(value, best, "max", xp)
        best, best_place = xp.where(better, value, best), xp.where(better, place, best_place)
    if sum(a.window for a in axes) == len(axes):  # never the caller's own memory
        return copied(best, xp), copied(best_place, xp)
    return best, best_place


def interleaved(
    part: Callable[[tuple[int, ...]], Array], steps: Sequence[int], outputs: Sequence[int], xp: Namespace
) -> Array:
    """Put together what ``part`` gives for every remainder of the outputs by ``steps``: (N, *out, C)."""

    def along(axis: int, before: tuple[int, ...]) -> Array:
        if axis > len(steps):
            return part(before)
        parts = [along(axis + 1, (*before, r)) for r in range(steps[axis - 1])]
        if len(parts) == 1:
            return parts[0]
        longest = parts[0].shape[axis]  # the others may be one shorter
        parts = [continued(p, axis, runs(0, longest, p.shape[axis], "constant"), 0, xp) for p in parts]
        shape = parts[0].shape
        y = xp.reshape(xp.stack(parts, axis=axis + 1), (*shape[:axis], -1, *shape[axis + 1 :]))
        return y[(*(slice(None),) * axis, slice(0, outputs[axis - 1]), ...)]

    return along(1, ())


def ready_to_add(r: Array, dtype: DType) -> Array:
    """A residual as compiled movers read it: in this dtype, channels side by side."""
    return r if ready_to_read(r, dtype) else r.astype(dtype, order="C")


def finished(y: Array, finish: Finish) -> Array:
    """Compiled only: bias, residual and bounds in one go, in ``y`` (..., O) itself."""
    return compiled().finished(y, finish)


def biased(y: Array, b: Array, xp: Namespace) -> Array:
    """Add a bias (C,) to what is the caller's to change, (..., C): several pixels at a time where C is a short loop."""
    channels, pixels = b.shape[0], prod(y.shape[:-1])
    if y.ndim < 2 or channels > 64 or pixels < 1024:
        return added(y, b, xp)
    together = y.shape[-2]
    if y.ndim == 2:
        together = next((n for n in range(16, 1, -1) if pixels % n == 0), 1) if is_contiguous(y) else 1
    if together == 1:
        return added(y, b, xp)
    rows = xp.reshape(y, (*y.shape[:-2], -1, together * channels))
    rows = added(rows, xp.tile(b, (together,)), xp)
    return y if is_contiguous(y) else xp.reshape(rows, y.shape)


def total_by_channel(y: Array, xp: Namespace) -> Array:
    """The sum (C,) over batch and pixels of real or complex floats."""
    if not is_contiguous(y):
        return xp.sum(y, axis=tuple(range(y.ndim - 1)))
    rows = xp.reshape(y, (prod(y.shape[:-1]), y.shape[-1]))
    return product_into(full_like(y, (1, rows.shape[0]), 1, y.dtype), rows, xp, None)[0]  # (1, P) @ (P, C)
