"""Memory that a thread uses again from tile to tile: fresh memory can cost more than a matmul."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from threading import local
from typing import Any

import numpy as np

from xconv._address import address
from xconv._machine import cores
from xconv._written import kindred

LINE = 64  # bytes
KEEP = (
    2**25
)  # bytes of it that as many threads as there are cores keep for their next calls; more is given back


def share() -> int:
    """Bytes that one thread keeps."""
    return KEEP // cores()


Arrays = dict[str, np.ndarray[Any, Any]]


class _Scratch(local):
    """Memory that one thread uses again from tile to tile, by its purpose; None where nothing is kept."""

    kept: Arrays | None = None
    before: Arrays | None = None  # what the last call left
    tiles: bool = False  # whether the thread is at work on one of several tiles


_scratch = _Scratch()


class scratch:
    """Inside, `spare` arrays of this thread are kept and given out again; fresh memory costs more than a matmul.

    Without ``tiles``, the thread is not said to be at work on them: its large products are shared out.
    """

    __slots__ = ("at_work", "outer", "tiles")

    def __init__(self, *, tiles: bool = True) -> None:
        self.tiles = tiles

    def __enter__(self) -> None:
        here = _scratch
        self.outer, self.at_work = here.kept, here.tiles
        here.kept, here.before, here.tiles = here.before or {}, None, self.tiles

    def __exit__(self, *error: object) -> None:
        here = _scratch
        mine, here.kept, here.tiles = here.kept or {}, self.outer, self.at_work
        if self.outer is None and sum(array.nbytes for array in mine.values()) <= share():
            here.before = mine


def spare(purpose: str, shape: tuple[int, ...], dtype: Any, like: Any) -> Any | None:
    """An unset array whose content nobody needs after the tile, or None where none is kept."""
    if _scratch.kept is None or not isinstance(like, np.ndarray):
        return None
    size = prod(shape)
    found = _scratch.kept.get(purpose)
    if found is None or found.size < size or found.dtype != dtype:
        found = _scratch.kept[purpose] = aligned(size, dtype)
    return kindred(found[:size].reshape(shape), like)


@contextmanager
def lent(memory: Arrays) -> Iterator[None]:
    """Inside, `spare` arrays of this thread, which is at work on tiles, are those of ``memory``."""
    here = _scratch
    outer, at_work = here.kept, here.tiles
    here.before = None  # what a thread keeps is for calls that are not played
    here.kept, here.tiles = memory, True
    try:
        yield
    finally:
        here.kept, here.tiles = outer, at_work


def aligned(size: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Unset memory that begins with a line of the cache, so that no vector lies across two."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty(size * itemsize + LINE, np.uint8)
    first = -address(memory) % LINE
    return memory[first : first + size * itemsize].view(dtype)


def in_tiles() -> bool:
    """Whether this thread is at work on tiles."""
    return _scratch.tiles
