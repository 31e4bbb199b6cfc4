"""Large work of compiled code, shared out among the threads where nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

from xconv._config import settings
from xconv._machine import cores
from xconv._scratch import in_tiles, scratch
from xconv._threads import run_all

WORTH = 6 * 10**6  # multiplications that are worth waking other threads for
FEW, PIECE, LONG = (
    4,
    3 * 10**6,
    3 * 10**7,
)  # pieces of little work; multiplications in one of those, and of more work
TAP = 8  # that take as long as reading one tap of one channel; in a row of weights it is half as much


def is_large(multiplications: int) -> bool:
    """Whether work is worth waking other threads for, and those have nothing else to do."""
    return multiplications >= WORTH and not in_tiles()


def shared(work: Callable[[int, int], object], size: int, multiplications: int, unit: int = 1) -> None:
    """``work(start, stop)`` for all of ``size``, in pieces that are the same for any number of threads."""
    if size <= unit or not is_large(multiplications):
        work(0, size)
        return
    units = -(-size // unit)
    count = min(max(min(multiplications // PIECE, FEW), multiplications // LONG, 2), 64, units)
    count = min(count + count % 2, units)
    cuts = [min(units * i // count * unit, size) for i in range(count + 1)]

    def pieces() -> Iterator[Callable[[], None]]:
        for start, stop in pairwise(cuts):
            yield partial(_do, work, start, stop)

    run_all(pieces(), settings().threads or cores(), scratch, nullcontext)


def _do(work: Callable[[int, int], object], start: int, stop: int) -> None:
    work(start, stop)
