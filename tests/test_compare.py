"""Each comparison fails on exactly what it is there to catch: a comparison that cannot fail proves nothing."""

import numpy as np
import pytest

from compare import assert_close, assert_same

NAN, INF = np.nan, np.inf


def f8(*values):
    return np.asarray(values, dtype=np.float64)


EQUAL = [
    f8(1.0, -2.0, 0.0),
    f8(NAN, 1.0, INF, -INF),
    np.asarray([1 + 2j, complex(NAN, 0)]),
    np.asarray([1, 2**53 + 1], dtype=np.int64),
    np.asarray([2**64 - 1], dtype=np.uint64),
    np.asarray([True, False]),
    np.asarray(3.0, dtype=np.float32),
    np.zeros((0, 3), dtype=np.float16),
]

DIFFERENT = {
    "value": (f8(1.0, 2.0), f8(1.0, 2.1)),
    "one value of many": (np.r_[np.zeros(999), 1.0], np.zeros(1000)),
    "zero": (f8(1e-300), f8(0.0)),
    "shape that broadcasts": (f8(1.0, 1.0), np.asarray(1.0)),
    "shape of the same size": (np.zeros((2, 3)), np.zeros((3, 2))),
    "empty shape": (np.zeros((0, 3)), np.zeros((0, 4))),
    "kind, integer for float": (np.asarray([1]), f8(1.0)),
    "kind, complex for float": (np.asarray([1 + 0j]), f8(1.0)),
    "kind, unsigned for signed": (np.asarray([1], dtype=np.uint8), np.asarray([1], dtype=np.int8)),
    "kind of empty arrays": (np.zeros(0), np.zeros(0, dtype=np.int64)),
    "NaN for a number": (f8(NAN, 1.0), f8(0.0, 1.0)),
    "a number for NaN": (f8(0.0, 1.0), f8(NAN, 1.0)),
    "inf for a number": (f8(INF, 1.0), f8(1e308, 1.0)),
    "a number for inf": (f8(1e308, 1.0), f8(INF, 1.0)),
    "inf for NaN": (f8(INF), f8(NAN)),
    "sign of inf": (f8(INF, 1.0), f8(-INF, 1.0)),
    "a finite value beside inf": (f8(INF, 1.0), f8(INF, 2.0)),
    "imaginary part": (np.asarray([1 + 1e-6j]), np.asarray([1 + 0j])),
    "integers beyond float64": (np.asarray([2**53 + 1]), np.asarray([2**53])),
    "integers that wrapped": (np.asarray([32], dtype=np.int8), np.asarray([20000], dtype=np.int16)),
    "booleans": (np.asarray([True]), np.asarray([False])),
}


@pytest.mark.parametrize("assertion", [assert_close, assert_same])
@pytest.mark.parametrize("array", EQUAL, ids=str)
def test_equal_arrays_pass(assertion, array):
    assertion(array.copy(), array)


@pytest.mark.parametrize("assertion", [assert_close, assert_same])
@pytest.mark.parametrize("case", DIFFERENT)
def test_different_arrays_fail(assertion, case):
    actual, expected = DIFFERENT[case]
    with pytest.raises(AssertionError):
        assertion(actual, expected)


@pytest.mark.parametrize("assertion", [assert_close, assert_same])
@pytest.mark.parametrize("other", [[1.0], 1.0, None, np.float64(1.0)])
def test_only_numpy_arrays_are_compared(assertion, other):
    array = f8(1.0)
    with pytest.raises(TypeError, match="NumPy array"):
        assertion(other, array)
    with pytest.raises(TypeError, match="NumPy array"):
        assertion(array, other)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_close_means_close_for_the_dtype_of_actual(dtype):
    rtol = {"float16": 2e-3, "float32": 2e-5, "complex64": 2e-5}.get(dtype, 1e-12)
    wide = "complex128" if dtype.startswith("complex") else "float64"
    expected = np.asarray([0.0, 0.25, 1000.0], dtype=wide)
    inside, outside = expected.astype(dtype), expected.astype(dtype)
    inside[1] += dtype_value(dtype, 0.5 * rtol * 1000.0)
    outside[1] += dtype_value(dtype, 2.0 * rtol * 1000.0)
    assert_close(inside, expected)
    with pytest.raises(AssertionError, match="largest error"):
        assert_close(outside, expected)


def dtype_value(dtype, value):
    return np.asarray(value, dtype=dtype)[()]


def test_close_takes_a_tolerance_from_the_caller():
    assert_close(f8(1.01), f8(1.0), rtol=0.02)
    assert_close(f8(0.01), f8(0.0), atol=0.02)
    assert_close(np.asarray([3]), np.asarray([4]), atol=1)
    with pytest.raises(AssertionError):
        assert_close(f8(1.03), f8(1.0), rtol=0.02)
    with pytest.raises(AssertionError):
        assert_close(f8(0.03), f8(0.0), atol=0.02)
    with pytest.raises(AssertionError):
        assert_close(np.asarray([2]), np.asarray([4]), atol=1)


def test_the_scale_of_close_is_finite():
    with pytest.raises(AssertionError, match="largest error"):
        assert_close(f8(INF, NAN, 1.0), f8(INF, NAN, 1.1))


def test_close_compares_integers_with_unbounded_ones():
    assert_close(np.asarray([20000]), np.asarray([20000], dtype=object))
    with pytest.raises(AssertionError, match="values differ"):
        assert_close(np.asarray([32], dtype=np.int8), np.asarray([20000], dtype=object))
    with pytest.raises(AssertionError, match="kind"):
        assert_close(f8(20000.0), np.asarray([20000], dtype=object))
    with pytest.raises(AssertionError, match="Python integers"):
        assert_close(np.asarray([1]), np.asarray([1.0], dtype=object))


def test_same_is_exact_in_value_and_dtype():
    with pytest.raises(AssertionError, match="dtype"):
        assert_same(f8(1.0).astype(np.float32), f8(1.0))
    with pytest.raises(AssertionError, match="values differ"):
        assert_same(f8(np.nextafter(1.0, 2.0)), f8(1.0))


def test_the_message_shows_the_worst_place():
    expected = np.zeros((2, 3))
    actual = expected.copy()
    actual[0, 1], actual[1, 2] = 1.0, 5.0
    with pytest.raises(AssertionError, match=r"2 of 6 places; at \[1, 2\] got .*5\.0.*expected .*0\.0"):
        assert_close(actual, expected, atol=0.5)
