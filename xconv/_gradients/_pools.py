"""Gradients of the pools whose windows slide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, NamedTuple

from xconv._dtypes import dtype_kind, wide
from xconv._gradients._carry import Arrays, Part, Sliding, added_back, at, meetings, placed
from xconv._gradients._firsts import back_to_first
from xconv._gradients._rule import Call, Forward, Gradients, Rule
from xconv._movers import window_counts
from xconv._namespace import Array, Namespace, Traits, full_like
from xconv._pool import (
    avg_pool,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    lp_pool,
    max_pool,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from xconv._problems import PoolSpec
from xconv._windows import enter_windows, reduce_window

RANKS = (None, 1, 2, 3)


class Pool(NamedTuple):
    """A call of a pool, read again: its windows, and its options with their defaults."""

    x: Array
    spec: PoolSpec
    options: Mapping[str, Any]
    xp: Namespace
    traits: Traits

    def back(self, work: Any, read: Arrays, outputs: Arrays, copies: int) -> Gradients:
        """The gradient, by what is to be done with every part of it; ``copies`` of a tile that it needs."""
        xp = self.xp
        problem = replace(self.spec.problem, copies=copies)
        dtype = outputs[-1].dtype
        sliding = Sliding(work, problem, wide(xp, dtype), dtype)
        return {"x": sliding.of(read, outputs, self.spec, xp, self.traits)}


def read_again(call: Call, spatial: int | None = None, stride: Any = None, **known: Any) -> Pool:
    """The windows of a call that was answered."""
    x, window, options = call.args[0], call.args[-1], call.options
    if spatial is not None and not isinstance(window, list | tuple):
        window = (window,) * spatial
    further = {name: options[name] for name in ("ceil_mode", "input_dilation") if name in options}
    padding, dilation = options.get("padding", "valid"), options.get("dilation", 1)
    steps, layout = options.get("stride", stride), options.get("layout", "NHWC")
    xp, traits, spec = enter_windows(x, window, steps, padding, dilation, layout, **further, **known)
    return Pool(x, spec, options, xp, traits)


def _max(call: Call, spatial: int | None = None) -> Forward:
    result = call.run()
    pool = read_again(call, spatial)
    y = result[0] if isinstance(result, tuple) else result
    work = partial(back_to_first, omit=pool.options.get("nan") == "omit")
    return Forward(result, lambda dy: pool.back(work, (pool.x,), (y, dy), 4), (y,))


def _mean(call: Call, spatial: int | None = None) -> Forward:
    y = call.run()
    pool = read_again(call, spatial)
    include = pool.options.get("count_include_pad", False)
    counted = pool.spec.pads if include else ((0, 0),) * len(pool.spec.pads)
    work = partial(back_from_mean, counted=counted, divisor=pool.options.get("divisor"))
    return Forward(y, lambda dy: pool.back(work, (), (dy,), 6), (y,))


def _norm(call: Call) -> Forward:
    y = call.run()
    pool = read_again(call)
    work = partial(back_from_norm, p=pool.options.get("p", 2))
    return Forward(y, lambda dy: pool.back(work, (pool.x,), (y, dy), 12), (y,))


def _reduced(call: Call) -> Forward:
    y = call.run()
    reduction = call.args[1]
    pool = read_again(call, stride=1, empty=reduction != "mean")
    if reduction in ("max", "min"):
        work: Any = partial(back_to_first, reduction=reduction)
        return Forward(y, lambda dy: pool.back(work, (pool.x,), (y, dy), 4), (y,))
    if reduction == "prod":
        copies = 4 * max(axis.window for axis in pool.spec.problem.axes) + 2 * len(pool.spec.problem.axes)
        return Forward(y, lambda dy: pool.back(back_from_product, (pool.x,), (dy,), copies), (y,))
    work = back_from_sum
    if reduction == "mean":
        work = partial(back_from_mean, counted=((0, 0),) * len(pool.spec.pads), divisor=None)
    return Forward(y, lambda dy: pool.back(work, (), (dy,), 6), (y,))


def _widened(a: Array, xp: Namespace) -> Array:
    computed = wide(xp, a.dtype)
    return a if a.dtype == computed else xp.astype(a, computed)


def back_from_sum(_: Arrays, outputs: Arrays, part: Part, target: Array | None, xp: Namespace) -> Array:
    """Every element has the sum of the gradients of its windows."""
    (dy,) = outputs
    dx = added_back(_widened(dy, xp), part.axes, target, xp)
    return xp.asarray(dx, copy=True) if dx is dy else dx


def back_from_mean(
    _: Arrays,
    outputs: Arrays,
    part: Part,
    target: Array | None,
    xp: Namespace,
    *,
    counted: tuple[tuple[int, int], ...],
    divisor: float | None,
) -> Array:
    """The same of the gradients divided by what the sums were divided by."""
    dy = _widened(outputs[0], xp)
    axes = part.problem.axes
    count: Any = prod(a.window for a in axes) if divisor is None else divisor
    if divisor is None and any(a.low or a.high or a.input_dilation > 1 for a in axes):
        real = xp.real(dy).dtype if dtype_kind(xp, dy.dtype) == "complex" else dy.dtype
        origin = tuple(w.start for w in part.windows)
        problem = replace(part.problem, axes=part.axes)
        count = window_counts(axes, counted, problem, origin, dy, real, xp)
    return added_back(dy / count, part.axes, target, xp)


def back_from_norm(
    read: Arrays, outputs: Arrays, part: Part, target: Array | None, xp: Namespace, *, p: float
) -> Array:
    """Dx = sign(x) abs(x)^(p - 1) T(dy y^(1 - p)), and nothing where y is zero; T as for a sum."""
    x, y, dy = (_widened(a, xp) for a in (*read, *outputs))
    zero = y == 0
    y = xp.where(zero, xp.ones_like(y), y)  # so that nothing infinite arises, in a second derivative neither
    g = dy if p == 1 else dy / y if p == 2 else dy * y ** (1 - p)
    total = added_back(xp.where(zero, xp.zeros_like(g), g), part.axes, target, xp)
    return norm_slope(x, total, p, xp)


def norm_slope(x: Array, g: Array, p: float, xp: Namespace) -> Array:
    """G sign(x) abs(x)^(p - 1), and nothing where x is zero."""
    if p == 2:
        return g * x
    if p == 1:
        return g * xp.sign(x)
    size = xp.where(x == 0, xp.ones_like(x), xp.abs(x))
    return g * xp.sign(x) * size ** (p - 1)


def back_from_product(read: Arrays, outputs: Arrays, part: Part, _: Array | None, xp: Namespace) -> Array:
    """Every element has the product of the others of each window: of those before it and those after it.

    Axis by axis, so that a window's elements are the products of what it holds along the axes before.
    """
    z, g = _widened(read[0], xp), _widened(outputs[0], xp)
    others = []
    for i, axis in enumerate(part.axes, 1):
        taps = [placed(z[at(i, p)], i, o, axis.output, 1, xp) for o, p in meetings(axis)]
        before, after = _products(taps, xp), _products(taps[::-1], xp)[::-1]
        others.append([a * b for a, b in zip(before, after, strict=True)])
        shape = (*z.shape[:i], axis.output, *z.shape[i + 1 :])
        z = taps[-1] * before[-1] if taps else full_like(z, shape, 1, z.dtype)
    for i, axis in reversed(tuple(enumerate(part.axes, 1))):
        total = full_like(g, (*g.shape[:i], axis.size, *g.shape[i + 1 :]), 0, g.dtype)
        for (o, p), rest in zip(meetings(axis), others[i - 1], strict=True):
            piece = (g * (xp.conj(rest) if _is_complex(rest, xp) else rest))[at(i, o)]
            total = total + placed(piece, i, p, axis.size, 0, xp)
        g = total
    return g


def _is_complex(a: Array, xp: Namespace) -> bool:
    return dtype_kind(xp, a.dtype) == "complex"


def _products(factors: list[Array], xp: Namespace) -> list[Array]:
    """Of the factors before each."""
    found = [xp.ones_like(factor) for factor in factors[:1]]
    for factor in factors[:-1]:
        found.append(found[-1] * factor)
    return found


RULES: dict[Callable[..., Any], Rule] = {
    lp_pool: Rule(("x", None), _norm),
    reduce_window: Rule(("x", None, None), _reduced),
    **{
        pool: Rule(("x", None), partial(_max, spatial=spatial))
        for spatial, pool in zip(RANKS, (max_pool, max_pool1d, max_pool2d, max_pool3d), strict=True)
    },
    **{
        pool: Rule(("x", None), partial(_mean, spatial=spatial))
        for spatial, pool in zip(RANKS, (avg_pool, avg_pool1d, avg_pool2d, avg_pool3d), strict=True)
    },
}
