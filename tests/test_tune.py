"""Tuning measures what can do a call and remembers the fastest, which the planner takes. No test looks at a clock."""

import io
import sys
from itertools import count

import numpy as np
import pytest

import xconv
from xconv import _race, _remembered, _tune
from xconv._algorithms import ALGORITHMS
from xconv._namespace import NUMPY
from xconv._plan import plan_conv
from xconv._race import Judge, Line, race
from xconv._tune import Timing, Tuning

RANDOM = np.random.default_rng(0)
X = RANDOM.random((1, 9, 8, 4), dtype=np.float32)
W = RANDOM.random((3, 3, 4, 6), dtype=np.float32)
B = RANDOM.random(6, dtype=np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty memory, bursts of three calls, and afterwards no trace of what was tuned."""
    monkeypatch.setenv("XCONV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(_remembered, "_own", {})
    monkeypatch.setattr(_race, "BURST", 0.0)
    _remembered.reread()
    plan_conv.cache_clear()
    yield tmp_path
    _remembered.reread()
    plan_conv.cache_clear()


def algorithm_of(function, *arrays, **options):
    return xconv.explain(function, *arrays, **options).algorithm


def seconds_by(monkeypatch, call, planned):
    """Let the race end with these seconds, for calls of the function and of a plan."""
    results = iter((call, planned))

    def fixed(calls, estimates, judge, say):
        for name, function in calls.items():
            judge(name, function())
        times = next(results)
        return {name: times.get(name, 9.0) for name in calls}

    monkeypatch.setattr(_tune, "race", fixed)


# --------------------------------------------------------------------------------------------- the whole way


def test_the_winner_is_what_the_planner_then_takes(monkeypatch):
    seconds_by(monkeypatch, {"direct": 0.001, "im2col": 0.002}, {"direct": 0.004, "im2col": 0.003})
    tuning = xconv.tune(xconv.conv, X, W, padding=1)
    assert (tuning.algorithm, tuning.algorithm_planned) == ("direct", "im2col")
    assert algorithm_of(xconv.conv, X, W, padding=1) == "direct"
    assert "tune() found direct" in str(xconv.explain(xconv.conv, X, W, padding=1))
    problem = xconv.explain(xconv.conv, X, W, padding=1).plan.problem
    assert _remembered.choice(problem, NUMPY, bound=True) == "im2col"
    assert algorithm_of(xconv.conv, X, W, padding=1, algorithm="im2col") == "im2col"
    _remembered._own.clear()
    _remembered.reread()
    plan_conv.cache_clear()  # as in a new process
    assert algorithm_of(xconv.conv, X, W, padding=1) == "direct"


def test_another_winner_replaces_it(monkeypatch):
    seconds_by(monkeypatch, {"direct": 0.001}, {"direct": 0.001})
    xconv.tune(xconv.conv, X, W)
    seconds_by(monkeypatch, {"im2col": 0.001}, {"direct": 0.001})
    tuning = xconv.tune(xconv.conv, X, W)
    assert algorithm_of(xconv.conv, X, W) == tuning.algorithm == "im2col"


def test_a_remembered_algorithm_that_cannot_do_it_is_not_taken(monkeypatch):
    estimated = algorithm_of(xconv.conv, X, W)
    plan = xconv.explain(xconv.conv, X, W).plan
    for name in ("pointwise", "no such algorithm"):
        _remembered.remember(plan.problem, plan.traits, bound=False, algorithm=name, seconds=1.0)
        plan_conv.cache_clear()
        assert algorithm_of(xconv.conv, X, W) == estimated


def test_tuning_gives_every_able_algorithm_and_really_measures():
    tuning = xconv.tune(xconv.conv, X, W, B, activation="relu", padding="same")
    plan = xconv.explain(xconv.conv, X, W, B, activation="relu", padding="same").plan
    assert {timing.algorithm for timing in tuning.ranking} == {bid.algorithm for bid in plan.candidates}
    assert len(tuning.ranking) > 1
    assert all(timing.call > 0 and timing.planned > 0 for timing in tuning.ranking)
    assert [t.call for t in tuning.ranking] == sorted(t.call for t in tuning.ranking)
    assert plan.algorithm == tuning.algorithm
    assert tuning.speedup >= 1
    assert tuning.speedup_planned >= 1


@pytest.mark.parametrize(
    ("function", "arrays", "options"),
    [
        (xconv.conv2d, (X, W, B), {"layout": "NHWC", "stride": 2}),
        (xconv.conv1d, (X[0], W[0]), {}),
        (xconv.conv, (X[0], W), {}),
        (xconv.conv, (X.astype("float16"), W.astype("float16")), {}),
        (xconv.conv, (X.astype("complex64"), W.astype("complex64")), {}),
        (xconv.conv, ((9 * X).astype("int32"), (9 * W).astype("int32")), {}),
        (xconv.conv, ((9 * X).astype("uint8"), (9 * W).astype("uint8")), {}),
        (xconv.conv_general, (X, W), {"input_dilation": 2, "padding": ((-1, 2), (3, 0))}),
        (xconv.depthwise_conv, (X, W[..., :2]), {}),
        (xconv.conv_transpose, (X, np.swapaxes(W, 2, 3)[:, :, :, :4], B), {"stride": 2}),
    ],
)
def test_what_can_be_tuned(function, arrays, options):
    tuning = xconv.tune(function, *arrays, **options)
    assert algorithm_of(function, *arrays, **options) == tuning.algorithm
    assert _remembered.count() == 2


def test_a_strict_precision_is_another_problem(monkeypatch):
    seconds_by(monkeypatch, {"direct": 0.001}, {})
    with xconv.config(precision="strict"):
        xconv.tune(xconv.conv, X, W)
        assert algorithm_of(xconv.conv, X, W) == "direct"
    assert _remembered.choice(xconv.explain(xconv.conv, X, W).plan.problem, NUMPY, bound=False) is None


# --------------------------------------------------------------------------------------------- what is refused


def test_functions_without_a_choice_are_refused():
    for function in (xconv.max_pool, xconv.dense, xconv.separable_conv, len):
        with pytest.raises(ValueError, match=r"^function must be one of conv, .*\n  in tune\("):
            xconv.tune(function, X, W)


def test_a_named_algorithm_is_refused():
    with pytest.raises(ValueError, match=r"^algorithm must be left out.*got algorithm='direct'"):
        xconv.tune(xconv.conv, X, W, algorithm="direct")


def test_a_mistake_in_the_call_is_the_functions_own():
    with pytest.raises(ValueError, match=r"stride must be positive; got stride=0\n  in conv\("):
        xconv.tune(xconv.conv, X, W, stride=0)


@pytest.mark.parametrize("x", [X[:0], X[:, :0]])
def test_an_empty_call_is_refused(x):
    with pytest.raises(ValueError, match="x must give a result that takes some work"):
        xconv.tune(xconv.conv, x, W, padding=3)


def test_a_shape_is_refused():
    with pytest.raises(TypeError, match=r"x must be an array, not a shape.*got x=\(1, 9, 8, 4\)"):
        xconv.tune(xconv.conv, X.shape, W)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_not_finite_is_refused(value, folder):
    with pytest.raises(ValueError, match="the result must be finite"), np.errstate(invalid="ignore"):
        xconv.tune(xconv.conv, np.full_like(X, value), W)
    assert list(folder.iterdir()) == []


@pytest.mark.backends("dask")
def test_a_chunked_array_is_refused(backend):
    with pytest.raises(TypeError, match=r"x must be in memory as a whole: tune for one of its chunks"):
        xconv.tune(xconv.conv, backend.asarray(X), backend.asarray(W))


@pytest.mark.backends("jax")
def test_a_traced_array_is_refused(backend):
    import jax

    with pytest.raises(TypeError, match=r"x must hold values: what is being traced cannot be measured"):
        jax.jit(lambda x: xconv.tune(xconv.conv, x, backend.asarray(W)))(backend.asarray(X))


@pytest.mark.backends("torch", "jax", "strict", "cupy")
def test_other_libraries_are_tuned(backend):
    x, w = backend.asarray(X), backend.asarray(W)
    tuning = xconv.tune(xconv.conv, x, w, padding=1)
    assert algorithm_of(xconv.conv, x, w, padding=1) == tuning.algorithm


# --------------------------------------------------------------------------------- wrong results, interrupts


def broken(monkeypatch, error):
    """Let im2col give a wrong result, or end with an exception."""
    run = ALGORITHMS["im2col"].run

    def wrong(*args, **options):
        if isinstance(error, BaseException):
            raise error
        y = np.array(run(*args, **options))
        y[0, 0, 0, 0] += error
        return y

    monkeypatch.setattr(ALGORITHMS["im2col"], "run", wrong)


def test_a_wrong_result_is_an_error_and_nothing_is_remembered(monkeypatch, folder):
    broken(monkeypatch, 0.1)
    with pytest.raises(AssertionError, match=r"(im2col and|and im2col).* give different results"):
        xconv.tune(xconv.conv, X, W)
    assert list(folder.iterdir()) == []
    assert _remembered.count() == 0


def test_rounding_is_no_error(monkeypatch):
    broken(monkeypatch, 1e-6)
    xconv.tune(xconv.conv, X, W)


def test_an_interrupt_leaves_nothing(monkeypatch, folder):
    broken(monkeypatch, KeyboardInterrupt())
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyboardInterrupt):
        xconv.tune(xconv.conv, X, W)
    assert list(folder.iterdir()) == []
    assert _remembered.count() == 0
    assert sys.stderr.getvalue().endswith(" \r")


# ------------------------------------------------------------------------------------------------- the judge


def judged(first, other, scale=0.0):
    judge = Judge(np, scale)
    judge("one", first)
    judge("other", other)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (np.float32([1, 2]), np.float32([1, 2.001])),
        (np.float32([1, 2]), np.float32([1, np.nan])),
        (np.float32([1, 2]), np.float64([1, 2])),
        (np.float32([1, 2]), np.float32([[1, 2]])),
        (np.float64([1, 2]), np.float64([1, 2 + 1e-9])),
        (np.complex64([1]), np.complex64([1 + 0.001j])),
        (np.float16([1, 2]), np.float16([1, 2.1])),
        (np.int64([1, 2**60]), np.int64([1, 2**60 + 1])),
        (np.uint8([1]), np.uint8([0])),
        (np.float32([0]), np.float32([1e-30])),
    ],
)
def test_results_that_differ_are_told_apart(first, other):
    judged(first, first.copy())
    with pytest.raises(AssertionError, match="other and one give different results"):
        judged(first, other)


def test_the_scale_of_the_products_makes_room_for_rounding():
    judged(np.float32([0, 0]), np.float32([0, 1e-5]), scale=1.0)
    with pytest.raises(AssertionError):
        judged(np.float32([0, 0]), np.float32([0, 1e-2]), scale=1.0)


# -------------------------------------------------------------------------------------------------- the race


class Clock:
    """A clock that stands still, but for calls that take the seconds they are given."""

    def __init__(self, monkeypatch):
        self.now, self.order = 0.0, []
        monkeypatch.setattr(_race, "clock", lambda: self.now)

    def calls(self, **seconds):
        def call(name, durations):
            self.order.append(name)
            self.now += next(durations)
            return np.ones(1)

        streams = {
            name: iter(value) if isinstance(value, list) else repeated(value)
            for name, value in seconds.items()
        }
        return {name: lambda name=name: call(name, streams[name]) for name in seconds}


def repeated(value):
    return (value for _ in count())


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def ignore(*_):
    pass


def test_the_race_gives_medians(clock):
    first, warm = 9.0, 8.0
    calls = clock.calls(
        a=[first, *(warm, 1.0, 50.0, 1.0), *(warm, 1.0, 60.0, 1.0), *(warm, 1.0, 1.0, 1.0)], b=1.5
    )
    assert race(calls, {"a": 1.0, "b": 1.0}, ignore, ignore) == {"a": 1.0, "b": 1.5}


def test_bursts_are_taken_by_turns(clock):
    race(clock.calls(a=1.0, b=1.5), {"a": 1.0, "b": 1.0}, ignore, ignore)
    changes = [clock.order[0]]
    for name in clock.order:
        if name != changes[-1]:
            changes.append(name)
    assert changes == ["a", "b"] * (1 + _race.ROUNDS)


def test_a_slow_one_is_dropped_after_a_round(clock):
    seconds = race(clock.calls(a=1.0, b=2.5), {"a": 1.0, "b": 1.0}, ignore, ignore)
    assert seconds == {"a": 1.0, "b": 2.5}
    last = len(clock.order) - 1 - clock.order[::-1].index("b")
    assert set(clock.order[last + 1 :]) == {"a"}
    assert clock.order.count("b") < clock.order.count("a")


@pytest.mark.parametrize(("duration", "calls"), [(2.5, 1), (0.5, 14)])
def test_one_that_is_estimated_hopeless_must_be_quick_at_once(clock, duration, calls):
    contestants = clock.calls(a=1.0, b=duration)
    seconds = race(contestants, {"a": 1.0, "b": 10.5}, ignore, ignore)
    assert seconds["b"] == duration
    assert (clock.order.count("b") > 1) == (calls > 1)


def test_short_calls_fill_the_burst(clock, monkeypatch):
    monkeypatch.setattr(_race, "BURST", 1.0)
    race(clock.calls(a=0.0625), {"a": 1.0}, ignore, ignore)
    assert len(clock.order) == 1 + _race.ROUNDS * (2 + 16)
    clock.order.clear()
    race(clock.calls(a=0.0), {"a": 1.0}, ignore, ignore)
    assert len(clock.order) == 1 + _race.ROUNDS * (2 + _race.MOST)


def test_every_first_result_is_judged(clock):
    seen = []
    race(
        clock.calls(a=1.0, b=99.0),
        {"a": 1.0, "b": 99.0},
        lambda name, y: seen.append((name, y.shape)),
        ignore,
    )
    assert seen == [("a", (1,)), ("b", (1,))]


# -------------------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    """A stream with somebody in front of it."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "said"),
    [(io.StringIO, None, False), (io.StringIO, True, True), (Terminal, None, True), (Terminal, False, False)],
)
def test_progress_is_for_terminals_or_on_demand(monkeypatch, stream, progress, said):
    monkeypatch.setattr(sys, "stderr", stream())
    xconv.tune(xconv.conv, X, W, progress=progress)
    text = sys.stderr.getvalue()
    assert bool(text) == said
    if said:
        assert "tune conv: direct, first call" in text
        assert "tune conv, with a plan: " in text
        assert ("\r" in text) == (stream is Terminal)
        assert ("\n" in text) == (stream is not Terminal)


def test_a_terminal_shows_one_line_and_in_the_end_none(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = Line("tune: ", wanted=None)
    line.show("something long")
    line.show("short")
    line.clear()
    assert sys.stderr.getvalue() == "\rtune: something long\rtune: short         \r           \r"


def test_what_is_printed_goes_nowhere_else(capsys):
    xconv.tune(xconv.conv, X, W)
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------ the answer


def test_the_answer_prints_as_a_table():
    ranking = (Timing("winograd", 0.5, 0.25), Timing("im2col", 1.0, 0.2), Timing("direct", 10.0, 9.0))
    tuning = Tuning("conv", "im2col", "winograd", ranking)
    assert (tuning.algorithm, tuning.speedup) == ("winograd", 2.0)
    assert (tuning.algorithm_planned, tuning.speedup_planned) == ("im2col", 1.25)
    assert repr(tuning) == str(tuning)
    assert str(tuning).splitlines() == [
        "conv: winograd, and with a plan im2col",
        "  algorithm        call            with plan",
        "  winograd     0.500 ms    2.00x    0.250 ms    1.00x",
        "  im2col       1.000 ms    1.00x    0.200 ms    1.25x",
        "  direct      10.000 ms    0.10x    9.000 ms    0.03x",
        "  1.00x is what the estimate chose: im2col, and with a plan winograd",
    ]
