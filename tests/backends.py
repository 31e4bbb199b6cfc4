"""How the tests make arrays of one library, call a function on them, and read the results.

Most libraries need nothing of their own here: `Backend` serves every library that conforms. The others are adversaries:
NumPy arrays are read-only, Dask may not compute, JAX runs every call a second time under ``jax.jit``.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from functools import lru_cache
from importlib import metadata

import array_api_compat
import numpy as np

from compare import assert_close
from descriptions import Description


class Backend:
    """One array library on one device."""

    def __init__(self, description: Description, device: str | None = None):
        if device not in (None, *description.devices):
            raise ValueError(f"device must be one of {description.devices}; got device={device!r}")
        self.description = description
        self.name = description.name
        self.lazy = description.lazy
        zeros = importlib.import_module(description.namespace).zeros
        probe = zeros(1) if device in (None, description.devices[0]) else zeros(1, device=device)
        self.xp = array_api_compat.array_namespace(probe)
        self.device = array_api_compat.device(probe)

    def __repr__(self) -> str:
        return f"<backend {self.name} on {self.device}>"

    # -- arrays ------------------------------------------------------------------------------------------------------

    def asarray(self, array: np.ndarray):
        """The same values as an array of this backend."""
        return self.xp.asarray(np.array(array), device=self.device)

    def numpy(self, array) -> np.ndarray:
        """Back to NumPy. AssertionError unless `array` belongs to this backend and its device."""
        try:
            namespace = array_api_compat.array_namespace(array)
        except TypeError:
            namespace = None
        assert namespace is self.xp, f"{type(array).__name__} is not an array of the backend {self.name}"
        device = array_api_compat.device(array)
        assert device == self.device, f"array is on {device}, not on {self.device}"
        return self._read(array)

    def _read(self, array) -> np.ndarray:
        return np.asarray(array)

    def has(self, dtype: str) -> bool:
        """Whether the library has this number type and can add and multiply in it."""
        if not hasattr(self.xp, dtype):
            return False
        try:
            one = self.asarray(np.ones(1, dtype))
            self._read(one * one + one)
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            return False
        return True

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(self, function, *arrays, **options):
        """``function(*arrays, **options)`` on this backend, from NumPy arrays to NumPy arrays.

        NumPy arrays are converted, in positions and in options; everything else is passed as it is. A tuple stays a
        tuple. The arrays that went in must come out of the call unchanged.
        """
        positional = [self._converted(item) for item in arrays]
        named = {name: self._converted(item) for name, item in options.items()}
        with self._guard():
            result = function(*positional, **named)
        values = self._values(result)
        self._check_untouched(function, [*arrays, *options.values()], [*positional, *named.values()])
        return values

    def _converted(self, item):
        if isinstance(item, tuple) and any(isinstance(part, np.ndarray) for part in item):
            return tuple(map(self._converted, item))
        return self.asarray(item) if isinstance(item, np.ndarray) else item

    def _values(self, result):
        return tuple(map(self.numpy, result)) if isinstance(result, tuple) else self.numpy(result)

    def _guard(self):
        if self.lazy:
            raise NotImplementedError(f"{self.name} is lazy, and tests/backends.py has no guard for it")
        return contextlib.nullcontext()

    def _check_untouched(self, function, before, after):
        for old, new in zip(before, after, strict=True):
            if isinstance(old, np.ndarray):
                same = np.array_equal(old, self._read(new), equal_nan=old.dtype.kind in "fc")
                assert same, f"{getattr(function, '__name__', function)} changed an array that it was given"


class NumPyBackend(Backend):
    """NumPy with arrays that cannot be written to, and keep their strides."""

    def asarray(self, array):
        view = array.view()
        view.flags.writeable = False
        return view

    def numpy(self, array):
        assert isinstance(array, np.ndarray), f"{type(array).__name__} is not a NumPy array"
        return super().numpy(array)


class TorchBackend(Backend):
    """Torch, whose tensors come back from a device, and from lazy conjugation, by methods of their own."""

    def _read(self, array):
        return array.detach().cpu().resolve_conj().resolve_neg().numpy()


class CuPyBackend(Backend):
    """CuPy, which copies to the host only on request."""

    def _read(self, array):
        return array.get()


class JaxBackend(Backend):
    """JAX, where every call is made twice: eagerly, and traced, where no value can be read."""

    def _guard(self):
        return contextlib.nullcontext()  # the second call, in `call`, is the guard

    def call(self, function, *arrays, **options):
        import jax

        eager = super().call(function, *arrays, **options)
        positions = [str(i) for i in range(len(arrays))]  # never the name of an option
        everything = {**dict(zip(positions, arrays, strict=True)), **options}
        dynamic = {
            key: self.asarray(item) for key, item in everything.items() if isinstance(item, np.ndarray)
        }

        def traced(dynamic):
            merged = {**everything, **dynamic}
            return function(*(merged[i] for i in positions), **{name: merged[name] for name in options})

        jitted = self._values(jax.jit(traced)(dynamic))
        assert isinstance(jitted, tuple) == isinstance(eager, tuple), "jit returns another structure"
        pairs = zip(jitted, eager, strict=True) if isinstance(eager, tuple) else [(jitted, eager)]
        for one, other in pairs:
            assert one.dtype == other.dtype, f"dtype is {one.dtype} under jit, {other.dtype} without"
            assert_close(one, other)
        return eager


class DaskBackend(Backend):
    """Dask arrays in two chunks along every axis; an attempt to compute during a call is an error."""

    def asarray(self, array):
        import dask.array as da

        view = array.view()
        view.flags.writeable = False
        chunks = tuple((n - n // 2, n // 2) if n >= 2 else (n,) for n in array.shape)
        return da.from_array(view, chunks=chunks)

    def _read(self, array):
        values = array.compute(scheduler="synchronous")
        assert isinstance(values, np.ndarray), f"computes to {type(values).__name__}, not to a NumPy array"
        assert values.shape == array.shape, f"declares shape {array.shape}, computes {values.shape}"
        assert values.dtype == array.dtype, f"declares dtype {array.dtype}, computes {values.dtype}"
        return values

    def _guard(self):
        import dask

        return dask.config.set(scheduler=_refuse_to_compute)


def _refuse_to_compute(dsk, keys, **kwargs):
    raise AssertionError("Dask was asked to compute during the call: lazy must stay lazy")


ADAPTERS = {
    "numpy": NumPyBackend,
    "torch": TorchBackend,
    "cupy": CuPyBackend,
    "jax.numpy": JaxBackend,
    "dask.array": DaskBackend,
}


def _need_compiled_movers() -> None:
    """ImportError, or whatever a broken numba raises, unless xconv uses it: by itself it would go on without."""
    importlib.import_module("numba")
    importlib.import_module("xconv._bridges.numba.twins")
    bridge = importlib.import_module("xconv._bridges.numba")
    if bridge.load() is None:
        raise ImportError(bridge.state(wanted=True))
    _nan_behind_zeros()


def _nan_behind_zeros() -> None:
    """From here on, compiled code that reads further than the zeros it is given finds NaN."""
    arrays = importlib.import_module("xconv._bridges.numba.arrays")
    known = arrays.zeros
    reach = known(0, np.dtype("float32"))[0].size  # numbers that may be read beyond

    @lru_cache(maxsize=64)
    def zeros(count, dtype):
        found = np.full(count + reach + 2**15, np.nan, dtype)
        found[: count + reach] = 0
        return found, arrays.address(found)

    for name, module in list(sys.modules.items()):
        if name.startswith("xconv._bridges.numba.") and getattr(module, "zeros", None) is known:
            module.zeros = zeros


def _hide(package: str) -> None:
    """From here on this process is one in which the package is not installed, in all threads and settings."""
    sys.modules[package] = None
    known = metadata.version

    def version(name: str) -> str:
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return known(name)

    metadata.version = version


def open_backend(description: Description, device: str | None = None) -> Backend:
    """The library of `description`, imported and ready. ImportError if it is not installed."""
    if "fast" in description.extras:
        _need_compiled_movers()
    else:
        _hide("numba")
    return ADAPTERS.get(description.namespace, Backend)(description, device)
