"""The crew of threads: every tile once, the same bits for any number of threads, and BLAS left as it was."""

import _thread
import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import time
import tracemalloc
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

import xconv
from cases import numbers
from compare import assert_close
from xconv import _awake, _blas, _config, _scratch, _threads
from xconv._blas import one_blas_thread
from xconv._machine import cores
from xconv._scratch import scratch
from xconv._threads import run_all

pytestmark = pytest.mark.backends("numpy", "fast")

PATIENCE = 60  # seconds until a test that hangs fails instead

X = numbers((2, 40, 40, 8), seed=1)
W = numbers((3, 3, 8, 6), seed=2)


BLAS = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers


def blas():
    """How many threads each BLAS library of this process may use."""
    return [library.get_num_threads() for library in BLAS]


@pytest.fixture(autouse=True)
def _blas_is_left_as_it_was():
    """In every test here BLAS has three threads, whatever the machine, and has them again when it is over."""
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        before = blas()
        assert 3 in before
        yield
        assert blas() == before
    assert not _blas._blas.holders


@contextlib.contextmanager
def quiet():
    """What a thread of the crew does its share inside of, where nothing is asked for."""
    yield


def share_out(tasks, threads):
    run_all(iter(tasks), threads, quiet)


class Meeting:
    """Lets the first ``count`` threads that come here go on only when all of them have come."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count)
        self.met = set()

    def come(self):
        name = threading.get_ident()
        if name not in self.met and len(self.met) < self.barrier.parties:
            self.met.add(name)
            self.barrier.wait(timeout=PATIENCE)


def tiles(function, *arrays, **options):
    return xconv.explain(function, *arrays, **options).plan


# ------------------------------------------------------------------------------------------------ tasks and errors


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_task_is_done_once(threads):
    done = []
    share_out((lambda i=i: done.append(i) for i in range(500)), threads)
    assert sorted(done) == list(range(500))


def test_as_many_threads_take_part_as_are_asked_for():
    meeting, seen = Meeting(4), set()

    def task():
        meeting.come()
        seen.add(threading.current_thread())

    share_out([task] * 50, 4)
    assert len(seen) == 4
    assert threading.current_thread() in seen


def test_no_tasks_are_done_at_once():
    share_out([], 4)


def test_the_crew_has_the_size_of_the_largest_wish(monkeypatch):
    crew = _threads._Crew()
    monkeypatch.setattr(_threads, "_crew", crew)
    for threads, size in ((1, 0), (3, 2), (2, 2), (5, 4)):
        share_out([int] * 10, threads)
        assert len(crew.threads) == size


def test_after_an_error_no_other_task_begins():
    begun = []

    def task(i):
        begun.append(i)
        if i == 5:
            raise ZeroDivisionError(i)

    with pytest.raises(ZeroDivisionError, match=r"^5$"):
        share_out((lambda i=i: task(i) for i in range(100)), 1)
    assert begun == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("whose", ["the caller's", "the crew's"])
def test_an_error_on_any_thread_ends_the_call_and_nothing_runs_afterwards(whose):
    caller, meeting = threading.current_thread(), Meeting(4)
    running, begun, lock = [], [], threading.Lock()

    def task():
        with lock:
            begun.append(None)
            running.append(None)
        try:
            meeting.come()
            if (threading.current_thread() is caller) == (whose == "the caller's"):
                raise ZeroDivisionError("mine")
            time.sleep(0.01)
        finally:
            with lock:
                running.pop()

    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        share_out([task] * 10_000, 4)
    assert not running
    count = len(begun)
    assert count < 10_000
    time.sleep(0.05)
    assert len(begun) == count
    test_as_many_threads_take_part_as_are_asked_for()  # the crew has lost nobody


def test_the_first_of_several_errors_is_raised(monkeypatch):
    caller, meeting, shares = threading.current_thread(), Meeting(2), []

    class Seen(_threads._Share):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            shares.append(self)

    def task():
        meeting.come()
        if threading.current_thread() is not caller:
            raise ZeroDivisionError("first")
        late = time.monotonic() + PATIENCE
        while not shares[0].errors and time.monotonic() < late:
            time.sleep(0.001)
        raise KeyError("second")

    monkeypatch.setattr(_threads, "_Share", Seen)
    with pytest.raises(ZeroDivisionError, match=r"^first$"):
        share_out([task] * 10, 2)
    assert [type(error) for error in shares[0].errors] == [ZeroDivisionError, KeyError]


def test_an_error_between_two_tasks_ends_the_call():
    done = []

    def tasks():
        yield lambda: done.append(1)
        raise ZeroDivisionError("no more")

    with pytest.raises(ZeroDivisionError, match=r"^no more$"):
        run_all(tasks(), 3, quiet)
    assert done == [1]


def test_every_thread_does_its_share_inside_what_is_put_around_it():
    entered, left, meeting = [], [], Meeting(3)

    @contextlib.contextmanager
    def around():
        entered.append(threading.get_ident())
        try:
            yield
        finally:
            left.append(threading.get_ident())

    run_all(iter([meeting.come] * 20), 3, around)
    assert len(set(entered)) == len(entered) == 3
    assert sorted(left) == sorted(entered)
    with pytest.raises(ZeroDivisionError):
        run_all(iter([lambda: 1 / 0] * 20), 3, around)
    assert sorted(left) == sorted(entered)


def test_blas_has_one_thread_while_tasks_run_and_as_many_as_before_when_the_last_call_is_over():
    """Of two calls that overlap, the first to end changes nothing for the other."""
    seen, first_is_over = [], threading.Event()

    def other():
        share_out([lambda: inside.set() or first_is_over.wait(PATIENCE), lambda: seen.append(blas())], 1)

    inside = threading.Event()
    thread = threading.Thread(target=other)

    def task():
        seen.append(blas())
        thread.start()
        assert inside.wait(PATIENCE)

    share_out([task], 1)
    first_is_over.set()
    thread.join(PATIENCE)
    assert len(seen) == 2
    assert all(set(found) == {1} for found in seen)
    with one_blas_thread(), one_blas_thread():
        assert set(blas()) == {1}


def test_blas_is_left_as_it_was_by_an_error():
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        raise ZeroDivisionError


def test_blas_is_left_as_it_was_where_holding_it_fails(monkeypatch):
    """An interrupt may come when some of the libraries have been told already."""
    original = _blas._Blas.set

    def interrupted(self, *, held):
        original(self, held=held)
        if held or len(attempts) < 2:
            attempts.append(held)
            raise KeyboardInterrupt

    attempts = []
    monkeypatch.setattr(_blas._Blas, "set", interrupted)
    with pytest.raises(KeyboardInterrupt), one_blas_thread():
        raise AssertionError("entered")
    assert attempts == [True, False]


@pytest.mark.parametrize("library", BLAS, ids=lambda library: library.internal_api)
def test_a_library_is_told_by_itself_or_by_way_of_threadpoolctl(library):
    """From any thread: threadpoolctl alone would heed the first one that asks."""
    for control in (_blas._control(library), _blas._own_control(library)):
        if control is None:  # a library that is not OpenBLAS with threads of the process
            continue
        for threads in (1, 2, 3):
            told = threading.Thread(target=control.set_threads, args=(threads,))
            told.start()
            told.join()
            assert control.threads() == library.get_num_threads() == threads


# ------------------------------------------------------------------------------------------------------ interrupts


@pytest.fixture
def interruptible():
    """Ctrl-C is what it is in a program of one's own, whoever runs the tests."""
    assert threading.current_thread() is threading.main_thread(), "signals reach the main thread only"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("whose", ["the caller's", "the crew's"])
def test_an_interrupt_inside_a_task_is_raised_by_the_call(whose):
    caller, meeting = threading.current_thread(), Meeting(2)

    def task():
        meeting.come()
        if (threading.current_thread() is caller) == (whose == "the caller's"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share_out([task] * 10_000, 2)
    test_as_many_threads_take_part_as_are_asked_for()


def test_a_signal_during_a_tile_ends_the_convolution(eager, interruptible):
    caller = threading.current_thread()

    def activation(y):
        if threading.current_thread() is caller:
            signal.raise_signal(signal.SIGINT)
        return y

    with pytest.raises(KeyboardInterrupt):
        xconv.conv(X, W, activation=activation)


def test_an_interrupt_waits_for_the_tasks_that_are_running(interruptible):
    """The caller has nothing left to do and waits for the crew, when the interrupt comes."""
    caller, meeting = threading.current_thread(), Meeting(2)
    over = threading.Event()

    def task():
        meeting.come()
        if threading.current_thread() is not caller:
            _thread.interrupt_main()
            time.sleep(0.05)
            _thread.interrupt_main()
            time.sleep(0.05)
            over.set()

    with pytest.raises(KeyboardInterrupt):
        share_out([task, task], 2)
    assert over.is_set()


def test_interrupts_at_any_moment_leave_blas_and_the_crew_as_they_were(eager, interruptible):
    expected = xconv.conv(X, W, padding=1)
    before = blas()
    for attempt in range(60):
        with contextlib.suppress(KeyboardInterrupt):
            timer = threading.Timer(attempt * 1e-4, _thread.interrupt_main)
            late = time.monotonic() + PATIENCE
            timer.start()
            while time.monotonic() < late:
                xconv.conv(X, W, padding=1)
            raise AssertionError("no interrupt")
        assert blas() == before
        assert not _blas._blas.holders
    np.testing.assert_array_equal(xconv.conv(X, W, padding=1), expected)


# ------------------------------------------------------------------------------------------------ many callers


class Deliberate(Exception):
    """What an activation raises in these tests."""


def deliberate(y):
    raise Deliberate


STRESS = {
    "winograd": lambda: xconv.conv(X, W, padding=1, algorithm="winograd"),
    "im2col": lambda: xconv.conv(X, W, stride=2, algorithm="im2col"),
    "fft": lambda: xconv.conv(X[:1], W, algorithm="fft"),
    "middling": lambda: xconv.dense(X.reshape(-1, 8), W.reshape(8, -1)),
    "pieces": lambda: xconv.dense(X.reshape(-1, 8).astype("f8"), np.tile(W.reshape(8, -1).astype("f8"), 50)),
    "transposed": lambda: xconv.conv_transpose(X[:1, :9, :9], W[..., :8, :4].swapaxes(2, 3), stride=2),
    "pool": lambda: xconv.max_pool(X, 3, stride=2),
    "activation": lambda: xconv.conv(X, W, activation="silu"),
    "depthwise": lambda: xconv.depthwise_conv(X, W[..., :1]),
}


def test_eight_callers_at_once(eager):
    """Different problems, again and again, some of which fail: right results, and BLAS as before."""
    expected = {name: call() for name, call in STRESS.items()}
    wrong = []

    def work(number):
        names = list(STRESS)[number:] + list(STRESS)[:number]
        for turn in range(6):
            for name in names:
                if not np.array_equal(STRESS[name](), expected[name]):
                    wrong.append(name)
            try:
                xconv.conv(X, W, padding=turn, activation=deliberate)
                wrong.append("no error")
            except Deliberate:
                pass

    def working(number, settings):
        try:
            with xconv.config(**settings):
                work(number)
        except BaseException as error:
            wrong.append(error)

    settings = {"threads": 4, "cache": 2**15}
    callers = [threading.Thread(target=working, args=(i, settings), daemon=True) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong


def test_a_crew_that_is_busy_is_not_waited_for():
    busy, meeting = threading.Event(), Meeting(2)

    def long():
        meeting.come()
        if threading.current_thread() is not other:
            assert busy.wait(PATIENCE)

    other = threading.Thread(target=share_out, args=([long, long], 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_threads, "_crew", _threads._Crew())  # of one thread, which is inside `long`
        other.start()
        while len(meeting.met) < 2:
            time.sleep(0.001)
        done = []
        share_out([lambda: done.append(1)] * 5, 2)
        assert done == [1] * 5
        busy.set()
        other.join(PATIENCE)
        assert not other.is_alive()


# --------------------------------------------------------------------------------------------- calls inside calls

MIX = numbers((1, 1, 6, 6), seed=3)
SMALL, SMALL_W = numbers((1, 14, 14, 6), seed=4), numbers((3, 3, 6, 6), seed=5)


def test_an_activation_may_convolve(eager):
    """On every thread, tile by tile, with tiles of its own."""
    expected = xconv.conv(X, W)
    expected = expected + np.einsum("nhwi,io->nhwo", expected, MIX[0, 0]) + xconv.conv(SMALL, SMALL_W).sum()

    def activation(y):
        return y + xconv.conv(y, MIX) + xconv.conv(SMALL, SMALL_W).sum()

    with xconv.config(cache=2**13):
        assert tiles(xconv.conv, X, W, activation=activation).tiles > 4
        assert_close(xconv.conv(X, W, activation=activation), expected)


INNER = {
    **{
        name: (lambda x, name=name: xconv.conv(x, SMALL_W, padding=1, algorithm=name))
        for name in ("direct", "im2col", "kn2row", "banded", "winograd", "fft", "auto")
    },
    "pointwise": lambda x: xconv.conv(x, MIX, algorithm="pointwise"),
    "strided": lambda x: xconv.conv(x, SMALL_W[:, :, :, :5], stride=2),
    "depthwise": lambda x: xconv.depthwise_conv(x, SMALL_W[..., :1], padding=1),
    "transposed": lambda x: xconv.conv_transpose(x, SMALL_W, stride=2),
    "wrap": lambda x: xconv.conv(x, SMALL_W, padding=2, pad_mode="wrap"),
    "unfold": lambda x: xconv.unfold(x, 3, padding=1),
    "fold": lambda x: xconv.fold(x[..., :4], (15, 15), 2),
    "max_pool": lambda x: xconv.max_pool(x, 2, padding=1),
    "pool-of-one": lambda x: xconv.max_pool(x, 1, stride=2),
    "avg_pool": lambda x: xconv.avg_pool(x, 3, stride=1, padding=1),
    "dense": lambda x: xconv.dense(x, MIX[0, 0]),
    "pad": lambda x: xconv.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0))),
}


@pytest.mark.parametrize("name", INNER)
def test_what_a_call_inside_a_tile_gives_is_not_taken_back(name):
    """Memory is used again from tile to tile, but never that of a result."""
    expected = INNER[name](SMALL)
    with scratch():  # where a thread of the crew runs its tiles, and an activation its calls
        result = INNER[name](SMALL)
        before = result.copy()
        for other in INNER.values():
            other(-SMALL)
        np.testing.assert_array_equal(result, before)
    assert_close(result, expected)


def test_a_call_inside_a_planned_call_has_a_kernel_of_its_own():
    """Even if it is the same problem."""
    x, w, other = numbers((1, 6, 6, 6)), MIX, numbers(MIX.shape, seed=6)
    y = xconv.conv(x, w)
    layer = xconv.plan(xconv.conv, x, w, activation=lambda y: xconv.conv(y, other))
    for _ in range(3):
        assert_close(layer(x), xconv.conv(y, other))


def test_a_planned_call_inside_a_planned_call():
    x, w = numbers((1, 6, 6, 6)), MIX
    inner = xconv.plan(xconv.conv, x, numbers(MIX.shape, seed=6))
    outer = xconv.plan(xconv.conv, x, w, activation=inner)
    for _ in range(3):
        assert_close(outer(x), inner(xconv.conv(x, w)))


# ------------------------------------------------------------------------------------------------------ processes


def in_child(work):
    """Whether ``work()`` gives True in a forked child, in good time."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # that a process with threads is forked is the point
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() is True else 2
        finally:
            os._exit(code)
    late = time.monotonic() + PATIENCE
    while time.monotonic() < late:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def takes_part(count):
    """Whether the crew of this process is at work, with ``count`` threads in all."""
    meeting = Meeting(count)
    share_out([meeting.come] * 20, count)
    return len(meeting.met) == count


@needs_fork
def test_a_forked_child_has_a_crew_of_its_own(eager):
    expected, before = xconv.conv(X, W), blas()
    assert takes_part(4)

    def work():
        right = [np.array_equal(xconv.conv(X, W), expected) for _ in range(3)]
        return all(right) and takes_part(4) and blas() == before

    assert in_child(work)
    assert takes_part(4)
    np.testing.assert_array_equal(xconv.conv(X, W), expected)


@needs_fork
def test_a_child_forked_in_the_middle_of_another_threads_call(eager):
    """There the other thread does not exist, and what it held is free: BLAS has its threads, locks are open."""
    expected, before = xconv.conv(X, W, algorithm="im2col"), blas()
    inside, go_on = threading.Event(), threading.Event()

    def activation(y):
        inside.set()
        assert go_on.wait(PATIENCE)
        return y

    def call():
        with xconv.config(threads=4, cache=2**15):
            results.append(xconv.conv(X, W, activation=activation, algorithm="im2col"))

    results = []
    other = threading.Thread(target=call)
    other.start()
    assert inside.wait(PATIENCE)
    assert set(blas()) == {1}

    def work():
        first = blas()
        y = xconv.conv(X, W, algorithm="im2col")
        return first == before and np.array_equal(y, expected) and blas() == before

    try:
        assert in_child(work)
    finally:
        go_on.set()
        other.join(PATIENCE)
    np.testing.assert_array_equal(results[0], expected)


def test_where_no_thread_can_be_started_the_caller_does_everything(eager, monkeypatch):
    expected = {name: call() for name, call in STRESS.items()}

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_threads, "_crew", _threads._Crew())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for name, call in STRESS.items():
            np.testing.assert_array_equal(call(), expected[name])
        assert len(_threads._crew.threads) == 0
    assert takes_part(3)  # as soon as it can be started


# -------------------------------------------------------------------------------------------- context and memory


def test_the_crew_works_in_the_context_of_the_call(eager):
    seen, meeting = {}, Meeting(4)

    def activation(y):
        meeting.come()
        seen[threading.get_ident()] = (np.geterr()["over"], _config.settings())
        return y

    with np.errstate(over="raise"), xconv.config(precision="strict"):
        meant = ("raise", _config.settings())
        xconv.conv(X, W, activation=activation)
    assert len(seen) == 4
    assert set(seen.values()) == {meant}
    seen.clear()
    meeting = Meeting(4)
    with np.errstate(over="ignore"):
        xconv.conv(X, W, activation=activation)
    assert {found for found, _ in seen.values()} == {"ignore"}


def test_floating_point_errors_are_reported_from_every_thread(eager):
    big = np.full(X.shape, 1e30, "float32")
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        xconv.conv(big, W, activation=lambda y: y * np.float32(1e30))


def test_memory_is_given_back_after_a_call(eager, monkeypatch):
    """Neither arrays nor, beyond what is kept for the next call, what tiles have used is kept by any thread."""
    monkeypatch.setattr(_scratch, "KEEP", 0)
    x, w = np.repeat(X, 4, axis=0), W.copy()
    with xconv.config(cache=2**17):
        xconv.conv(x, w, padding=1)
        gc.collect()
        tracemalloc.start()
        try:
            result = xconv.conv(x, w, padding=1)
            left, peak = (size - result.nbytes for size in tracemalloc.get_traced_memory())
        finally:
            tracemalloc.stop()
    assert peak > 2**16
    assert left < peak / 2
    arrays = weakref.ref(x), weakref.ref(w), weakref.ref(result)
    del x, w, result
    assert [array() for array in arrays] == [None, None, None]


@pytest.mark.parametrize("times", [1, 5], ids=["as ever", "played, if it can be"])
def test_the_next_call_uses_the_memory_of_tiles_again(eager, monkeypatch, times):
    if times == 1:
        monkeypatch.setattr("xconv._tiles.repeated", lambda *_: False)
    x = np.repeat(X, 4, axis=0)
    with xconv.config(cache=2**17, threads=1):
        for _ in range(times):
            result = xconv.conv(x, W, padding=1)
        tracemalloc.start()
        try:
            del result
            result = xconv.conv(x, W, padding=1)
            left, peak = (size - result.nbytes for size in tracemalloc.get_traced_memory())
        finally:
            tracemalloc.stop()
    assert max(left, peak) < 2**16


def test_memory_is_given_back_after_an_error(eager):
    x = X.copy()
    array = weakref.ref(x)
    with pytest.raises(Deliberate):
        xconv.conv(x, W, activation=deliberate)
    del x
    late = time.monotonic() + PATIENCE
    while array() is not None and time.monotonic() < late:
        gc.collect()  # an error holds the frames that it has passed, and what they hold
        time.sleep(0.001)  # and a thread of the crew holds the call until it is about to sleep
    assert array() is None


# --------------------------------------------------------------------------------------------------- identical bits


def of_dtype(dtype):
    """The arrays X and W in a dtype."""
    if dtype == "int8":
        return numbers(X.shape, dtype, seed=1), numbers(W.shape, dtype, seed=2)
    return numbers(X.shape, dtype, seed=1), numbers(W.shape, dtype, seed=2)


def forced():
    """Every algorithm on every dtype that it can do."""
    for name, dtype in itertools.product(
        ("direct", "im2col", "kn2row", "banded", "winograd", "fft", "auto"),
        ("float32", "float64", "complex64", "int8"),
    ):
        if dtype == "int8" and name in ("winograd", "fft"):
            continue
        x, w = of_dtype(dtype)
        yield f"{name}-{dtype}", lambda x=x, w=w, name=name: xconv.conv(x, w, padding=1, algorithm=name)
    for dtype in ("float32", "float64", "complex64", "int8"):
        x, w = of_dtype(dtype)
        yield f"pointwise-{dtype}", lambda x=x, w=w: xconv.conv(x, w[:1, :1], algorithm="pointwise")
        each = w[..., :2]
        if dtype.startswith("float"):
            one = x[..., :1], w[:, :, :1, :1]
            yield f"spectral-{dtype}", lambda one=one: xconv.conv(*one, padding=1, algorithm="spectral")
        for name in ("depthwise", "banded"):
            yield (
                f"depthwise-{name}-{dtype}",
                lambda x=x, w=each, name=name: xconv.depthwise_conv(x, w, padding=1, algorithm=name),
            )


LONG = numbers((1, 20_000, 4), seed=7)
WIDE = numbers((6, 30, 30, 64), seed=8)

CALLS = {
    **dict(forced()),
    "groups": lambda: xconv.conv(X, W[:, :, :4], groups=2, activation="silu"),
    "rows": lambda: xconv.conv(LONG, numbers((9, 4, 4)), padding="same"),
    "batch": lambda: xconv.conv(np.repeat(X, 8, axis=0), W[:2, :2], algorithm="im2col"),
    "strided": lambda: xconv.conv(X, W, stride=(2, 1), dilation=(1, 2), padding=3, pad_mode="reflect"),
    "float16": lambda: xconv.conv(X.astype("float16"), W.astype("float16"), padding=1),
    "volume": lambda: xconv.conv(
        WIDE.reshape(1, 18, 15, 20, 64), numbers((3, 3, 3, 64, 8)), activation="gelu"
    ),
    "channels-first": lambda: xconv.conv(
        np.moveaxis(X, -1, 1),
        np.moveaxis(W, (-1, -2), (0, 1)),
        numbers((6,)),
        layout="NCHW",
        activation="mish",
    ),
    "transposed": lambda: xconv.conv_transpose(X, W.swapaxes(2, 3), stride=2, padding="same"),
    "transposed-3-phases": lambda: xconv.conv_transpose(LONG, numbers((7, 5, 4)), stride=3),
    "general": lambda: xconv.conv_general(X, W, input_dilation=2, padding=((3, -1), (-2, 4))),
    "separable": lambda: xconv.separable_conv(X, W[..., :2], numbers((1, 1, 16, 12)), activation="tanh"),
    "residual": lambda: xconv.conv(
        X, W, padding=1, residual=numbers((2, 40, 40, 6), seed=9), activation="elu"
    ),
    "planned": lambda: xconv.plan(xconv.conv, WIDE.shape, numbers((3, 3, 64, 32)))(WIDE),
    "unfold": lambda: xconv.unfold(X, 3),
    "fold": lambda: xconv.fold(X, (41, 41), 2),
    "max_pool": lambda: xconv.max_pool(WIDE, 3, stride=2, padding=1),
    "max_pool-indices": lambda: xconv.max_pool(X, 3, return_indices=True)[1],
    "avg_pool": lambda: xconv.avg_pool(WIDE, 3, stride=1, padding=1),
    "lp_pool": lambda: xconv.lp_pool(WIDE, 3, p=3),
    "adaptive": lambda: xconv.adaptive_avg_pool(WIDE, (7, 11)),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_number_of_threads_gives_the_same_bits(eager, name):
    with xconv.config(threads=1):
        alone = CALLS[name]()
    for threads in (2, 3, 8):
        with xconv.config(threads=threads):
            np.testing.assert_array_equal(CALLS[name](), alone, strict=True)


def test_those_calls_are_shared_out(eager, monkeypatch):
    """Or the test above says nothing."""
    counts = []

    def counted(tasks, threads, around, *hold):
        tasks = list(tasks)
        counts[-1] = max(counts[-1], len(tasks) if threads > 1 else 0)
        run_all(iter(tasks), threads, around, *hold)

    monkeypatch.setattr("xconv._tiles.run_all", counted)
    monkeypatch.setattr("xconv._repeats.run_all", counted)
    if "xconv._bridges.numba.sharing" in sys.modules:  # where there are compiled movers
        run = sys.modules["xconv._bridges.numba.crew"].run

        def led(work, size, count, unit, helpers, arguments):
            counts[-1] = max(counts[-1], count if helpers else 0)
            run(work, size, count, unit, helpers, arguments)

        monkeypatch.setattr("xconv._bridges.numba.sharing.run", led)
    for name, call in CALLS.items():
        counts.append(0)
        call()
        assert counts[-1] > 1, name


def test_by_default_too_the_bits_do_not_depend_on_threads():
    """On the plans of this machine, and with products large enough to be shared out themselves."""
    x = numbers((1, 80, 80, 128), seed=10)
    for w in (numbers((1, 1, 128, 96)), numbers((3, 3, 128, 32))):
        results = []
        for threads in (1, 2, 3, 8):
            with xconv.config(threads=threads):
                results.append(xconv.conv(x, w))
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be kept off a CPU here")
def test_a_small_crew_keeps_off_the_callers_cpu(eager, monkeypatch):
    """A scheduler may wake a thread on the CPU that it was woken from, where it waits for the caller."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("there is one CPU")
    crew = _threads._Crew()
    monkeypatch.setattr(_threads, "_crew", crew)
    for cpu in sorted(allowed)[:2]:
        monkeypatch.setattr(_threads, "_current_cpu", lambda cpu=cpu: cpu)
        _threads.run_all(iter([lambda: None] * 4), 2, contextlib.nullcontext)
        assert [os.sched_getaffinity(t.native_id) for t in crew.threads] == [allowed - {cpu}]
    assert os.sched_getaffinity(0) == allowed


# ------------------------------------------------------------------------------------------------ awake processors


def keepers():
    """The threads of this process that run only where nobody else wants to, and the signals that they block."""
    found = []
    for task in tasks():
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(int(task)) == os.SCHED_IDLE:
                status = Path("/proc/self/task", task, "status").read_text(encoding="utf-8")
                found.append(int(status.partition("SigBlk:")[2].split()[0], 16))
    return found


def tasks():
    """The threads of this process; Linux ends the list at one that dies as it is read, so two in a row must agree."""
    before = None
    while (now := [task.name for task in Path("/proc/self/task").iterdir()]) != before:
        before = now
    return now


def until(condition):
    late = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < late:
        time.sleep(0.001)
    return condition()


needs_keepers = pytest.mark.skipif(
    not hasattr(os, "SCHED_IDLE")
    or not 1 < len(os.sched_getaffinity(0)) <= min(cores(), _awake.MOST)
    or _awake._library() is None,
    reason="processors are kept awake on Linux, on machines with a few of them, all of their time ours",
)


@needs_keepers
def test_processors_are_kept_awake_during_a_call_and_a_little_longer():
    everybody = len(os.sched_getaffinity(0))
    assert until(lambda: not keepers())
    met = []
    share_out([lambda: met.append(keepers())] * 2, everybody)
    assert [len(found) for found in met] == [everybody] * 2
    stop = {int(signal.SIGINT), int(signal.SIGTERM)}
    assert all(blocked >> (number - 1) & 1 for blocked in met[0] for number in stop)
    assert until(lambda: not keepers())


@needs_keepers
def test_they_stay_awake_from_call_to_call():
    everybody, random = len(os.sched_getaffinity(0)), np.random.default_rng(0)
    for _ in range(300):  # some of which begin while keepers leave
        met = []
        share_out([lambda met=met: met.append(until(lambda: len(keepers()) == everybody))], everybody)
        assert met == [True]
        time.sleep(_threads.A_WHILE * random.uniform(0.5, 1.5))
    assert until(lambda: not keepers())


@needs_keepers
def test_calls_from_many_threads_share_them():
    everybody = len(os.sched_getaffinity(0))
    for _ in range(20):
        assert until(lambda: not keepers())
        start, counts = threading.Barrier(8), []

        def work(start=start, counts=counts):
            start.wait(timeout=PATIENCE)
            share_out([lambda: counts.append(len(keepers()))] * 3, everybody)

        callers = [threading.Thread(target=work) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(timeout=PATIENCE)
        assert counts == [everybody] * 24


@needs_keepers
def test_they_may_sleep_where_a_call_does_not_use_them_all():
    assert until(lambda: not keepers())
    met = []
    share_out([lambda: met.append(keepers())], 1)
    assert met == [[]]


@needs_keepers
def test_a_call_that_is_interrupted_lets_them_sleep():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share_out([interrupt], len(os.sched_getaffinity(0)))
    assert until(lambda: not keepers())


@needs_keepers
@needs_fork
def test_a_child_has_keepers_of_its_own():
    everybody = len(os.sched_getaffinity(0))
    share_out([lambda: None], everybody)

    def work():
        met = []
        share_out([lambda: met.append(len(keepers()))], everybody)
        return met == [everybody] and until(lambda: not keepers())

    assert in_child(work)


@needs_keepers
@pytest.mark.parametrize("missing", ["a thread", "a policy", "the library"])
def test_where_there_can_be_no_keepers_nothing_is_missing(monkeypatch, missing):
    def refuse(*_):
        raise PermissionError

    assert until(lambda: not keepers())
    monkeypatch.setattr(_awake, "_watch", _awake._Watch())
    if missing == "a thread":
        monkeypatch.setattr(_awake, "_started", lambda *_: None)
    elif missing == "a policy":
        monkeypatch.setattr(os, "sched_setscheduler", refuse)
    else:
        monkeypatch.setattr(_awake, "_library", lambda: None)
    done = []
    share_out([lambda: done.append(1)] * 3, len(os.sched_getaffinity(0)))
    assert done == [1, 1, 1]
    assert until(lambda: not keepers())
