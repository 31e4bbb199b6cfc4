"""Gradients of the pools that are told the size of their result, and of the global ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from math import prod
from typing import Any

from xconv._adaptive import (
    adaptive_avg_pool,
    adaptive_max_pool,
    global_avg_pool,
    global_lp_pool,
    global_max_pool,
)
from xconv._args import frozen, per_axis, pool_rank
from xconv._dtypes import wide
from xconv._engine import enter, leave
from xconv._geometry import Axis, WindowProblem, adaptive_bounds
from xconv._gradients._carry import Part
from xconv._gradients._firsts import back_to_first
from xconv._gradients._pools import Pool, back_from_mean, norm_slope
from xconv._gradients._rule import Call, Forward, Rule, one
from xconv._gradients._samples import by_samples
from xconv._layout import channel_axis, parse_layout, permuted
from xconv._namespace import Array, Namespace, count_up, empty_like, inspect, integers, permuted_axes
from xconv._windows import enter_windows

Shape = tuple[int, ...]


def _adaptive(call: Call, *, sums: bool) -> Forward:
    result = call.run()
    x, size = call.args
    xp, traits = inspect(x=x)
    spatial, batched = pool_rank(tuple(x.shape), frozen(size))
    outputs = per_axis("output_size", frozen(size), spatial, least=1)
    seats = parse_layout(call.options.get("layout", "NHWC"), spatial, kernel=False)
    y = result[0] if isinstance(result, tuple) else result
    inner = permuted(tuple(x.shape), seats.enter(batched=batched))[-1 - spatial : -1]
    if all(n % o == 0 for n, o in zip(inner, outputs, strict=True)):  # a pool whose windows do not overlap
        window = tuple(n // o for n, o in zip(inner, outputs, strict=True))
        options = (window, None, "valid", 1, call.options.get("layout", "NHWC"))
        _, _, spec = enter_windows(x, *options)
        pool = Pool(x, spec, {}, xp, traits)
        if sums:
            mean = partial(back_from_mean, counted=(), divisor=None)
            return Forward(result, lambda dy: pool.back(mean, (), (dy,), 6), (y,))
        return Forward(result, lambda dy: pool.back(back_to_first, (x,), (y, dy), 7), (y,))

    def pull(dy: Array) -> dict[str, Array]:
        arrays = tuple(enter(a, seats, xp, batched=batched) for a in (x, dy))
        shape, work = tuple(arrays[0].shape), back_from_means if sums else back_to_maxima
        dx = by_samples(partial(work, outputs=outputs), arrays, shape, dy.dtype, xp, traits, held=80)
        return {"x": leave(dx, seats, xp, batched=batched)}

    return Forward(result, pull, (y,))


def back_from_means(x: Array, dy: Array, xp: Namespace, _: Array | None, *, outputs: Shape) -> Array:
    """Axis by axis: every element has the gradients of its windows, each divided by the window's length."""
    g = xp.astype(dy, wide(xp, dy.dtype), copy=False)
    for i, (n, o) in enumerate(zip(x.shape[1:-1], outputs, strict=True), 1):
        bounds = adaptive_bounds(n, o)
        lengths = _along(integers([end - start for start, end in bounds], x), i, x.ndim, xp)
        g = g / xp.astype(lengths, xp.real(g).dtype if xp.isdtype(g.dtype, "complex floating") else g.dtype)
        total = None
        for windows, real in _holders(n, bounds):
            piece = xp.take(g, integers(windows, x), axis=i)
            if not all(real):
                inside = _along(integers(real, x), i, x.ndim, xp) > 0
                piece = xp.where(inside, piece, xp.zeros_like(piece))
            total = piece if total is None else total + piece
        g = total
    return g


def back_to_maxima(x: Array, dy: Array, xp: Namespace, _: Array | None, *, outputs: Shape) -> Array:
    """Every element has the gradients of those of its windows whose first largest element it is."""
    dy = xp.astype(dy, wide(xp, dy.dtype), copy=False)
    _, places = adaptive_max_pool(x, outputs, return_indices=True, layout="channels_last")
    sizes = x.shape[1:-1]
    here: Any = None
    for i, n in enumerate(sizes, 1):
        index = _along(integers(range(n), x), i, x.ndim, xp)
        here = index if here is None else here * n + index
    dx = xp.astype(xp.zeros_like(x), dy.dtype, copy=False)
    axes = (tuple(_holders(n, adaptive_bounds(n, o))) for n, o in zip(sizes, outputs, strict=True))
    for choice in product(*axes):
        place, g, inside = places, dy, None
        for i, (windows, real) in enumerate(choice, 1):
            index = integers(windows, x)
            place, g = xp.take(place, index, axis=i), xp.take(g, index, axis=i)
            if not all(real):
                mine = _along(integers(real, x), i, x.ndim, xp) > 0
                inside = mine if inside is None else inside & mine
        hit = place == here
        hit = hit if inside is None else hit & inside
        dx = dx + xp.where(hit, g, xp.zeros_like(g))
    return dx


def _holders(size: int, bounds: tuple[tuple[int, int], ...]) -> Iterator[tuple[list[int], list[int]]]:
    """For every element its first window, its second and so on, and whether it has that many."""
    first = [next(o for o, (_, end) in enumerate(bounds) if i < end) for i in range(size)]
    count = [sum(start <= i < end for start, end in bounds) for i in range(size)]
    for r in range(max(count)):
        yield [f + min(r, c - 1) for f, c in zip(first, count, strict=True)], [int(r < c) for c in count]


def _along(values: Array, axis: int, ndim: int, xp: Namespace) -> Array:
    return xp.reshape(values, (-1,) + (1,) * (ndim - axis - 1))


def _global_mean(call: Call) -> Forward:
    y = call.run()
    x = call.args[0]
    xp, traits = inspect(x=x)
    channels = channel_axis(call.options.get("layout", "NHWC"), x.ndim)
    kept = tuple(size if axis in (0, channels) else 1 for axis, size in enumerate(x.shape))

    def pull(dy: Array) -> dict[str, Array]:
        g = xp.reshape(xp.astype(dy, wide(xp, dy.dtype), copy=False), kept)
        g = xp.astype(g / (prod(x.shape) // prod(kept) if prod(kept) else 1), dy.dtype, copy=False)
        if not traits.threads:
            return {"x": xp.zeros_like(x) + g}
        dx = empty_like(x, tuple(x.shape), x.dtype)
        dx[...] = g
        return {"x": dx}

    return one(y, pull)


def _global_norm(call: Call) -> Forward:
    return _global(call, work=partial(_to_norm, p=call.options.get("p", 2)), held=48)


def _global(call: Call, *, work: Any, held: int) -> Forward:
    y = call.run()
    x = call.args[0]
    xp, traits = inspect(x=x)
    channels = channel_axis(call.options.get("layout", "NHWC"), x.ndim)
    spatial = tuple(axis for axis in range(1, x.ndim) if axis != channels)
    kept = tuple(1 if axis in spatial else size for axis, size in enumerate(x.shape))

    def pull(dy: Array) -> dict[str, Array]:
        arrays = (x, xp.reshape(y, kept), xp.reshape(dy, kept))
        inner = tuple(permuted_axes(a, (0, *spatial, channels), xp) for a in arrays)
        dx = by_samples(work, inner, tuple(inner[0].shape), dy.dtype, xp, traits, held=held)
        order = [1 + spatial.index(i) if i in spatial else -1 for i in range(1, x.ndim)]
        return {"x": permuted_axes(dx, (0, *(i % x.ndim for i in order)), xp)}

    return one(y, pull)


def _to_maximum(x: Array, y: Array, dy: Array, xp: Namespace, out: Array | None) -> Array:
    if out is not None and dy.dtype == wide(xp, dy.dtype):
        axes = tuple(Axis(n, n) for n in x.shape[1:-1])
        windows = (slice(0, 1),) * len(axes)
        out[...] = 0
        part = Part(axes, windows, WindowProblem(x.shape[0], axes, x.shape[-1]))
        return back_to_first((x,), (y, dy), part, out, xp)
    flat = xp.reshape(x, (x.shape[0], -1, x.shape[-1]))
    place = xp.argmax(flat, axis=1, keepdims=True)  # the first of equals, and the first NaN
    hit = _along(count_up(x, flat.shape[1], place.dtype), 1, 3, xp) == place
    g = xp.reshape(dy, (dy.shape[0], 1, dy.shape[-1]))
    return xp.reshape(xp.where(hit, g, xp.zeros_like(g)), x.shape)


def _to_norm(x: Array, y: Array, dy: Array, xp: Namespace, _: Array | None, *, p: float) -> Array:
    x, y, dy = (xp.astype(a, wide(xp, a.dtype), copy=False) for a in (x, y, dy))
    zero = y == 0
    y = xp.where(zero, xp.ones_like(y), y)
    g = xp.where(zero, xp.zeros_like(y), dy * y ** (1 - p))
    return norm_slope(x, g, p, xp)


RULES: dict[Callable[..., Any], Rule] = {
    adaptive_avg_pool: Rule(("x", None), partial(_adaptive, sums=True)),
    adaptive_max_pool: Rule(("x", None), partial(_adaptive, sums=False)),
    global_avg_pool: Rule(("x",), _global_mean),
    global_max_pool: Rule(("x",), partial(_global, work=_to_maximum, held=12)),
    global_lp_pool: Rule(("x",), _global_norm),
}
