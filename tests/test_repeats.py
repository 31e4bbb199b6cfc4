"""Calls that come again: what NumPy did for one is done for others, to the bit as if it had not been written down."""

import gc
import threading
import time
import weakref

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import xconv
from cases import numbers
from compare import assert_same
from test_properties import PAD_MODES, convolutions, given, kernel_to, options_of
from xconv import _engine, _repeats, _score, _scratch, _tiles
from xconv._namespace import full_like
from xconv._score import Score, Unwritten
from xconv._written import Written, again, writing

pytestmark = pytest.mark.backends("numpy")

TIMES = 6  # done as ever, sized, written down, and played


@pytest.fixture(autouse=True)
def stage(monkeypatch):
    """One for each test."""
    monkeypatch.setattr(_repeats, "_stage", _repeats._Stage())
    return _repeats._stage


@pytest.fixture
def played(monkeypatch):
    """The number of scores that have been played."""
    counts = []

    def play(steps):
        counts.append(len(steps))
        _score.play(steps)

    monkeypatch.setattr(_repeats, "play", play)
    return counts


def as_ever(call, *arrays):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tiles, "repeated", lambda *_: False)
        return call(*arrays)


def results_of(y):
    return y if isinstance(y, tuple) else (y,)


X, W, B = (2, 40, 40, 8), (3, 3, 8, 6), (6,)

CALLS = {
    f"{name}-{dtype}": (
        lambda x, w, b, name=name: xconv.conv(x, w, b, padding=1, algorithm=name, activation="relu"),
        [(X, dtype), (W, dtype), (B, dtype)],
    )
    for name in ("direct", "im2col", "kn2row", "banded", "winograd", "fft")
    for dtype in ("float32", "float64")
} | {
    "complex": (lambda x, w: xconv.conv(x, w, algorithm="fft"), [(X, "complex64"), (W, "complex64")]),
    "integers": (lambda x, w: xconv.conv(x, w, padding=1), [(X, "int8"), (W, "int8")]),
    "float16": (lambda x, w: xconv.conv(x, w, padding=1), [(X, "float16"), (W, "float16")]),
    "pointwise": (lambda x, w: xconv.conv(x, w, stride=2), [(X, "float32"), ((1, 1, 8, 6), "float32")]),
    "spectral": (
        lambda x, w: xconv.convolve(x, w, axes=(1, 2), mode="same", method="spectral"),
        [((9, 50, 40), "float32"), ((9, 7), "float32")],
    ),
    "rows of bands": (
        lambda x, w: xconv.convolve(x, w, axes=(1, 2), mode="full", method="banded", pad_mode="wrap"),
        [((9, 50, 40), "float64"), ((9, 7), "float64")],
    ),
    "separable": (
        lambda x, v, w: xconv.convolve(x, (v, w), axes=(1, 2), mode="same"),
        [((9, 50, 40), "float32"), ((9,), "float32"), ((7,), "float32")],
    ),
    "depthwise": (
        lambda x, w: xconv.depthwise_conv(x, w, padding=1, algorithm="depthwise"),
        [(X, "float32"), ((3, 3, 8, 1), "float32")],
    ),
    "groups": (
        lambda x, w: xconv.conv(x, w, groups=2, activation="silu"),
        [(X, "float32"), ((3, 3, 4, 6), "float32")],
    ),
    "transposed": (
        lambda x, w: xconv.conv_transpose(x, w, stride=2, padding="same"),
        [(X, "float32"), ((3, 3, 6, 8), "float32")],
    ),
    "residual": (
        lambda x, w, r: xconv.conv(x, w, padding=1, residual=r, activation="elu"),
        [(X, "float32"), (W, "float32"), ((2, 40, 40, 6), "float32")],
    ),
    "strided": (
        lambda x, w: xconv.conv(x, w, stride=(2, 1), dilation=(1, 2), padding=3, pad_mode="reflect"),
        [(X, "float32"), (W, "float32")],
    ),
    "channels first": (
        lambda x, w: xconv.conv(x, w, layout="NCHW", activation="gelu"),
        [((2, 8, 40, 40), "float32"), ((6, 8, 3, 3), "float32")],
    ),
    "volume": (
        lambda x, w: xconv.conv(x, w, activation="gelu"),
        [((1, 18, 15, 20, 16), "float32"), ((3, 3, 3, 16, 8), "float32")],
    ),
    "max_pool": (lambda x: xconv.max_pool(x, 3, stride=2, padding=1), [((6, 30, 30, 64), "float32")]),
    "max_pool-indices": (lambda x: xconv.max_pool(x, 3, return_indices=True), [(X, "float32")]),
    "avg_pool": (
        lambda x: xconv.avg_pool(x, 3, stride=1, padding=1, count_include_pad=False),
        [((6, 30, 30, 64), "float32")],
    ),
    "lp_pool": (lambda x: xconv.lp_pool(x, 3, p=3), [((6, 30, 30, 64), "float32")]),
    "gaussian_filter": (lambda x: xconv.gaussian_filter(x, 2), [((200, 200, 30), "float32")]),
    "sobel": (lambda x: xconv.sobel(x, axis=0), [((200, 200, 30), "uint8")]),
}


def arrays_of(shapes, seed):
    return [numbers(shape, dtype, seed=seed + 100 * i) for i, (shape, dtype) in enumerate(shapes)]


@pytest.mark.parametrize("name", CALLS)
def test_what_comes_again_gives_the_same_bits_as_what_does_not(eager, played, name):
    call, shapes = CALLS[name]
    for seed in range(TIMES):
        arrays = arrays_of(shapes, seed)
        expected = as_ever(call, *arrays)
        for mine, theirs in zip(results_of(call(*arrays)), results_of(expected), strict=True):
            assert mine.tobytes() == theirs.tobytes()
            assert mine.dtype == theirs.dtype
    assert len(played) > 1, "or this test says nothing"


def test_so_does_any_convolution(played, monkeypatch):
    """Whatever the planner would do: all tiles, even one small one, are done as if there were many."""
    run = _tiles.run
    monkeypatch.setattr(_tiles, "LARGE", 0)
    monkeypatch.setattr(_engine, "run", lambda *a, threads, **named: run(*a, threads=threads or 2, **named))
    examples = []

    @hypothesis.settings(max_examples=150)
    @hypothesis.given(st.tuples(convolutions(), st.sampled_from(PAD_MODES)))
    def check(drawn):
        example, mode = drawn
        kernel = kernel_to(example["w"], example["layout"], len(example["sizes"]))
        options = options_of(example, "groups", "layout", "algorithm") | {"pad_mode": mode}

        def call(factor):
            x = given(example, example["x"] * np.float32(factor) + np.float32(factor))
            return xconv.conv(x, kernel * np.float32(factor), example["b"], **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_repeats, "_stage", _repeats._Stage())
            try:
                as_ever(call, 0)
            except ValueError as error:  # what an algorithm refuses
                if "algorithm must be able to do this problem, but " not in str(error):
                    raise
                return
            examples.append(len(played))
            for factor in range(1, TIMES):
                assert_same(call(factor), as_ever(call, factor))

    check()
    assert len(played) > len(examples), "most of them are played, and more than once"


def test_a_plan_comes_again(eager, played):
    layer = xconv.plan(
        xconv.conv, X, numbers(W), numbers(B), padding=1, algorithm="winograd", activation="relu"
    )
    for seed in range(TIMES):
        x = numbers(X, seed=seed)
        assert layer(x).tobytes() == as_ever(layer, x).tobytes()
    assert len(played) > 1


def test_a_residual_that_was_the_input_may_be_another_array(eager, played):
    w = numbers((3, 3, 8, 8))
    for seed in range(TIMES + 3):
        x = numbers(X, seed=seed)
        r = x if seed < 3 else numbers(X, seed=seed + 50)
        mine = xconv.conv(x, w, padding=1, residual=r)
        assert mine.tobytes() == as_ever(lambda x, r: xconv.conv(x, w, padding=1, residual=r), x, r).tobytes()
    assert played


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, ::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 1)), 1, -1),
        lambda x: np.concatenate([x, x], axis=-1)[..., : x.shape[-1]],
        lambda x: np.concatenate([x, x])[1 : 1 + len(x)],
    ],
    ids=["backwards", "fortran", "turned", "part of channels", "part of a batch"],
)
def test_arrays_that_are_views(eager, played, change):
    """Of one memory layout after another: what was written down for one is not played for another."""
    w = numbers(W)
    for seed in range(TIMES):
        for x in (numbers(X, seed=seed), change(numbers(X, seed=seed))):
            mine = xconv.conv(x, w, padding=1)
            assert mine.tobytes() == as_ever(lambda x: xconv.conv(x, w, padding=1), x).tobytes()
    assert played


def test_arrays_that_must_not_be_changed_are_read(eager, played):
    w = numbers(W)
    for seed in range(TIMES):
        x = numbers(X, seed=seed)
        x.flags.writeable = False
        xconv.conv(x, w, padding=1)
    assert played


def test_a_function_of_the_callers_is_called_every_time(eager, played):
    calls = []

    def activation(y):
        calls.append(y.shape)
        return y

    w = numbers(W)
    counts = []
    for seed in range(TIMES):
        before = len(calls)
        xconv.conv(numbers(X, seed=seed), w, activation=activation)
        counts.append(len(calls) - before)
    assert counts[0] > 0
    assert set(counts) == {counts[0]}
    assert not played


def test_no_array_of_the_callers_is_held(eager, played):
    for seed in range(TIMES):
        arrays = arrays_of([(X, "float32"), (W, "float32"), (B, "float32")], seed)
        result = xconv.conv(*arrays, padding=1)
        held = [weakref.ref(array) for array in (*arrays, result)]
        del arrays, result
        late = time.monotonic() + 60
        while any(ref() is not None for ref in held) and time.monotonic() < late:
            time.sleep(0.001)  # a thread of the crew holds a call until it looks for the next one
            gc.collect()
        assert [ref() for ref in held] == [None] * 4
    assert played


def test_a_call_that_comes_meanwhile_is_done_as_ever(eager, played, stage):
    w = numbers(W)
    for seed in range(TIMES):
        xconv.conv(numbers(X, seed=seed), w, padding=1)
    before, x = len(played), numbers(X, seed=99)
    with stage.taken:
        mine = xconv.conv(x, w, padding=1)
    assert len(played) == before
    assert mine.tobytes() == xconv.conv(x, w, padding=1).tobytes()
    assert len(played) > before


def test_eight_callers(eager, played):
    call, shapes = CALLS["winograd-float32"]
    wrong = []

    def work(number):
        for seed in range(20):
            arrays = arrays_of(shapes, 20 * number + seed)
            if call(*arrays).tobytes() != as_done[20 * number + seed]:
                wrong.append((number, seed))

    as_done = [as_ever(call, *arrays_of(shapes, seed)).tobytes() for seed in range(160)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert played


def test_an_error_gives_the_stage_back(eager, monkeypatch, stage):
    w = numbers(W)
    for seed in range(TIMES):
        xconv.conv(numbers(X, seed=seed), w, padding=1)

    def fail(steps):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_repeats, "play", fail)
        with pytest.raises(KeyboardInterrupt):
            xconv.conv(numbers(X), w, padding=1)
    assert not stage.taken.locked()
    assert (
        xconv.conv(numbers(X), w, padding=1).tobytes()
        == as_ever(lambda: xconv.conv(numbers(X), w, padding=1)).tobytes()
    )


def test_scores_hold_no_more_memory_than_they_may(eager, monkeypatch, stage):
    most = 2**22
    monkeypatch.setattr(_repeats, "LEAST", most)
    monkeypatch.setattr(_scratch, "KEEP", most // 2)
    w = numbers((3, 3, 16, 16))
    counts = []
    for width in range(60, 120, 10):
        x = numbers((2, width, width, 16))
        for _ in range(TIMES):
            xconv.conv(x, w, padding=1, algorithm="im2col")
        scores = [score for found in stage.calls.values() if isinstance(found, list) for score in found]
        assert _repeats._bytes(scores) <= most
        counts.append(len(scores))
    assert 0 < counts[-1] < len(counts) * counts[0], "or none has been forgotten, and this test says nothing"


def test_a_small_workspace_is_not_for_scores(eager, played):
    w = numbers(W)
    with xconv.config(workspace=2**23):
        for seed in range(TIMES):
            xconv.conv(numbers(X, seed=seed), w, padding=1)
    assert not played


# --------------------------------------------------------------------------------------------- what is written down


def score_of(work, *arrays):
    score = Score(arrays, [], 2**20)
    with writing(score):
        work(*(array.view(Written) for array in arrays))
    return score


REFUSED = {
    "a truth": lambda x, y: bool(x.sum(axis=0)[0] > 0),
    "a number": lambda x, y: float(x[0, 0]),
    "an element": lambda x, y: x[0, 0],
    "a sum of all": lambda x, y: x.sum(),
    "any": lambda x, y: np.any(x > 0),
    "a list": lambda x, y: x.tolist(),
    "sorting": lambda x, y: x.sort(),
    "filling": lambda x, y: x.fill(1),
    "taking": lambda x, y: x.take([1]),
    "flattening": lambda x, y: x.flatten(),
    "running along it": lambda x, y: list(x),
    "a search": lambda x, y: 3 in x,
    "a result given by place": lambda x, y: np.round(x, 2, y),
    "another method of a ufunc": lambda x, y: np.add.accumulate(x),
    "some elements of a list": lambda x, y: x.__setitem__(([0, 1], [1, 0]), 0.0),
    "an array that nobody has told of": lambda x, y: np.add(x, np.ones(x.shape, x.dtype), out=y),
    "a copy made behind its back": lambda x, y: np.add(x, np.asarray(x).copy(), out=y),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_down_is_refused(name):
    x, y = numbers((4, 5)), numbers((4, 5))
    with pytest.raises(Unwritten):
        score_of(REFUSED[name], x, y)


def _into(y, value):
    y[...] = value


WRITTEN = {
    "an operation": lambda x, y: _into(y, x + 1),
    "in place": lambda x, y: y.__iadd__(x * x),
    "a product": lambda x, y: np.matmul(x, x.reshape(5, 4), out=y[:, :4]),
    "a copy of a view": lambda x, y: _into(y, x.T.reshape(4, 5)),
    "elements of a list": lambda x, y: _into(y, x[[3, 1, 0, 2]]),
    "a choice": lambda x, y: _into(y, np.where(x > 0, x, -x)),
    "in bounds": lambda x, y: np.clip(x, -0.1, 0.1, out=y),
    "sums": lambda x, y: _into(y, x.sum(axis=0)),
    "side by side": lambda x, y: _into(y, np.concatenate([x[:, 2:], x[:, :2]], axis=1)),
    "a transform": lambda x, y: _into(y, np.fft.irfft(np.fft.rfft(x, axis=0), n=4, axis=0)),
    "another dtype": lambda x, y: _into(y, x.astype("float64").astype("float32")),
    "backwards": lambda x, y: _into(y, np.flip(x, axis=0)),
    "an empty part": lambda x, y: _into(y[:0], x[:0]),
    "an array of twos": lambda x, y: _into(y, full_like(x, x.shape, 2, x.dtype).__iadd__(x)),
    "an array of zeros": lambda x, y: _into(y, full_like(x, x.shape, 0, x.dtype).__iadd__(x)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_down_is_done_again(name):
    work = WRITTEN[name]
    score = score_of(work, numbers((4, 5), seed=1), numbers((4, 5), seed=2))
    x, y = numbers((4, 5), seed=3), numbers((4, 5), seed=4)
    expected = y.copy()
    work(x, expected)
    _score.play(score.played([x, y]))
    assert_same(y, expected)
    assert_same(x, numbers((4, 5), seed=3))


def test_a_score_that_needs_too_much_is_refused():
    x = numbers((300, 300))
    with pytest.raises(Unwritten), writing(Score([x], [], 2**17)):
        x.view(Written) + 1


def test_what_is_made_for_one_tile_is_used_for_the_next():
    x, memory = numbers((300, 300)), []
    score = Score([x], memory, 2**20)
    with writing(score):
        for _ in range(5):
            again()
            x.view(Written)[...] = x.view(Written) + 1
    assert len(memory) == 1
    assert len(score.own) == 1
