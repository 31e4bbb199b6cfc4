"""Convolution and correlation over chosen axes: against the reference on every backend, and what they refuse."""

import re

import numpy as np
import pytest

import reference
import xconv
from cases import lacking, numbers, small_integers, sum_dtype
from compare import assert_close, assert_same

LAZY_STEP = 9

FUNCTIONS = {"convolve": xconv.convolve, "correlate": xconv.correlate}
PAD_MODES = ["constant", "edge", "reflect", "symmetric", "wrap"]


def aligned(kernel, axes, rank):
    """A kernel of the chosen axes alone, in their order, with the rank of x."""
    return np.moveaxis(kernel.reshape(*kernel.shape, *(1,) * (rank - kernel.ndim)), range(len(axes)), axes)


def expected(name, x, kernel, axes=None, mode="full", **options):
    """By the reference: options with one number for all axes or one for each."""
    axes = tuple(range(x.ndim - kernel.ndim, x.ndim)) if axes is None else axes
    axes = (axes,) if isinstance(axes, int) else axes
    axes = tuple(axis % x.ndim for axis in axes)
    for option in ("stride", "dilation", "origin"):
        if isinstance(options.get(option), int):
            options[option] = (options[option],) * len(axes)
    options.pop("method", None)
    if kernel.ndim == len(axes):
        kernel = aligned(kernel, axes, x.ndim)
    kernel = kernel.reshape((1,) * (x.ndim - kernel.ndim) + kernel.shape)
    return reference.filtered(x, kernel, axes, flip=name == "convolve", mode=mode, **options)


# Shapes of x and kernel, and options.
CASES = {
    "one-axis": ((9,), (3,), {}),
    "even-kernel": ((9,), (4,), {}),
    "two-axes": ((7, 8), (3, 2), {}),
    "three-axes": ((4, 5, 6), (2, 3, 3), {}),
    "four-axes": ((3, 4, 3, 4), (2, 2, 3, 2), {}),
    "stack": ((3, 7, 8), (3, 2), {}),
    "stack-of-stacks": ((2, 3, 5, 6), (3, 2), {}),
    "stack-last": ((7, 8, 3), (3, 2), {"axes": (0, 1)}),
    "batch-between": ((7, 3, 8), (3, 2), {"axes": (0, -1)}),
    "batch-everywhere": ((2, 7, 3, 8, 2), (3, 2), {"axes": (1, 3)}),
    "axes-in-another-order": ((3, 7, 8), (2, 3), {"axes": (2, 1), "stride": (2, 1), "dilation": (1, 2)}),
    "first-axis-alone": ((7, 3), (4,), {"axes": 0}),
    "middle-axis-alone": ((2, 7, 3), (4,), {"axes": [1]}),
    "kernel-of-each-image": ((3, 7, 8), (3, 3, 2), {"axes": (1, 2)}),
    "kernel-of-each-channel-last": ((7, 8, 3), (3, 2, 3), {"axes": (0, 1)}),
    "kernel-of-each-channel-in-a-batch": ((2, 3, 7, 8), (3, 3, 2), {"axes": (2, 3)}),
    "several-kernels": ((1, 7, 8), (4, 3, 2), {"axes": (1, 2)}),
    "all-kinds-of-batches": ((2, 3, 1, 6), (1, 3, 2, 3), {"axes": (3,)}),
    "kinds-around": ((2, 6, 1, 3), (1, 3, 4, 3), {"axes": (1,)}),
    "ones-in-the-batch": ((1, 7, 1, 8), (3, 2), {"axes": (1, 3)}),
    "kernel-of-ones": ((3, 7, 8), (1, 1), {}),
    "kernel-with-one-long-axis": ((7, 8), (1, 3), {}),
    "stride": ((10, 11), (3, 4), {"stride": (2, 3)}),
    "dilation": ((10, 11), (3, 4), {"dilation": (3, 2)}),
    "stride-and-dilation": ((2, 13), (3,), {"stride": 3, "dilation": 2}),
}


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_shapes_and_axes(backend, name, case, mode):
    x_shape, kernel_shape, options = CASES[case]
    x, kernel = numbers(x_shape), numbers(kernel_shape, seed=1)
    result = backend.call(FUNCTIONS[name], x, kernel, mode=mode, **options)
    assert_close(result, expected(name, x, kernel, mode=mode, **options).astype("float32"))


@pytest.mark.parametrize("mode", ["full", "same"])
@pytest.mark.parametrize("pad_mode", PAD_MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_pad_mode_with_every_other_option(backend, name, pad_mode, mode):
    """Also where the kernel is longer than x, so that the padding goes around it more than once."""
    for shape, window, axes in (((2, 6, 3, 7), (4, 3), (1, 3)), ((2, 3), (8,), (1,))):
        x, kernel = numbers(shape), numbers(window, seed=1)
        rank = len(axes)
        options = {"axes": axes, "stride": (2, 1)[:rank], "dilation": (1, 2)[:rank], "mode": mode}
        options |= {"origin": (-1, 2)[:rank]} if mode == "same" else {}
        options |= {"value": 1.5} if pad_mode == "constant" else {}
        result = backend.call(FUNCTIONS[name], x, kernel, pad_mode=pad_mode, **options)
        wanted = expected(name, x, kernel, pad_mode=pad_mode, **options)
        assert_close(result, wanted.astype("float32"))


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_origin(backend, name, taps):
    x, kernel = small_integers((7,)), small_integers((taps,), seed=1)
    centre = (taps - 1) // 2 if name == "convolve" else taps // 2
    for origin in range(-centre, taps - centre):
        result = backend.call(FUNCTIONS[name], x, kernel, mode="same", origin=origin)
        assert_close(result, expected(name, x, kernel, mode="same", origin=origin).astype("float32"))


@pytest.mark.parametrize("pad_mode", PAD_MODES)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_tuple_of_kernels_is_their_outer_product(backend, name, mode, pad_mode):
    x, rows, columns = numbers((2, 9, 3, 8)), numbers((4,), seed=1), numbers((3,), seed=2)
    options = {"mode": mode, "pad_mode": pad_mode, "stride": (1, 2), "dilation": (2, 1), "axes": (3, 1)}
    arrays = tuple(map(backend.asarray, (columns, rows)))
    wanted = expected(name, x, columns[:, None] * rows, **options).astype("float32")
    for method in ("auto", "separable", "im2col"):
        assert_close(backend.call(FUNCTIONS[name], x, arrays, method=method, **options), wanted)


@pytest.mark.parametrize("taps", [1, 2, 7, 12])
def test_separable_bands_of_every_width(backend, taps):
    """Whole bands and what is left over, along the last axis and along others."""
    for size in (11, 40, 67):
        x = numbers((2, size, 3, size))
        kernels = numbers((taps,), seed=1), numbers((taps,), seed=2)
        arrays, options = tuple(map(backend.asarray, kernels)), {"axes": (1, 3), "mode": "same"}
        result = backend.call(xconv.correlate, x, arrays, method="separable", **options)
        one = reference.filtered(x, kernels[0].reshape(1, -1, 1, 1), (1,), flip=False, mode="same")
        both = reference.filtered(one, kernels[1].reshape(1, 1, 1, -1), (3,), flip=False, mode="same")
        assert_close(result, both.astype("float32"))


def test_a_tuple_of_kernels_goes_with_the_last_axes(backend):
    x, kernels = numbers((2, 6, 7)), [numbers((3,), seed=1), numbers((2,), seed=2)]
    result = backend.call(xconv.correlate, x, [backend.asarray(k) for k in kernels], mode="same", value=2)
    wanted = expected("correlate", x, kernels[0][:, None] * kernels[1], mode="same", value=2)
    assert_close(result, wanted.astype("float32"))


ABLE = ("direct", "im2col", "banded", "depthwise", "spectral", "fft")


@pytest.mark.parametrize("method", ABLE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_method(backend, name, method):
    x, kernel = numbers((3, 12, 13)), numbers((4, 3), seed=1)
    options = {"mode": "same", "pad_mode": "symmetric", "origin": (1, 0)}
    with lacking(backend, method):
        result = backend.call(FUNCTIONS[name], x, kernel, method=method, **options)
        assert_close(result, expected(name, x, kernel, **options).astype("float32"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_empty_batch(backend, name):
    for shape in ((0, 5, 6), (5, 0, 6)):
        axes = (1, 2) if not shape[0] else (0, 2)
        result = backend.call(
            FUNCTIONS[name], np.ones(shape, "float32"), np.ones((2, 3), "float32"), axes=axes
        )
        assert result.shape == ((0, 6, 8) if not shape[0] else (6, 0, 8))


# ---------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_floating_dtypes(backend, name, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    x, kernel = numbers((2, 9, 8), dtype), numbers((3, 4), dtype, seed=1)
    result = backend.call(FUNCTIONS[name], x, kernel, mode="same", pad_mode="wrap")
    assert result.dtype == dtype
    assert_close(result, expected(name, x, kernel, mode="same", pad_mode="wrap").astype(dtype))


def test_correlate_conjugates_its_kernel_and_convolve_does_not(backend):
    x, kernel = np.array([1j, 2], "complex64"), np.array([1j, 1], "complex64")
    assert_close(backend.call(xconv.correlate, x, kernel, mode="valid"), np.array([1 + 2], "complex64"))
    assert_close(backend.call(xconv.convolve, x, kernel, mode="valid"), np.array([1j + 2j], "complex64"))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_integers_are_exact_and_have_the_dtype_of_sum(backend, name, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    bits = 8 * sum_dtype(backend, dtype).itemsize
    x = numbers((2, 9, 8), dtype, result_bits=bits)
    kernel = numbers((3, 4), dtype, seed=1, result_bits=bits)
    result = backend.call(FUNCTIONS[name], x, kernel, mode="same", value=3)
    assert result.dtype == sum_dtype(backend, dtype)
    assert_close(result, expected(name, x, kernel, mode="same", value=3))


def test_an_integer_image_under_a_floating_kernel_takes_its_dtype(backend):
    x, kernel = numbers((2, 9, 8), "uint8"), numbers((3, 4), seed=1)
    result = backend.call(xconv.convolve, x, kernel, mode="same", value=0.5)
    assert_close(result, expected("convolve", x, kernel, mode="same", value=0.5).astype("float32"))


def test_factors_of_integers_are_exact(backend):
    x, kernels = numbers((9, 8), "int16"), (numbers((3,), "int8", seed=1), numbers((4,), "int8", seed=2))
    result = backend.call(xconv.convolve, x, tuple(map(backend.asarray, kernels)))
    whole = kernels[0][:, None].astype("int64") * kernels[1]
    assert_close(result, expected("convolve", x, whole))


def test_nan_beyond_the_border_reaches_what_meets_it(backend):
    result = backend.call(
        xconv.correlate, np.ones((1, 5), "float32"), np.ones(3, "float32"), mode="same", value=np.nan
    )
    assert_close(result, np.array([[np.nan, 3, 3, 3, np.nan]], "float32"))


# ----------------------------------------------------------------------------------- what other systems do

IMPULSE = np.array([0, 0, 0, 1, 0, 0, 0, 0], "float32")
FOUR = np.array([1, 2, 3, 4], "float32")


def test_same_has_the_centring_of_scipy_signal(backend):
    """An impulse at 3 under four taps shows at 2..5, in convolve and in correlate."""
    result = backend.call(xconv.convolve, IMPULSE, FOUR, mode="same")
    assert_same(result, np.array([0, 0, 1, 2, 3, 4, 0, 0], "float32"))
    result = backend.call(xconv.correlate, IMPULSE, FOUR, mode="same")
    assert_same(result, np.array([0, 0, 4, 3, 2, 1, 0, 0], "float32"))


def test_origin_gives_the_centring_of_scipy_ndimage(backend):
    """ndimage.convolve shows it at 1..4: one further for even kernels. An origin of ndimage.correlate is as it is."""
    result = backend.call(xconv.convolve, IMPULSE, FOUR, mode="same", origin=1)
    assert_same(result, np.array([0, 1, 2, 3, 4, 0, 0, 0], "float32"))
    result = backend.call(xconv.correlate, IMPULSE, FOUR, mode="same", origin=-1)
    assert_same(result, np.array([0, 4, 3, 2, 1, 0, 0, 0], "float32"))


def test_same_has_the_length_of_x_though_the_kernel_is_longer(backend):
    """As in scipy.signal; np.convolve takes the longer of the two lengths."""
    x, kernel = np.array([1, 2, 3], "float32"), np.array([1, 2, 3, 4, 5], "float32")
    assert_same(backend.call(xconv.convolve, x, kernel, mode="same"), np.array([10, 16, 22], "float32"))
    assert_same(backend.call(xconv.correlate, x, kernel, mode="same"), np.array([26, 20, 14], "float32"))


# ---------------------------------------------------------------------------------------- chunks and memory


@pytest.mark.backends("dask")
def test_chunks_are_kept_and_halos_exact():
    import dask.array as da

    x, kernel = numbers((4, 20, 3, 21)), numbers((5, 4), seed=1)
    chunked = da.from_array(x, chunks=((1, 3), (7, 13), (2, 1), (10, 11)))
    for mode, pad_mode in (
        ("same", "constant"),
        ("same", "reflect"),
        ("full", "wrap"),
        ("valid", "constant"),
    ):
        options = {"axes": (1, 3), "mode": mode, "pad_mode": pad_mode}
        y = xconv.convolve(chunked, da.from_array(kernel), **options)
        assert y.chunks[0] == (1, 3)
        assert y.chunks[2] == (2, 1)
        if mode == "same":
            assert [len(sizes) for sizes in y.chunks] == [2, 2, 2, 2]
        assert_close(y.compute(), expected("convolve", x, kernel, **options).astype("float32"))


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("method", ["auto", *ABLE])
def test_a_filter_needs_no_more_than_the_workspace(method):
    import tracemalloc

    x, kernel = numbers((30, 128, 128)), numbers((9, 9), seed=1)
    with xconv.config(workspace=2**21):
        y = xconv.convolve(x, kernel, mode="same", method=method)
        tracemalloc.start()
        try:
            y = xconv.convolve(x, kernel, mode="same", method=method)
            assert tracemalloc.get_traced_memory()[1] <= y.nbytes + 2**21 + 2**17
        finally:
            tracemalloc.stop()


def test_a_stack_along_the_last_axis_gives_the_axes_of_x():
    y = xconv.convolve(np.ones((9, 8, 5), "float32"), np.ones((3, 3), "float32"), axes=(0, 1), mode="same")
    assert y.flags.c_contiguous


# ------------------------------------------------------------------------------------------- what is refused

X = np.zeros((2, 8, 9), "float32")
K = np.zeros((3, 4), "float32")
CALL = "\n  in convolve(x: float32[2, 8, 9], kernel: float32[3, 4]"

REFUSED = {
    "axes-repeated": ({"axes": (1, -2)}, "axes must name every axis once; got axes=(1, -2)"),
    "axes-unknown": ({"axes": (1, 3)}, "axes must name axes of x, which has 3; got axes=(1, 3)"),
    "axes-none-at-all": ({"axes": ()}, "axes must name at least one axis; got axes=()"),
    "axes-too-many": (
        {"axes": (0, 1, 2)},
        "kernel must have at least as many axes as are filtered, 3; got kernel=2",
    ),
    "mode": ({"mode": "valud"}, "mode must be one of 'full', 'same', 'valid'; got mode='valud'"),
    "pad-mode": (
        {"pad_mode": "mirror"},
        "pad_mode must be one of NumPy's names; 'mirror' is called 'reflect' here; got pad_mode='mirror'",
    ),
    "stride": ({"stride": 0}, "stride must be positive; got stride=0"),
    "dilation": (
        {"dilation": (1, 1, 1)},
        "dilation must have one int for each of the 2 spatial axes; got dilation=(1, 1, 1)",
    ),
    "kernel-too-long": (
        {"mode": "valid", "dilation": (4, 1)},
        "kernel must be no longer than x with mode='valid': along axis 1 it reaches over 9 elements and x has 8; "
        "got kernel=[3, 4]",
    ),
    "origin-too-low": (
        {"mode": "same", "origin": (0, -2)},
        "origin must be from -1 to 2 along axis 2, so that the centre is in the kernel; got origin=-2",
    ),
    "origin-too-high": (
        {"mode": "same", "origin": 2},
        "origin must be from -1 to 1 along axis 1, so that the centre is in the kernel; got origin=2",
    ),
    "origin-without-same": (
        {"origin": 1},
        "origin must be 0 with mode='full', which centres nothing; got origin=1",
    ),
    "value-with-another-pad-mode": (
        {"pad_mode": "edge", "value": 1},
        "value must be left out with pad_mode='edge'; got value=1",
    ),
    "method": (
        {"method": "oaconvolve"},
        "method must be one of 'auto', 'pointwise', 'direct', 'im2col', 'kn2row', 'banded', 'separable', 'depthwise', "
        "'winograd', 'spectral', 'fft'; "
        "got method='oaconvolve'",
    ),
    "method-that-cannot": (
        {"method": "pointwise"},
        "method must be able to do this problem, but the kernel has 12 taps, not one; got method='pointwise'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_whole_text_for_an_option(name):
    options, text = REFUSED[name]
    with pytest.raises(ValueError, match="must") as caught:
        xconv.convolve(X, K, **options)
    call = "".join(f", {option}={value!r}" for option, value in options.items())
    assert str(caught.value) == f"{text}{CALL}{call})"


WRONG_TYPES = {
    "axes": ({"axes": 1.0}, "axes must be an int, a tuple of ints, or None; got axes=1.0"),
    "axes-of-booleans": (
        {"axes": (True, 1)},
        "axes must be an int, a tuple of ints, or None; got axes=(True, 1)",
    ),
    "origin": ({"origin": 0.5}, "origin must be an int or one int per spatial axis; got origin=0.5"),
    "value": ({"value": "0"}, "value must be a number that a float array can hold; got value='0'"),
    "complex-value": ({"value": 1j}, "value must be a number that a float array can hold; got value=1j"),
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_the_whole_text_for_an_option_of_another_type(name):
    options, text = WRONG_TYPES[name]
    with pytest.raises(TypeError, match="must") as caught:
        xconv.convolve(X, K, **options)
    call = "".join(f", {option}={value!r}" for option, value in options.items())
    assert str(caught.value) == f"{text}{CALL}{call})"


ARRAYS = {
    "kernel-of-higher-rank": (
        (X, np.zeros((1, 2, 3, 4))),
        ValueError,
        "kernel must have no more axes than x, 3, unless axes= says which axes are filtered",
    ),
    "kernel-without-axes": ((X, np.zeros(())), ValueError, "kernel must have at least one axis"),
    "empty-kernel": ((X, np.zeros((3, 0))), ValueError, "kernel must have no empty axis; got kernel=[3, 0]"),
    "empty-image": (
        (np.zeros((2, 0, 9)), K),
        ValueError,
        "x must have no empty axis among those that are filtered",
    ),
    "factors-of-two-axes": ((X, (K, K)), ValueError, "kernel must hold one 1-D kernel for each axis"),
    "no-factors": ((X, ()), ValueError, "kernel must hold one 1-D kernel for each axis"),
    "too-many-factors": ((X, (K[0],) * 4), ValueError, "kernel must hold no more kernels than x has axes"),
    "factors-of-two-dtypes": (
        (X, (K[0], K[0].astype("float64"))),
        TypeError,
        "kernel must hold kernels of one dtype; got kernel=('float32', 'float64')",
    ),
    "objects": ((X, K.astype(object)), TypeError, "numbers of the array API standard; got dtype object"),
    "image-of-objects": (
        (X.astype(object), K),
        TypeError,
        "numbers of the array API standard; got dtype object",
    ),
    "booleans": ((X, K.astype(bool)), TypeError, "kernel must not be boolean; convert it to integers first"),
    "image-of-booleans": ((X.astype(bool), K), TypeError, "x must not be boolean"),
    "a-list": ((X, [1.0, 2.0]), TypeError, "kernel[0] must be an array of a library"),
    "image-is-a-list": (([1.0], K), TypeError, "x must be an array of a library"),
    "integers-without-a-common-dtype": (
        (X.astype("uint64"), K.astype("int8")),
        TypeError,
        "kernel must have a common integer dtype with x (uint64)",
    ),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_refused(name, function):
    arrays, error, text = ARRAYS[name]
    with pytest.raises(error, match=re.escape(text)) as caught:
        function(*arrays)
    assert f"\n  in {function.__name__}(" in str(caught.value)


def test_batches_that_do_not_broadcast_are_refused():
    text = "kernel must broadcast with the batch axes of x: along axis 0 it has 3 elements and x has 2"
    with pytest.raises(ValueError, match=re.escape(text)):
        xconv.convolve(X, np.zeros((3, 2, 2), "float32"), axes=(1, 2))


def test_a_kernel_that_lacks_an_axis_is_refused():
    text = "kernel must have every axis that is filtered, if it has others, or these alone; got kernel=[3, 4]"
    with pytest.raises(ValueError, match=re.escape(text)):
        xconv.convolve(X, K, axes=0)


def test_a_value_that_an_integer_image_cannot_hold_is_refused():
    x, kernel = np.zeros((8, 9), "uint8"), np.ones((3, 3), "uint8")
    with pytest.raises(ValueError, match=r"value must be a number of uint8, the dtype of x; got value=256"):
        xconv.convolve(x, kernel, value=256)
    with pytest.raises(
        TypeError, match=r"value must be a number that an integer array can hold; got value=0.5"
    ):
        xconv.convolve(x, kernel, value=0.5)


def test_an_error_shows_the_shapes_of_several_kernels():
    with pytest.raises(
        ValueError, match=r"convolve\(x: float32\[2, 8, 9\], \(float32\[4\], float32\[4\]\), mode='no'\)"
    ):
        xconv.convolve(X, (K[0], K[0]), mode="no")


def test_numbers_of_numpy_are_values():
    x = np.ones(3)
    for value in (np.float32(2), np.int64(2), 2):
        assert_same(xconv.convolve(x, np.ones(2), value=value), np.array([3.0, 2.0, 2.0, 3.0]))
