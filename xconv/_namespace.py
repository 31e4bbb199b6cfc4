"""The cellar: the only module that knows array libraries. Look-up, traits, and what the standard lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat as compat
import array_api_compat.numpy as numpy_namespace
import numpy as np

from xconv._address import address
from xconv._bridges import numba as compiler
from xconv._config import settings
from xconv._errors import Refusal, refuse, refuse_type
from xconv._scratch import aligned, spare
from xconv._strides import strided
from xconv._written import Written, fresh, kindred

Array: TypeAlias = Any
DType: TypeAlias = Any
Namespace: TypeAlias = ModuleType


# What `show_config` looks for, by the names under which it is installed.
KNOWN_LIBRARIES = (
    *("numpy", "torch", "jax", "dask", "cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x"),
    "array-api-strict",
)


LARGE = 2**14  # numbers: no difference is seen with fewer


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
    if compat.is_torch_namespace(xp) and any(map(_is_differentiated, given.values())):
        xp = _functional(xp)
    return xp, _traits(xp, str(_device(first[1])))


def _device(array: Array) -> Any:
    try:
        return compat.device(array)
    except (AttributeError, TypeError):  # an array being traced is on no device yet
        return None


def library_name(xp: Namespace) -> str:
    """What a user calls the library of a namespace."""
    return xp.__name__.removeprefix("array_api_compat.").partition(".")[0]


def _is_differentiated(x: Array) -> bool:
    """Whether derivatives pass through an array of PyTorch."""
    from xconv._bridges import torch as bridge

    return bridge.is_differentiated(x)


class _Functional(ModuleType):
    """A namespace for arrays that are being differentiated: the same functions, but nothing is assigned to.

    It is one of its own so that no plan that was made for the one is taken for the other.
    """

    def __init__(self, xp: Namespace) -> None:
        super().__init__(xp.__name__)
        vars(self).update(vars(xp))


_functional = lru_cache(_Functional)


@lru_cache
def assignable(xp: Namespace) -> bool:
    """Whether a fresh array can be assigned to, and at once: not in a library of functions, nor in a lazy one."""
    if compat.is_dask_namespace(xp) or differentiates(xp):
        return False
    return compat.is_writeable_array(xp.empty((1,)))


@lru_cache
def differentiates(xp: Namespace) -> bool:
    """Whether the library may be about to differentiate what is computed, operation by operation.

    Each operation must then have the derivative that the whole is to have. Where several elements are the largest, the
    maximum of a library shares it out among them; the slope of its absolute value at 0 may be 0 or 1.
    """
    return isinstance(xp, _Functional) or compat.is_jax_namespace(xp)


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


def compiled() -> Any:
    """The compiled movers, for arrays of NumPy that hold float32 or float64; None where they cannot be had."""
    return compiler.load()


def bridge_state(name: str) -> str:
    """What there is to say of a bridge."""
    return compiler.state(wanted=settings().fast) if name == "numba" else ""


COMPILED_AXES = 3  # for more there are no compiled movers


@lru_cache(maxsize=256)
def is_compilable(xp: Namespace, dtype: DType, axes: int) -> bool:
    """Whether there are compiled movers for numbers of this dtype and so many spatial axes, at least block by block."""
    if axes > COMPILED_AXES or not (xp is numpy_namespace or compat.is_dask_namespace(xp)):
        return False
    kind = np.dtype(dtype)
    return kind.char in "fd" and kind.isnative


def is_compiled(xp: Namespace) -> bool:
    """Whether compiled movers may be used for arrays of this library, here and now."""
    return settings().fast and xp is numpy_namespace and compiler.load() is not None


def count_up(like: Array, count: int, dtype: DType) -> Array:
    """0, 1, ... beside ``like``."""
    xp = compat.array_namespace(like)
    return kindred(xp.arange(count, dtype=dtype, device=_device(like)), like)


def integers(values: Sequence[int], like: Array) -> Array:
    """Planned integers as a 1-D array beside ``like``, in the library's default integer dtype."""
    xp = compat.array_namespace(like)
    return xp.asarray(values, dtype=xp.asarray([0]).dtype, device=_device(like))


def constant(values: tuple[Any, ...], dtype: DType, like: Array) -> Array:
    """Fixed numbers as an array beside ``like``; on NumPy made once."""
    if isinstance(like, np.ndarray):
        return kindred(_numpy_constant(values, dtype), like)
    xp = compat.array_namespace(like)
    return xp.asarray(values, dtype=dtype, device=_device(like))


@lru_cache(maxsize=64)
def _numpy_constant(values: tuple[Any, ...], dtype: DType) -> Array:
    return np.asarray(values, dtype=dtype)


def numbers(
    make: Callable[..., list[list[float]]], arguments: tuple[Any, ...], dtype: DType, like: Array
) -> Array:
    """Rows of fixed numbers that a function gives for hashable arguments, as an array beside ``like``; made once."""
    if isinstance(like, np.ndarray):
        return kindred(_numpy_numbers(make, arguments, dtype), like)
    xp = compat.array_namespace(like)
    return xp.asarray(_numpy_numbers(make, arguments, np.float64), dtype=dtype, device=_device(like))


@lru_cache(maxsize=64)
def _numpy_numbers(make: Callable[..., list[list[float]]], arguments: tuple[Any, ...], dtype: DType) -> Array:
    return np.asarray(make(*arguments), dtype=dtype)


def empty_like(like: Array, shape: tuple[int, ...], dtype: DType) -> Array:
    """A fresh, unset array beside ``like``; a large one of NumPy begins with a line of the cache."""
    if isinstance(like, np.ndarray):
        size = prod(shape)
        y = np.empty(shape, dtype) if size < LARGE else aligned(size, dtype).reshape(shape)
        return fresh(y, like)
    xp = compat.array_namespace(like)
    return xp.empty(shape, dtype=dtype, device=_device(like))


def unfilled(shape: tuple[int, ...], like: Array) -> Array:
    """An array of this shape beside ``like`` and of its dtype, all of whose elements are one."""
    xp = compat.array_namespace(like)
    return xp.broadcast_to(xp.zeros((1,) * len(shape), dtype=like.dtype, device=_device(like)), shape)


def full_like(like: Array, shape: tuple[int, ...], value: complex, dtype: DType) -> Array:
    """A fresh array of one value beside ``like``."""
    if isinstance(like, np.ndarray):
        return fresh(np.zeros(shape, dtype) if value == 0 else np.full(shape, value, dtype), like, value)
    xp = compat.array_namespace(like)
    if value == 0:
        return xp.zeros(shape, dtype=dtype, device=_device(like))
    return xp.full(shape, value, dtype=dtype, device=_device(like))


def owned(y: Array, x: Array, xp: Namespace) -> Array:
    """``y`` itself, or a copy where it may still be a view of ``x``."""
    if isinstance(y, np.ndarray) and not np.may_share_memory(y, x):
        return y
    return copied(y, xp)


def copied(x: Array, xp: Namespace) -> Array:
    """A copy that derivatives pass through (those of `torch.asarray` end there)."""
    return xp.astype(x, x.dtype, copy=True)


def added(y: Array, term: Array, xp: Namespace) -> Array:
    """``y + term``, in the memory of ``y``, which is ours, where arrays can be assigned to."""
    if not assignable(xp):
        return y + term
    y += term
    return y


_AS_THEY_ARE = frozenset(tuple(range(n)) for n in range(16))


def permuted_axes(array: Array, order: tuple[int, ...], xp: Namespace) -> Array:
    """The array with its axes in this order; itself where that is the order they have."""
    if order in _AS_THEY_ARE:
        return array
    return array.transpose(order) if isinstance(array, np.ndarray) else xp.permute_dims(array, order)


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


numpy_matmul = np.matmul
numpy_home = str(Path(np.__file__).parent)  # beside it lies the BLAS that it brings
NumPyArray = np.ndarray


def is_own(x: Any) -> bool:
    """Whether this is an array of NumPy, and of none of the libraries that make their own kind of it."""
    return type(x) in (np.ndarray, Written)


def is_traced(x: Any) -> bool:
    """Whether an array, or any of a dictionary of arrays, belongs to a program being made, or to derivatives."""
    if isinstance(x, np.ndarray):
        return False
    if isinstance(x, dict):
        return any(map(is_traced, x.values()))
    if compat.is_torch_array(x):
        return _is_differentiated(x)
    if not compat.is_jax_array(x):
        return False
    from jax.core import Tracer

    return isinstance(x, Tracer)


def combined(function: Callable[..., Array], a: Array, b: Array, out: Array | None) -> Array:
    """``function(a, b)``, in the memory of ``out`` where the library can."""
    return function(a, b) if out is None or not isinstance(a, np.ndarray) else function(a, b, out=out)


def clipped(x: Array, low: float, high: float, out: Array | None = None) -> Array | None:
    """``min(max(x, low), high)`` of floats of NumPy, of which NaN stays NaN; None for other arrays.

    One pass, which takes a third of the time of NumPy's ``maximum`` alone.
    """
    return np.clip(x, low, high, out=out) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else None


def selected(values: Array, mask: Array, out: Array) -> Array:
    """On NumPy: real ``values`` where the mask holds, and zeros, in ``out``.

    As integers, so that infinity times zero is zero; several times as fast as a choice.
    """
    bits = np.dtype(f"i{values.itemsize}")
    np.multiply(values.view(bits), mask, out=out.view(bits))
    return out


def contiguous(x: Array, xp: Namespace) -> Array:
    """The same array with its last axis next to each other in memory, where a library knows such a thing."""
    return xp.reshape(xp.reshape(x, (-1,)), x.shape)


def is_contiguous(out: Array) -> bool:
    """Whether reshaping it gives the same memory, for certain."""
    return isinstance(out, np.ndarray) and bool(out.flags.c_contiguous)


def same_memory(a: Array, b: Array) -> bool:
    """Whether two arrays of NumPy are one: the same elements in the same places."""
    return bool(
        a is b
        or (
            isinstance(a, np.ndarray)
            and isinstance(b, np.ndarray)
            and a.shape == b.shape
            and (
                a.strides == b.strides
                or all(n == 1 or i == j for n, i, j in zip(a.shape, a.strides, b.strides, strict=True))
            )
            and address(a) == address(b)
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
    elif compat.is_torch_array(x) and not _is_differentiated(x):
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
        return strided(x, shape, strides)
    if compat.is_torch_array(x):
        return x.as_strided(shape, strides)
    from cupy.lib.stride_tricks import as_strided

    return as_strided(x, shape, strides)


def overlapping(x: Array, count: int, length: int, step: int, xp: Namespace) -> Array:
    """``count`` pieces of the lines (P, n, Q), ``step`` apart, viewed where that is possible: (P, count, length, Q)."""
    view = window_view(x, (count,), ((length, step, 1),))
    if view is not None:
        return view
    return xp.stack([x[:, start : start + length, :] for start in range(0, count * step, step)], axis=1)


def unflattened(flat: Array, shape: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
    """The first elements along every axis of an array of ``shape`` that begins with ``flat`` and may lack its end."""
    if isinstance(flat, np.ndarray):
        strides = [flat.itemsize]
        for size in reversed(shape[1:]):
            strides.append(strides[-1] * size)
        return strided(flat, outputs, tuple(reversed(strides)))
    xp = compat.array_namespace(flat)
    missing = full_like(flat, (prod(shape) - flat.shape[0],), 0, flat.dtype)
    return xp.reshape(xp.concat([flat, missing]), shape)[tuple(map(slice, outputs))]


def chunk_edges(x: Array) -> tuple[tuple[int, ...], ...]:
    """Where the blocks of a chunked array begin and end, along every axis."""
    from xconv._bridges import dask as bridge

    return bridge.chunk_edges(x)


def defer(function: Callable[..., Any], arrays: tuple[Array | None, ...], results: Any) -> tuple[Array, ...]:
    """Let a chunked array's own scheduler call ``function(*arrays)`` later."""
    from xconv._bridges import dask as bridge

    return bridge.defer(function, arrays, results)
