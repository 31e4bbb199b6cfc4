"""The cellar: the only module that knows array libraries. Look-up, traits, and what the standard lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from threading import local
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat as compat
import array_api_compat.numpy as numpy_namespace
import numpy as np

from xconv._errors import Refusal, refuse, refuse_type

Array: TypeAlias = Any
DType: TypeAlias = Any
Namespace: TypeAlias = ModuleType


# What `show_config` looks for, by the names under which it is installed.
KNOWN_LIBRARIES = (
    *("numpy", "torch", "jax", "dask", "cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x"),
    "array-api-strict",
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What the planner may know of the arrays at hand."""

    namespace: str
    accelerator: bool = False
    writeable: bool = True  # a fresh array can be assigned to
    chunked: bool = False  # cut into blocks that another scheduler computes
    threads: bool = False  # array operations of several threads run at the same time
    fft: bool = True  # has the Fourier transforms of the standard, which are an extension


NUMPY = Traits("numpy", threads=True)


def inspect(optional: Mapping[str, Array | None] = {}, /, **required: Array) -> tuple[Namespace, Traits]:
    """The one namespace of all arrays, and its traits; refuses strangers and mixtures. Optional ones may be None."""
    for arrays in (required, optional):
        for array in arrays.values():
            if type(array) is not np.ndarray and (array is not None or arrays is required):
                return _inspect(required | {n: a for n, a in optional.items() if a is not None})
    return numpy_namespace, NUMPY


def _inspect(given: dict[str, Array]) -> tuple[Namespace, Traits]:
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
        threads=compat.is_numpy_namespace(xp),
        fft=hasattr(xp, "fft"),
    )


def count_up(like: Array, count: int, dtype: DType) -> Array:
    """0, 1, ... beside ``like``."""
    xp = compat.array_namespace(like)
    return xp.arange(count, dtype=dtype, device=_device(like))


def integers(values: Sequence[int], like: Array) -> Array:
    """Planned integers as a 1-D array beside ``like``, in the library's default integer dtype."""
    xp = compat.array_namespace(like)
    return xp.asarray(values, dtype=xp.asarray([0]).dtype, device=_device(like))


def constant(values: tuple[Any, ...], dtype: DType, like: Array) -> Array:
    """Fixed numbers as an array beside ``like``; on NumPy made once."""
    if isinstance(like, np.ndarray):
        return _numpy_constant(values, dtype)
    xp = compat.array_namespace(like)
    return xp.asarray(values, dtype=dtype, device=_device(like))


@lru_cache(maxsize=64)
def _numpy_constant(values: tuple[Any, ...], dtype: DType) -> Array:
    return np.asarray(values, dtype=dtype)


def empty_like(like: Array, shape: tuple[int, ...], dtype: DType) -> Array:
    """A fresh, unset array beside ``like``."""
    if isinstance(like, np.ndarray):
        return np.empty(shape, dtype)
    xp = compat.array_namespace(like)
    return xp.empty(shape, dtype=dtype, device=_device(like))


def unfilled(shape: tuple[int, ...], like: Array) -> Array:
    """An array of this shape beside ``like`` and of its dtype, all of whose elements are one."""
    xp = compat.array_namespace(like)
    return xp.broadcast_to(xp.zeros((1,) * len(shape), dtype=like.dtype, device=_device(like)), shape)


def full_like(like: Array, shape: tuple[int, ...], value: complex, dtype: DType) -> Array:
    """A fresh array of one value beside ``like``."""
    if isinstance(like, np.ndarray):
        return np.zeros(shape, dtype) if value == 0 else np.full(shape, value, dtype)
    xp = compat.array_namespace(like)
    if value == 0:
        return xp.zeros(shape, dtype=dtype, device=_device(like))
    return xp.full(shape, value, dtype=dtype, device=_device(like))


def owned(y: Array, x: Array, xp: Namespace) -> Array:
    """``y`` itself, or a copy where it may still be a view of ``x``."""
    if isinstance(y, np.ndarray) and not np.may_share_memory(y, x):
        return y
    return xp.asarray(y, copy=True)


_AS_THEY_ARE = frozenset(tuple(range(n)) for n in range(16))


def permuted_axes(array: Array, order: tuple[int, ...], xp: Namespace) -> Array:
    """The array with its axes in this order; itself where that is the order they have."""
    return array if order in _AS_THEY_ARE else xp.permute_dims(array, order)


class _Scratch(local):
    """Memory that one thread uses again from tile to tile, by its purpose; None where nothing is kept."""

    kept: dict[str, np.ndarray[Any, Any]] | None = None


_scratch = _Scratch()


@contextmanager
def scratch() -> Iterator[None]:
    """Inside, `spare` arrays of this thread are kept and given out again; fresh memory costs more than a matmul."""
    before, _scratch.kept = _scratch.kept, {}
    try:
        yield
    finally:
        _scratch.kept = before


def spare(purpose: str, shape: tuple[int, ...], dtype: DType, like: Array) -> Array | None:
    """An unset array whose content nobody needs after the tile, or None where none is kept."""
    if _scratch.kept is None or not isinstance(like, np.ndarray):
        return None
    size = prod(shape)
    found = _scratch.kept.get(purpose)
    if found is None or found.size < size or found.dtype != dtype:
        found = _scratch.kept[purpose] = np.empty(size, dtype)
    return found[:size].reshape(shape)


def packed(x: Array, shape: tuple[int, ...], purpose: str | None, xp: Namespace) -> Array:
    """``x`` laid out in raster order, in spare memory if there is a purpose, as an array of this shape."""
    target = spare(purpose, x.shape, x.dtype, x) if purpose is not None else None
    if target is None or is_contiguous(x):
        return xp.reshape(x, shape)
    target[...] = x
    return target.reshape(shape)


def laid_out(x: Array, shape: tuple[int, ...], out: Array | None, xp: Namespace) -> Array:
    """The same in the memory of ``out``, an array of this shape, where that can be reshaped."""
    if out is None or not is_contiguous(out):
        return xp.reshape(x, shape)
    out.reshape(x.shape)[...] = x
    return out


def in_tiles() -> bool:
    """Whether this thread is at work on tiles."""
    return _scratch.kept is not None


numpy_matmul = np.matmul
NumPyArray = np.ndarray


def is_traced(x: Any) -> bool:
    """Whether an array, or any of a dictionary of arrays, stands for values that a program being made will have."""
    if isinstance(x, dict):
        return any(map(is_traced, x.values()))
    if not compat.is_jax_array(x):
        return False
    from jax.core import Tracer

    return isinstance(x, Tracer)


def combined(function: Callable[..., Array], a: Array, b: Array, out: Array | None) -> Array:
    """``function(a, b)``, in the memory of ``out`` where the library can."""
    return function(a, b) if out is None or not isinstance(a, np.ndarray) else function(a, b, out=out)


def is_contiguous(out: Array) -> bool:
    """Whether reshaping it gives the same memory, for certain."""
    return isinstance(out, np.ndarray) and bool(out.flags.c_contiguous)


def same_memory(a: Array, b: Array) -> bool:
    """Whether two arrays of NumPy, both packed, are one."""
    return bool(
        a is b
        or (
            is_contiguous(a)
            and is_contiguous(b)
            and a.shape == b.shape
            and a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        )
    )


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
        return _strided(x, shape, strides)
    if compat.is_torch_array(x):
        return x.as_strided(shape, strides)
    from cupy.lib.stride_tricks import as_strided

    return as_strided(x, shape, strides)


def rows_are_runs(x: Array) -> bool:
    """Whether the last two axes of an array of NumPy are one run of memory."""
    return bool(x.strides[-2:] == (x.shape[-1] * x.itemsize, x.itemsize))


def longer_runs(view: Array, length: int) -> Array:
    """The same view with a last axis of this length: what follows in memory belongs to it."""
    if length == view.shape[-1]:
        return view
    return np.lib.stride_tricks.as_strided(view, (*view.shape[:-1], length), view.strides, writeable=False)


def can_sum_products(x: Array) -> bool:
    """Whether `sum_products` is there, which the standard has no name for."""
    return isinstance(x, np.ndarray)


def sum_products(view: Array, w: Array, out: Array) -> None:
    """Multiply windows (..., *window, R) with weights (*window, R), and sum over the window into ``out`` (..., R)."""
    outer, taps = list(range(out.ndim - 1)), list(range(out.ndim, out.ndim + w.ndim - 1))
    run = out.ndim - 1
    np.einsum(view, [*outer, *taps, run], w, [*taps, run], [*outer, run], out=out)


def window_runs(x: Array, outputs: tuple[int, ...], steps: tuple[tuple[int, int, int], ...]) -> Array | None:
    """Copy ``x`` (N, *n, C) as its windows (N, *outputs, *window, C) where their rows are short runs of memory.

    NumPy copies short runs element by element; as one opaque element each they take half the time.
    """
    channels, size = x.shape[-1], x.itemsize if isinstance(x, np.ndarray) else 0
    window, _, dilation = steps[-1]
    run = window * channels * size
    if not 0 < run < 512 or dilation > 1 or x.strides[-2:] != (channels * size, size):
        return None
    shape, strides = _runs(x.shape[0], x.strides[:-1], outputs, steps)
    if x.flags.c_contiguous and x.size:
        opaque = np.ndarray(shape, _opaque(run), x, 0, strides)
    else:
        rows = np.lib.stride_tricks.as_strided(x, (*shape, window * channels), (*strides, size))
        opaque = rows.view(_opaque(run))[..., 0]
    whole = (*shape, window, channels)
    target = spare("windows", whole, x.dtype, x)
    if target is None:
        return opaque.copy().view(x.dtype).reshape(whole)
    target.reshape(*shape, window * channels).view(_opaque(run))[..., 0] = opaque
    return target


@lru_cache(maxsize=1024)
def _runs(
    batch: int, strides: tuple[int, ...], outputs: tuple[int, ...], steps: tuple[tuple[int, int, int], ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of the rows of all windows, each one element."""
    spatial = tuple(zip(strides[1:], steps, strict=True))
    across = (s * stride for s, (_, stride, _) in spatial)
    within = (s * dilation for s, (_, _, dilation) in spatial[:-1])
    return (batch, *outputs, *(taps for taps, _, _ in steps[:-1])), (strides[0], *across, *within)


@lru_cache(maxsize=64)
def _opaque(size: int) -> DType:
    return np.dtype((np.void, size))


def _strided(x: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """A read-only view of an array of NumPy; where ``x`` is packed, without the price of NumPy's own function."""
    if not x.flags.c_contiguous or not x.size:
        return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)
    view: Array = np.ndarray(shape, x.dtype, x, 0, strides)
    view.flags.writeable = False
    return view


def chunk_edges(x: Array) -> tuple[tuple[int, ...], ...]:
    """Where the blocks of a chunked array begin and end, along every axis."""
    from xconv._bridges import dask as bridge

    return bridge.chunk_edges(x)


def defer(function: Callable[..., Any], arrays: tuple[Array | None, ...], results: Any) -> tuple[Array, ...]:
    """Let a chunked array's own scheduler call ``function(*arrays)`` later."""
    from xconv._bridges import dask as bridge

    return bridge.defer(function, arrays, results)
