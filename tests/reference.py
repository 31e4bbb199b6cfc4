"""The dull reference: what every operation means, written as loops over positions and window cells.

It is slow on purpose and imports nothing of the library under test. Arrays are NumPy arrays in one arrangement only:
data ``(N, *spatial, C)`` and kernels ``(*kernel, I, O)``. Geometry is spelled out: a stride or dilation is a tuple of
ints, one per spatial axis, and padding is a tuple of ``(low, high)`` pairs that may be negative.

Integers are computed as Python's own unbounded ints and returned in arrays of objects, so that nothing can wrap here;
floating-point numbers are computed in float64 and complex ones in complex128. The caller casts the result.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

# ---------------------------------------------------------------------------------------------------- sizes


def output_size(n, k, s, lo, hi, d=1, id=1, ceil=False):
    """Number of window positions along one axis; zero when the window does not fit.

    `n` input size, `k` window size, `s` stride, `lo` and `hi` padding, `d` window dilation, `id` input dilation.
    With `ceil`, one more window may hang over the end, unless it would start in the high padding or beyond.
    """
    n = max((n - 1) * id + 1, 0)
    room = n + lo + hi - (d * (k - 1) + 1)
    if room < 0:
        return 0
    count = room // s + 1
    if ceil and room % s != 0 and count * s < n + lo:
        count += 1
    return count


def same_pads(n, k, s, d=1, id=1, lower=False):
    """The (low, high) padding that makes the output ``ceil(n / s)`` long; the odd cell is high, or low."""
    n = max((n - 1) * id + 1, 0)
    total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def transposed_size(m, k, s, lo, hi, d=1, output_padding=0):
    """Output size of a transposed convolution along one axis."""
    return (m - 1) * s + d * (k - 1) + 1 - lo - hi + output_padding


def pads_of(padding, sizes, kernel, stride, dilation):
    """Every spelling of `padding` as one ``(low, high)`` pair per axis, for a convolution, an unfold or a pool."""
    rank = len(kernel)
    if isinstance(padding, int):
        return ((padding, padding),) * rank
    if not isinstance(padding, str):
        return tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)
    pads = []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        reach = d * (k - 1)
        pads.append(
            {
                "valid": (0, 0),
                "same": same_pads(n, k, s, d),
                "same_lower": same_pads(n, k, s, d, lower=True),
                "full": (reach, reach),
                "causal": (reach, 0),
            }[padding]
        )
    return tuple(pads)


def transposed_pads(padding, sizes, kernel, stride, dilation, output_shape=None):
    """Every spelling of `padding` of a transposed convolution as pairs: what is cropped from the scattered whole.

    With "same" the output is ``m * s`` long, the odd cell cropped at the end; with "same_lower" at the start. An
    `output_shape` replaces that length, and then "valid" splits as "same_lower" does. What is longer than the whole
    ends in zeros.
    """
    pads = []
    numeric = None if isinstance(padding, str) else pads_of(padding, sizes, kernel, stride, dilation)
    for axis, (m, k, s, d) in enumerate(zip(sizes, kernel, stride, dilation, strict=True)):
        whole = transposed_size(m, k, s, 0, 0, d)
        if numeric is not None:
            pads.append(numeric[axis])
        elif output_shape is None and padding in ("valid", "full", "causal"):
            reach = d * (k - 1)
            pads.append({"valid": (0, 0), "full": (reach, reach), "causal": (reach, 0)}[padding])
        else:
            total = whole - (m * s if output_shape is None else output_shape[axis])
            small, large = total // 2, total - total // 2
            if total < 0:
                pads.append((0, total))
            else:
                pads.append((small, large) if padding == "same" else (large, small))
    return tuple(pads)


# -------------------------------------------------------------------------------------------------- numbers


def _wide(x):
    """The array in the type that this module computes in."""
    x = np.asarray(x)
    if x.dtype.kind in "iu":
        return x.astype(object)
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _common(*arrays):
    """Arrays (or None) in one computing type: objects only while all are integers."""
    kinds = {a.dtype.kind for a in arrays if a is not None}
    kind = np.complex128 if "c" in kinds else np.float64 if "f" in kinds else object
    return [None if a is None else a.astype(kind) for a in arrays]


def _zeros(shape, like):
    """Zeros that computing can add to; an object array gets Python zeros."""
    return np.full(shape, 0, dtype=like.dtype)


# ------------------------------------------------------------------------------------------------------ pad


def source_index(i, n, mode):
    """Which element of a sequence of length `n` stands at position `i` of its endless continuation.

    None stands for the constant. The definitions are the mathematical ones and hold for any distance:
    reflect has period ``2 (n - 1)``, symmetric ``2 n``, wrap ``n``.
    """
    if 0 <= i < n:
        return i
    if mode == "constant":
        return None
    if mode == "edge":
        return 0 if i < 0 else n - 1
    if mode == "wrap":
        return i % n
    if mode == "symmetric":
        i %= 2 * n
        return i if i < n else 2 * n - 1 - i
    if mode == "reflect":
        if n == 1:
            return 0
        i %= 2 * (n - 1)
        return i if i < n else 2 * (n - 1) - i
    raise ValueError(mode)


def pad(x, widths, mode="constant", value=0):
    """Pad every axis of `x` by ``(low, high)``; a negative width crops."""
    shape = tuple(n + lo + hi for n, (lo, hi) in zip(x.shape, widths, strict=True))
    result = np.full(shape, value, dtype=x.dtype)
    for position in np.ndindex(*shape):
        source = [
            source_index(i - lo, n, mode) for i, (lo, _), n in zip(position, widths, x.shape, strict=True)
        ]
        if None not in source:
            result[position] = x[tuple(source)]
    return result


def _pad_spatial(x, pads, mode="constant"):
    """`pad` over the spatial axes of ``(N, *spatial, C)``, moving whole (N, C) slices at a time."""
    rank = len(pads)
    for axis in range(rank):
        lo, hi = pads[axis]
        n = x.shape[axis + 1]
        shape = (*x.shape[: axis + 1], n + lo + hi, *x.shape[axis + 2 :])
        result = _zeros(shape, x)
        for i in range(n + lo + hi):
            source = source_index(i - lo, n, mode)
            if source is not None:
                at = (slice(None),) * (axis + 1)
                result[(*at, i)] = x[(*at, source)]
        x = result
    return x


def _dilate_spatial(x, input_dilation):
    """Put ``d - 1`` zeros between neighbours along each spatial axis."""
    sizes = tuple(max((n - 1) * d + 1, 0) for n, d in zip(x.shape[1:-1], input_dilation, strict=True))
    result = _zeros((x.shape[0], *sizes, x.shape[-1]), x)
    result[(slice(None), *(slice(None, None, d) for d in input_dilation), slice(None))] = x
    return result


# -------------------------------------------------------------------------------------------- convolution


def conv(x, w, b=None, *, stride, pads, dilation, input_dilation=None, groups=1, pad_mode="constant"):
    """Cross-correlation of x (N, *spatial, C) with w (*kernel, C/groups, O), in groups of output channels."""
    x, w, b = _common(x, w, b)
    rank = x.ndim - 2
    kernel, outputs = w.shape[:rank], w.shape[-1]
    if input_dilation is not None:
        x = _dilate_spatial(x, input_dilation)
    x = _pad_spatial(x, pads, pad_mode)
    sizes = [
        output_size(n, k, s, 0, 0, d)
        for n, k, s, d in zip(x.shape[1:-1], kernel, stride, dilation, strict=True)
    ]
    result = _zeros((x.shape[0], *sizes, outputs), x)
    inputs_per_group, outputs_per_group = w.shape[-2], outputs // groups
    assert inputs_per_group * groups == x.shape[-1]
    for position in np.ndindex(*sizes):
        for cell in np.ndindex(*kernel):
            at = tuple(p * s + c * d for p, s, c, d in zip(position, stride, cell, dilation, strict=True))
            for g in range(groups):
                ins = slice(g * inputs_per_group, (g + 1) * inputs_per_group)
                outs = slice(g * outputs_per_group, (g + 1) * outputs_per_group)
                result[(slice(None), *position, outs)] += x[(slice(None), *at, ins)] @ w[cell][:, outs]
    return result if b is None else result + b


def conv_transpose(x, w, b=None, *, stride, pads, output_padding=None, dilation, groups=1):
    """Scatter of x (N, *spatial, C) through w (*kernel, O/groups, C), the kernel of the convolution it transposes."""
    x, w, b = _common(x, w, b)
    rank = x.ndim - 2
    kernel, outputs_per_group = w.shape[:rank], w.shape[-2]
    output_padding = output_padding or (0,) * rank
    sizes = [
        transposed_size(m, k, s, lo, hi, d, extra)
        for m, k, s, (lo, hi), d, extra in zip(
            x.shape[1:-1], kernel, stride, pads, dilation, output_padding, strict=True
        )
    ]
    result = _zeros((x.shape[0], *sizes, outputs_per_group * groups), x)
    inputs_per_group = x.shape[-1] // groups
    for position in np.ndindex(*x.shape[1:-1]):
        for cell in np.ndindex(*kernel):
            at = tuple(
                p * s + c * d - lo
                for p, s, c, d, (lo, _) in zip(position, stride, cell, dilation, pads, strict=True)
            )
            if not all(0 <= i < n for i, n in zip(at, sizes, strict=True)):
                continue
            for g in range(groups):
                ins = slice(g * inputs_per_group, (g + 1) * inputs_per_group)
                outs = slice(g * outputs_per_group, (g + 1) * outputs_per_group)
                result[(slice(None), *at, outs)] += x[(slice(None), *position, ins)] @ w[cell][:, ins].T
    return result if b is None else result + b


def filtered(
    x, kernel, axes, *, flip, mode, stride=None, dilation=None, origin=None, pad_mode="constant", value=0
):
    """Filter of x over `axes` by a kernel of the same rank: a convolution with `flip`, else a correlation.

    The axes left out broadcast. With a centre c, output o is the sum of ``kernel[t] * x[o + c - t]``, or of
    ``conj(kernel[t]) * x[o + t - c]``.
    """
    x, kernel = _common(_wide(x), _wide(kernel))
    kernel = kernel if flip or kernel.dtype == object else np.conj(kernel)
    rank = len(axes)
    stride, dilation, origin = stride or (1,) * rank, dilation or (1,) * rank, origin or (0,) * rank
    x, kernel = (np.moveaxis(array, axes, range(rank)) for array in (x, kernel))
    centres, sizes = [], []
    spatial = x.shape[:rank]
    for n, k, s, d, shift in zip(spatial, kernel.shape[:rank], stride, dilation, origin, strict=True):
        reach = d * (k - 1) + 1
        length = {"full": n + reach - 1, "same": n, "valid": n - reach + 1}[mode]
        middle = (reach - 1) // 2 if flip else reach // 2
        first, last = (0, reach - 1) if flip else (reach - 1, 0)
        centres.append({"full": first, "same": middle + shift, "valid": last}[mode])
        sizes.append(-(-length // s))
    batch = np.broadcast_shapes(x.shape[rank:], kernel.shape[rank:])
    result = _zeros((*sizes, *batch), x)
    for position in np.ndindex(*sizes):
        for tap in np.ndindex(*kernel.shape[:rank]):
            at = [
                source_index(o * s + (c - t * d if flip else t * d - c), n, pad_mode)
                for o, s, c, t, d, n in zip(position, stride, centres, tap, dilation, spatial, strict=True)
            ]
            result[position] += kernel[tap] * (value if None in at else x[tuple(at)])
    return np.moveaxis(result, range(rank), axes)


# ------------------------------------------------------------------------------------------ unfold and fold


def unfold(x, window, *, stride, pads, dilation):
    """Window cells as features, (N, *out, C * K): channel first, then the window in raster order."""
    x = _pad_spatial(np.asarray(x), pads)
    sizes = [
        output_size(n, k, s, 0, 0, d)
        for n, k, s, d in zip(x.shape[1:-1], window, stride, dilation, strict=True)
    ]
    channels, cells = x.shape[-1], math.prod(window)
    result = np.zeros((x.shape[0], *sizes, channels * cells), dtype=x.dtype)
    for position in np.ndindex(*sizes):
        for number, cell in enumerate(np.ndindex(*window)):
            at = tuple(p * s + c * d for p, s, c, d in zip(position, stride, cell, dilation, strict=True))
            for channel in range(channels):
                result[(slice(None), *position, channel * cells + number)] = x[(slice(None), *at, channel)]
    return result


def fold(columns, output_size, window, *, stride, pads, dilation):
    """Add the features of `unfold` back to where they came from: (N, *output_size, C)."""
    columns = _wide(columns)
    cells = math.prod(window)
    channels = columns.shape[-1] // cells
    result = _zeros((columns.shape[0], *output_size, channels), columns)
    for position in np.ndindex(*columns.shape[1:-1]):
        for number, cell in enumerate(np.ndindex(*window)):
            at = tuple(
                p * s + c * d - lo
                for p, s, c, d, (lo, _) in zip(position, stride, cell, dilation, pads, strict=True)
            )
            if all(0 <= i < n for i, n in zip(at, output_size, strict=True)):
                for channel in range(channels):
                    result[(slice(None), *at, channel)] += columns[
                        (slice(None), *position, channel * cells + number)
                    ]
    return result


# -------------------------------------------------------------------------------------------------- pooling


def window_cells(sizes, window, *, stride, pads, dilation, out, input_dilation=None):
    """For each window position: the real input cells under it, and how many cells lie in input or padding.

    Yields ``(position, cells, padded_count)``. Cells of the overhang of a ceil-mode window are in neither; holes that
    input dilation makes count as padding.
    """
    input_dilation = input_dilation or (1,) * len(sizes)
    for position in np.ndindex(*out):
        cells, padded_count = [], 0
        for cell in np.ndindex(*window):
            at = tuple(
                p * s + c * d - lo
                for p, s, c, d, (lo, _) in zip(position, stride, cell, dilation, pads, strict=True)
            )
            padded_count += all(
                -lo <= i < (n - 1) * h + 1 + hi
                for i, n, h, (lo, hi) in zip(at, sizes, input_dilation, pads, strict=True)
            )
            inside = all(
                0 <= i < (n - 1) * h + 1 and i % h == 0
                for i, n, h in zip(at, sizes, input_dilation, strict=True)
            )
            if inside:
                cells.append(tuple(i // h for i, h in zip(at, input_dilation, strict=True)))
        yield position, cells, padded_count


def pool_sizes(sizes, window, *, stride, pads, dilation, ceil=False, input_dilation=None):
    """Output sizes of a pool, one per spatial axis."""
    input_dilation = input_dilation or (1,) * len(sizes)
    return tuple(
        output_size(n, k, s, lo, hi, d, h, ceil)
        for n, k, s, (lo, hi), d, h in zip(sizes, window, stride, pads, dilation, input_dilation, strict=True)
    )


def pool(
    x,
    reduction,
    window,
    *,
    stride,
    pads,
    dilation,
    out=None,
    ceil=False,
    input_dilation=None,
    p=2,
    divisor=None,
    omit_nan=False,
):
    """Reduce every window of x (N, *spatial, C).

    Reductions: ``max``, ``min``, ``sum``, ``prod``, ``mean`` (over the real cells), ``mean_padded`` (over real and
    padding cells), ``lp`` (with absolute values), and ``divided`` (the sum over `divisor`). Empty windows give the
    identity of the reduction.
    """
    geometry = {"stride": stride, "pads": pads, "dilation": dilation, "input_dilation": input_dilation}
    sizes = x.shape[1:-1]
    if out is None:
        out = pool_sizes(sizes, window, ceil=ceil, **geometry)
    kind = np.asarray(x).dtype
    fractional = reduction in ("mean", "mean_padded", "lp", "divided")
    if kind.kind in "iu" and fractional:
        x = x.astype(np.float64)
    wide = _wide(x)
    result = np.zeros((x.shape[0], *out, x.shape[-1]), dtype=wide.dtype)
    for position, cells, padded_count in window_cells(sizes, window, out=out, **geometry):
        for n in range(x.shape[0]):
            for c in range(x.shape[-1]):
                values = [wide[(n, *cell, c)] for cell in cells]
                result[(n, *position, c)] = _reduce(
                    values, reduction, kind, padded_count, p=p, divisor=divisor, omit_nan=omit_nan
                )
    return result


def _reduce(values, reduction, kind, padded_count, *, p, divisor, omit_nan):
    if reduction in ("max", "min"):
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            identity = int(limits.min if reduction == "max" else limits.max)
        else:
            identity = -math.inf if reduction == "max" else math.inf
            if omit_nan:
                values = [v for v in values if not math.isnan(v)]
            if any(math.isnan(v) for v in values):
                return math.nan
        return (max if reduction == "max" else min)([identity, *values])
    if reduction == "lp":
        total = sum(abs(v) ** p for v in values)
        return total ** (1 / p)
    total = 0
    if reduction == "prod":
        total = 1
        for v in values:
            total = total * v
        return total
    for v in values:
        total = total + v
    if reduction == "mean":
        return total / len(values)
    if reduction == "mean_padded":
        return total / padded_count
    if reduction == "divided":
        return total / divisor
    assert reduction == "sum"
    return total


def ranked(x, rank, offsets, pad_mode="symmetric", value=0):
    """The element `rank`, from 0, of what stands at `offsets` from every element; NaN where there is any NaN."""
    result = np.empty_like(x)
    for position in np.ndindex(*x.shape):
        window = []
        for offset in offsets:
            at = [source_index(p + o, n, pad_mode) for p, o, n in zip(position, offset, x.shape, strict=True)]
            window.append(x.dtype.type(value) if None in at else x[tuple(at)])
        broken = [v for v in window if v != v]
        result[position] = broken[0] if broken else sorted(window)[rank]
    return result


def max_pool_indices(x, window, *, stride, pads, dilation, out=None, ceil=False, omit_nan=False):
    """Where the first largest element of each window is: a raster index over the spatial axes of `x`, unpadded.

    The first NaN counts as the largest, unless NaN is omitted; a window of nothing but -inf gives its first element.
    """
    sizes = x.shape[1:-1]
    if out is None:
        out = pool_sizes(sizes, window, stride=stride, pads=pads, dilation=dilation, ceil=ceil)
    result = np.zeros((x.shape[0], *out, x.shape[-1]), dtype=np.int64)
    cells_of = window_cells(sizes, window, stride=stride, pads=pads, dilation=dilation, out=out)
    for position, cells, _ in cells_of:
        for n in range(x.shape[0]):
            for c in range(x.shape[-1]):
                result[(n, *position, c)] = _first_largest(x, n, cells, c, sizes, omit_nan)
    return result


def _first_largest(x, n, cells, c, sizes, omit_nan):
    best_cell, best = None, None
    for cell in cells:
        value = x[(n, *cell, c)]
        missing = bool(np.isnan(value))
        if missing and omit_nan:
            value = -math.inf
        elif missing:
            best_cell = cell
            break
        if best_cell is None or value > best:
            best_cell, best = cell, value
    return int(np.ravel_multi_index(best_cell, sizes))


# ------------------------------------------------------------------------------------ adaptive, global, unpool


def adaptive_ranges(n, out):
    """The ranges of one axis that an adaptive pool reduces: floor(i n / o) to ceil((i + 1) n / o)."""
    return [range(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]


def adaptive(x, reduction, output_size):
    """Adaptive pool of x (N, *spatial, C); for ``max`` the values and their indices within each plane."""
    sizes = x.shape[1:-1]
    ranges = [adaptive_ranges(n, o) for n, o in zip(sizes, output_size, strict=True)]
    wide = _wide(x)
    kind = np.float64 if reduction == "mean" and wide.dtype == object else wide.dtype
    result = np.zeros((x.shape[0], *output_size, x.shape[-1]), dtype=kind)
    indices = np.zeros(result.shape, dtype=np.int64)
    for position in np.ndindex(*output_size):
        cells = list(itertools.product(*(r[i] for r, i in zip(ranges, position, strict=True))))
        for n in range(x.shape[0]):
            for c in range(x.shape[-1]):
                at = (n, *position, c)
                values = [wide[(n, *cell, c)] for cell in cells]
                result[at] = _reduce(
                    values, reduction, x.dtype, len(cells), p=2, divisor=None, omit_nan=False
                )
                if reduction == "max":
                    indices[at] = _first_largest(x, n, cells, c, sizes, False)
    return (result, indices) if reduction == "max" else result


def global_pool(x, reduction, p=2):
    """The whole of each plane reduced to one number: (N, C)."""
    sizes = x.shape[1:-1]
    rank = len(sizes)
    ones = (1,) * rank
    whole = pool(x, reduction, sizes, stride=ones, pads=((0, 0),) * rank, dilation=ones, p=p)
    return whole.reshape(x.shape[0], x.shape[-1])


def max_unpool(x, indices, output_size):
    """Put the elements of x (N, *spatial, C) at their indices in planes of zeros; the last one written stays."""
    result = np.zeros((x.shape[0], *output_size, x.shape[-1]), dtype=x.dtype)
    for at in np.ndindex(*x.shape):
        cell = np.unravel_index(int(indices[at]), output_size)
        result[(at[0], *cell, at[-1])] = x[at]
    return result


# ---------------------------------------------------------------------------------------------------- dense


def dense(x, w, b=None):
    """x (..., I) times w (I, O), one dot product at a time."""
    x, w, b = _common(x, w, b)
    result = _zeros((*x.shape[:-1], w.shape[1]), x)
    for at in np.ndindex(*x.shape[:-1]):
        for o in range(w.shape[1]):
            for i in range(w.shape[0]):
                result[(*at, o)] += x[(*at, i)] * w[i, o]
    return result if b is None else result + b


def bilinear(x1, x2, w, b=None):
    """y[..., o] = sum over i, j of x1[..., i] w[o, i, j] x2[..., j], plus b[o]."""
    x1, x2, w, b = _common(x1, x2, w, b)
    result = _zeros((*x1.shape[:-1], w.shape[0]), x1)
    for at in np.ndindex(*x1.shape[:-1]):
        for o, i, j in np.ndindex(*w.shape):
            result[(*at, o)] += x1[(*at, i)] * w[o, i, j] * x2[(*at, j)]
    return result if b is None else result + b
