"""Gradients of what stands around the layers: padding and batch normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from xconv._args import frozen, numeric_pads
from xconv._borders import Run, runs
from xconv._gradients._dense import widened
from xconv._gradients._rule import Call, Forward, Gradients, Rule, one
from xconv._layout import channel_axis
from xconv._namespace import Array, Namespace, full_like, inspect, owned
from xconv._norm import batch_norm, fold_batch_norm, normalised
from xconv._pad import pad


def folded_back(dy: Array, axis: int, size: int, low: int, high: int, mode: str, xp: Namespace) -> Array:
    """The gradient by an axis of ``size`` that was continued by ``low`` and ``high`` elements in ``mode``.

    Every element gets the sum over all places at which it stood. ``dy`` should be in the dtype that sums are
    computed in.
    """
    return folded_onto(dy, axis, runs(-low, size + high, size, mode), (0, size), xp)


def folded_onto(dy: Array, axis: int, pieces: Sequence[Run], ends: tuple[int, int], xp: Namespace) -> Array:
    """The gradient by the elements between ``ends`` of an axis, from which these runs were taken."""
    before = (slice(None),) * axis
    spans = []  # (start, stop) in the axis, and the cotangent of these elements
    place = 0
    for first, count, step in pieces:
        part = dy[(*before, slice(place, place + count), ...)]
        place += count
        if step == 0:
            spans.append((first, first + 1, xp.sum(part, axis=axis, keepdims=True)))
        elif step == 1:
            spans.append((first, first + count, part))
        elif step == -1:
            spans.append((first - count + 1, first + 1, xp.flip(part, axis=axis)))
    found = []
    for begin, end in pairwise(sorted({*ends}.union(*((start, stop) for start, stop, _ in spans)))):
        here = [
            part[(*before, slice(begin - start, end - start), ...)]
            for start, stop, part in spans
            if start <= begin and end <= stop
        ]
        if not here:
            shape = (*dy.shape[:axis], end - begin, *dy.shape[axis + 1 :])
            here = [full_like(dy, shape, 0, dy.dtype)]
        found.append(sum(here[1:], here[0]))
    if not found:  # an axis without elements
        return dy[(*before, slice(0, 0), ...)]
    return found[0] if len(found) == 1 else xp.concat(found, axis=axis)


def _pad(call: Call) -> Forward:
    y = call.run()
    x, widths = call.args
    mode = call.options.get("mode", "constant")

    def pull(dy: Array) -> Gradients:
        xp, _ = inspect(dy=dy)
        found = widened(dy, xp)
        pairs = numeric_pads(frozen(widths), x.ndim, "widths")
        for axis, ((low, high), size) in enumerate(zip(pairs, x.shape, strict=True)):
            if low or high:
                found = folded_back(found, axis, size, low, high, mode, xp)
        return {"x": owned(found, dy, xp)}

    return one(y, pull)


def _batch_norm(call: Call) -> Forward:
    x, mean, var, gamma, beta = (call.arg(i) for i in range(5))
    eps = call.options.get("eps", 1e-5)
    forward = normalised(x, mean, var, gamma, beta, **call.options)

    def pull(dy: Array) -> Gradients:
        xp, _ = inspect(dy=dy)
        dy = widened(dy, xp)
        shape = tuple(n if i == forward.axis else 1 for i, n in enumerate(x.shape))
        others = tuple(i for i in range(x.ndim) if i != forward.axis)
        inverse = 1 / xp.sqrt(forward.var + eps)
        scale = inverse if gamma is None else inverse * xp.astype(gamma, dy.dtype, copy=False)
        trained = mean is None and "x" in call.wanted  # through the statistics of the batch
        found: dict[str, Array] = {}
        if trained or call.wanted & {"mean", "beta"}:
            total = xp.sum(dy, axis=others)
            found |= {"beta": total, "mean": -scale * total}
        if trained or call.wanted & {"var", "gamma"}:
            unit = xp.astype(x, dy.dtype, copy=False) - xp.reshape(forward.mean, shape)
            unit = unit * xp.reshape(inverse, shape)
            along = xp.sum(dy * unit, axis=others)
            found |= {"gamma": along, "var": -0.5 * scale * inverse * along}
        if trained:
            count = prod(x.shape[i] for i in others)
            dy = dy - xp.reshape(total / count, shape) - unit * xp.reshape(along / count, shape)
        if "x" in call.wanted:
            found["x"] = dy * xp.reshape(scale, shape)
        return {name: found[name] for name in call.wanted}

    return one(forward.y, pull)


def _fold_batch_norm(call: Call) -> Forward:
    result = call.run()
    w, b, mean, var, gamma = (call.arg(i) for i in range(5))
    eps, layout = call.options.get("eps", 1e-5), call.options.get("layout", "NHWC")
    transposed = call.options.get("transposed", False)

    def pull(dw: Array, db: Array) -> Gradients:
        xp, _ = inspect(dw=dw, db=db)
        dw, db = widened(dw, xp), widened(db, xp)
        centre, spread = (xp.astype(a, dw.dtype, copy=False) for a in (mean, var))
        inverse = 1 / xp.sqrt(spread + eps)
        scale = inverse if gamma is None else inverse * xp.astype(gamma, dw.dtype, copy=False)
        found = {"b": db * scale, "mean": -scale * db, "beta": db}
        if call.wanted & {"gamma", "var"}:
            shift = -centre if b is None else xp.astype(b, dw.dtype, copy=False) - centre
            products = dw * xp.astype(w, dw.dtype, copy=False)
            dscale = _per_output(products, mean.shape[0], layout, transposed, xp) + db * shift
            found |= {"gamma": dscale * inverse, "var": -0.5 * dscale * scale * inverse * inverse}
        if "w" in call.wanted:
            nothing = xp.zeros_like(mean)
            found["w"] = fold_batch_norm(dw, None, nothing, var, gamma, **call.options)[0]
        return {name: found[name] for name in call.wanted}

    return Forward(result, pull, result)


def _per_output(products: Array, outputs: int, layout: str, transposed: Any, xp: Namespace) -> Array:
    """Sums over what belongs to one output channel of a kernel, as `fold_batch_norm` tells them apart."""
    rank, shape = products.ndim, products.shape
    last = rank == 2 or channel_axis(layout, rank) == rank - 1
    if not transposed and shape[-1 if last else 0] == outputs:
        return xp.sum(products, axis=tuple(range(rank - 1)) if last else tuple(range(1, rank)))
    spatial = tuple(range(rank - 2)) if last else tuple(range(2, rank))
    products = xp.sum(products, axis=spatial) if spatial else products
    if not transposed:  # depthwise (C, M)
        return xp.reshape(products, (outputs,))
    inputs, per_group = (products.T if last else products).shape
    groups = outputs // per_group
    # (I, O / G) -> (G, I / G, O / G) -> (G, O / G) -> (O)
    products = xp.reshape(products.T if last else products, (groups, inputs // groups, per_group))
    return xp.reshape(xp.sum(products, axis=1), (outputs,))


RULES: dict[Callable[..., Any], Rule] = {
    pad: Rule(("x", None), _pad),
    batch_norm: Rule(("x", "mean", "var", "gamma", "beta"), _batch_norm),
    fold_batch_norm: Rule(("w", "b", "mean", "var", "gamma", "beta"), _fold_batch_norm),
}
