"""The cellar: the only module that knows array libraries. Look-up, traits, dtypes, and what the standard lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat as compat
import array_api_compat.numpy as numpy_namespace
import numpy as np

from xconv._errors import Refusal, refuse, refuse_type

Array: TypeAlias = Any
DType: TypeAlias = Any
Namespace: TypeAlias = ModuleType


@dataclass(frozen=True, slots=True)
class Traits:
    """What the planner may know of the arrays at hand."""

    library: str
    accelerator: bool = False
    writeable: bool = True  # a fresh array can be assigned to
    chunked: bool = False  # cut into blocks that another scheduler computes


NUMPY = Traits("numpy")


def inspect(optional: Mapping[str, Array | None] = {}, /, **required: Array) -> tuple[Namespace, Traits]:
    """The one namespace of all arrays, and its traits; refuses strangers and mixtures. Optional ones may be None."""
    given = required | {name: array for name, array in optional.items() if array is not None}
    if all(type(array) is np.ndarray for array in given.values()):
        return numpy_namespace, NUMPY
    for name, array in given.items():
        if not compat.is_array_api_obj(array) or isinstance(array, np.generic):
            rule = "be an array of a library that follows the array API standard"
            raise Refusal(TypeError, f"{name} must {rule}; got {name} of type {type(array).__name__}")
        if isinstance(array, np.ma.MaskedArray):
            refuse_type(name, array, "be a plain array: a mask would be ignored")
    first, *others = given.items()
    xp = compat.array_namespace(first[1])
    for name, array in others:
        if compat.array_namespace(array) is not xp:
            here, there = _library(xp), _library(compat.array_namespace(array))
            rule = f"come from the same array library as {first[0]}, {here}"
            raise Refusal(TypeError, f"{name} must {rule}; got {name} from {there}")
        if (where := _device(array)) != (home := _device(first[1])) and None not in (where, home):
            rule = f"be on the same device as {first[0]}, {home}"
            raise Refusal(ValueError, f"{name} must {rule}; got {name} on {where}")
    for name, array in given.items():
        if any(not isinstance(size, int) or size < 0 for size in array.shape):
            refuse(name, array, "have a known shape (for chunked arrays: compute_chunk_sizes())")
    return xp, _traits(xp, str(_device(first[1])))


def _device(array: Array) -> Any:
    try:
        return compat.device(array)
    except (AttributeError, TypeError):  # an array being traced is on no device yet
        return None


def _library(xp: Namespace) -> str:
    return xp.__name__.removeprefix("array_api_compat.").partition(".")[0]


@lru_cache
def assignable(xp: Namespace) -> bool:
    """Whether a fresh array can be assigned to, and at once: not in a library of functions, nor in a lazy one."""
    return compat.is_writeable_array(xp.empty((1,))) and not compat.is_dask_namespace(xp)


@lru_cache
def _traits(xp: Namespace, device: str) -> Traits:
    elsewhere = any(word in device.lower() for word in ("cuda", "gpu", "mps"))
    return Traits(
        library=_library(xp),
        accelerator=elsewhere or compat.is_cupy_namespace(xp),
        writeable=assignable(xp),
        chunked=compat.is_dask_namespace(xp),
    )


@dataclass(frozen=True, slots=True)
class SumDTypes:
    """What products are computed and summed in, and what the result is given in."""

    compute: DType
    result: DType
    kind: str
    itemsize: int


@lru_cache
def sum_dtypes(xp: Namespace, x: DType, w: DType, dtype: DType | None, terms: int) -> SumDTypes:
    """DTypes of a sum of ``terms`` products of an ``x`` and a ``w``.

    Integers are computed in floating point where that is provably exact: every partial sum is at most
    ``terms * max|x| * max|w|``, and a float with p bits of significand holds all integers up to 2**p.
    """
    for name, given in (("x", x), ("w", w)):
        if dtype_kind(xp, given) == "bool":
            refuse_type(name, str(given), "not be boolean; convert it to integers first")
    result = _result_dtype(xp, x, w) if dtype is None else dtype
    try:
        kind = dtype_kind(xp, result)
    except (TypeError, ValueError, AttributeError):
        refuse_type("dtype", dtype, f"be a dtype of {_library(xp)}")
    if kind == "bool" or any(_ORDER[dtype_kind(xp, d)] > _ORDER[kind] for d in (x, w)):
        refuse_type("dtype", str(dtype), f"hold products of {x} and {w} ('integer' < 'float' < 'complex')")
    if kind == "integer":
        compute = _exact_float(xp, x, w, terms) or _sum_dtype(xp, result)
        return SumDTypes(compute, result, dtype_kind(xp, compute), itemsize(xp, compute))
    compute = xp.float32 if kind == "float" and itemsize(xp, result) < 4 else result
    return SumDTypes(compute, result, kind, itemsize(xp, compute))


def check_bias_dtype(xp: Namespace, b: Array | None, result: DType) -> None:
    """A bias that the result can hold."""
    kind = "integer" if b is None else dtype_kind(xp, b.dtype)
    if kind == "bool" or _ORDER[kind] > _ORDER[dtype_kind(xp, result)]:
        refuse_type("b", b, f"be of a kind that a result of dtype {result} can hold")


_ORDER = {"bool": 0, "integer": 1, "float": 2, "complex": 3}


def dtype_kind(xp: Namespace, dtype: DType) -> str:
    """Which of "bool", "integer", "float" and "complex" it is."""
    for kind, name in (
        ("float", "real floating"),
        ("integer", "integral"),
        ("complex", "complex floating"),
        ("bool", "bool"),
    ):
        if xp.isdtype(dtype, name):
            return kind
    raise Refusal(TypeError, f"arrays must hold numbers of the array API standard; got dtype {dtype}")


def itemsize(xp: Namespace, dtype: DType) -> int:
    """Bytes of one number."""
    if dtype_kind(xp, dtype) == "integer":
        return int(xp.iinfo(dtype).bits) // 8
    return int(xp.finfo(dtype).bits) // 8 * (2 if dtype_kind(xp, dtype) == "complex" else 1)


def _result_dtype(xp: Namespace, x: DType, w: DType) -> DType:
    kinds = {dtype_kind(xp, x), dtype_kind(xp, w)}
    if kinds == {"integer"}:
        common = xp.result_type(x, w) if x != w else x
        if dtype_kind(xp, common) != "integer":
            refuse_type("w", str(w), f"have a common integer dtype with x ({x}); or give dtype=")
        return _sum_dtype(xp, common)
    if "integer" in kinds:
        return w if dtype_kind(xp, x) == "integer" else x
    return xp.result_type(x, w)


@lru_cache
def _sum_dtype(xp: Namespace, dtype: DType) -> DType:
    return xp.sum(xp.zeros((1,), dtype=dtype)).dtype


def _exact_float(xp: Namespace, x: DType, w: DType, terms: int) -> DType | None:
    def largest(dtype: DType) -> int:
        return max(-int(xp.iinfo(dtype).min), int(xp.iinfo(dtype).max))

    bound = terms * largest(x) * largest(w)
    if bound <= 2**24:
        return xp.float32
    has_float64 = itemsize(xp, default_integer(xp)) == 8  # a library held to 32 bits has 32-bit integers
    return xp.float64 if bound <= 2**53 and has_float64 else None


@lru_cache
def default_integer(xp: Namespace) -> DType:
    """The library's integer dtype for counts and indices."""
    return xp.asarray([0]).dtype


@lru_cache
def default_float(xp: Namespace) -> DType:
    """The library's floating dtype when nothing else asks for one."""
    return xp.asarray([0.0]).dtype


@lru_cache
def wide(xp: Namespace, dtype: DType) -> DType:
    """The dtype in which numbers of ``dtype`` are summed: 16-bit floats in float32, integers as ``sum`` does."""
    kind = dtype_kind(xp, dtype)
    if kind == "integer":
        return _sum_dtype(xp, dtype)
    return xp.float32 if kind == "float" and itemsize(xp, dtype) < 4 else dtype


def identity(xp: Namespace, reduction: str, dtype: DType) -> float | int:
    """The value that leaves a reduction of numbers of ``dtype`` as it is."""
    if reduction in ("max", "min"):
        if dtype_kind(xp, dtype) == "integer":
            info = xp.iinfo(dtype)
            return int(info.min if reduction == "max" else info.max)
        return float("-inf" if reduction == "max" else "inf")
    return 1 if reduction == "prod" else 0


def count_up(like: Array, count: int, dtype: DType) -> Array:
    """0, 1, ... beside ``like``."""
    xp = compat.array_namespace(like)
    return xp.arange(count, dtype=dtype, device=_device(like))


def integers(values: Sequence[int], like: Array) -> Array:
    """Planned integers as a 1-D array beside ``like``."""
    xp = compat.array_namespace(like)
    return xp.asarray(values, dtype=default_integer(xp), device=_device(like))


def empty_like(like: Array, shape: tuple[int, ...], dtype: DType) -> Array:
    """A fresh, unset array beside ``like``."""
    xp = compat.array_namespace(like)
    return xp.empty(shape, dtype=dtype, device=_device(like))


def full_like(like: Array, shape: tuple[int, ...], value: complex, dtype: DType) -> Array:
    """A fresh array of one value beside ``like``."""
    xp = compat.array_namespace(like)
    if value == 0:
        return xp.zeros(shape, dtype=dtype, device=_device(like))
    return xp.full(shape, value, dtype=dtype, device=_device(like))


def owned(y: Array, x: Array, xp: Namespace) -> Array:
    """``y`` itself, or a copy where it may still be a view of ``x``."""
    if isinstance(y, np.ndarray) and not np.may_share_memory(y, x):
        return y
    return xp.asarray(y, copy=True)


def permuted_axes(array: Array, order: tuple[int, ...], xp: Namespace) -> Array:
    """The array with its axes in this order; itself where that is the order they have."""
    if order == tuple(range(len(order))):
        return array
    return xp.permute_dims(array, order)


def window_view(x: Array, outputs: tuple[int, ...], steps: tuple[tuple[int, int, int], ...]) -> Array | None:
    """View ``x`` (N, *n, C) as its windows (N, *outputs, *window, C), or None where the library cannot.

    ``steps`` holds (window, stride, dilation) for each spatial axis.
    """
    batch, *_, channels = x.shape
    shape = (batch, *outputs, *(window for window, _, _ in steps), channels)
    if isinstance(x, np.ndarray) or compat.is_cupy_array(x):
        first, *middle, last = x.strides
    elif compat.is_torch_array(x):
        first, *middle, last = x.stride()
    else:
        return None
    strides = (
        first,
        *(s * stride for s, (_, stride, _) in zip(middle, steps, strict=True)),
        *(s * dilation for s, (_, _, dilation) in zip(middle, steps, strict=True)),
        last,
    )
    if isinstance(x, np.ndarray):
        return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)
    if compat.is_torch_array(x):
        return x.as_strided(shape, strides)
    return compat.array_namespace(x).lib.stride_tricks.as_strided(x, shape, strides)


def window_runs(x: Array, outputs: tuple[int, ...], steps: tuple[tuple[int, int, int], ...]) -> Array | None:
    """Copy ``x`` (N, *n, C) as its windows (N, *outputs, *window, C) where their rows are short runs of memory.

    NumPy copies short runs element by element; as one opaque element each they take half the time.
    """
    channels, size = x.shape[-1], x.itemsize if isinstance(x, np.ndarray) else 0
    window, _, dilation = steps[-1]
    run = window * channels * size
    if not 0 < run < 512 or dilation > 1 or x.strides[-2:] != (channels * size, size):
        return None
    view = np.asarray(window_view(x, outputs, steps))
    shape, strides = (*view.shape[:-2], window * channels), (*view.strides[:-2], size)
    rows = np.lib.stride_tricks.as_strided(view, shape, strides, writeable=False)
    copied = np.ascontiguousarray(rows.view(np.dtype((np.void, run))))
    return copied.view(x.dtype).reshape(view.shape)


def chunk_edges(x: Array) -> tuple[tuple[int, ...], ...]:
    """Where the blocks of a chunked array begin and end, along every axis."""
    from xconv._bridges import dask as bridge

    return bridge.chunk_edges(x)


def defer(function: Callable[..., Any], arrays: tuple[Array | None, ...], results: Any) -> tuple[Array, ...]:
    """Let a chunked array's own scheduler call ``function(*arrays)`` later."""
    from xconv._bridges import dask as bridge

    return bridge.defer(function, arrays, results)
