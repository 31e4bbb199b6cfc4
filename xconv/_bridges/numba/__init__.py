"""Compiled twins of the movers, for NumPy arrays where numba is installed: ``pip install xconv[fast]``.

Nothing here imports numba before it is asked for.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib import import_module, metadata
from types import ModuleType

LOWEST = "0.61"


@lru_cache(maxsize=1)
def load() -> ModuleType | None:
    """The twins, or None: numba is missing, too old or broken. The last of these is said once, as a warning."""
    if _version() is None or _too_old():
        return None
    try:
        return import_module("xconv._bridges.numba.twins")
    except Exception as error:  # whatever a broken installation raises
        rule = "so xconv computes without compiled code; config(fast=False) silences this"
        warnings.warn(f"numba {_version()} is installed but does not work ({error!r}), {rule}", stacklevel=2)
        return None


def state(*, wanted: bool) -> str:
    """In words: which numba there is, and whether it is used. Nothing is imported to find out."""
    version = _version()
    if version is None:
        return "not installed (pip install xconv[fast])"
    if _too_old():
        return f"numba {version} is too old, {LOWEST} is needed"
    if not wanted:
        return f"numba {version}, turned off by config(fast=False)"
    if not load.cache_info().currsize:
        return f"numba {version}, loaded by the first call on NumPy arrays"
    return f"numba {version}, active" if load() is not None else f"numba {version} is broken"


@lru_cache(maxsize=1)
def _version() -> str | None:
    try:
        return metadata.version("numba")
    except metadata.PackageNotFoundError:
        return None


def _too_old() -> bool:
    return _numbers(_version() or "0") < _numbers(LOWEST)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (0, 61) of 0.61.2rc1."""
    parts = version.split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)
