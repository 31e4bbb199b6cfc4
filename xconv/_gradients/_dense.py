"""Gradients of the dense layers: products with the other operand, transposed."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from xconv._activations import named_activation
from xconv._dense import bilinear, dense
from xconv._dtypes import dtype_kind, sum_dtypes, wide
from xconv._gradients._activations import through
from xconv._gradients._rule import Call, Forward, Gradients, Rule, one
from xconv._namespace import Array, Namespace, inspect
from xconv._products import matmul


def _dense(call: Call) -> Forward:
    x, w, b = call.arg(0), call.arg(1), call.arg(2)
    xp, _ = inspect({"b": b}, x=x, w=w)
    activation = call.options.get("activation")
    way = through(activation)
    if way is None or way.from_result:
        y = kept = call.run()
    else:
        result = sum_dtypes(xp, x.dtype, w.dtype, call.options.get("dtype"), 1).result
        function = named_activation(activation, dtype_kind(xp, result))
        kept = dense(*call.args, **{**call.options, "activation": None, "dtype": wide(xp, result)})
        y = xp.astype(function(kept), result, copy=False) if function else kept

    def pull(dy: Array) -> Gradients:
        xp, _ = inspect(dy=dy)
        dy = widened(dy, xp) if way is None else way.pull(kept, dy)
        inputs, outputs = w.shape
        columns = xp.reshape(dy, (prod(x.shape[:-1]), outputs))
        found = {}
        if "x" in call.wanted:
            # (P, O) @ (O, I) -> (P, I)
            back = conjugate(xp.astype(w, dy.dtype, copy=False), xp).T
            found["x"] = xp.reshape(matmul(columns, back, xp), x.shape)
        if "w" in call.wanted:
            # (I, P) @ (P, O) -> (I, O)
            rows = xp.reshape(xp.astype(x, dy.dtype, copy=False), (columns.shape[0], inputs))
            found["w"] = matmul(conjugate(rows, xp).T, columns, xp)
        if "b" in call.wanted:
            found["b"] = xp.sum(columns, axis=0)
        return found

    return one(y, pull)


def _bilinear(call: Call) -> Forward:
    y = call.run()
    x1, x2, w = call.args[:3]

    def pull(dy: Array) -> Gradients:
        xp, _ = inspect(dy=dy)
        dy = widened(dy, xp)
        outputs, first, second = w.shape
        a, c, kernel = (conjugate(xp.astype(v, dy.dtype, copy=False), xp) for v in (x1, x2, w))
        found = {}
        if "x1" in call.wanted:
            found["x1"] = bilinear(dy, c, xp.permute_dims(kernel, (1, 0, 2)))
        if "x2" in call.wanted:
            found["x2"] = bilinear(dy, a, xp.permute_dims(kernel, (2, 0, 1)))
        rows = prod(dy.shape[:-1])
        columns = xp.reshape(dy, (rows, outputs))
        if "w" in call.wanted:
            a, c = xp.reshape(a, (rows, first)), xp.reshape(c, (rows, second))
            # (I1, P) @ (P, I2) -> (I1, I2), one output after the other: all at once would be O times x1
            parts = [matmul((a * columns[:, o : o + 1]).T, c, xp) for o in range(outputs)]
            found["w"] = xp.stack(parts) if parts else xp.zeros_like(w)
        if "b" in call.wanted:
            found["b"] = xp.sum(columns, axis=0)
        return found

    return one(y, pull)


def conjugate(a: Array, xp: Namespace) -> Array:
    """What a cotangent is multiplied by: the conjugate of a complex factor, a real one as it is."""
    return xp.conj(a) if dtype_kind(xp, a.dtype) == "complex" else a


def widened(a: Array, xp: Namespace) -> Array:
    """In the dtype that sums of its numbers are computed in."""
    return xp.astype(a, wide(xp, a.dtype), copy=False)


RULES: dict[Callable[..., Any], Rule] = {
    dense: Rule(("x", "w", "b"), _dense),
    bilinear: Rule(("x1", "x2", "w", "b"), _bilinear),
}
