"""``residual=`` of `conv`: what is added to the result before the activation, while a tile is in cache."""

import re

import numpy as np
import pytest

import xconv
from cases import (
    data_to,
    kernel_to,
    numbers,
    pytest_generate_tests,  # noqa: F401
    small_integers,
    sum_dtype,
    thinned,
)
from compare import assert_close, assert_same

X, W, B = numbers((2, 7, 6, 4), seed=1), numbers((3, 2, 4, 5), seed=2), numbers((5,), seed=3)
OUT = (2, 7, 6, 5)  # with padding="same"
R = numbers(OUT, seed=4)


def relu(y):
    return np.maximum(y, 0)


@thinned("bias, activation", [(b, a) for b in (None, B) for a in (None, "relu", "silu")], every=2)
def test_it_comes_after_the_bias_and_before_the_activation(backend, bias, activation):
    plain = backend.call(xconv.conv, X, W, bias, padding="same")
    meant = {None: lambda y: y, "relu": relu, "silu": lambda y: y / (1 + np.exp(-y))}[activation](plain + R)
    y = backend.call(xconv.conv, X, W, bias, padding="same", residual=R, activation=activation)
    assert_close(y, meant)


@thinned(
    "layout, batched",
    [
        (layout, batched)
        for layout in ("NHWC", "NCHW", "NCHW,HWIO->NHWC", "CHWN,IHWO->HNCW", "channels_first")
        for batched in (True, False)
    ],
    every=3,
)
def test_it_is_arranged_as_the_result_is(backend, layout, batched):
    expected = xconv.conv(X, W, B, padding="same") + R
    x, r, expected = (a if batched else a[1] for a in (X, R, expected))
    y = backend.call(
        xconv.conv,
        data_to(x, layout, 2),
        kernel_to(W, layout, 2),
        B,
        padding="same",
        layout=layout,
        residual=data_to(r, layout, 2, result=True),
    )
    assert_close(y, data_to(expected, layout, 2, result=True))


@thinned("rank", [1, 2, 3], every=2)
def test_every_rank_and_every_name(backend, rank):
    x, w = numbers((2, *(5, 6, 4)[:rank], 3)), numbers((*(3, 2, 2)[:rank], 3, 4))
    plain = backend.call(xconv.conv, x, w, stride=2)
    r = numbers(plain.shape, seed=5)
    assert_close(backend.call(getattr(xconv, f"conv{rank}d"), x, w, stride=2, residual=r), plain + r)


@thinned("algorithm", ["pointwise", "direct", "im2col", "banded", "winograd", "auto"], every=3)
def test_every_algorithm(backend, algorithm):
    w = numbers((1, 1, 4, 5)) if algorithm == "pointwise" else numbers((3, 3, 4, 5))
    y = backend.call(xconv.conv, X, w, padding="same", residual=R, algorithm=algorithm)
    assert_close(y, xconv.conv(X, w, padding="same", algorithm="im2col") + R)


@pytest.mark.backends("numpy", "fast", "torch", "dask", "jax")
def test_the_fourier_transform(backend):
    y = backend.call(xconv.conv, X, W, padding="same", residual=R, algorithm="fft")
    assert_close(y, xconv.conv(X, W, padding="same") + R)


@thinned("workspace", [6000, 1024, 1], every=3)
def test_tiles_join_without_seams(backend, workspace):
    expected = xconv.conv(X, W, B, padding="same", activation="relu", residual=R)
    with xconv.config(workspace=workspace):
        y = backend.call(xconv.conv, X, W, B, padding="same", activation="relu", residual=R)
    assert_close(y, expected)


@thinned("mode", ["edge", "wrap", "reflect"], every=2)
def test_every_pad_mode(backend, mode):
    plain = backend.call(xconv.conv, X, W, padding="same", pad_mode=mode)
    y = backend.call(xconv.conv, X, W, padding="same", pad_mode=mode, residual=R)
    assert_close(y, plain + R)


@pytest.mark.backends("dask")
def test_chunks_may_be_cut_anywhere(backend):
    """Those of the residual need not be those of the result."""
    expected = xconv.conv(X, W, padding="same", residual=R)
    x, w, r = (backend.asarray(a) for a in (X, W, R))
    for chunks in ((1, 2, 6, 5), (2, 7, 1, 2), (2, 3, 4, 5)):
        y = xconv.conv(x, w, padding="same", residual=r.rechunk(chunks))
        assert_close(backend.numpy(y), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_integers_are_exact(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    x, w = small_integers(X.shape, dtype, seed=1), small_integers(W.shape, dtype, seed=2)
    result = sum_dtype(backend, dtype)
    r = numbers(OUT, dtype, seed=6)
    plain = backend.call(xconv.conv, x, w, padding="same")
    y = backend.call(xconv.conv, x, w, padding="same", residual=r, activation="relu")
    assert_same(y, np.maximum(plain + r.astype(result), 0))


def test_integers_are_added_as_integers(backend):
    """Not as the floats that their products are summed in, which hold fewer digits."""
    x, w = np.full((1, 3, 1), 100, "int8"), np.full((1, 1, 1), 100, "int8")
    result = sum_dtype(backend, "int8")
    large = int(np.iinfo(result).max) - 20_000
    r = np.full((1, 3, 1), large, result)
    assert_same(backend.call(xconv.conv, x, w, residual=r), np.full((1, 3, 1), large + 10_000, result))


@thinned(
    "given, residual",
    [
        ("float64", "float32"),
        ("float32", "int16"),
        ("float32", "float64"),
        ("complex64", "float32"),
        ("float16", "float16"),
        ("float16", "float32"),
    ],
    every=2,
)
def test_the_dtype_of_the_result_does_not_change(backend, given, residual):
    for dtype in (given, residual):
        if not backend.has(dtype):
            pytest.skip(f"{backend.name} has no {dtype}")
    x, w, r = X.astype(given), W.astype(given), small_integers(OUT, residual)
    plain = backend.call(xconv.conv, x, w, padding="same")
    y = backend.call(xconv.conv, x, w, padding="same", residual=r)
    assert y.dtype == given
    assert_close(y, (plain + r).astype(given))


def test_half_precision_is_rounded_once(backend):
    """2048 + 1 + 1 in float32, and only then in float16, which has no 2049."""
    if not backend.has("float16"):
        pytest.skip(f"{backend.name} has no float16")
    x, w = np.array([[[2048, 1]]], "float16"), np.ones((1, 2, 1), "float16")
    y = backend.call(xconv.conv, x, w, residual=np.ones((1, 1, 1), "float16"))
    assert_same(y, np.full((1, 1, 1), 2050, "float16"))


def test_an_empty_batch(backend):
    y = backend.call(xconv.conv, X[:0], W, padding="same", residual=R[:0])
    assert y.shape == (0, *OUT[1:])


def test_the_residual_is_left_as_it_is_and_shares_no_memory():
    r = R.copy()
    y = xconv.conv(X, W, padding="same", residual=r)
    assert_same(r, R)
    assert not np.shares_memory(y, r)
    one = xconv.conv(X, numbers((1, 1, 4, 4)), residual=X)  # as in a network: the input itself
    assert_close(one, xconv.conv(X, numbers((1, 1, 4, 4))) + X)


WRONG = {
    "channels": (
        R[..., :4],
        {},
        "have the shape of the result, [2, 7, 6, 5]; got residual=float32[2, 7, 6, 4]",
    ),
    "sizes": (R[:, 1:], {}, "have the shape of the result, [2, 7, 6, 5]; got residual=float32[2, 6, 6, 5]"),
    "batch": (R[:1], {}, "have the shape of the result, [2, 7, 6, 5]; got residual=float32[1, 7, 6, 5]"),
    "rank": (R[0], {}, "have the shape of the result, [2, 7, 6, 5]; got residual=float32[7, 6, 5]"),
    "scalar": (R[0, 0, 0, 0, ...], {}, "have the shape of the result, [2, 7, 6, 5]; got residual=float32[]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_shape_is_refused(name):
    r, options, text = WRONG[name]
    with pytest.raises(ValueError, match="residual must") as caught:
        xconv.conv(X, W, padding="same", residual=r, **options)
    assert str(caught.value).startswith(f"residual must {text}\n  in conv(x: float32[2, 7, 6, 4], ")


def test_another_arrangement_is_refused(backend):
    x, w = data_to(X, "NCHW", 2), kernel_to(W, "NCHW", 2)
    text = re.escape("residual must have the shape of the result, [2, 5, 7, 6]; got residual=")
    with pytest.raises(ValueError, match=text):
        backend.call(xconv.conv, x, w, padding="same", layout="NCHW", residual=R)


def test_a_kind_that_the_result_cannot_hold_is_refused():
    whole = X.astype("int32"), W.astype("int32")
    for x, w, r, dtype in (
        (X, W, R.astype("complex64"), "float32"),
        (*whole, R, "int64"),
        (X, W, R > 0, "float32"),
    ):
        with pytest.raises(TypeError, match="residual must") as caught:
            xconv.conv(x, w, padding="same", residual=r)
        rule = f"residual must be of a kind that a result of dtype {dtype} can hold; got residual={r.dtype}"
        assert str(caught.value).startswith(rule)


@pytest.mark.parametrize("wrong", [1.0, R.tolist(), np.ma.masked_array(R)])
def test_what_is_no_array_is_refused(wrong):
    with pytest.raises(TypeError, match="residual must be"):
        xconv.conv(X, W, padding="same", residual=wrong)


def test_a_plan_takes_another_one_with_every_input():
    layer = xconv.plan(xconv.conv, X.shape, W, B, padding="same", activation="relu")
    for residual in (R, -R, None):
        expected = xconv.conv(X, W, B, padding="same", activation="relu", residual=residual)
        assert_same(layer(X, residual=residual), expected)
