"""A bias that is one more term of the sums: right wherever it is taken, and taken only where it costs little."""

import numpy as np
import pytest

import reference
import xconv
from cases import numbers, pytest_generate_tests, thinned  # noqa: F401
from compare import assert_close, assert_same
from xconv import _epilogue
from xconv._algorithms._bias import COPIED, PIXELS, TERMS, TIMES

pytestmark = pytest.mark.backends("numpy")

# Input, kernel, and options of calls whose algorithm takes the bias.
TAKEN = {
    "few-channels": ("im2col", (2, 11, 12, 3), (3, 3, 3, 8), {"padding": 1}),
    "strided": ("im2col", (1, 43, 39, 3), (5, 5, 3, 4), {"stride": 2, "padding": (2, 1)}),
    "dilated": ("im2col", (1, 19, 18, 2), (3, 2, 2, 5), {"dilation": (1, 3)}),
    "one-axis": ("im2col", (2, 130, 1), (10, 1, 6), {"stride": 3}),
    "three-axes": ("im2col", (1, 7, 8, 9, 2), (2, 3, 2, 2, 3), {"padding": "same"}),
    "long-rows": ("im2col", (1, 32, 33, 28), (3, 3, 28, 5), {"padding": 1}),
    "wrapped": ("im2col", (1, 12, 11, 2), (3, 3, 2, 4), {"padding": 1, "pad_mode": "wrap"}),
    "pointwise": ("pointwise", (2, 9, 10, 8), (1, 1, 8, 16), {}),
    "pointwise-wide": ("pointwise", (1, 23, 24, 128), (1, 1, 128, 256), {}),
    "pointwise-strided": ("pointwise", (2, 19, 20, 4), (1, 1, 4, 9), {"stride": (2, 3)}),
    "pointwise-padded": ("pointwise", (1, 8, 9, 3), (1, 1, 3, 6), {"padding": 2}),
    "tiles-of-four": ("winograd", (2, 9, 10, 3), (3, 3, 3, 4), {"padding": 1}),
    "tiles-of-two": ("winograd", (1, 6, 7, 520), (3, 3, 520, 520), {"padding": 1}),
    "tiles-of-a-line": ("winograd", (2, 21, 3), (3, 3, 4), {"padding": 1}),
    "tiles-and-taps": ("winograd", (1, 5, 6, 7, 2), (2, 3, 3, 2, 3), {"padding": 1}),
    "tiles-along-one-of-two": ("winograd", (1, 9, 12, 3), (2, 3, 3, 4), {}),
}


def operands(name, dtype="float32"):
    algorithm, x, w, options = TAKEN[name]
    b = numbers(w[-1:], dtype, seed=3)
    return (numbers(x, dtype, seed=1), numbers(w, dtype, seed=2), b), options | {"algorithm": algorithm}


def expected(x, w, b, padding=0, stride=1, dilation=1, groups=1, pad_mode="constant", algorithm=None):
    rank = x.ndim - 2
    stride, dilation = (np.broadcast_to(n, rank).tolist() for n in (stride, dilation))
    pads = padding
    if padding == "same":
        reach = [(k - 1) * d for k, d in zip(w.shape, dilation, strict=False)]
        pads = [(n // 2, n - n // 2) for n in reach[:rank]]
    elif np.ndim(padding) < 2:
        pads = [(n, n) for n in np.broadcast_to(padding, rank).tolist()]
    wide = np.result_type(x.dtype, np.float64)
    arrays = (a.astype(wide) for a in (x, w, b))
    return reference.conv(
        *arrays, stride=stride, pads=pads, dilation=dilation, groups=groups, pad_mode=pad_mode
    )


@pytest.fixture
def never_added(monkeypatch):
    """Fails where a bias is added to a result."""

    def added(y, b, xp):
        raise AssertionError("the bias was added afterwards")

    monkeypatch.setattr(_epilogue, "biased", added)


@thinned("name, dtype", [(n, d) for n in TAKEN for d in ("float32", "float64", "complex64")], every=2)
def test_it_is_in_the_sums(name, dtype, never_added):
    arrays, options = operands(name, dtype)
    assert_close(xconv.conv(*arrays, **options), expected(*arrays, **options))


@pytest.mark.parametrize("name", TAKEN)
def test_a_plan_takes_it(name, never_added):
    arrays, options = operands(name)
    plain = xconv.conv(*arrays, **options)
    for activation, meant in ((None, plain), ("relu", np.maximum(plain, 0))):
        plan = xconv.plan(xconv.conv, *arrays, **options, activation=activation)
        for _ in range(2):
            assert_close(plan(arrays[0]), meant)


@pytest.mark.parametrize("name", TAKEN)
def test_a_residual_comes_behind_it(name, never_added):
    arrays, options = operands(name)
    plain = xconv.conv(*arrays, **options)
    r = numbers(plain.shape, seed=4)
    y = xconv.conv(*arrays, **options, residual=r, activation="relu")
    assert_same(y, np.maximum(plain + r, 0))


@pytest.mark.parametrize("name", TAKEN)
def test_infinite_and_missing_biases_stay_in_their_channels(name, never_added):
    (x, w, b), options = operands(name)
    plain = xconv.conv(x, w, b, **options)
    b = b.copy()
    b[:3] = np.inf, np.nan, -np.inf
    y = xconv.conv(x, w, b, **options)
    assert_same(y[..., 3:], plain[..., 3:])
    assert np.all(y[..., 0] == np.inf)
    assert np.all(np.isnan(y[..., 1]))
    assert np.all(y[..., 2] == -np.inf)


@pytest.mark.parametrize("name", ["strided", "pointwise-wide", "tiles-of-four"])
def test_a_large_bias_costs_no_more_than_its_own_rounding(name, never_added):
    (x, w, b), options = operands(name)
    b = 1e6 * b
    assert_close(xconv.conv(x, w, b, **options), expected(x, w, b, **options), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_it_may_have_another_dtype(dtype, never_added):
    (x, w, b), options = operands("few-channels", "float64")
    b = (5 * b).astype(dtype)
    assert_close(xconv.conv(x, w, b, **options), expected(x, w, b, **options))


@pytest.mark.parametrize("threads", [1, 2])
def test_tiles_take_it(threads, never_added):
    x, w, b = numbers((2, 120, 130, 3), seed=1), numbers((3, 3, 3, 16), seed=2), numbers((16,), seed=3)
    with xconv.config(threads=threads, workspace=2**20):
        assert xconv.explain(xconv.conv, x, w, b, algorithm="im2col").plan.tiles > 1
        y = xconv.conv(x, w, b, algorithm="im2col")
    assert_close(y, expected(x, w, b))


X = (1, 40, 40)
LEFT = {
    "long": ("im2col", (*X, TERMS // 9 + 1), (3, 3, TERMS // 9 + 1, 4), {}),
    "few-pixels": ("im2col", (1, PIXELS, 8, 1), (1, 9, 1, 4), {"padding": ((0, 0), (4, 3))}),
    "groups": ("im2col", (*X, 4), (3, 3, 2, 4), {"groups": 2}),
    "pointwise-many": ("pointwise", (*X, COPIED + 1), (1, 1, COPIED + 1, TIMES * (COPIED + 1)), {}),
    "pointwise-as-many-outputs": ("pointwise", (*X, 8), (1, 1, 8, 8 * TIMES - 1), {}),
    "another": ("banded", (*X, 2), (3, 3, 2, 4), {}),
}


@pytest.mark.parametrize("name", LEFT)
def test_elsewhere_it_is_added(name, monkeypatch):
    algorithm, x, w, options = LEFT[name]
    x, w, b = numbers(x, seed=1), numbers(w, seed=2), numbers(w[-1:], seed=3)
    added, biased = [], _epilogue.biased
    monkeypatch.setattr(_epilogue, "biased", lambda *a: added.append(1) or biased(*a))
    y = xconv.conv(x, w, b, algorithm=algorithm, **options)
    assert added
    assert_close(y, expected(x, w, b, **options))
