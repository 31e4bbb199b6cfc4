"""The golden vectors: what other systems answer to small questions, each found by running them.

torch 2.13, jax 0.10.2, onnx 1.23.2, onnxruntime 1.31.1, scipy 1.17.1; where they differ, the test says whom xconv
follows.
"""

import math

import numpy as np
import pytest

import xconv
from compare import assert_close, assert_same


def line(*values, dtype="float32"):
    """One image with one axis and one channel: (1, n, 1)."""
    return np.array(values, dtype).reshape(1, -1, 1)


def taps(*values, dtype="float32"):
    """A kernel with one axis and one channel in and out: (k, 1, 1)."""
    return np.array(values, dtype).reshape(-1, 1, 1)


def square(rows, dtype="float32"):
    """One image with two axes and one channel: (1, h, w, 1)."""
    return np.array(rows, dtype)[None, :, :, None]


def check(actual, *values):
    """The result of a `line` is these values."""
    assert_close(actual, line(*values, dtype=actual.dtype))


ONE_TO_FOUR = line(1, 2, 3, 4)
ONE_TO_SIX = line(1, 2, 3, 4, 5, 6)
W = taps(1, 10, 100)

# -------------------------------------------------------------------------------------------- convolution


def test_same_puts_the_odd_element_at_the_end(backend):
    check(backend.call(xconv.conv, ONE_TO_FOUR, W, stride=2, padding="same"), 321, 43)


@pytest.mark.parametrize("padding", ["same_lower", 1])
def test_same_lower_and_padding_one_put_it_at_the_start(backend, padding):
    check(backend.call(xconv.conv, ONE_TO_FOUR, W, stride=2, padding=padding), 210, 432)


def test_same_with_an_even_kernel(backend):
    check(backend.call(xconv.conv, ONE_TO_SIX, taps(1, 10), padding="same"), 21, 32, 43, 54, 65, 6)


def test_same_with_an_even_kernel_and_dilation(backend):
    check(backend.call(xconv.conv, ONE_TO_SIX, taps(1, 10), padding="same", dilation=3), 30, 41, 52, 63, 4, 5)


@pytest.mark.parametrize(
    ("n", "k", "s", "d"),
    [(4, 3, 2, 1), (7, 2, 3, 1), (5, 1, 3, 1), (10, 4, 3, 2), (3, 5, 2, 1), (6, 2, 1, 3)],
)
def test_total_of_same_is_never_negative_and_gives_ceil_of_n_over_s(backend, n, k, s, d):
    """same total = max((ceil(n/s)-1)*s + d*(k-1)+1 - n, 0), odd extra at the end."""
    total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
    x, w = line(*range(1, n + 1)), taps(*(10**i for i in range(k)))
    options = {"stride": s, "dilation": d}
    result = backend.call(xconv.conv, x, w, padding="same", **options)
    pairs = ((total // 2, total - total // 2),)
    assert result.shape == (1, math.ceil(n / s), 1)
    assert_same(result, backend.call(xconv.conv, x, w, padding=pairs, **options))


def test_output_channels_are_group_major(backend):
    """Group 0 sees channel 1, group 1 sees channel 10, and outputs are g0m0, g0m1, g1m0, g1m1."""
    x = np.array([[[1, 10]]], "float32")
    w = np.array([[[1, 2, 3, 4]]], "float32")
    assert_close(backend.call(xconv.conv, x, w, groups=2), np.array([[[1, 2, 30, 40]]], "float32"))


def test_a_depthwise_kernel_flattens_in_the_same_order(backend):
    x = np.array([[[1, 10]]], "float32")
    w = np.array([[[1, 2], [3, 4]]], "float32")  # (k, C, M)
    assert_close(backend.call(xconv.depthwise_conv, x, w), np.array([[[1, 2, 30, 40]]], "float32"))


def test_a_kernel_longer_than_the_input_is_refused(backend):
    """SciPy and NumPy exchange the inputs, JAX returns size 0, torch raises; so does xconv."""
    with pytest.raises(ValueError, match="w must "):
        backend.call(xconv.conv, line(1, 2), W)


def test_same_centres_an_even_kernel_as_ndimage_and_torch(backend):
    """An impulse at 3 under four taps shows at 1..4; in scipy.signal at 2..5."""
    check(
        backend.call(xconv.conv, line(0, 0, 0, 1, 0, 0, 0), taps(1, 2, 3, 4), padding="same"),
        0,
        4,
        3,
        2,
        1,
        0,
        0,
    )


def test_conv_does_not_conjugate_its_kernel(backend):
    x, w = line(1j, 2, dtype="complex64"), taps(1j, 1, dtype="complex64")
    check(backend.call(xconv.conv, x, w), -1 + 2)


@pytest.mark.parametrize("algorithm", ["pointwise", "direct", "im2col", "auto"])
def test_int8_does_not_wrap(backend, algorithm):
    """100 * 100 + 100 * 100 = 20000, which an int8 matmul turns into 32."""
    x, w = np.full((1, 1, 2), 100, "int8"), np.full((1, 2, 1), 100, "int8")
    result = backend.call(xconv.conv, x, w, algorithm=algorithm)
    assert result.dtype.kind == "i"
    check(result, 20000)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_and_inf_propagate_as_products_with_zero_say(backend):
    """inf * 0 and NaN * 0 are NaN, in the windows that hold them and in no other."""
    x, w = line(1, np.inf, 1, 1, np.nan, 1, 1, 1), taps(0, 1)
    for algorithm in ("direct", "im2col"):
        result = backend.call(xconv.conv, x, w, algorithm=algorithm)
        check(result, np.inf, np.nan, 1, np.nan, np.nan, 1, 1)


def test_an_image_of_a_batch_never_touches_another(backend):
    x = np.ones((3, 4, 1), "float32")
    x[1, 2] = np.nan
    expected = np.full((3, 2, 1), 111, "float32")
    expected[1] = np.nan
    assert_close(backend.call(xconv.conv, x, W), expected)


def test_pads_are_a_pair_per_axis_as_in_numpy_and_jax(backend):
    """Not begins then ends as in ONNX, not the last axis first as in torch's F.pad."""
    x, w = square([[1, 2, 3]]), np.ones((1, 1, 1, 1), "float32")
    expected = square([[0, 0, 0, 0], [1, 2, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert_close(backend.call(xconv.conv, x, w, padding=((1, 2), (0, 1))), expected)


# ----------------------------------------------------------------------------------------- boundary modes

PADDED_BY_TWO = {
    "constant": [0, 0, 1, 2, 3, 0, 0],
    "reflect": [3, 2, 1, 2, 3, 2, 1],
    "symmetric": [2, 1, 1, 2, 3, 3, 2],
    "edge": [1, 1, 1, 2, 3, 3, 3],
    "wrap": [2, 3, 1, 2, 3, 1, 2],
}
PADDED_BY_SEVEN = {
    "constant": [0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0],
    "reflect": [2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2],
    "symmetric": [1, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3],
    "edge": [1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3],
    "wrap": [3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1],
}


@pytest.mark.parametrize("mode", PADDED_BY_TWO)
def test_pad_modes(backend, mode):
    result = backend.call(xconv.pad, np.array([1, 2, 3], "float32"), ((2, 2),), mode=mode)
    assert_same(result, np.array(PADDED_BY_TWO[mode], "float32"))


@pytest.mark.parametrize("mode", PADDED_BY_TWO)
def test_pad_modes_of_conv_are_those_of_pad(backend, mode):
    result = backend.call(xconv.conv, line(1, 2, 3), taps(1), padding=2, pad_mode=mode)
    check(result, *PADDED_BY_TWO[mode])


@pytest.mark.parametrize("mode", PADDED_BY_SEVEN)
def test_pads_wider_than_the_input_repeat_by_the_mathematical_definition(backend, mode):
    """Where numpy.pad in one release does not: numpy issue 25926."""
    result = backend.call(xconv.pad, np.array([1, 2, 3], "float32"), ((7, 7),), mode=mode)
    assert_same(result, np.array(PADDED_BY_SEVEN[mode], "float32"))
    result = backend.call(xconv.conv, line(1, 2, 3), taps(1), padding=7, pad_mode=mode)
    check(result, *PADDED_BY_SEVEN[mode])


@pytest.mark.parametrize(
    ("foreign", "numpys"),
    [
        ("replicate", "edge"),
        ("nearest", "edge"),
        ("mirror", "reflect"),
        ("circular", "wrap"),
        ("grid-wrap", "wrap"),
    ],
)
def test_foreign_mode_names_are_refused_with_the_numpy_name(backend, foreign, numpys):
    with pytest.raises(ValueError, match=f"pad_mode must .*'{numpys}'.*pad_mode='{foreign}'"):
        backend.call(xconv.conv, line(1, 2, 3), taps(1), padding=1, pad_mode=foreign)


# ------------------------------------------------------------------------------------ transposed convolution

ONE_TWO = line(1, 2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 12, 120, 200]),
        ({"stride": 2}, [1, 10, 102, 20, 200]),
        ({"stride": 2, "padding": 1, "output_padding": 1}, [10, 102, 20, 200]),
    ],
)
def test_transposed_strides_and_paddings(backend, options, expected):
    check(backend.call(xconv.conv_transpose, ONE_TWO, W, **options), *expected)


def test_transposed_output_shape_with_a_negative_total_pad_gives_a_zero_tail(backend):
    result = backend.call(xconv.conv_transpose, ONE_TWO, W, stride=3, output_shape=(8,))
    check(result, 1, 10, 100, 2, 20, 200, 0, 0)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [("valid", [10, 102, 20, 200]), ("same_lower", [10, 102, 20, 200]), ("same", [1, 10, 102, 20])],
)
def test_transposed_odd_total_pad(backend, padding, expected):
    """Extra at the start for ONNX's NOTSET and SAME_LOWER, at the end for SAME_UPPER."""
    options = {"stride": 2, "output_shape": (4,), "padding": padding}
    check(backend.call(xconv.conv_transpose, ONE_TWO, W, **options), *expected)


def test_transposed_same_agrees_with_tensorflow_jax_and_onnx(backend):
    check(backend.call(xconv.conv_transpose, ONE_TWO, W, stride=2, padding="same"), 1, 10, 102, 20)


def test_transposed_same_lower_is_torchs_padding_and_output_padding_of_one(backend):
    check(backend.call(xconv.conv_transpose, ONE_TWO, W, stride=2, padding="same_lower"), 10, 102, 20, 200)


def test_transposed_valid_with_a_stride_past_the_kernel(backend):
    """As torch and ONNX 4 long, and `output_padding` for the rest; JAX and Keras give 6."""
    check(backend.call(xconv.conv_transpose, ONE_TWO, taps(5), stride=3), 5, 0, 0, 10)
    check(backend.call(xconv.conv_transpose, ONE_TWO, taps(5), stride=3, output_padding=2), 5, 0, 0, 10, 0, 0)


def test_transposed_is_the_gradient_of_conv(backend):
    """Each element of the gradient of sum(conv(x, w) * g) by x, with channels in and out exchanged."""
    w = np.arange(1, 7, dtype="float32").reshape(3, 1, 2)  # one channel in, two out
    g = np.array([[[1, 10], [2, 20]]], "float32")
    gradient = [sum((g[0, o] @ w[i - 2 * o, 0]) for o in range(2) if 0 <= i - 2 * o < 3) for i in range(5)]
    check(backend.call(xconv.conv_transpose, g, w, stride=2), *gradient)


def test_transposed_output_padding_receives_contributions_of_the_kernel(backend):
    check(backend.call(xconv.conv_transpose, ONE_TWO, W, stride=2, padding=2, output_padding=1), 102, 20)


# -------------------------------------------------------------------------------------------------- pooling


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "expected"),
    [(4, 2, 3, 1, [1, 4]), (5, 1, 3, 0, [1, 4]), (6, 2, 4, 1, [1, 5])],
)
def test_ceil_mode_drops_a_window_that_starts_in_the_right_padding(backend, n, k, s, p, expected):
    x = line(*range(1, n + 1))
    check(backend.call(xconv.max_pool, x, (k,), stride=s, padding=p, ceil_mode=True), *expected)


FOUR_BY_FOUR = np.arange(1, 17, dtype="float32").reshape(1, 4, 4, 1)
CEIL = {"stride": 2, "padding": 1, "ceil_mode": True}


def test_avg_pool_including_pads_counts_pad_cells_and_no_overhang(backend):
    result = backend.call(xconv.avg_pool, FOUR_BY_FOUR, 3, count_include_pad=True, **CEIL)
    assert_close(result, square([[14 / 9, 10 / 3, 2], [19 / 3, 11, 6], [4.5, 7.5, 4]]))


def test_avg_pool_excluding_pads(backend):
    result = backend.call(xconv.avg_pool, FOUR_BY_FOUR, 3, count_include_pad=False, **CEIL)
    assert_close(result, square([[3.5, 5, 6], [9.5, 11, 12], [13.5, 15, 16]]))


def test_avg_pool_with_dilation_including_pads(backend):
    options = {"stride": 1, "dilation": 3, "padding": 1, "count_include_pad": True}
    check(backend.call(xconv.avg_pool, ONE_TO_SIX, (2,), **options), 1.5, 2.5, 3.5, 4.5, 2.0)


def test_avg_pool_ceil_in_one_dimension_including_pads(backend):
    check(backend.call(xconv.avg_pool, ONE_TO_SIX, (3,), count_include_pad=True, **CEIL), 1, 3, 5, 3)


def test_pads_are_not_counted_by_default(backend):
    """torch counts them, ONNX and Keras do not."""
    check(backend.call(xconv.avg_pool, line(2, 4), (2,), stride=1, padding=1), 2, 3, 4)


def test_max_pool_pads_with_minus_infinity(backend):
    check(backend.call(xconv.max_pool, line(-5, -7), (2,), stride=1, padding=1), -5, -5, -7)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_max_pool_pads_with_the_smallest_integer(backend, dtype):
    smallest = np.iinfo(dtype).min
    x = line(smallest, smallest, dtype=dtype)
    result = backend.call(xconv.max_pool, x, (2,), stride=1, padding=1)
    assert_same(result, line(smallest, smallest, smallest, dtype=dtype))


def test_max_pool_propagates_nan(backend):
    check(backend.call(xconv.max_pool, line(1, np.nan, 2, 3), (2,), stride=1), np.nan, np.nan, 3)


def test_max_pool_may_omit_nan(backend):
    check(backend.call(xconv.max_pool, line(1, np.nan, 2, 3), (2,), stride=1, nan="omit"), 1, 2, 3)


def test_ties_go_to_the_first_index(backend):
    values, indices = backend.call(xconv.max_pool, line(7, 7, 1, 7), (4,), return_indices=True)
    check(values, 7)
    check(indices, 0)


def test_a_window_of_minus_infinity_gives_its_first_index(backend):
    x = line(-np.inf, -np.inf, -np.inf)
    values, indices = backend.call(xconv.max_pool, x, (2,), stride=1, padding=((1, 0),), return_indices=True)
    check(values, -np.inf, -np.inf, -np.inf)
    check(indices, 0, 0, 1)


def test_indices_count_inside_each_plane(backend):
    """As torch; ONNX counts over the whole tensor and gives [0, 4, 8, 12]."""
    _, indices = backend.call(xconv.max_pool, np.ones((2, 2, 2, 2), "float32"), 2, return_indices=True)
    assert indices.shape == (2, 1, 1, 2)
    assert indices.ravel().tolist() == [0, 0, 0, 0]


def test_unpool_lets_the_last_write_win(backend):
    indices = line(1, 1, 0, dtype="int64" if backend.has("int64") else "int32")
    check(backend.call(xconv.max_unpool, line(5, 6, 7), indices, (1,)), 7, 6, 0)


def test_lp_pool_takes_absolute_values(backend):
    """torch omits them and gives NaN."""
    check(backend.call(xconv.lp_pool, line(-2, -1), (2,), p=3), 9 ** (1 / 3))


def test_lp_pool_of_a_partial_window_in_ceil_mode(backend):
    root = math.sqrt(2)
    check(backend.call(xconv.lp_pool, line(1, 1, 1, 1, 1), (2,), ceil_mode=True), root, root, 1)


def test_adaptive_windows(backend):
    """7 -> 3 covers 0-2, 2-4, 4-6."""
    x = line(1, 2, 3, 4, 5, 6, 7)
    check(backend.call(xconv.adaptive_avg_pool, x, (3,)), 2, 4, 6)
    check(backend.call(xconv.adaptive_max_pool, x, (3,)), 3, 5, 7)


# ------------------------------------------------------------------------------------------ unfold and fold


def test_unfold_is_channel_major_then_kernel_raster(backend):
    """Channel 0 holds 1..4 and channel 1 holds 10..40: torch and JAX agree on the order."""
    x = np.array([[1, 2], [3, 4]], "float32")
    x = np.stack([x, 10 * x], axis=-1)[None]
    expected = np.array([1, 2, 3, 4, 10, 20, 30, 40], "float32").reshape(1, 1, 1, 8)
    assert_close(backend.call(xconv.unfold, x, 2), expected)


def test_fold_of_unfold_of_ones_is_the_coverage_count(backend):
    columns = backend.call(xconv.unfold, np.ones((1, 3, 3, 1), "float32"), 2)
    assert columns.shape == (1, 2, 2, 4)
    result = backend.call(xconv.fold, columns, (3, 3), 2)
    assert_close(result, square([[1, 2, 1], [2, 4, 2], [1, 2, 1]]))


# ---------------------------------------------------------------------------------------------------- dense


def test_dense_weights_are_in_then_out(backend):
    """As Keras; torch keeps (out, in)."""
    x, w = np.array([[1, 10]], "float32"), np.array([[1, 2, 3], [4, 5, 6]], "float32")
    assert_close(backend.call(xconv.dense, x, w), np.array([[41, 52, 63]], "float32"))


def test_gelu_has_an_erf_form_and_a_tanh_form(backend):
    x = np.array([-1, 0, 1, 2], "float32")
    exact = [-0.15865525, 0, 0.84134475, 1.9544997]
    tanh = [-0.15880801, 0, 0.84119199, 1.95459769]
    assert_close(backend.call(xconv.gelu, x), np.array(exact, "float32"), rtol=2e-6)
    assert_close(backend.call(xconv.gelu, x, approximate="tanh"), np.array(tanh, "float32"), rtol=2e-6)


def test_hard_sigmoid_has_torchs_slope_and_can_have_that_of_onnx(backend):
    x = np.array([-4, -1, 0, 1.5, 4], "float32")
    assert_close(backend.call(xconv.hard_sigmoid, x), np.array([0, 1 / 3, 0.5, 0.75, 1], "float32"))
    onnx = backend.call(xconv.hard_sigmoid, x, slope=0.2, offset=0.5)
    assert_close(onnx, np.array([0, 0.3, 0.5, 0.8, 1], "float32"))


def test_batch_norm_has_the_epsilon_of_torch_and_onnx(backend):
    """1e-5, shown by a variance as small; Keras has 1e-3."""
    x, mean, variance = line(3e-3), np.array([0], "float32"), np.array([0], "float32")
    check(backend.call(xconv.batch_norm, x, mean, variance), 3e-3 / math.sqrt(1e-5))
    check(backend.call(xconv.batch_norm, x, mean, variance, eps=1e-3), 3e-3 / math.sqrt(1e-3))
