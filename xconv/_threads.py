"""A shared crew of threads, with BLAS held to one thread while they work.

A multi-threaded BLAS called from several threads at once stalls for milliseconds, and its threads keep spinning after a
call; so the work is shared out by us.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from contextvars import Context, copy_context
from functools import lru_cache
from queue import Empty, SimpleQueue

from xconv._awake import awake, rest
from xconv._blas import one_blas_thread

Task = Callable[[], None]
A_WHILE = 0.002  # seconds that one of the crew waits for the next call before it lets the processors sleep
FEW = 8  # threads that are told which CPU to keep off; larger machines have an idle one at hand


def run_all(
    tasks: Iterator[Task],
    threads: int,
    around: Callable[[], AbstractContextManager[None]],
    hold: Callable[[], AbstractContextManager[object]] | None = None,
) -> None:
    """Call every task once, on the caller's thread and up to ``threads - 1`` of the crew; the first error is raised.

    Each thread does its share inside ``around()``, and everything is done inside ``hold()``, which by default holds
    BLAS. A crew that is busy, or that cannot be started at all, is not waited for: the caller does the work. When this
    function is left, in whatever way, no task is running any more.
    """
    share = _Share(tasks, around)
    with awake(threads), (hold or one_blas_thread)():
        try:
            _crew.offer(share, threads - 1)
            share.work()
        except BaseException as error:  # an interrupt between two tasks
            share.errors.append(error)
        finally:
            share.close()
    if share.errors:
        raise share.errors[0]


class _Share:
    """The tasks of one call, and those who are at work on them."""

    def __init__(self, tasks: Iterator[Task], around: Callable[[], AbstractContextManager[None]]) -> None:
        self.tasks = tasks
        self.around = around
        self.errors: list[BaseException] = []
        self.turn = threading.Lock()  # to take the next task
        self.door = threading.Lock()  # to come and go
        self.helpers = 0
        self.closed = False
        self.empty = threading.Lock()  # held until the last helper has left
        self.empty.acquire()

    def work(self) -> None:
        """Take one task after the other, until there is none or one has failed."""
        try:
            with self.around():
                while not self.errors:
                    with self.turn:
                        task = next(self.tasks, None)
                    if task is None:
                        return
                    task()
        except BaseException as error:
            self.errors.append(error)

    def help(self) -> None:
        """The same, as one of the crew; nothing where the call is over."""
        with self.door:
            if self.closed:
                return
            self.helpers += 1
        self.work()
        self.leave()

    def leave(self) -> None:
        with self.door:
            self.helpers -= 1
            if self.closed and not self.helpers:
                self.empty.release()

    def close(self) -> None:
        """Let nobody in any more, and wait for those inside, even where the waiting is interrupted."""
        interrupted: KeyboardInterrupt | None = None
        while True:
            try:
                with self.door:
                    wait = bool(self.helpers)
                    self.closed = True
                if wait:
                    self.empty.acquire()
                break
            except KeyboardInterrupt as error:
                interrupted = error
        self.tasks = iter(())  # one of the crew may hold this a moment longer, but none of the arrays
        if interrupted is not None:
            self.errors.append(interrupted)


class _Crew:
    """The threads of all calls together: never more than the largest number any call has asked for."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal's handler may convolve, too
        self.threads: list[threading.Thread] = []
        self.offers: SimpleQueue[tuple[Context, _Share]] = SimpleQueue()
        self.apart = Apart()

    def offer(self, share: _Share, count: int) -> None:
        """Let ``count`` threads take part, as soon as they are free, or as many as can be started."""
        if count > len(self.threads):
            self.grow(count)
        self.apart.keep(self.threads)
        for _ in range(min(count, len(self.threads))):
            self.offers.put((copy_context(), share))

    def grow(self, size: int) -> None:
        _reset_in_children()
        with (
            self.lock,
            suppress(RuntimeError),
        ):  # no thread can be started: here, any more, or on this platform
            while len(self.threads) < size:
                name = f"xconv-{len(self.threads) + 1}"
                thread = threading.Thread(target=_serve, args=(self.offers,), name=name, daemon=True)
                thread.start()
                self.threads.append(thread)


class Apart:
    """Keeps threads off their caller's CPU: a small machine's scheduler wakes a thread where it was woken from."""

    def __init__(self) -> None:
        self.avoided = (-1, 0)

    def keep(self, threads: list[threading.Thread]) -> None:
        """Few of them: a larger machine has an idle CPU at hand."""
        if not 0 < len(threads) <= FEW:
            return
        cpu = _current_cpu()
        if (cpu, len(threads)) == self.avoided:
            return
        self.avoided = (cpu, len(threads))
        with suppress(OSError):
            # of the process: the caller may be of the crew
            others = os.sched_getaffinity(os.getpid()) - {cpu}
            for thread in threads if others and cpu >= 0 else ():
                if thread.native_id is not None:
                    os.sched_setaffinity(thread.native_id, others)


def _current_cpu() -> int:
    """The number of the CPU that this thread is on, or -1 where nobody can say or nothing could be done about it."""
    ask = _cpu_number()
    return -1 if ask is None else int(ask())


@lru_cache(maxsize=1)
def _cpu_number() -> Callable[[], int] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        import ctypes

        return ctypes.CDLL(None).sched_getcpu
    except (ImportError, OSError, AttributeError):
        return None


def _next(offers: SimpleQueue[tuple[Context, _Share]]) -> tuple[Context, _Share]:
    while True:
        try:
            return offers.get(timeout=A_WHILE)
        except Empty:
            if rest():
                return offers.get()


def _serve(offers: SimpleQueue[tuple[Context, _Share]]) -> None:
    while True:
        context, share = _next(offers)
        context.run(share.help)
        del context, share  # not kept until the next one comes


_crew = _Crew()


@lru_cache(maxsize=1)
def _reset_in_children() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_reset)


def _reset() -> None:
    """In a child process, which has none of its parent's threads."""
    global _crew
    _crew = _Crew()
