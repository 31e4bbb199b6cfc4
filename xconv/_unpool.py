"""Max-unpooling: every value goes back to where `max_pool` found it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

from xconv._args import Ints, Padding, Shape, frozen, inner_sizes, numeric_pads, per_axis, pool_rank
from xconv._dtypes import default_integer, dtype_kind
from xconv._engine import enter, leave
from xconv._errors import door, refuse, refuse_type
from xconv._layout import parse_layout
from xconv._namespace import Array, chunk_edges, count_up, defer, empty_like, inspect


@door
def max_unpool(
    x: Array,
    indices: Array,
    window: Ints,
    /,
    *,
    stride: Ints | None = None,
    padding: Padding = 0,
    output_size: Ints | None = None,
    layout: str = "NHWC",
) -> Array:
    """Put every value back to where `max_pool` with ``return_indices=True`` found it; zeros elsewhere.

    Parameters
    ----------
    x : array (N, *spatial, C); (*spatial, C) where ``window`` has one int per axis
        Values.
    indices : integer array of the same shape
        Places as `max_pool` returns them. Of several values for one place the last one counts, in row order; a place
        outside the result is left out.
    window, stride : int or one int per axis
        Of the pool that is undone; the stride is the window by default.
    padding : int, int per axis, or (low, high) per axis
        Of the pool that is undone.
    output_size : int or one int per axis, optional
        Spatial sizes of the result, where several are possible.
    layout : str
        As for `max_pool`.

    Returns
    -------
    array (N, *outputs, C), or (*outputs, C)
        ``outputs = (m - 1) * stride + window - low - high`` along every axis, or ``output_size``.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, traits = inspect(x=x, indices=indices)
    if dtype_kind(xp, indices.dtype) != "integer":
        refuse_type("indices", indices, "be an integer array")
    if tuple(indices.shape) != tuple(x.shape):
        refuse("indices", list(indices.shape), f"have the shape of x, {list(x.shape)}")
    size = frozen(window)
    spatial, batched = pool_rank(tuple(x.shape), size)
    seats = parse_layout(frozen(layout), spatial, kernel=False)
    batch, sizes, channels = inner_sizes(tuple(x.shape), seats, batched=batched)
    outputs = _outputs(sizes, size, frozen(stride), frozen(padding), frozen(output_size))
    x, indices = (enter(a, seats, xp, batched=batched) for a in (x, indices))
    scatter = partial(_scatter, outputs=outputs)
    if traits.chunked:
        shapes = [
            ((stop - start, *outputs, channels), x.dtype) for start, stop in pairwise(chunk_edges(x)[0])
        ]
        starts = [start for start, _ in pairwise(chunk_edges(x)[0])]
        parts = [
            defer(
                scatter,
                (x[start : start + shape[0], ...], indices[start : start + shape[0], ...]),
                [(shape, dtype)],
            )[0]
            for start, (shape, dtype) in zip(starts, shapes, strict=True)
        ]
    else:
        parts = [scatter(x[n : n + 1, ...], indices[n : n + 1, ...])[0] for n in range(batch)]
    parts = parts or [empty_like(x, (0, *outputs, channels), x.dtype)]
    y = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
    return leave(y, seats, xp, batched=batched)


def _outputs(sizes: Shape, window: Any, stride: Any, padding: Any, output_size: Any) -> Shape:
    spatial = len(sizes)
    lengths = per_axis("window", window, spatial, least=1)
    steps = lengths if stride is None else per_axis("stride", stride, spatial, least=1)
    widths = numeric_pads(padding, spatial)
    outputs = tuple(
        (m - 1) * s + k - low - high
        for m, s, k, (low, high) in zip(sizes, steps, lengths, widths, strict=True)
    )
    if output_size is not None:
        wanted = per_axis("output_size", output_size, spatial, least=1)
        for axis, (got, natural, s) in enumerate(zip(wanted, outputs, steps, strict=True)):
            if not natural - s < got < natural + s:
                rule = f"be less than the stride {s} away from {natural} on axis {axis}"
                refuse("output_size", output_size, rule)
        return wanted
    if any(n < 1 for n in outputs):
        refuse("padding", padding, "leave something of the output")
    return outputs


def _scatter(x: Array, indices: Array, *, outputs: Shape) -> tuple[Array]:
    """Sorted by place, the last value of equals is what a search finds: a scatter without assignment."""
    xp, _ = inspect(x=x)
    batch, *_, channels = x.shape
    planes, area = batch * channels, prod(outputs)
    integer = default_integer(xp)
    rank = len(outputs)
    front, back = (0, rank + 1, *range(1, rank + 1)), (0, *range(2, rank + 2), 1)
    x = xp.reshape(xp.permute_dims(x, front), (planes, -1))  # (N * C, elements)
    indices = xp.astype(xp.reshape(xp.permute_dims(indices, front), (planes, -1)), integer)
    inside = (indices >= 0) & (indices < area)
    plane = xp.reshape(count_up(x, planes, integer), (planes, 1))
    places = xp.where(inside, indices + plane * area, planes * area)
    places, x = xp.reshape(places, (-1,)), xp.reshape(x, (-1,))
    order = xp.argsort(places, stable=True)
    places, x = xp.take(places, order, axis=0), xp.take(x, order, axis=0)
    targets = count_up(x, planes * area, integer)
    found = xp.searchsorted(places, targets, side="right") - 1
    found = xp.where(found < 0, 0, found)
    hit = xp.take(places, found, axis=0) == targets
    values = xp.take(x, found, axis=0)
    y = xp.where(hit, values, xp.zeros_like(values))
    return (xp.permute_dims(xp.reshape(y, (batch, channels, *outputs)), back),)
