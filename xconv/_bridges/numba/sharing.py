"""Large work of compiled code, shared out among the threads where nothing else is."""

from __future__ import annotations

from xconv._bridges.numba.crew import run
from xconv._bridges.numba.kernels import Kernel, Number, job
from xconv._config import settings
from xconv._machine import cores
from xconv._scratch import in_tiles

WORTH = 10**6  # multiplications that are worth sharing
PIECE, SOME = 2 * 10**6, 16  # multiplications in a piece, and pieces of not so much work
LONG, MOST = 3 * 10**7, 64  # multiplications in a piece of more work, and pieces in all
TAP = (
    8  # multiplications that take as long as reading one tap of one channel; half as much in a row of weights
)


def is_large(multiplications: int) -> bool:
    """Whether work is worth sharing, and the other threads have nothing else to do."""
    return multiplications >= WORTH and not in_tiles()


def shared(
    kernel: Kernel,
    items: tuple[Number, ...],
    size: int,
    multiplications: int,
    unit: int,
    words: tuple[int, ...],
) -> None:
    """A kernel for all of ``size``: whole, or in pieces that the threads share.

    The caller holds what addresses among the words stand for.
    """
    count, helpers = 1, 0
    if size > unit and is_large(multiplications):
        threads = settings().threads or cores()
        helpers = threads - 1
        pieces = max(min(multiplications // PIECE, SOME), multiplications // LONG, 2)
        if pieces > threads:  # as many for each
            pieces = -(-pieces // threads) * threads
        count = min(pieces, MOST, -(-size // unit))
    _held, at = job(words)
    run(kernel.code(*items), size, count, unit, helpers, at)
