"""The array libraries of backends/, for a program that runs on any of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import descriptions  # reads the files

Array = Any

library_names = descriptions.names


@dataclass
class Library:
    """One array library, imported and ready."""

    title: str
    asarray: Callable[[np.ndarray], Array]
    settle: Callable[[Any], Any]  # does what a lazy library has put off
    fast: bool  # with compiled movers

    @staticmethod
    def numpy(array: Array) -> np.ndarray:
        """An array of the library as one of NumPy."""
        return array.get() if hasattr(array, "get") else np.asarray(array)  # CuPy copies only on request


def open_library(name: str) -> Library:
    """The library of a file of backends/. ValueError if there is no such file, or the library cannot be used."""
    description = descriptions.load(name)
    for variable, value in description.environment.items():
        os.environ.setdefault(variable, value)
    fast = "fast" in description.extras
    try:
        package = import_module(description.namespace.partition(".")[0])
        probe = import_module(description.namespace).zeros(1)
        if fast:
            import_module("numba")
    except Exception as error:  # not installed, or without the device that it needs
        needed = ", ".join(description.installed) or description.namespace
        raise ValueError(f"backend {name} needs {needed}: {error}") from error
    persist = getattr(package, "persist", None)  # Dask: computes all arrays of a tuple or dictionary together
    return Library(
        title=f"{package.__name__} {package.__version__}" + (" with compiled movers" if fast else ""),
        asarray=array_api_compat.array_namespace(probe).asarray,
        settle=(lambda tree: persist(tree)[0]) if persist else (lambda tree: tree),
        fast=fast,
    )
