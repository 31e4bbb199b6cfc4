"""The BLAS libraries of this process, and the hold that leaves each of them one thread."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController


class _Blas:
    """The BLAS libraries of this process, and who wants them to use one thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal's handler may convolve, too
        self.holders: set[object] = set()
        self.found: list[tuple[Any, int]] = []  # libraries, and the threads they had

    def hold(self, holder: object) -> None:
        with self.lock:
            first = not self.holders
            if first:
                self.found = [(library, library.get_num_threads()) for library in libraries()]
            self.holders.add(holder)
            if first:
                self.set(held=True)

    def release(self, holder: object) -> None:
        with self.lock:
            self.holders.discard(holder)
            if not self.holders:
                self.set(held=False)

    def set(self, *, held: bool) -> None:
        for library, threads in self.found:
            if threads != 1:
                _set_threads(library, 1 if held else threads)


def _set_threads(library: Any, threads: int) -> None:
    """From any thread: where threadpoolctl heeds the first one that asks and no other, that is forgotten again."""
    clear = getattr(library, "clear_controlling_thread", lambda force: None)
    clear(force=True)
    library.set_num_threads(threads)
    clear(force=True)


_blas = _Blas()


class one_blas_thread:
    """Inside, BLAS uses one thread; afterwards, and after an error or an interrupt, as many as before."""

    __slots__ = ()

    def __enter__(self) -> None:
        try:
            _blas.hold(self)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = None
        while True:
            try:
                _blas.release(self)
                break
            except KeyboardInterrupt as again:  # once more, from the start
                interrupted = again
        if interrupted is not None:
            raise interrupted


@lru_cache(maxsize=1)
def libraries() -> list[Any]:
    """The BLAS libraries that are loaded when the first call needs to know; that of the products is one of them."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_reset)
    return [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]


def own_threads(wanted: int | None) -> bool:
    """Whether BLAS has several threads, no more than ``wanted``, and nobody holds it to one."""
    if _blas.holders or wanted == 1:
        return False
    threads = min(lib.get_num_threads() for lib in libraries())
    return threads > 1 and (wanted is None or wanted >= threads)


def _reset() -> None:
    """In a child process, which has none of its parent's threads: nobody holds BLAS."""
    global _blas
    held, _blas = _blas, _Blas()
    if held.holders:
        held.set(held=False)
