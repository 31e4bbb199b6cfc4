"""Adaptive and global pools."""

import math

import numpy as np
import pytest

import reference
import xconv
from cases import (
    data_to,
    default_float,
    default_integer,
    numbers,
    pytest_generate_tests,  # noqa: F401
    small_integers,
    thinned,
)
from compare import assert_close, assert_same

CASES = [
    ((7,), (3,)),
    ((5,), (5,)),
    ((3,), (5,)),
    ((6,), (1,)),
    ((7, 5), (3, 2)),
    ((6, 4), (2, 4)),
    ((5, 7), (1, 3)),
    ((2, 3), (3, 5)),
    ((4, 3, 5), (2, 3, 2)),
    ((2, 3, 2, 4), (1, 2, 2, 3)),
]
LAYOUTS = ["channels_last", "channels_first"]
GRID = [(sizes, outputs, layout) for sizes, outputs in CASES for layout in LAYOUTS]
SHAPES = [(sizes, layout) for sizes in ((7,), (6, 5), (3, 4, 2), (2, 3, 2, 2)) for layout in LAYOUTS]


def require(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")


# ---------------------------------------------------------------------------------------------------- adaptive


@thinned("sizes, outputs, layout", GRID, every=3)
def test_adaptive_avg_pool_agrees_with_the_reference(backend, sizes, outputs, layout):
    x = numbers((2, *sizes, 3))
    expected = data_to(reference.adaptive(x, "mean", outputs), layout, len(sizes)).astype("float32")
    actual = backend.call(xconv.adaptive_avg_pool, data_to(x, layout, len(sizes)), outputs, layout=layout)
    assert_close(actual, expected)


@thinned("sizes, outputs, layout", GRID, every=3)
def test_adaptive_max_pool_agrees_with_the_reference(backend, sizes, outputs, layout):
    x = small_integers((2, *sizes, 3))  # with ties
    values, indices = (data_to(a, layout, len(sizes)) for a in reference.adaptive(x, "max", outputs))
    given = data_to(x, layout, len(sizes))
    actual = backend.call(xconv.adaptive_max_pool, given, outputs, layout=layout, return_indices=True)
    assert_same(actual[0], values.astype("float32"))
    assert_same(actual[1], indices.astype(default_integer(backend)))
    assert_same(backend.call(xconv.adaptive_max_pool, given, outputs, layout=layout), actual[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unbatched_input_with_a_size_per_axis(backend, layout):
    x = numbers((6, 5, 2))
    expected = data_to(reference.adaptive(x[None], "mean", (3, 2))[0], layout, 2).astype("float32")
    given = data_to(x, layout, 2)
    assert_close(backend.call(xconv.adaptive_avg_pool, given, (3, 2), layout=layout), expected)
    values, indices = backend.call(xconv.adaptive_max_pool, given, (3, 2), layout=layout, return_indices=True)
    assert values.shape == indices.shape == expected.shape


def test_one_int_is_the_size_along_every_axis(backend):
    x = numbers((2, 6, 5, 2))
    for function in (xconv.adaptive_avg_pool, xconv.adaptive_max_pool):
        assert_same(backend.call(function, x, 3), backend.call(function, x, (3, 3)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_integers(backend, dtype):
    """A mean is of the default floating dtype; the largest element keeps its own."""
    require(backend, dtype)
    x = numbers((2, 7, 3), dtype, result_bits=32)
    result = default_float(backend)
    expected = reference.adaptive(x, "mean", (3,)).astype(result)
    actual = backend.call(xconv.adaptive_avg_pool, x, (3,))
    assert actual.dtype == result
    assert_close(actual, expected)
    values, _ = reference.adaptive(x, "max", (3,))
    assert_same(backend.call(xconv.adaptive_max_pool, x, (3,)), values.astype(dtype))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_floating_dtypes_are_kept(backend, dtype):
    require(backend, dtype)
    x = numbers((2, 7, 5, 3), dtype)
    actual = backend.call(xconv.adaptive_avg_pool, x, (3, 2))
    assert actual.dtype == dtype
    assert_close(actual, reference.adaptive(x, "mean", (3, 2)).astype(dtype))


def test_nan_propagates(backend):
    x = numbers((1, 7, 1))
    x[0, 2] = np.nan
    for function in (xconv.adaptive_avg_pool, xconv.adaptive_max_pool):
        assert np.isnan(backend.call(function, x, (3,))).ravel().tolist() == [True, True, False]


def test_adaptive_pool_to_one_is_the_global_pool(backend):
    x = numbers((2, 6, 5, 3))
    adaptive = backend.call(xconv.adaptive_avg_pool, x, 1)
    assert_close(adaptive, backend.call(xconv.global_avg_pool, x, keepdims=True))
    adaptive = backend.call(xconv.adaptive_max_pool, x, 1)
    assert_same(adaptive, backend.call(xconv.global_max_pool, x, keepdims=True))


def test_adaptive_pool_to_a_divisor_is_a_pool(backend):
    x = numbers((2, 6, 4, 3))
    assert_close(backend.call(xconv.adaptive_avg_pool, x, (3, 2)), backend.call(xconv.avg_pool, x, 2))
    assert_same(backend.call(xconv.adaptive_max_pool, x, (3, 2)), backend.call(xconv.max_pool, x, 2))


@pytest.mark.parametrize("output_size", [0, -1, (3, 0), (3,), (3, 2, 2, 2)])
def test_output_sizes_that_make_no_sense_are_refused(backend, output_size):
    with pytest.raises(ValueError, match=r"(output_size|x) must "):
        backend.call(xconv.adaptive_avg_pool, numbers((1, 4, 4, 3)), output_size)


# ------------------------------------------------------------------------------------------------------ global


@thinned("sizes, layout", SHAPES, every=3)
def test_global_pools_agree_with_the_reference(backend, sizes, layout):
    rank = len(sizes)
    x = numbers((2, *sizes, 3))
    given = data_to(x, layout, rank)
    kept = (2, *[1] * rank, 3) if layout == "channels_last" else (2, 3, *[1] * rank)
    for function, reduction in (
        (xconv.global_max_pool, "max"),
        (xconv.global_avg_pool, "mean"),
        (xconv.global_lp_pool, "lp"),
    ):
        expected = reference.global_pool(x, reduction).astype("float32")
        assert_close(backend.call(function, given, layout=layout), expected)
        assert_close(backend.call(function, given, layout=layout, keepdims=True), expected.reshape(kept))


@pytest.mark.parametrize("p", [1, 3, 2.5])
def test_global_lp_pool_of_any_order(backend, p):
    x = numbers((2, 5, 4, 3))
    expected = reference.global_pool(x, "lp", p).astype("float32")
    assert_close(backend.call(xconv.global_lp_pool, x, p=p), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_global_pools_of_integers(backend, dtype):
    require(backend, dtype)
    x = numbers((2, 5, 40, 3), dtype, result_bits=32)
    result = default_float(backend)
    actual = backend.call(xconv.global_avg_pool, x)
    assert actual.dtype == result
    assert_close(actual, reference.global_pool(x, "mean").astype(result))
    assert_same(backend.call(xconv.global_max_pool, x), reference.global_pool(x, "max").astype(dtype))


def test_global_avg_pool_of_float16_sums_in_float32(backend):
    require(backend, "float16")
    x = np.full((1, 300, 2), 1000, "float16")  # the sum, 300000, is above the largest float16
    assert_same(backend.call(xconv.global_avg_pool, x), np.full((1, 2), 1000, "float16"))


def test_nan_propagates_through_global_pools(backend):
    x = numbers((2, 5, 2))
    x[0, 3, 1] = np.nan
    for function in (xconv.global_max_pool, xconv.global_avg_pool, xconv.global_lp_pool):
        assert np.isnan(backend.call(function, x)).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    "name, outputs",
    [
        ("global_max_pool", ()),
        ("global_avg_pool", ()),
        ("global_lp_pool", ()),
        ("adaptive_max_pool", (2, 2)),
        ("adaptive_avg_pool", (2, 2)),
    ],
)
def test_empty_batch_keeps_its_shape(backend, name, outputs):
    arguments = [outputs] if outputs else []
    result = backend.call(getattr(xconv, name), np.ones((0, 4, 5, 3), "float32"), *arguments)
    assert result.shape == (0, *outputs, 3)
    assert result.dtype == "float32"


def test_workspace_does_not_change_the_result(backend):
    x = numbers((2, 9, 8, 3))
    whole = backend.call(xconv.adaptive_avg_pool, x, (4, 3)), backend.call(xconv.global_avg_pool, x)
    assert math.isfinite(whole[1].sum())
    with xconv.config(workspace=300):
        assert_close(backend.call(xconv.adaptive_avg_pool, x, (4, 3)), whole[0])
        assert_close(backend.call(xconv.global_avg_pool, x), whole[1])
