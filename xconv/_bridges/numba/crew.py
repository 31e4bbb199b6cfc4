"""Threads that wait for work inside compiled code, where one takes over from the other in a microsecond.

To wake a sleeping thread takes fifty. So a thread that has helped looks out for the next job for a while before it goes
to sleep, without holding up the interpreter, and a job is handed over in memory. The crew does one job at a time; its
words in memory, each in a line of the cache of its own, are

- the turn, which is odd while the job of that turn is open, and goes up by one when it opens and when it closes;
- how many more may come to help, how many are inside, and the next piece to be taken;
- the code of a kernel, its job, the size that is cut, the count and the unit of the pieces.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from xconv._address import address
from xconv._bridges.numba.arrays import inner
from xconv._bridges.numba.kernels import call, load
from xconv._bridges.numba.vectors import I64
from xconv._scratch import LINE, aligned
from xconv._threads import Apart

TURN, ROOM, INSIDE, NEXT, JOB = (LINE * i for i in range(5))
CODE, CONTEXT, SIZE, COUNT, UNIT = (JOB + 8 * i for i in range(5))
PATIENCE = 2 * 10**4  # times that one who waits looks again, some 20 to 50 ns each, before it goes to sleep
YIELD = 500  # times that one looks for helpers to leave before others are let run on its core


@intrinsic
def _store(context, address, value):
    def generate(context, b, signature, arguments):
        b.store_atomic(arguments[1], b.inttoptr(arguments[0], I64.as_pointer()), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add(context, address, value):
    """What was there before."""

    def generate(context, b, signature, arguments):
        return b.atomic_rmw("add", b.inttoptr(arguments[0], I64.as_pointer()), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _rest(context):
    """Leave the core to its other thread for a moment."""
    machine = platform.machine().lower()

    def generate(context, b, signature, arguments):
        if machine in ("x86_64", "amd64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.x86.sse2.pause"), [])
        elif machine in ("aarch64", "arm64"):
            i32 = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [i32])
            b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.aarch64.hint"), [ir.Constant(i32, 1)])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _give_way(context):
    """Let another thread run on this core, where one can say so."""

    def generate(context, b, signature, arguments):
        if sys.platform != "win32":
            kind = ir.FunctionType(ir.IntType(32), [])
            b.call(cgutils.get_or_insert_function(b.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@inner
def _take(crew, code, job, size, count, unit):
    """Piece after piece, until there is none."""
    units = (size + unit - 1) // unit
    i = add(crew + NEXT, 1)
    while i < count:
        call(code, job, units * i // count * unit, min(units * (i + 1) // count * unit, size))
        i = add(crew + NEXT, 1)


@njit(nogil=True, cache=True)
def _lead(crew, size, count, unit, helpers, code, job):
    """All pieces, with the help of so many others if they come; none of them is inside any more in the end."""
    if helpers == 0 or count < 2:
        call(code, job, 0, size)
        return load(job)
    _store(crew + CODE, code)
    _store(crew + CONTEXT, job)
    _store(crew + SIZE, size)
    _store(crew + COUNT, count)
    _store(crew + UNIT, unit)
    _store(crew + NEXT, 0)
    _store(crew + ROOM, helpers)
    add(crew + TURN, 1)
    _take(crew, code, job, size, count, unit)
    add(crew + TURN, 1)
    looked = 0
    while load(crew + INSIDE) > 0:
        _rest()
        looked += 1
        if looked > YIELD:
            _give_way()
    return load(job)


@njit(nogil=True, cache=True)
def _help(crew, seen, patience):
    """Take part in what is open, until nothing new is for a while; the last turn that was seen."""
    looked = 0
    while looked < patience:
        turn = load(crew + TURN)
        if turn % 2 == 0 or turn == seen:
            _rest()
            looked += 1
            continue
        seen, looked = turn, 0
        add(crew + INSIDE, 1)  # from here on, who closes this turn waits
        if load(crew + TURN) == turn and add(crew + ROOM, -1) > 0:
            _take(
                crew, load(crew + CODE), load(crew + CONTEXT), load(crew + SIZE), load(crew + COUNT),
                load(crew + UNIT),
            )  # fmt: skip
        add(crew + INSIDE, -1)
    return seen


class _Crew:
    """The threads of all calls together, and their words in memory; they serve one call at a time."""

    def __init__(self) -> None:
        self.taken = threading.Lock()
        self.words = aligned(JOB // 8 + 8, np.int64)
        self.words[:] = 0
        self.address = address(self.words)
        self.threads: list[threading.Thread] = []
        self.bell: SimpleQueue[None] = SimpleQueue()
        self.asleep = 0
        self.apart = Apart()

    def call(self, helpers: int) -> int:
        """Have so many at hand, of the caller's who has taken the crew: how many there are."""
        if len(self.threads) < helpers:
            self._grow(helpers)
        self.apart.keep(self.threads)
        for _ in range(min(self.asleep, helpers)):
            self.bell.put(None)
        return min(len(self.threads), helpers)

    def _grow(self, size: int) -> None:
        with suppress(RuntimeError):  # no thread can be started: here, any more, or on this platform
            while len(self.threads) < size:
                name = f"xconv-compiled-{len(self.threads) + 1}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                thread.start()
                self.threads.append(thread)

    def _serve(self) -> None:
        seen = 0
        while True:
            seen = _help(self.address, seen, PATIENCE)
            self.asleep += 1
            self.bell.get()
            self.asleep -= 1


_crew = _Crew()


def _reset() -> None:
    """In a child process, which has none of its parent's threads."""
    global _crew
    _crew = _Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)


def run(code: int, size: int, count: int, unit: int, helpers: int, job: int) -> None:
    """All of ``size`` of a kernel's job, in pieces that others may take; alone where the crew is busy."""
    crew, mine = _crew, False
    if helpers < 1 or count < 2:
        failed = _lead(crew.address, size, 1, unit, 0, code, job)
    else:
        try:
            mine = crew.taken.acquire(blocking=False)
            helpers = crew.call(min(helpers, count - 1)) if mine else 0
            failed = _lead(crew.address, size, count, unit, helpers, code, job)
        finally:
            if mine:
                crew.taken.release()
    if failed:  # all that can fail are the small tables that compiled code makes
        raise MemoryError("compiled code had no memory for its tables")
