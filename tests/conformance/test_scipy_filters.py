"""Filters beside SciPy's, on examples that Hypothesis draws: the same lengths, centring, borders and numbers.

Results are compared as NumPy arrays on NumPy alone; that other libraries give the same is said by tests/test_filter.py.
"""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import xconv
from cases import numbers
from compare import assert_close

pytest.importorskip("scipy", reason="what filters are compared with is SciPy, which is not installed")

from scipy import ndimage, signal

EXAMPLES = {"signal": 700, "stacks": 500, "convolve2d": 300, "ndimage": 700, "separable": 200}
DTYPES = ["float32", "float64", "complex64", "complex128", "int8", "uint8", "int16", "int64"]
BORDERS = {  # of scipy.ndimage, by NumPy's names
    "reflect": "symmetric",
    "grid-mirror": "symmetric",
    "mirror": "reflect",
    "nearest": "edge",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "constant": "constant",
    "grid-constant": "constant",
}
METHODS = ["auto", "auto", "auto", "direct", "im2col", "banded", "depthwise", "fft"]


def test_there_are_two_thousand_examples():
    assert sum(EXAMPLES.values()) >= 2000


def compared(name, strategy, check):
    """`check` holds for the examples of `strategy`: the same ones in every run."""

    @hypothesis.settings(max_examples=EXAMPLES[name], derandomize=True, deadline=None, database=None)
    @hypothesis.given(strategy)
    def run(example):
        check(*example)

    run()


def agree(function, x, kernel, expected, **options):
    """xconv's result is SciPy's; an algorithm that cannot do the problem gives way to one that can."""
    try:
        actual = function(x, kernel, **options)
    except ValueError as error:
        if "be able to do this problem" not in str(error):
            raise
        actual = function(x, kernel, **{**options, "method": "auto"})
    if actual.dtype.kind in "iu":
        assert actual.dtype == np.result_type(x, kernel, "uint64" if actual.dtype.kind == "u" else "int64")
        expected = expected.astype(object)
        expected = np.frompyfunc(int, 1, 1)(expected)
    else:
        assert actual.dtype == np.result_type(x, kernel)
    single = actual.dtype.itemsize // (2 if actual.dtype.kind == "c" else 1) == 4
    assert_close(actual, expected, **({"rtol": 2e-5, "atol": 1e-5} if single else {}))


def wide(array):
    """What SciPy is given: it would compute integers in their own dtype, and float32 in it."""
    return array.astype({"f": "float64", "c": "complex128", "i": "int64", "u": "int64"}[array.dtype.kind])


@st.composite
def filters(draw, *, ranks=(1, 2, 3), longest=7, taps=5, dtypes=DTYPES):
    """An image and a kernel of the same rank."""
    rank = draw(st.sampled_from(ranks))
    longest = {1: 3 * longest, 2: longest + 2, 3: longest - 1}[rank]
    shape = tuple(draw(st.integers(1, longest)) for _ in range(rank))
    window = tuple(draw(st.integers(1, taps if rank < 3 else 3)) for _ in range(rank))
    dtype, seed = draw(st.sampled_from(dtypes)), draw(st.integers(0, 9))
    return numbers(shape, dtype, seed=seed), numbers(window, dtype, seed=seed + 1)


# ---------------------------------------------------------------------------------------------- scipy.signal


def check_signal(arrays, name, mode, method):
    x, kernel = arrays
    options = {"mode": mode, "method": method}
    if mode == "valid" and any(k > n for n, k in zip(x.shape, kernel.shape, strict=True)):
        with pytest.raises(ValueError, match="kernel must be no longer than x with mode='valid'"):
            getattr(xconv, name)(x, kernel, **options)
        return
    expected = getattr(signal, name)(wide(x), wide(kernel), mode=mode, method="direct")
    agree(getattr(xconv, name), x, kernel, expected, **options)


def test_convolve_and_correlate_are_those_of_scipy_signal():
    names, modes = st.sampled_from(["convolve", "correlate"]), st.sampled_from(["full", "same", "valid"])
    compared("signal", st.tuples(filters(), names, modes, st.sampled_from(METHODS)), check_signal)


@st.composite
def stacks(draw):
    """Images and kernels of one rank, some of whose axes are filtered; the others broadcast."""
    rank = draw(st.integers(2, 4))
    axes = draw(
        st.sampled_from([a for n in (1, 2) for a in itertools.combinations(range(rank), n) if n < rank])
    )
    shape, window = [], []
    for axis in range(rank):
        if axis in axes:
            shape.append(draw(st.integers(3, 8)))
            window.append(draw(st.integers(1, 3)))
        else:
            both = draw(st.integers(1, 3))
            shape.append(draw(st.sampled_from([1, both])))
            window.append(draw(st.sampled_from([1, both])))
    dtype = draw(st.sampled_from(DTYPES[:4]))
    negative = tuple(axis - rank if draw(st.booleans()) else axis for axis in axes)
    order = draw(st.permutations(negative))
    return numbers(shape, dtype), numbers(window, dtype, seed=1), tuple(order)


def check_stack(arrays, mode, plain):
    x, kernel, axes = arrays
    batch = [i for i in range(x.ndim) if i not in {axis % x.ndim for axis in axes}]
    if mode == "same":  # of SciPy it has the shape of the first input, though the batches broadcast to more
        whole = tuple(max(x.shape[i], kernel.shape[i]) if i in batch else n for i, n in enumerate(x.shape))
        expected = signal.fftconvolve(np.broadcast_to(wide(x), whole), wide(kernel), mode=mode, axes=axes)
    else:
        expected = signal.fftconvolve(wide(x), wide(kernel), mode=mode, axes=axes)
    if plain and all(
        kernel.shape[i] == 1 for i in batch
    ):  # a kernel of the chosen axes alone, in their order
        inner = np.squeeze(kernel, axis=tuple(batch))
        kernel = np.transpose(inner, np.argsort(np.argsort([axis % x.ndim for axis in axes])))
    agree(xconv.convolve, x, kernel, expected, axes=axes, mode=mode)


def test_stacks_are_those_of_fftconvolve():
    modes = st.sampled_from(["full", "same", "valid"])
    compared("stacks", st.tuples(stacks(), modes, st.booleans()), check_stack)


def check_convolve2d(arrays, name, mode, boundary, value):
    x, kernel = arrays
    if mode == "valid" and any(k > n for n, k in zip(x.shape, kernel.shape, strict=True)):
        return
    value = value if boundary == "fill" else 0
    expected = getattr(signal, f"{name}2d")(
        wide(x), wide(kernel), mode=mode, boundary=boundary, fillvalue=value
    )
    pad_mode = {"fill": "constant", "symm": "symmetric", "wrap": "wrap"}[boundary]
    options = {"mode": mode, "pad_mode": pad_mode, "value": value}
    if (name, mode) == ("correlate", "same"):  # correlate2d is centred as no other function of SciPy
        options["origin"] = tuple(-(k % 2 == 0) for k in kernel.shape)
    agree(getattr(xconv, name), x, kernel, expected, **options)


def test_borders_are_those_of_convolve2d():
    chosen = (["convolve", "correlate"], ["full", "same", "valid"], ["fill", "symm", "wrap"], [0, 3])
    drawn = st.tuples(filters(ranks=(2,)), *map(st.sampled_from, chosen))
    compared("convolve2d", drawn, check_convolve2d)


# --------------------------------------------------------------------------------------------- scipy.ndimage


@st.composite
def placed(draw):
    """A filter with an origin for every axis."""
    x, kernel = draw(filters(dtypes=DTYPES[:4]))
    return x, kernel, tuple(draw(st.integers(-(k // 2), (k - 1) // 2)) for k in kernel.shape)


def check_ndimage(arrays, name, border, value, method):
    x, kernel, origin = arrays
    value = value if BORDERS[border] == "constant" else 0
    expected = getattr(ndimage, name)(wide(x), wide(kernel), mode=border, cval=value, origin=origin)
    if name == "convolve":
        origin = tuple(o + (k % 2 == 0) for o, k in zip(origin, kernel.shape, strict=True))
    options = {"mode": "same", "pad_mode": BORDERS[border], "value": value, "origin": origin}
    agree(getattr(xconv, name), x, kernel, expected, method=method, **options)


def test_origins_and_borders_are_those_of_scipy_ndimage():
    chosen = (["convolve", "correlate"], list(BORDERS), [0, -2.5], METHODS)
    compared("ndimage", st.tuples(placed(), *map(st.sampled_from, chosen)), check_ndimage)


@st.composite
def factors(draw):
    """An image, and a kernel for each of some axes."""
    rank = draw(st.integers(1, 3))
    axes = draw(st.permutations(range(rank)))[: draw(st.integers(1, rank))]
    shape = tuple(draw(st.integers(1, 9)) for _ in range(rank))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    kernels = tuple(numbers((draw(st.integers(1, 6)),), dtype, seed=i) for i in range(len(axes)))
    return numbers(shape, dtype), kernels, tuple(axes)


def check_separable(arrays, border, method):
    x, kernels, axes = arrays
    expected = wide(x)
    for kernel, axis in zip(kernels, axes, strict=True):
        expected = ndimage.correlate1d(expected, wide(kernel), axis, mode=border)
    options = {"axes": axes, "mode": "same", "pad_mode": BORDERS[border], "method": method}
    actual = xconv.correlate(x, kernels, **options)
    tolerance = {"rtol": 2e-5, "atol": 1e-5} if x.dtype == "float32" else {}
    assert_close(actual, expected, **tolerance)


def test_a_tuple_of_kernels_is_correlate1d_along_every_axis():
    chosen = (list(BORDERS), ["auto", "separable"])
    compared("separable", st.tuples(factors(), *map(st.sampled_from, chosen)), check_separable)
