"""How an axis goes on beyond its borders: pure integers."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


def boundary(position: int, size: int, mode: str) -> int:
    """The element of an axis of ``size`` that stands at ``position`` when the axis is continued by ``mode``."""
    if mode == "edge":
        return min(max(position, 0), size - 1)
    if mode == "wrap":
        return position % size
    if mode == "symmetric":
        position %= 2 * size
        return min(position, 2 * size - 1 - position)
    if size == 1:  # reflect about the only element there is
        return 0
    position %= 2 * (size - 1)
    return min(position, 2 * (size - 1) - position)


class Run(NamedTuple):
    """``length`` elements that begin at ``first`` and go by ``step``: 1, -1, 0 (repeated); None is fill."""

    first: int
    length: int
    step: int | None


@lru_cache(maxsize=1024)
def runs(start: int, stop: int, size: int, mode: str) -> tuple[Run, ...]:
    """The positions ``start:stop`` of a continued axis as few runs over its ``size`` real elements."""
    inner_start, inner_stop = min(max(start, 0), size), max(min(stop, size), 0)
    middle: tuple[Run, ...] = (
        (Run(inner_start, inner_stop - inner_start, 1),) if inner_stop > inner_start else ()
    )
    if mode == "constant":
        if not middle:
            return (Run(0, stop - start, None),) if stop > start else ()
        before = (Run(0, -start, None),) if start < 0 else ()
        after = (Run(0, stop - size, None),) if stop > size else ()
        return (*before, *middle, *after)
    low = _runs_of([boundary(p, size, mode) for p in range(start, min(stop, 0))])
    high = _runs_of([boundary(p, size, mode) for p in range(max(start, size), stop)])
    return (*low, *middle, *high)


def _runs_of(indices: list[int]) -> tuple[Run, ...]:
    found: list[Run] = []
    for index in indices:
        if found:
            first, length, step = found[-1]
            gap = index - (first + (length - 1) * (step or 0))
            if gap in (-1, 0, 1) and (length == 1 or gap == step):
                found[-1] = Run(first, length + 1, gap)
                continue
        found.append(Run(index, 1, 1))
    return tuple(found)
