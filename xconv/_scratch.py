"""Memory that a thread uses again from tile to tile: fresh memory can cost more than a matmul."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from threading import local
from typing import Any

import numpy as np


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


def spare(purpose: str, shape: tuple[int, ...], dtype: Any, like: Any) -> Any | None:
    """An unset array whose content nobody needs after the tile, or None where none is kept."""
    if _scratch.kept is None or not isinstance(like, np.ndarray):
        return None
    size = prod(shape)
    found = _scratch.kept.get(purpose)
    if found is None or found.size < size or found.dtype != dtype:
        found = _scratch.kept[purpose] = np.empty(size, dtype)
    return found[:size].reshape(shape)


def in_tiles() -> bool:
    """Whether this thread is at work on tiles."""
    return _scratch.kept is not None
