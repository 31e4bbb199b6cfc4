"""Keeps the processors awake while threads work together: one that has gone to sleep is late for the next piece.

Threads of Python wait for each other many times in a call, a few microseconds each. A processor that has nothing to do
meanwhile goes to sleep; to wake it takes longer than the wait, and a virtual one may come back to empty caches. So each
has a keeper, a thread that does nothing but look whether a lock is free: it knows nothing of Python, and the scheduler
lets it run only where nobody else wants to (``SCHED_IDLE``). On Linux; elsewhere nothing is done.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import threading
from functools import lru_cache
from typing import Any
from weakref import WeakSet

from xconv._machine import cores

MOST = 8  # processors: of a larger machine, not all are at work
LOCK = 64  # bytes, a line of the cache
STACK = 2**20  # bytes, of which a keeper uses next to none
SPACE = 256  # bytes, more than a `pthread_attr_t` or a `sigset_t` has anywhere
DETACHED = 1
PLACES = 128  # bytes of a `cpu_set_t`
NEEDED = (
    "pthread_attr_setaffinity_np",
    "pthread_attr_setdetachstate",
    "pthread_attr_setstacksize",
    "pthread_create",
    "pthread_getcpuclockid",
    "pthread_sigmask",
    "pthread_spin_lock",
    "pthread_spin_trylock",
    "pthread_spin_unlock",
    "sched_getcpu",
)


class awake:
    """Inside, the processors are kept awake, if so many threads are at work on all of them; and then until `rest`."""

    __slots__ = ("__weakref__", "threads")

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __enter__(self) -> None:
        _watch.begin(self)

    def __exit__(self, *error: object) -> None:
        _watch.calls.discard(self)


def rest() -> bool:
    """Whether the processors may sleep now: no call is at work."""
    return _watch.rest()


_locks: list[Any] = []  # all there have ever been: a keeper may leave late, and looks at its own until then


class _Watch:
    """The keepers, one for each processor."""

    def __init__(self) -> None:
        self.turn = threading.RLock()  # a signal's handler may convolve, too
        self.calls: WeakSet[awake] = WeakSet()  # an interrupted one may have been left without a word
        self.system: Any = None
        self.locks: dict[int, Any] = {}  # that keepers wait for
        self.kept = False
        self.able = True

    def begin(self, call: awake) -> None:
        with self.turn:
            self.calls.add(call)
            if not self.kept and self.able and call.threads > 1:
                self.start(call.threads)

    def start(self, threads: int) -> None:
        """Have a keeper for each processor, if so many threads use them all."""
        self.system = self.system or _library()
        processors: set[int] = set() if self.system is None else os.sched_getaffinity(os.getpid())
        if 1 < len(processors) <= min(threads, cores(), MOST) and max(processors) < 8 * PLACES:
            self.kept = True
            elsewhere = sum(1 << processor for processor in processors - {self.system.sched_getcpu()})
            self.able = all(self.keep(processor, elsewhere) for processor in processors)
            if not self.able:
                self.dismiss()

    def keep(self, processor: int, elsewhere: int) -> bool:
        """Whether there is a keeper for a processor: the last one, if it has not left yet, or a new one.

        It begins as any thread does, and must not do so in the place of its caller, but on one of those ``elsewhere``.
        """
        lock, library = self.locks.get(processor), self.system
        if lock is not None and library.pthread_spin_trylock(lock) == 0:
            return True
        if lock is None:
            lock = self.locks[processor] = ctypes.create_string_buffer(LOCK)
            _locks.append(lock)
        library.pthread_spin_init(lock, 0)
        library.pthread_spin_trylock(lock)  # which nobody else knows of
        keeper = _started(library, lock, elsewhere)
        if keeper is None:
            return False
        try:
            os.sched_setscheduler(keeper, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setaffinity(keeper, {processor})
        except OSError:
            return False
        return True

    def rest(self) -> bool:
        with self.turn:
            if self.calls:
                return False
            self.dismiss()
            return True

    def dismiss(self) -> None:
        """Each keeper takes its lock with it."""
        if self.kept:
            for lock in self.locks.values():
                self.system.pthread_spin_unlock(lock)
            self.kept = False


def _started(library: Any, lock: Any, processors: int) -> int | None:
    """The number of a new thread that waits for a lock, then ends, and gets no signals; None if there can be none."""
    attributes, everything, before = (ctypes.create_string_buffer(SPACE) for _ in range(3))
    thread, clock = ctypes.c_ulong(), ctypes.c_int()
    library.pthread_attr_init(attributes)
    library.pthread_attr_setdetachstate(attributes, DETACHED)
    library.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK))
    places = processors.to_bytes(PLACES, "little")
    library.pthread_attr_setaffinity_np(attributes, ctypes.c_size_t(PLACES), places)
    begin = ctypes.cast(library.pthread_spin_lock, ctypes.c_void_p)
    library.sigfillset(everything)
    library.pthread_sigmask(int(signal.SIG_BLOCK), everything, before)
    failed = library.pthread_create(ctypes.byref(thread), attributes, begin, lock)
    library.pthread_sigmask(int(signal.SIG_SETMASK), before, None)
    library.pthread_attr_destroy(attributes)
    if failed or library.pthread_getcpuclockid(thread, ctypes.byref(clock)):
        return None
    return int(~clock.value >> 3)  # that is how Linux numbers the clocks of threads


@lru_cache(maxsize=1)
def _library() -> Any:
    """The C library, called without giving Python away meanwhile; None where it has not what is needed."""
    if not hasattr(os, "SCHED_IDLE"):
        return None
    library = ctypes.PyDLL(None)
    if not all(hasattr(library, name) for name in NEEDED):
        return None
    atexit.register(_dismiss)
    os.register_at_fork(after_in_child=_reset)
    return library


_watch = _Watch()


def _dismiss() -> None:
    _watch.dismiss()


def _reset() -> None:
    """In a child process, which has none of its parent's threads."""
    global _watch
    _watch = _Watch()
