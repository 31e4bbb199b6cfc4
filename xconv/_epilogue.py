"""What comes after the sums: bias, residual, activation and the result's dtype, for a tile or a piece of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from xconv._dtypes import SumDTypes, dtype_kind, itemsize
from xconv._movers import biased
from xconv._namespace import Array, DType, Namespace, added, clipped, same_memory
from xconv._products import Each

Activation = Callable[[Array], Array]

TEMPORARIES = 5  # of a result's size that an activation makes at once
BOUNDED = 2  # of them where it only holds its numbers in bounds
PIECE = 2**16  # numbers of a result that an activation is given at a time


def epilogue_bytes(channels: int, dtypes: SumDTypes, activation: Activation | None, xp: Namespace) -> int:
    """What an epilogue holds per output pixel: a copy in the result's dtype, the temporaries of an activation."""
    cast = itemsize(xp, dtypes.result) if dtypes.result != dtypes.compute else 0
    temporaries = 0 if activation is None else TEMPORARIES if bounds_of(activation) is None else BOUNDED
    return channels * (cast + temporaries * max(dtypes.itemsize, cast))


def is_elementwise(activation: Activation | None) -> bool:
    """Whether a result may be given to it in any pieces: the caller's own function gets what it always got."""
    return activation is None or getattr(activation, "_xconv_elementwise", False)


def finish_pieces(
    b: Array | None, r: Array | None, activation: Activation | None, dtype: DType, xp: Namespace
) -> Each | None:
    """What comes after a product, for `matmul` to do with each piece of the result (P, O), in its place."""
    if b is None and r is None and activation is None:
        return None
    return partial(_finish_piece, b, r, activation, dtype, xp)


def _finish_piece(
    b: Array | None,
    r: Array | None,
    activation: Activation | None,
    dtype: DType,
    xp: Namespace,
    y: Array,
    rows: slice,
    columns: slice,
) -> None:
    b = None if b is None else b[columns]
    r = None if r is None else r[rows, columns]
    one_pass = bounds_of(activation) is not None
    step = max(len(y) if one_pass else PIECE // max(y.shape[1], 1), 1)
    for start in range(0, len(y), step):
        part = y[start : start + step]
        done = finish(part, b, activation, dtype, xp, None if r is None else r[start : start + step])
        if not same_memory(done, part):
            part[...] = done


def bounds_of(activation: Activation | None) -> tuple[float, float] | None:
    """Between what an activation holds its numbers, if that is all it does."""
    return (float("-inf"), float("inf")) if activation is None else getattr(activation, "_xconv_bounds", None)


def finish(
    y: Array,
    b: Array | None,
    activation: Activation | None,
    result: DType,
    xp: Namespace,
    residual: Array | None = None,
) -> Array:
    """Bias, residual and activation, and the result's dtype: before them for integers, whose sums may be floats."""
    if y.dtype != result and dtype_kind(xp, result) == "integer":
        y = xp.astype(y, result)
    if b is not None:
        y = biased(y, b if b.dtype == y.dtype else xp.astype(b, y.dtype), xp)
    if residual is not None:
        y = added(y, residual if residual.dtype == y.dtype else xp.astype(residual, y.dtype), xp)
    if activation is not None:
        bounds = bounds_of(activation)
        held = None if bounds is None else clipped(y, *bounds, out=y)
        y = activation(y) if held is None else held
    return y if y.dtype == result else xp.astype(y, result)
