"""The threads that wait inside compiled code: every piece is done once, whoever comes, sleeps, fails or forks."""

import multiprocessing
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest

pytest.importorskip("numba")

from numba.core.errors import TypingError

import xconv
from cases import numbers
from compare import assert_same
from xconv._bridges.numba import crew, sharing
from xconv._bridges.numba.arrays import address
from xconv._bridges.numba.kernels import Kernel, job, load, words

pytestmark = pytest.mark.backends("fast")


store = crew._store


@partial(Kernel, cache=False)
def added(job, first, last):
    """The values from ``first`` to ``last`` to the sums, one number after the other, so many times."""
    values, sums, turns = words(job, 1, 3)
    for _ in range(turns):
        for i in range(first, last):
            store(sums + 8 * i, load(sums + 8 * i) + load(values + 8 * i))


def run(kernel, size, count, helpers, *arguments):
    _held, at = job(arguments)
    crew.run(kernel.code(), size, count, 1, helpers, at)


def add(size=4096, count=64, helpers=3, turns=1, seed=0):
    """A job, whose result is known."""
    values, sums = np.random.default_rng(seed).integers(1, 100, size), np.zeros(size, np.int64)
    run(added, size, count, helpers, address(values), address(sums), turns)
    return values, sums


@pytest.fixture
def fresh(monkeypatch):
    """A crew of this test, with threads that go to sleep soon."""
    own = crew._Crew()
    monkeypatch.setattr(crew, "PATIENCE", 100)
    monkeypatch.setattr(crew, "_crew", own)
    return own


def wait(condition, seconds=20):
    """Until it holds; an error if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


@pytest.mark.parametrize("helpers", [0, 1, 2, 7])
@pytest.mark.parametrize(("size", "count"), [(0, 4), (1, 4), (5, 64), (4096, 2), (4096, 64)])
def test_every_piece_is_done_once(fresh, helpers, size, count):
    for seed in range(50):
        assert_same(*add(size, count, helpers, seed=seed))


def test_as_many_come_as_are_asked_for(fresh):
    for helpers, threads in ((0, 0), (2, 2), (1, 2), (3, 3)):
        add(helpers=helpers)
        assert len(fresh.threads) == threads


def test_those_who_sleep_are_woken(fresh):
    for seed in range(20):
        add(helpers=2, seed=seed)
        wait(lambda: fresh.asleep == 2)
    values, sums = add(2, 2, 1, turns=2 * 10**7)  # long enough for the other to come for its half
    wait(lambda: fresh.asleep == 2)
    assert fresh.words[crew.INSIDE // 8] == 0
    assert (sums == 2 * 10**7 * values).all()


def test_a_helper_takes_part(fresh, monkeypatch):
    """Two pieces that wait for each other are done, so two threads are at work on them."""
    monkeypatch.setattr(crew, "PATIENCE", 10**8)
    flags = np.zeros(2, np.int64)
    run(meeting, 2, 2, 1, address(flags), 10**10)
    assert flags.tolist() == [2, 2]


@partial(Kernel, cache=False)
def meeting(job, first, last):
    flags, patience = words(job, 1, 2)
    me, other = flags + 8 * first, flags + 8 * (1 - first)
    store(me, 1)
    looked = 0
    while load(other) == 0 and looked < patience:
        looked += 1
    if load(other):
        store(me, 2)


def test_a_busy_crew_is_not_waited_for(fresh):
    assert fresh.taken.acquire(blocking=False)
    try:
        assert_same(*add())
        assert not fresh.threads
    finally:
        fresh.taken.release()


def test_where_no_thread_can_be_started_the_caller_does_all(fresh, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert_same(*add())
    assert not fresh.threads
    assert not fresh.taken.locked()


def test_the_crew_is_given_back_after_an_error(fresh):
    with pytest.raises(TypingError):
        crew.run("no code", 10, 2, 1, 1, 0)
    assert not fresh.taken.locked()
    assert_same(*add())


@partial(Kernel, cache=False)
def failing(job, first, last):
    (at,) = words(job, 1, 1)
    if first <= at < last:
        raise ValueError("not this one")


@pytest.mark.parametrize("helpers", [0, 1])
def test_a_piece_that_fails_is_not_passed_over(fresh, helpers):
    """Whatever it was, on whatever thread; in xconv it can only be memory for a table."""
    for at in range(64):
        with pytest.raises(MemoryError, match="no memory for its tables"):
            run(failing, 64, 64, helpers, at)
        assert not fresh.taken.locked()
    run(failing, 64, 64, helpers, 64)
    assert_same(*add(helpers=helpers))


def test_many_callers_at_once(fresh):
    """Whoever has the crew, each result is right, with calls through the front door among them."""
    x, w = numbers((1, 30, 30, 64)), numbers((3, 3, 64, 64))
    expected = xconv.conv(x, w, algorithm="winograd")
    wrong = []

    def call(seed):
        for i in range(40):
            values, sums = add(seed=seed * 100 + i)
            if (values != sums).any() or (xconv.conv(x, w, algorithm="winograd") != expected).any():
                wrong.append((seed, i))

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    assert not fresh.taken.locked()


def test_interrupts_leave_a_crew_that_works(fresh):
    """Signals that raise, as Ctrl-C does, at any moment of many calls."""

    class Interrupt(BaseException):
        pass

    def interrupt(number, frame):
        raise Interrupt

    if not hasattr(signal, "setitimer"):
        before = None
    else:
        before = signal.signal(signal.SIGALRM, interrupt)
    caught = 0
    try:
        for i in range(200 if before is not None else 0):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + i * 5e-6)
                for seed in range(100):
                    add(helpers=1, seed=seed)
            except Interrupt:
                caught += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        if before is not None:
            signal.signal(signal.SIGALRM, before)
    assert caught > 100 or before is None
    assert_same(*add(helpers=1))
    assert fresh.words[crew.INSIDE // 8] == 0
    assert fresh.words[crew.TURN // 8] % 2 == 0


def _in_a_child(queue):
    values, sums = add(helpers=1)
    queue.put((bool((values == sums).all()), len(crew._crew.threads)))


def test_a_forked_child_has_a_crew_of_its_own():
    add(helpers=1)
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue,))
    child.start()
    assert queue.get(timeout=120) == (True, 1)
    child.join()
    assert child.exitcode == 0


def test_work_of_one_thread_starts_none(fresh):
    with xconv.config(threads=1):
        x, w = numbers((1, 40, 40, 64)), numbers((1, 1, 64, 64))
        assert sharing.is_large(x.size * 64)
        xconv.conv(x, w, algorithm="direct")
    assert not fresh.threads
