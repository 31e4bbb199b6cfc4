"""Windows as columns (im2col), and columns back to where they came from (col2im)."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from xconv._args import Ints, Padding, frozen, pads, per_axis, rank_and_batch
from xconv._config import settings
from xconv._dtypes import dtype_kind, itemsize, wide
from xconv._engine import enter, execute, leave
from xconv._errors import door, refuse
from xconv._geometry import Axis, WindowProblem
from xconv._layout import parse_layout, permuted
from xconv._movers import one_axis_taps, windows
from xconv._namespace import Array, Namespace, inspect, owned
from xconv._problems import pool_spec
from xconv._tiles import Job, Operands, Place
from xconv._windows import check_numeric


@door
def unfold(
    x: Array,
    window: Ints,
    /,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    dilation: Ints = 1,
    layout: str = "NHWC",
) -> Array:
    """Lay every window out as one column of numbers.

    Parameters
    ----------
    x : array (N, *spatial, C); (*spatial, C) where ``window`` has one int per axis
        Numbers.
    window, stride, dilation : int or one int per axis
        As for `conv`.
    padding : int, int per axis, (low, high) per axis, or a name
        As for `conv`; it holds zeros.
    layout : str
        ``"NHWC"`` or ``"NCHW"``, ``"channels_last"`` or ``"channels_first"``, for any number of spatial axes.

    Returns
    -------
    array (N, *outputs, C * K), or (N, C * K, *outputs) with ``layout="NCHW"``
        K = number of elements of a window. Channels come first, then the window row by row.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, traits = inspect(x=x)
    check_numeric(x, xp)
    size = frozen(window)
    options = (frozen(stride), frozen(padding), frozen(dilation), frozen(layout))
    spec = pool_spec(tuple(x.shape), size, *options, empty=True)
    count = prod(axis.window for axis in spec.problem.axes)
    problem = replace(spec.problem, itemsize=itemsize(xp, x.dtype), copies=2 * count)
    tails = ((problem.channels * count,),)
    job = Job(problem, _columns_tile, x.dtype, tails, (x.dtype,), settings=settings())
    (y,) = execute(job, enter(x, spec.layout, xp, batched=spec.batched), (), xp, traits)
    return leave(y, spec.layout, xp, batched=spec.batched)


@door
def fold(
    columns: Array,
    output_size: Ints,
    window: Ints,
    /,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    layout: str = "NHWC",
) -> Array:
    """Add columns up where `unfold` took them from: its transpose. Overlapping windows add.

    Parameters
    ----------
    columns : array (N, *outputs, C * K), or (N, C * K, *outputs) with ``layout="NCHW"``
        As `unfold` gives them, or without the batch axis.
    output_size : int or one int per axis
        Spatial sizes of the result.
    window, stride, padding, dilation, layout
        As for `unfold`. At least one of ``output_size`` and ``window`` has one int per axis where the columns are
        unbatched.

    Returns
    -------
    array (N, *output_size, C), or (*output_size, C)
        In the dtype of the columns; integers in the dtype that ``sum`` gives them.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, traits = inspect(columns=columns)
    check_numeric(columns, xp, "columns")
    sizes, size = frozen(output_size), frozen(window)
    spatial = next((len(v) for v in (sizes, size) if isinstance(v, tuple)), columns.ndim - 2)
    if spatial < 1:
        refuse(
            "columns",
            list(columns.shape),
            "have a batch axis, an axis of columns and at least one spatial axis",
        )
    batched = rank_and_batch(tuple(columns.shape), spatial, "columns")
    seats = parse_layout(frozen(layout), spatial, kernel=False)
    shape = permuted(tuple(columns.shape), seats.enter(batched=batched))
    batch, found, features = (shape[0], shape[1:-1], shape[-1]) if batched else (1, shape[:-1], shape[-1])
    sizes = per_axis("output_size", sizes, spatial, least=1)
    lengths = per_axis("window", size, spatial, least=1)
    steps = per_axis("stride", frozen(stride), spatial, least=1)
    gaps = per_axis("dilation", frozen(dilation), spatial, least=1)
    widths = pads(frozen(padding), sizes, lengths, steps, gaps)
    axes = tuple(
        Axis(n, k, s, d, 1, low, high)
        for n, k, s, d, (low, high) in zip(sizes, lengths, steps, gaps, widths, strict=True)
    )
    if features % prod(lengths):
        refuse(
            "columns",
            list(columns.shape),
            f"have a multiple of {prod(lengths)} features, the window's elements",
        )
    expected = tuple(axis.output for axis in axes)
    if expected != found:
        rule = (
            f"have spatial sizes {list(expected)}, as unfold gives them from {list(sizes)}, not {list(found)}"
        )
        refuse("columns", list(columns.shape), rule)
    transposed = tuple(axis.transposed() for axis in axes)
    computed = wide(xp, columns.dtype)
    result = computed if dtype_kind(xp, columns.dtype) == "integer" else columns.dtype
    problem = WindowProblem(batch, transposed, features, itemsize(xp, computed), copies=1)
    tails = ((features // prod(lengths),),)
    job = Job(problem, _overlap_add_tile, computed, tails, (result,), settings=settings())
    (y,) = execute(job, enter(columns, seats, xp, batched=batched), (), xp, traits)
    return leave(y, seats, xp, batched=batched)


def _columns_tile(
    job: Job, x: Array, _: Operands, problem: WindowProblem, place: Place, xp: Namespace
) -> tuple[Array]:
    spatial = len(problem.axes)
    order = (*range(1 + spatial), 1 + 2 * spatial, *range(1 + spatial, 1 + 2 * spatial))
    y = xp.permute_dims(windows(x, problem.axes, xp), order)  # (N, *out, C, *window)
    return (owned(xp.reshape(y, (problem.batch, *problem.outputs, *job.tails[0])), x, xp),)


def _overlap_add_tile(
    job: Job, x: Array, _: Operands, problem: WindowProblem, place: Place, xp: Namespace
) -> tuple[Array]:
    """An output meets tap t of a window where the spread columns, seen through the flipped window, have theirs.

    Axis by axis, the first one first: (N, *n, C, K) becomes (N, *out, C).
    """
    window = tuple(axis.window for axis in problem.axes)
    (channels,) = job.tails[0]
    y = xp.reshape(x, (*x.shape[:-1], channels, *window))
    for i, axis in enumerate(problem.axes, 1):
        taps = reversed(one_axis_taps(axis))
        before = (slice(None),) * i
        feature = (slice(None),) * (len(problem.axes) + 1 - i + 1)  # the spatial axes left, and the channels
        total = None
        for t, tap in enumerate(taps):
            part = y[(*before, tap, *feature[1:], t, ...)]
            total = part if total is None else total + part
        y = total
    return (xp.astype(y, job.dtypes[0]),)
