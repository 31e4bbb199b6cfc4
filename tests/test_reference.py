"""The reference itself, against numbers that other systems computed: torch 2.13, jax 0.10.2, scipy 1.17.1.

The outputs below were written down once by running those systems on `whole(...)` arrays, so no such system is needed
here, and the reference stands on its own feet.
"""

import math

import numpy as np
import pytest

import reference


def whole(*shape, step=7, modulus=11):
    """An array of small whole numbers of both signs, without any symmetry."""
    size = math.prod(shape)
    return ((np.arange(size) * step + 3) % modulus - modulus // 2).astype(np.float64).reshape(shape)


def kernel(*shape):
    return whole(*shape, step=5, modulus=7)


def flat(array):
    return np.asarray(array).ravel().tolist()


# -------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "expected"),
    [(4, 2, 3, 1, 2), (5, 1, 3, 0, 2), (6, 2, 4, 1, 2), (6, 3, 2, 1, 4), (5, 2, 2, 0, 3)],
)
def test_ceil_sizes_are_those_of_torch(n, k, s, p, expected):
    assert reference.output_size(n, k, s, p, p, ceil=True) == expected


def test_output_size_without_ceil_drops_the_overhang():
    assert reference.output_size(6, 3, 2, 1, 1) == 3
    assert reference.output_size(2, 3, 1, 0, 0) == 0
    assert reference.output_size(3, 2, 2, -1, 2, d=2, id=3) == 3


@pytest.mark.parametrize(
    ("n", "k", "s", "same", "same_lower"),
    [
        (4, 3, 2, (0, 1), (1, 0)),
        (6, 2, 1, (0, 1), (1, 0)),
        (7, 3, 3, (1, 1), (1, 1)),
        (5, 1, 3, (0, 0), (0, 0)),
        (10, 4, 3, (1, 2), (2, 1)),
    ],
)
def test_same_pads_are_those_of_jax(n, k, s, same, same_lower):
    assert reference.same_pads(n, k, s) == same
    assert reference.same_pads(n, k, s, lower=True) == same_lower


# ---------------------------------------------------------------------------------------------------- pad


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("reflect", [2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2]),
        ("symmetric", [1, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3]),
        ("edge", [1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3]),
        ("wrap", [3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1]),
        ("constant", [9, 9, 9, 9, 9, 9, 9, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9]),
    ],
)
def test_pad_wider_than_the_input(mode, expected):
    """As scipy.ndimage with "mirror", "reflect", "nearest", "grid-wrap"."""
    assert flat(reference.pad(np.array([1, 2, 3]), [(7, 7)], mode, 9)) == expected


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "edge", "wrap", "constant"])
def test_pad_is_numpys_within_one_period(mode):
    x = whole(3, 4)
    widths = [(1, 2), (3, 0)]
    np.testing.assert_array_equal(reference.pad(x, widths, mode), np.pad(x, widths, mode=mode))


def test_negative_pad_crops():
    assert flat(reference.pad(np.arange(6), [(-2, 1)])) == [2, 3, 4, 5, 0]
    assert flat(reference.pad(np.arange(6), [(1, -4)], "reflect")) == [1, 0, 1]


# -------------------------------------------------------------------------------------------- convolution


def test_conv_2d_with_stride_padding_dilation_and_bias():
    result = reference.conv(
        whole(1, 5, 4, 2),
        kernel(3, 2, 2, 3),
        np.array([1.0, 2.0, 3.0]),
        stride=(2, 1),
        pads=((1, 1), (2, 2)),
        dilation=(1, 2),
    )
    assert result.shape == (1, 3, 6, 3)
    # fmt: off
    assert flat(result) == [
        15, -13, 15, 12, 3, -6, -6, 9, 24, -15, 4, 2, -4, 5, -14, 12, 6, 7, -4, 0, -3, 8, -3, 0, -4, 10, 3, 16, -12,
        16, 15, -9, 23, -10, 16, 0, -8, -3, 2, 4, -15, 8, 0, 5, 24, -33, 10, 11, 5, 13, -14, 4, -3, 11,
    ]
    # fmt: on


def test_conv_2d_in_groups():
    result = reference.conv(
        whole(2, 4, 3, 4),
        kernel(2, 2, 2, 4),
        stride=(1, 1),
        pads=((0, 0), (0, 0)),
        dilation=(1, 1),
        groups=2,
    )
    assert result.shape == (2, 3, 2, 4)
    # fmt: off
    assert flat(result) == [
        4, 14, -24, 25, 4, -20, 16, -13, 4, -22, -14, -23, 4, -1, 4, -6, 4, -3, 40, -5, 4, -4, -19, 12,
        4, -20, 16, -13, -18, 34, -21, 26, 4, -1, 4, -6, 4, -2, -11, -22, 4, -4, -19, 12, 4, -5, 43, -4,
    ]
    # fmt: on


def test_conv_1d():
    result = reference.conv(whole(1, 7, 2), kernel(3, 2, 2), stride=(2,), pads=((2, 2),), dilation=(1,))
    assert result.shape == (1, 5, 2)
    assert flat(result) == [9, -11, 0, 18, 7, 6, -30, 5, 3, -9]


def test_conv_3d():
    result = reference.conv(
        whole(1, 3, 4, 3, 2),
        kernel(2, 2, 3, 2, 1),
        stride=(1, 2, 2),
        pads=((1, 1), (0, 0), (1, 1)),
        dilation=(1, 1, 1),
    )
    assert result.shape == (1, 4, 2, 2, 1)
    assert flat(result) == [-31, 11, 15, 20, 34, 2, -12, -20, -25, 2, 17, 2, 1, 14, 19, -17]


def test_conv_of_complex_numbers_does_not_conjugate():
    x = np.array([-2 - 2j, 5 + 1j, 1 + 4j, -3 - 4j]).reshape(1, 4, 1)
    w = np.array([-2j, -2 + 5j]).reshape(2, 1, 1)
    result = reference.conv(x, w, stride=(1,), pads=((0, 0),), dilation=(1,))
    assert flat(result) == [-19 + 27j, -20 - 13j, 34 - 9j]


def test_conv_with_input_dilation_and_negative_pads():
    result = reference.conv(
        whole(1, 4, 3, 2),
        kernel(2, 3, 2, 2),
        stride=(2, 1),
        pads=((-1, 2), (1, -1)),
        dilation=(2, 1),
        input_dilation=(3, 2),
    )
    assert result.shape == (1, 5, 3, 2)
    # fmt: off
    assert flat(result) == [
        -15, -13, 20, -29, 2, 14, 10, 12, 6, 13, -9, 3, 0, 0, 0, 0, 0, 0, 10, 6, -23, 14, -17, -11, -5, -9, 9, -24,
        9, 15,
    ]
    # fmt: on


def test_conv_of_integers_never_wraps():
    x = np.full((1, 2, 1), 2**62, dtype=np.int64)
    w = np.full((2, 1, 1), 4, dtype=np.int8)
    assert flat(reference.conv(x, w, stride=(1,), pads=((0, 0),), dilation=(1,))) == [2**65]


def test_conv_with_a_padding_mode():
    x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    w = np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    result = reference.conv(x, w, stride=(1,), pads=((2, 2),), dilation=(1,), pad_mode="wrap")
    assert flat(result) == [132, 213, 321, 132, 213]


def test_conv_transpose_2d():
    result = reference.conv_transpose(
        whole(1, 2, 3, 4),
        kernel(3, 2, 1, 4),
        np.array([1.0, -1.0]),
        stride=(2, 3),
        pads=((1, 1), (0, 0)),
        output_padding=(1, 2),
        dilation=(1, 2),
        groups=2,
    )
    assert result.shape == (1, 4, 11, 2)
    # fmt: off
    assert flat(result) == [
        20, 3, 1, -1, 17, 5, -7, -8, 1, -1, -11, -7, -12, 3, 1, -1, -6, 3, 1, -1, 1, -1, -2, 2, 1, -1, -11, -18, 21,
        2, 1, -1, 21, 22, -11, 2, 1, -1, -2, -15, 1, -1, 1, -1, -6, -8, 1, -1, -12, -9, -11, 3, 1, -1, -7, 1, 17, -8,
        1, -1, 20, -11, 1, -1, 1, -1, 17, -10, 1, -1, 11, 17, -3, -1, 1, -1, 1, -10, -12, -14, 1, -1, -9, 18, 1, -1,
        1, -1,
    ]
    # fmt: on


def test_conv_transpose_with_stride_past_the_kernel():
    result = reference.conv_transpose(
        whole(2, 3, 2), kernel(2, 1, 2), stride=(3,), pads=((0, 0),), dilation=(1,)
    )
    assert result.shape == (2, 8, 1)
    assert flat(result) == [-10, -1, 0, 6, 0, 0, 0, 12, -6, -9, 0, 10, -8, 0, 4, 4]


# ------------------------------------------------------------------------------------------ unfold and fold


def test_unfold():
    result = reference.unfold(
        whole(1, 3, 3, 2), (2, 2), stride=(2, 1), pads=((1, 1), (0, 0)), dilation=(1, 2)
    )
    assert result.shape == (1, 2, 1, 8)
    assert flat(result) == [0, 0, -2, 4, 0, 0, 5, 0, -4, 2, 5, 0, 3, -2, 1, -4]


def test_fold():
    result = reference.fold(
        whole(1, 3, 3, 8), (4, 4), (2, 2), stride=(2, 1), pads=((1, 1), (0, 0)), dilation=(1, 1)
    )
    assert result.shape == (1, 4, 4, 2)
    # fmt: off
    assert flat(result) == [
        1, -4, -1, 0, 1, 2, -1, 5, 1, -4, -1, 0, 1, 2, -1, 5, 4, -1, 5, -5, -4, -3, 2, -3, 4, -1, 5, -5, -4, -3, 2, -3,
    ]
    # fmt: on


# ----------------------------------------------------------------------------------------------------- ranks


def test_ranks_of_windows():
    """scipy.ndimage: median_filter(x, (2, 3), mode="mirror", origin=(-1, 1)), and rank_filter with a footprint."""
    offsets = [(i, j) for i in (0, 1) for j in (-2, -1, 0)]
    medians = reference.ranked(whole(4, 5), 3, offsets, "reflect")
    assert flat(medians) == [1, 0, 1, 1, 1, 2, -2, 2, 1, 1, 2, 0, 2, 1, 1, 2, 0, 2, 1, 1]
    offsets = [(-1, 0), (-1, 1), (0, -1), (0, 0)]
    seconds = reference.ranked(whole(4, 5), 1, offsets, "constant", 2)
    assert flat(seconds) == [2, 2, 2, 1, 2, 0, 0, -3, -1, -1, 0, -2, -1, -1, -3, 2, 0, 0, -3, -1]
    x = whole(1, 3)
    x[0, 0] = np.nan
    assert np.isnan(reference.ranked(x, 0, [(0, 0), (0, 1)])).tolist() == [[True, False, False]]


# -------------------------------------------------------------------------------------------------- pooling


def test_max_pool_with_ceil():
    geometry = {"stride": (2, 2), "pads": ((1, 1), (0, 0)), "dilation": (1, 1), "ceil": True}
    values = reference.pool(whole(1, 5, 4, 2), "max", (3, 2), **geometry)
    indices = reference.max_pool_indices(whole(1, 5, 4, 2), (3, 2), **geometry)
    assert values.shape == indices.shape == (1, 3, 2, 2)
    assert flat(values) == [2, 5, 5, 4, 4, 0, 5, 5, 5, 1, 0, 4]
    assert flat(indices) == [5, 0, 6, 7, 13, 13, 6, 11, 17, 17, 19, 18]


def test_max_pool_with_dilation():
    geometry = {"stride": (1, 1), "pads": ((1, 1), (1, 1)), "dilation": (2, 1)}
    values = reference.pool(whole(1, 5, 4, 2), "max", (2, 2), **geometry)
    indices = reference.max_pool_indices(whole(1, 5, 4, 2), (2, 2), **geometry)
    # fmt: off
    assert flat(values) == [
        -1, -5, 2, -2, 5, 1, 5, 4, -3, 4, 0, 5, 3, 5, 4, 2, 4, 5, -2, 5, 1, -3, 4, 0, 5, 3, 5, 4, -1, 4, 2, -2, 5, 1,
        5, 4, 0, 5, 0, 5, 1, -3, 4, 0, 4, 3, -1, 3, -1, -5,
    ]
    assert flat(indices) == [
        4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 0, 9, 0, 2, 10, 2, 11, 11, 11, 12, 12, 13, 13, 6, 14, 6, 7, 15, 7, 16, 16,
        17, 17, 17, 18, 19, 11, 19, 11, 12, 12, 13, 13, 13, 14, 15, 14, 15, 15,
    ]
    # fmt: on


def test_ties_go_to_the_first_index_and_minus_infinity_is_an_element():
    x = np.array([2.0, 7.0, 7.0, -np.inf, -np.inf]).reshape(1, 5, 1)
    geometry = {"stride": (3,), "pads": ((0, 1),), "dilation": (1,)}
    assert flat(reference.max_pool_indices(x, (3,), **geometry)) == [1, 3]


def test_a_nan_is_the_largest_or_is_left_out():
    x = np.array([2.0, np.nan, 7.0, np.nan]).reshape(1, 4, 1)
    geometry = {"stride": (1,), "pads": ((0, 0),), "dilation": (1,)}
    assert np.isnan(reference.pool(x, "max", (3,), **geometry)).all()
    assert flat(reference.max_pool_indices(x, (3,), **geometry)) == [1, 1]
    assert flat(reference.pool(x, "max", (3,), omit_nan=True, **geometry)) == [7, 7]
    assert flat(reference.max_pool_indices(x, (3,), omit_nan=True, **geometry)) == [2, 2]


@pytest.mark.parametrize(
    ("reduction", "options", "expected"),
    [
        ("mean_padded", {"ceil": True}, [-0.5, 0, 2, -2 / 3, -7 / 6, 7 / 6, 0.5, -1.5, 0, 1.5, -0.5, -2 / 3]),
        ("mean", {"ceil": True}, [-1.5, 0, 3, -1, -3.5, 3.5, 1, -3, 0, 1.5, -1, -4 / 3]),
        ("divided", {"divisor": 4}, [-0.75, 0, 3, -1, -1.75, 1.75, 0.75, -2.25, 0, 2.25, -0.75, -1]),
    ],
)
def test_avg_pool(reduction, options, expected):
    result = reference.pool(
        whole(1, 5, 4, 2), reduction, (3, 2), stride=(3, 2), pads=((1, 1), (1, 1)), dilation=(1, 1), **options
    )
    assert result.shape == (1, 2, 3, 2)
    np.testing.assert_allclose(flat(result), expected, rtol=1e-15)


def test_lp_pool():
    result = reference.pool(
        whole(1, 5, 4, 2), "lp", (2, 2), stride=(2, 2), pads=((0, 0), (0, 0)), dilation=(1, 1)
    )
    np.testing.assert_allclose(flat(result), np.sqrt([10, 63, 66, 26, 26, 26, 46, 63]), rtol=1e-15)
    cubes = reference.pool(
        np.array([-2.0, 1.0]).reshape(1, 2, 1), "lp", (2,), stride=(1,), pads=((0, 0),), dilation=(1,), p=3
    )
    np.testing.assert_allclose(flat(cubes), [9 ** (1 / 3)], rtol=1e-15)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", [-1, -1, -3, -3, -5, -5, -7, -7, 0]), ("max", [1, 1, 0, 0, -1, -1, -2, -2, -math.inf])],
)
def test_reduce_window_with_holes_and_padding(reduction, expected):
    result = reference.pool(
        whole(1, 4, 3, 1),
        reduction,
        (2, 2),
        stride=(1, 2),
        pads=((1, 2), (0, 1)),
        dilation=(1, 2),
        input_dilation=(2, 1),
    )
    assert result.shape == (1, 9, 1, 1)
    assert flat(result) == expected


@pytest.mark.parametrize(
    ("reduction", "expected"), [("min", [-3, 0, -4, -1, -5, -2]), ("prod", [120, 0, 144, 0, 120, 12])]
)
def test_reduce_window(reduction, expected):
    result = reference.pool(
        whole(1, 4, 3, 1), reduction, (2, 2), stride=(1, 1), pads=((0, 0), (0, 0)), dilation=(1, 1)
    )
    assert flat(result) == expected


def test_integer_windows_without_cells_give_the_limits_of_their_type():
    x = np.array([[[5]]], dtype=np.int8)
    geometry = {"stride": (1,), "pads": ((1, 1),), "dilation": (1,)}
    assert flat(reference.pool(x, "max", (1,), **geometry)) == [-128, 5, -128]
    assert flat(reference.pool(x, "min", (1,), **geometry)) == [127, 5, 127]


# ------------------------------------------------------------------------------------ adaptive, global, unpool


def test_adaptive_pools():
    x = whole(1, 7, 5, 1)
    assert [list(r) for r in reference.adaptive_ranges(7, 3)] == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    np.testing.assert_allclose(
        flat(reference.adaptive(x, "mean", (3, 2))), [8 / 9, 2 / 9, 0, 5 / 9, -8 / 9, 8 / 9], rtol=1e-15
    )
    values, indices = reference.adaptive(x, "max", (3, 2))
    assert flat(values) == [5, 5, 5, 5, 4, 5]
    assert flat(indices) == [1, 12, 12, 12, 26, 23]


def test_global_pools():
    x = np.array([[1.0, -3.0], [5.0, 4.0]]).reshape(1, 2, 2)
    assert flat(reference.global_pool(x, "max")) == [5, 4]
    assert flat(reference.global_pool(x, "mean")) == [3, 0.5]
    assert flat(reference.global_pool(x, "lp")) == [math.sqrt(26), 5]


def test_max_unpool():
    result = reference.max_unpool(whole(1, 2, 2, 1), np.array([0, 3, 14, 9]).reshape(1, 2, 2, 1), (4, 4))
    assert flat(result) == [-2, 0, 0, 5, 0, 0, 0, 0, 0, -3, 0, 0, 0, 0, 1, 0]
    twice = reference.max_unpool(np.array([[[1.0], [2.0]]]), np.array([[[1], [1]]]), (3,))
    assert flat(twice) == [0, 2, 0]


# ---------------------------------------------------------------------------------------------------- dense


def test_dense():
    result = reference.dense(whole(2, 3), kernel(3, 4), np.array([1.0, 2.0, 3.0, 4.0]))
    assert result.shape == (2, 4)
    assert flat(result) == [-6, -6, 8, 1, -3, -4, 2, 1]


def test_bilinear():
    result = reference.bilinear(whole(2, 3), whole(2, 2, step=3), kernel(2, 3, 2), np.array([1.0, 2.0]))
    assert result.shape == (2, 2)
    assert flat(result) == [-21, 42, 9, -102]
