"""The BLAS libraries of this process, and the hold that leaves each of them one thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from ctypes import CDLL
from functools import lru_cache
from itertools import product
from types import TracebackType
from typing import Any, NamedTuple

from threadpoolctl import ThreadpoolController


class _Control(NamedTuple):
    """How many threads a BLAS library has, to be asked and to be set from any thread."""

    threads: Callable[[], int]
    set_threads: Callable[[int], None]


class _Blas:
    """The BLAS libraries of this process, and who wants them to use one thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal's handler may convolve, too
        self.holders: set[object] = set()
        self.found: list[tuple[_Control, int]] = []  # libraries, and the threads they had

    def hold(self, holder: object) -> None:
        with self.lock:
            first = not self.holders
            if first:
                self.found = [(control, control.threads()) for control in _controls()]
            self.holders.add(holder)
            if first:
                self.set(held=True)

    def release(self, holder: object) -> None:
        with self.lock:
            self.holders.discard(holder)
            if not self.holders:
                self.set(held=False)

    def set(self, *, held: bool) -> None:
        for control, threads in self.found:
            if threads != 1:
                control.set_threads(1 if held else threads)


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


@lru_cache(maxsize=1)
def _controls() -> list[_Control]:
    return [_own_control(library) or _control(library) for library in libraries()]


def _own_control(library: Any) -> _Control | None:
    """OpenBLAS's own functions, where its threads are the process's: a tenth of the time of `_control`."""
    if library.internal_api != "openblas" or getattr(library, "threading_layer", None) != "pthreads":
        return None
    functions = CDLL(library.filepath)
    for before, after in product(("", "scipy_"), ("", "64_", "_64")):
        ask, tell = (f"{before}openblas_{verb}_num_threads{after}" for verb in ("get", "set"))
        if hasattr(functions, ask) and hasattr(functions, tell):
            return _Control(getattr(functions, ask), getattr(functions, tell))
    return None


def _control(library: Any) -> _Control:
    """By way of threadpoolctl, which heeds the first thread that asks and no other, until that is forgotten again."""
    clear = getattr(library, "clear_controlling_thread", lambda force: None)

    def set_threads(threads: int) -> None:
        clear(force=True)
        library.set_num_threads(threads)
        clear(force=True)

    return _Control(library.get_num_threads, set_threads)


def own_threads(wanted: int | None) -> int:
    """How many threads BLAS has, if there are several, no more than ``wanted``, and nobody holds it to one; else 0."""
    if _blas.holders or wanted == 1:
        return 0
    threads, *others = {control.threads() for control in _controls()}
    return threads if threads > 1 and not others and (wanted is None or wanted >= threads) else 0


def _reset() -> None:
    """In a child process, which has none of its parent's threads: nobody holds BLAS."""
    global _blas
    held, _blas = _blas, _Blas()
    if held.holders:
        held.set(held=False)
