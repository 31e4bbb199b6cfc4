"""Gradients of what is laid out and put back: unfold, fold and max_unpool."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from xconv._args import frozen, pads, per_axis, pool_rank
from xconv._dtypes import default_integer
from xconv._engine import enter, leave
from xconv._gradients._rule import Call, Forward, Rule, one
from xconv._gradients._samples import by_samples
from xconv._layout import parse_layout
from xconv._namespace import Array, Namespace, count_up, inspect
from xconv._patches import fold, unfold
from xconv._unpool import max_unpool


def _unfolded(call: Call) -> Forward:
    """Its transpose is fold, with the padding in numbers: an own one may have another size to be the same for."""
    y = call.run()
    x, window = call.args
    layout = call.options.get("layout", "NHWC")
    spatial, batched = pool_rank(tuple(x.shape), frozen(window))
    seats = parse_layout(layout, spatial, kernel=False)
    sizes = tuple(x.shape[i] for i in seats.enter(batched=batched))[1 if batched else 0 : -1]
    lengths = per_axis("window", frozen(window), spatial, least=1)
    return one(y, lambda dy: {"x": fold(dy, sizes, lengths, **call.options | _padding(call, sizes, lengths))})


def _padding(call: Call, sizes: tuple[int, ...], lengths: tuple[int, ...], default: Any = "valid") -> Any:
    named = {
        name: per_axis(name, frozen(call.options.get(name, 1)), len(sizes), least=1)
        for name in ("stride", "dilation")
    }
    padding = frozen(call.options.get("padding", default))
    return {"padding": pads(padding, sizes, lengths, named["stride"], named["dilation"])}


def _folded(call: Call) -> Forward:
    y = call.run()
    columns, size, window = call.args
    spatial = next((len(v) for v in (size, window) if isinstance(v, list | tuple)), columns.ndim - 2)
    sizes = per_axis("output_size", frozen(size), spatial, least=1)
    lengths = per_axis("window", frozen(window), spatial, least=1)
    options = dict(call.options) | _padding(call, sizes, lengths, 0)
    return one(y, lambda dy: {"columns": unfold(dy, lengths, **options)})


def _unpooled(call: Call) -> Forward:
    y = call.run()
    x, indices, window = call.args
    xp, traits = inspect(x=x, indices=indices)
    spatial, batched = pool_rank(tuple(x.shape), frozen(window))
    seats = parse_layout(call.options.get("layout", "NHWC"), spatial, kernel=False)

    def pull(dy: Array) -> dict[str, Array]:
        arrays = tuple(enter(a, seats, xp, batched=batched) for a in (indices, dy))
        dx = by_samples(_collected, arrays, tuple(arrays[0].shape), dy.dtype, xp, traits, held=96)
        return {"x": leave(dx, seats, xp, batched=batched)}

    return one(y, pull)


def _collected(indices: Array, dy: Array, xp: Namespace, _: Array | None) -> Array:
    """Every value has the gradient of the place where it went, unless a later one went there or it is outside.

    Sorted by place, the last of equals is the one whose neighbour has another place.
    """
    batch, *outputs, channels = dy.shape
    shape, planes, area = indices.shape, batch * channels, prod(outputs)
    integer = default_integer(xp)
    first, to_last = (0, dy.ndim - 1, *range(1, dy.ndim - 1)), (0, *range(2, dy.ndim), 1)  # of the channels
    indices = xp.astype(xp.reshape(xp.permute_dims(indices, first), (planes, -1)), integer)
    inside = (indices >= 0) & (indices < area)
    plane = xp.reshape(count_up(dy, planes, integer), (planes, 1))
    places = xp.reshape(xp.where(inside, indices + plane * area, planes * area), (-1,))
    inside = xp.reshape(inside, (-1,))
    order = xp.argsort(places, stable=True)
    ordered = xp.take(places, order, axis=0)
    last = ordered[1:] != ordered[:-1]
    last = xp.concat([last, xp.ones_like(inside[:1])], axis=0)
    inverse = xp.argsort(order, stable=True)
    hit = xp.take(last, inverse, axis=0) & inside
    dy = xp.reshape(xp.permute_dims(dy, first), (-1,))
    values = xp.take(dy, xp.where(hit, places, 0), axis=0)
    dx = xp.where(hit, values, xp.zeros_like(values))
    return xp.permute_dims(xp.reshape(dx, (batch, channels, *shape[1:-1])), to_last)


RULES: dict[Callable[..., Any], Rule] = {
    unfold: Rule(("x", None), _unfolded),
    fold: Rule(("columns", None, None), _folded),
    max_unpool: Rule(("x", "indices", None), _unpooled, fixed=("indices",)),
}
