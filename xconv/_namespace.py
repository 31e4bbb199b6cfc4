"""The cellar: the only module that knows array libraries. Look-up, traits, and what the standard lacks."""

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

    namespace: str
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
            here, there = library_name(xp), library_name(compat.array_namespace(array))
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


def library_name(xp: Namespace) -> str:
    """What a user calls the library of a namespace."""
    return xp.__name__.removeprefix("array_api_compat.").partition(".")[0]


@lru_cache
def assignable(xp: Namespace) -> bool:
    """Whether a fresh array can be assigned to, and at once: not in a library of functions, nor in a lazy one."""
    return compat.is_writeable_array(xp.empty((1,))) and not compat.is_dask_namespace(xp)


@lru_cache
def _traits(xp: Namespace, device: str) -> Traits:
    elsewhere = any(word in device.lower() for word in ("cuda", "gpu", "mps"))
    return Traits(
        namespace=library_name(xp),
        accelerator=elsewhere or compat.is_cupy_namespace(xp),
        writeable=assignable(xp),
        chunked=compat.is_dask_namespace(xp),
    )


def count_up(like: Array, count: int, dtype: DType) -> Array:
    """0, 1, ... beside ``like``."""
    xp = compat.array_namespace(like)
    return xp.arange(count, dtype=dtype, device=_device(like))


def integers(values: Sequence[int], like: Array) -> Array:
    """Planned integers as a 1-D array beside ``like``, in the library's default integer dtype."""
    xp = compat.array_namespace(like)
    return xp.asarray(values, dtype=xp.asarray([0]).dtype, device=_device(like))


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
    from cupy.lib.stride_tricks import as_strided

    return as_strided(x, shape, strides)


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
