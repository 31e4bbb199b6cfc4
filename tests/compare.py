"""The two comparisons of the suite. Both are strict about everything that NumPy's own are lenient about."""

from __future__ import annotations

import numpy as np

# Error of one result relative to the largest magnitude in it, by its dtype.
RTOL = {"float16": 2e-3, "float32": 2e-5, "float64": 1e-12, "complex64": 2e-5, "complex128": 1e-12}


def assert_close(actual, expected, *, rtol=None, atol=None):
    """``|actual - expected| <= atol + rtol * max|expected|`` everywhere; shape, kind of dtype, NaN and inf exactly.

    Parameters
    ----------
    actual, expected : NumPy arrays of equal shape
        `expected` may have another precision, or hold Python integers (dtype object) when `actual` is integer.
    rtol : float, optional
        By default from the dtype of `actual`: float16 2e-3, float32 2e-5, float64 1e-12. Integers are exact unless
        a tolerance is given.
    atol : float, optional
        Zero by default: where all of `expected` is zero, `actual` must be zero too.
    """
    _check_arrays(actual, expected)
    if expected.dtype == object and actual.dtype.kind in "iu":
        if not all(isinstance(value, int) for value in expected.ravel()):
            raise AssertionError("expected holds objects other than Python integers")
    elif actual.dtype.kind != expected.dtype.kind:
        raise AssertionError(f"dtype {actual.dtype} is not of the kind of the expected {expected.dtype}")
    if actual.size == 0:
        return
    if actual.dtype.kind in "biu" and rtol is None and atol is None:
        _complain_where(actual.astype(object) != expected.astype(object), "values differ", actual, expected)
        return

    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    got, want = actual.astype(wide), expected.astype(wide)
    _complain_where(np.isnan(got) != np.isnan(want), "NaN in other places", actual, expected)
    infinite = np.isinf(want)
    _complain_where(np.isinf(got) != infinite, "inf in other places", actual, expected)
    if wide is np.float64:
        _complain_where(infinite & (got != want), "inf of the other sign", actual, expected)

    finite = np.isfinite(want)
    rtol = RTOL.get(actual.dtype.name, 0.0) if rtol is None else rtol
    scale = np.max(np.abs(want), where=finite, initial=0.0)
    limit = (0.0 if atol is None else atol) + rtol * scale
    error = np.zeros(got.shape)
    error[finite] = np.abs(got[finite] - want[finite])
    text = f"largest error {error.max():.3g} is above the limit {limit:.3g}"
    _complain_where(error > limit, text, actual, expected, rank=error)


def assert_same(actual, expected):
    """Equal shape, equal dtype, equal values; NaN equals NaN, and -0.0 equals 0.0."""
    _check_arrays(actual, expected)
    if actual.dtype != expected.dtype:
        raise AssertionError(f"dtype {actual.dtype} is not the expected {expected.dtype}")
    both_nan = (actual != actual) & (expected != expected)
    _complain_where((actual != expected) & ~both_nan, "values differ", actual, expected)


def _check_arrays(actual, expected):
    for name, array in (("actual", actual), ("expected", expected)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array; got {type(array).__name__}")
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {actual.shape} is not the expected {expected.shape}")


def _complain_where(wrong, text, actual, expected, rank=None):
    """Raise if any of `wrong` holds, and show the first such place, or the one with the highest `rank`."""
    if not np.any(wrong):
        return
    place = np.unravel_index(np.argmax(wrong if rank is None else rank), wrong.shape)
    where = ", ".join(map(str, place))
    raise AssertionError(
        f"{text}, at {np.count_nonzero(wrong)} of {wrong.size} places;"
        f" at [{where}] got {actual[place]!r}, expected {expected[place]!r}"
    )
