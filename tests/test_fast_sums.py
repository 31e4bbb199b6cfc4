"""Compiled sums of products: direct ones, Winograd's, how they are shared out, and what is kept between calls."""

import itertools
import math
import threading
from contextlib import nullcontext
from functools import partial
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")


import reference
import xconv
from cases import EXACT, data_to, kernel_to, numbers, small_integers, willing
from compare import assert_close, assert_same
from xconv import _engine, _scratch, _tiles
from xconv._algorithms._filtering import matrices
from xconv._bridges.numba import crew, direct, sharing, winograd
from xconv._bridges.numba.arrays import address
from xconv._bridges.numba.kernels import Kernel, put, word, words
from xconv._bridges.numba.vectors import MOST, WIDTH
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis
from xconv._scratch import LINE, aligned, scratch, spare

pytestmark = pytest.mark.backends("fast")

DTYPES = st.sampled_from(["float32", "float64"])
# Points of a tile along an axis, taps.
FILTERS = [(4, 2), (4, 3), (6, 2), *((n, taps) for n in (6, 8) for taps in (3, 4, 5))]
LAYOUTS = st.sampled_from(["plain", "part", "every second", "backwards"])
BOUNDS = st.sampled_from([(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-np.inf, 5.0), (-9.0, 20.0)])
INFINITE = 2**62


# -------------------------------------------------------------------------------------------------------- arrays


def whole_numbers(seed, shape, dtype, *, zero=True):
    """From -4 to 4, so that sums of products are exact in any order; without 0 if wanted."""
    values = np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)
    if not zero:
        values[values == 0] = 3
    return values


class Embedded:
    """An array (N, *n, C), channels side by side, in the middle of other memory that must stay as it is."""

    def __init__(self, shape, dtype, layout, fill):
        if layout == "plain":
            self.whole = np.full(shape, fill, dtype)
            self.part = (slice(None),) * len(shape)
        else:
            step, end = (2 if layout == "every second" else 1), None if layout == "every second" else -1
            front = tuple(step * n + (1 if step == 2 else 2) for n in shape[:-1])
            self.whole = np.full((*front, shape[-1] + 5), fill, dtype)
            self.part = (*(slice(1, end, step),) * (len(shape) - 1), slice(2, -3))
        self.array = self.whole[self.part]
        self.turn = layout == "backwards"
        if self.turn:
            self.array = self.array[(slice(None, None, -1),) * (len(shape) - 1)]
        assert self.array.shape == shape

    def holding(self, values):
        self.array[...] = values
        return self.array

    def check(self, compare, expected):
        """The array is what is expected, and nothing was written beside it."""
        compare(self.array, expected)
        beside = np.ones(self.whole.shape, bool)
        beside[self.part] = False
        assert (self.whole[beside] == 77).all()


def surrounded(values, layout):
    """The values in the middle of NaN: whoever reads beyond them is found out."""
    return Embedded(values.shape, values.dtype, layout, np.nan).holding(values)


def target(shape, dtype, layout):
    """An unset result in the middle of marked memory."""
    place = Embedded(shape, dtype, layout, 77)
    place.array[...] = np.nan
    return place


@pytest.mark.parametrize("layout", ["part", "every second", "backwards"])
def test_an_embedded_array_notices_what_is_written_beside_it(layout):
    place = target((2, 3, 4), "float32", layout)
    place.array[...] = 5
    place.check(np.testing.assert_array_equal, np.full((2, 3, 4), 5, "float32"))
    place.whole[1, 1, -3] = 5
    with pytest.raises(AssertionError):
        place.check(np.testing.assert_array_equal, np.full((2, 3, 4), 5, "float32"))


def exactly(actual, expected):
    np.testing.assert_array_equal(actual, expected.astype(actual.dtype))


def finished(y, finish):
    """Bias, residual and bounds, in float64."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        y = y + (0 if finish.bias is None else finish.bias.astype("float64"))
        y = y + (0 if finish.residual is None else finish.residual.astype("float64"))
    return np.clip(y, finish.low, finish.high)


# -------------------------------------------------------------------------------------------------- direct: weights


def packed(w, groups):
    """A kernel (*k, C / G, G O) as `convolved` takes it."""
    *_, outputs = w.shape
    rows = w.reshape(-1, groups, outputs // groups)
    return direct.packed_rows(np.moveaxis(rows, 1, 0))


def unpacked(rows, terms, outputs):
    """(G, K * O') as (G, K, O'): block after block, each of so many vectors and with all its rows."""
    lanes = WIDTH // rows.itemsize
    width = -(-outputs // lanes) * lanes
    blocks, at = [], 0
    while at < width:
        here = min(MOST * lanes, width - at)
        blocks.append(rows[:, terms * at : terms * (at + here)].reshape(len(rows), terms, here))
        at += here
    return np.concatenate(blocks, axis=-1)


@settings(max_examples=200)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 150), DTYPES, st.booleans())
def test_packed_rows_are_the_weights_and_zeros(groups, terms, outputs, dtype, turned):
    w = numbers((groups, terms, outputs), dtype)
    rows = direct.packed_rows(w.transpose(0, 2, 1).copy().transpose(0, 2, 1) if turned else w)
    found = unpacked(rows, terms, outputs)
    assert_same(found[..., :outputs], w)
    assert not found[..., outputs:].any()
    assert found.shape[-1] - outputs < WIDTH // w.itemsize
    assert rows.ctypes.data % LINE == 0


def test_weights_that_lie_as_wanted_are_not_copied():
    lanes = WIDTH // 4
    w = aligned(3 * lanes, "float32").reshape(1, 3, lanes)
    assert np.shares_memory(direct.packed_rows(w), w)
    assert not np.shares_memory(direct.packed_rows(w[..., 1:]), w)


# -------------------------------------------------------------------------------------------------- direct: the grid


def convolve(x, w, axes, groups, layout="plain", finish=PLAIN, chunk=None, *, raw=False):
    """The compiled direct sum of a padded block, in a result that lies in memory as the layout says."""
    weights = np.moveaxis(w.reshape(-1, groups, w.shape[-1] // groups), 1, 0) if raw else packed(w, groups)
    place = target((len(x), *(a.output for a in axes), w.shape[-1]), x.dtype, layout)
    with mock.patch.object(direct, "CHUNK", chunk or direct.CHUNK):
        y = direct.convolved(x, weights, axes, w.shape[-1] // groups, place.array, finish)
    assert y is place.array
    return place


def summed(x, w, axes, groups=1):
    """The same by the dull loops, in float64."""
    return reference.conv(
        x,
        w,
        stride=tuple(a.stride for a in axes),
        pads=tuple((a.low, a.high) for a in axes),
        dilation=tuple(a.dilation for a in axes),
        groups=groups,
    )


@st.composite
def blocks(draw):
    """Axes over a padded block, with 1 to 40 pixels in all."""
    rank, pixels, axes = draw(st.integers(1, 3)), draw(st.integers(1, 40)), []
    batch = draw(st.integers(1, min(3, pixels)))
    room = pixels // batch
    for i in range(rank):
        outputs = room if i == rank - 1 else draw(st.integers(1, min(room, 6)))
        room //= outputs
        window, stride = draw(st.integers(1, 5 if rank == 1 else 3)), draw(st.integers(1, 3))
        dilation = draw(st.integers(1, 3))
        left = draw(st.integers(0, stride - 1))  # at the end, where no window begins
        axes.append(
            Axis((outputs - 1) * stride + (window - 1) * dilation + 1 + left, window, stride, dilation)
        )
    return batch, tuple(draw(st.permutations(axes)))


@settings(max_examples=200)
@given(
    blocks(),
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(1, 150),
    DTYPES,
    st.tuples(LAYOUTS, LAYOUTS, st.sampled_from([None, "plain", "part", "every second", "backwards"])),
    st.booleans(),
    BOUNDS,
    st.sampled_from([None, 1, 64 * 20, 256 * 33]),
    st.booleans(),
    st.integers(0, 99),
)
def test_direct_sums_are_exact(
    case, groups, inputs, outputs, dtype, layouts, with_bias, bounds, chunk, raw, seed
):
    batch, axes = case
    x = surrounded(whole_numbers(seed, (batch, *(a.size for a in axes), groups * inputs), dtype), layouts[0])
    w = whole_numbers(seed + 1, (*(a.window for a in axes), inputs, groups * outputs), dtype)
    shape = (batch, *(a.output for a in axes), groups * outputs)
    finish = Finish(
        whole_numbers(seed + 2, shape[-1:], dtype) if with_bias else None,
        None if layouts[2] is None else surrounded(whole_numbers(seed + 3, shape, dtype), layouts[2]),
        *bounds,
    )
    place = convolve(x, w, axes, groups, layouts[1], finish, chunk, raw=raw)
    place.check(exactly, finished(summed(x, w, axes, groups), finish))


@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_number_of_pixels_meets_every_width_of_a_block(dtype, vectors):
    """As a product of matrices, whole and in several chunks, with whole and ragged vectors."""
    lanes = WIDTH // np.dtype(dtype).itemsize
    for pixels, missing in itertools.product(range(1, 41), (0, 1, lanes - 1)):
        x, w = (
            whole_numbers(1, (1, pixels, 20), dtype),
            whole_numbers(2, (1, 20, vectors * lanes - missing), dtype),
        )
        r = whole_numbers(3, (1, pixels, w.shape[-1]), dtype)
        for chunk, finish, raw in (
            (None, PLAIN, False),
            (1, Finish(None, r, -20.0, 30.0), False),
            (1, PLAIN, True),
        ):
            place = convolve(x, w, (Axis(pixels, 1),), 1, "part", finish, chunk, raw=raw)
            place.check(exactly, finished(x.astype("float64") @ w[0].astype("float64"), finish))


@pytest.mark.parametrize("pixels", [direct.RAW, direct.RAW + 1])
@pytest.mark.parametrize("kept", [False, True])
def test_weights_are_packed_on_the_way_for_few_pixels_and_at_once_for_more(monkeypatch, pixels, kept):
    monkeypatch.setattr(direct, "LITTLE", 0)
    packed = []
    monkeypatch.setattr(
        direct,
        "packed_rows",
        lambda w, *, keep, of=direct.packed_rows: packed.append(keep) or of(w, keep=keep),
    )
    x, w = whole_numbers(1, (1, pixels, 9), "float32"), whole_numbers(2, (1, 9, 150), "float32")
    with scratch() if kept else nullcontext():
        place = convolve(x, w, (Axis(pixels, 1),), 1, raw=True)
    assert packed == [False] * (pixels > direct.RAW)
    place.check(exactly, x.astype("float64") @ w[0].astype("float64"))


@settings(max_examples=50)
@given(blocks(), st.integers(1, 3), st.integers(1, 20), st.integers(1, 70), DTYPES)
def test_direct_sums_of_any_numbers_are_close(case, groups, inputs, outputs, dtype):
    batch, axes = case
    x = numbers((batch, *(a.size for a in axes), groups * inputs), dtype, seed=1)
    w = numbers((*(a.window for a in axes), inputs, groups * outputs), dtype, seed=2)
    y = convolve(x, w, axes, groups).array
    assert_close(y, summed(x, w, axes, groups), rtol=2e-6 if dtype == "float32" else 2e-15, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bounds_hold_the_whole_sum_and_not_its_chunks(dtype):
    x = np.ones((1, 1, 64), dtype)
    w = np.repeat(np.array([5.0, -5.0], dtype), 32)[None, :, None]
    finish = Finish(low=0.0, high=6.0)
    for chunk in (None, 1):
        assert convolve(x, w, (Axis(1, 1),), 1, finish=finish, chunk=chunk).array.item() == 0
        assert convolve(x, -w + 0.0625, (Axis(1, 1),), 1, finish=finish, chunk=chunk).array.item() == 4


def test_every_product_is_rounded_together_with_its_sum():
    """Whatever the pixel and the block: the last term, 1 - 2**-26, would be 1 if it were rounded by itself."""
    small = np.float32(2**-13)
    x = np.array([[[1, 1 + small]]], "float32")
    w = np.array([[[-1], [1 - small]]], "float32")
    for outputs in (1, 20, 64, 70):
        y = convolve(np.repeat(x, 9, axis=1), np.repeat(w, outputs, axis=-1), (Axis(9, 1),), 1).array
        assert (y == -(2.0**-26)).all()


# --------------------------------------------------------------------------------------- direct: NaN and infinities


@settings(max_examples=100)
@given(blocks(), st.integers(1, 3), st.integers(1, 5), st.integers(1, 70), DTYPES, BOUNDS, st.integers(0, 99))
@example((1, (Axis(9, 3),)), 1, 3, 20, "float32", (-np.inf, np.inf), 0)
def test_nan_and_infinity_reach_the_windows_that_hold_them_and_no_others(
    case, groups, inputs, outputs, dtype, bounds, seed
):
    batch, axes = case
    x = whole_numbers(seed, (batch, *(a.size for a in axes), groups * inputs), dtype)
    w = whole_numbers(seed + 1, (*(a.window for a in axes), inputs, groups * outputs), dtype, zero=False)
    odd = np.random.default_rng(seed).random(x.shape)
    x[odd < 0.02], x[(odd > 0.03) & (odd < 0.05)], x[odd > 0.98] = np.nan, np.inf, -np.inf
    finish = Finish(None, None, *bounds)
    with np.errstate(invalid="ignore"):  # infinities of both signs in a window
        expected = finished(summed(x, w, axes, groups), finish)
    for chunk in (None, 1):
        convolve(x, w, axes, groups, "part", finish, chunk).check(exactly, expected)


def test_a_nan_reaches_its_windows_and_its_group():
    x = np.ones((1, 9, 6), "float32")
    x[0, 4, 1] = np.nan
    y = convolve(x, np.ones((3, 3, 40), "float32"), (Axis(9, 3),), 2, finish=Finish(low=-1.0, high=1.0)).array
    expected = np.ones((1, 7, 40), "float32")
    expected[0, 2:5, :20] = np.nan
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("outputs", [1, 17, 40, 60, 64, 70])
@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-2.0, 6.0), (-np.inf, 6.0), (-2.0, np.inf)])
def test_infinities_are_held_between_the_bounds(outputs, bounds):
    x = np.array([np.inf, -np.inf, np.nan, 100, -100, 0], "float32").reshape(1, 6, 1)
    y = convolve(x, np.ones((1, 1, outputs), "float32"), (Axis(6, 1),), 1, finish=Finish(None, None, *bounds))
    np.testing.assert_array_equal(y.array, np.repeat(np.clip(x, *bounds), outputs, axis=-1))


@pytest.mark.parametrize("algorithm", [name for name in EXACT if name != "auto"] + ["winograd"])
@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_rectifiers_on_the_way_are_the_rectifiers_themselves(algorithm, name):
    taps, groups = (1, 1) if algorithm == "pointwise" else (3, 20 if algorithm == "depthwise" else 1)
    x, w, b = numbers((2, 15, 14, 20)), numbers((taps, taps, 20 // groups, 40)), numbers((40,), seed=1)
    x, w = 4 * x, w / 2
    x[0, 3, 4, 5], x[0, 12, 3, 1], x[1, 9, 12, 19] = np.nan, np.inf, -np.inf
    options = {"padding": taps // 2, "groups": groups, "algorithm": algorithm}
    assert xconv.explain(xconv.conv, x, w, b, **options).plan.problem.fast
    rectify = getattr(xconv, name)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        expected = rectify(xconv.conv(x, w, b, **options))
        found = [xconv.conv(x, w, b, activation=activation, **options) for activation in (name, rectify)]
    assert np.isnan(expected).any()
    assert (expected == 0).any()
    assert name == "relu" or (expected == 6).any()
    for y in found:
        np.testing.assert_array_equal(y, expected)


# ------------------------------------------------------------------------------------------------ Winograd: kernels


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 4), max_size=1),
    st.integers(1, 40),
    st.integers(1, 150),
    DTYPES,
    st.sampled_from(FILTERS),
)
def test_winograd_kernels_are_the_written_once_ones(before, channels, outputs, dtype, filtering):
    n, taps = filtering
    w = numbers((*before, taps, taps, channels, outputs), dtype)
    u = winograd.winograd_kernel(w, n)
    points, terms = n**2, math.prod(before) * channels
    flat = w.astype("float64").reshape(-1, taps**2, channels * outputs)
    one = matrices(n, taps)[1]
    expected = np.kron(one, one) @ flat  # (T, points, C O)
    expected = expected.transpose(1, 0, 2).reshape(points, terms, outputs)
    found = unpacked(u, terms, outputs)
    assert not found[..., outputs:].any()
    limit = 3e-7 if dtype == "float32" else 5e-16
    assert_close(
        found[..., :outputs], expected, rtol=limit if n < 8 else 2 * limit
    )  # its factors are rounded


def test_winograd_kernels_may_lie_in_any_order():
    for n, taps in FILTERS:
        w = numbers((taps, taps, 5, 20))
        turned = np.ascontiguousarray(w.transpose(3, 2, 0, 1)).transpose(2, 3, 1, 0)
        expected = winograd.winograd_kernel(w, n)
        for same in (turned, w[::-1, ::-1][::-1, ::-1], np.repeat(w, 2, axis=-1)[..., ::2]):
            assert_same(winograd.winograd_kernel(same, n), expected)


# ------------------------------------------------------------------------------------------------ Winograd: results


@st.composite
def winograd_axes(draw):
    """Points, and two axes of a few taps with or without any other before them; pads 0 to 3 at each side."""
    axes, (n, taps) = [], draw(st.sampled_from(FILTERS))
    for _ in range(2):
        low, high = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        axes.append(Axis(draw(st.integers(max(1, taps - low - high), 14)), taps, 1, 1, 1, low, high))
    if draw(st.booleans()):
        window, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        low, high = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        least = max(1, (window - 1) * dilation + 1 - low - high)
        axes.insert(0, Axis(draw(st.integers(least, least + 3)), window, stride, dilation, 1, low, high))
    return n, tuple(axes)


def winograd_sum(x, w, axes, n, layout="plain", finish=PLAIN):
    place = target((len(x), *(a.output for a in axes), w.shape[-1]), x.dtype, layout)
    y = winograd.winograd(
        x[..., None, :], winograd.winograd_kernel(w, n), axes, n, w.shape[-1], place.array, finish
    )
    assert y is place.array
    return place


@settings(max_examples=200)
@given(
    winograd_axes(),
    st.integers(1, 2),
    st.integers(1, 40),
    st.integers(1, 70),
    DTYPES,
    st.tuples(LAYOUTS, LAYOUTS, st.sampled_from([None, "plain", "part", "every second", "backwards"])),
    st.booleans(),
    BOUNDS,
    st.integers(0, 99),
)
def test_winograd_is_the_direct_sum(
    filtering, batch, channels, outputs, dtype, layouts, with_bias, bounds, seed
):
    """Of whole numbers, four points are exact: their kernels are halved twice at most."""
    n, axes = filtering
    assume(batch * math.prod(a.output for a in axes) <= 600)
    shape = (batch, *(a.output for a in axes), outputs)
    make = whole_numbers if n == 4 else lambda seed, shape, dtype: numbers(shape, dtype, seed=seed)
    x = surrounded(make(seed, (batch, *(a.size for a in axes), channels), dtype), layouts[0])
    w = make(seed + 1, (*(a.window for a in axes), channels, outputs), dtype)
    finish = Finish(
        make(seed + 2, (outputs,), dtype) if with_bias else None,
        None if layouts[2] is None else surrounded(make(seed + 3, shape, dtype), layouts[2]),
        *bounds,
    )
    sums, place = summed(x, w, axes), winograd_sum(x, w, axes, n, layouts[1], finish)
    if n == 4:
        place.check(exactly, finished(sums, finish))
        return
    largest = np.abs(finished(sums, Finish(finish.bias, finish.residual))).max()
    limit = (1e-5 if dtype == "float32" else 1e-13) * max(largest, 1)
    place.check(lambda y, expected: assert_close(y, expected, rtol=0, atol=limit), finished(sums, finish))


@pytest.mark.parametrize(("n", "taps"), FILTERS)
@pytest.mark.parametrize("rows", range(1, 14))
def test_winograd_meets_every_ragged_size(rows, n, taps):
    for columns, pads in itertools.product(range(1, 14), ((taps // 2,) * 2, (2, 3))):
        axes = (Axis(rows, taps, 1, 1, 1, *pads), Axis(columns, taps, 1, 1, 1, *pads[::-1]))
        x, w = numbers((1, rows, columns, 2), "float64"), numbers((taps, taps, 2, 17), "float64")
        y, expected = winograd_sum(x, w, axes, n, "part"), summed(x, w, axes)
        y.check(lambda y, expected: assert_close(y, expected, rtol=1e-13), expected)


@pytest.mark.parametrize("n", [4, 6])
@pytest.mark.parametrize("channels, outputs", [(1200, 5), (3, 1200)])
@pytest.mark.parametrize("sizes", [(3, 2), (33, 39)])  # few tiles, and so many that they are done by and by
def test_winograd_of_many_channels(channels, outputs, sizes, n):
    """Zeros around an image, those that sums begin with, and what is written nowhere, are as wide as all of them."""
    axes = tuple(Axis(n, 3, 1, 1, 1, 1, 1) for n in sizes)
    x, w = numbers((1, *sizes, channels)), numbers((3, 3, channels, outputs))
    finish = Finish(numbers((outputs,)), numbers((1, *sizes, outputs), seed=1))
    y = winograd_sum(x, w, axes, n, "part", finish)
    expected = finished(summed(x, w, axes), finish)
    y.check(
        lambda y, expected: assert_close(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max()), expected
    )


@pytest.mark.parametrize("n", [4, 6, 8])
def test_winograd_crops(n):
    axes = (Axis(5, 2, 1, 1, 1, -1, -1), Axis(12, 3, 1, 1, 1, -2, 1), Axis(11, 3, 1, 1, 1, 2, -1))
    x, w = numbers((2, 5, 12, 11, 5)), numbers((2, 3, 3, 5, 9))
    assert_close(winograd_sum(x, w, axes, n).array, summed(x, w, axes), rtol=1e-5)


@pytest.mark.parametrize("n", [4, 6])
def test_winograd_keeps_images_and_channels_apart(n):
    """A NaN stays in its image and in its tile; outputs that other kernels make hold it as well."""
    axes = (Axis(12, 3, 1, 1, 1, 1, 1),) * 2
    x, w = numbers((3, 12, 12, 5)), numbers((3, 3, 5, 20))
    clean = winograd_sum(x, w, axes, n).array
    x[1, 6, 6, 2] = np.nan
    y = winograd_sum(x, w, axes, n).array
    assert_same(y[::2], clean[::2])
    assert np.isnan(y[1, 5:8, 5:8]).all()
    changed = np.isnan(y[1]).any(axis=-1)
    assert not changed[:, :2].any()
    assert not changed[:2].any()
    assert_same(y[1][~changed], clean[1][~changed])


@pytest.mark.parametrize("n", [4, 6, 8])
def test_winograd_in_spare_memory_is_the_same(n):
    """Whatever the last tile has left there."""
    axes = (Axis(9, 3, 1, 1, 1, 1, 1), Axis(10, 3, 1, 1, 1, 1, 1))
    x, w = numbers((2, 9, 10, 7)), numbers((3, 3, 7, 21))
    expected = winograd_sum(x, w, axes, n).array
    with scratch():
        for purpose in ("points", "products", "dump"):
            spare(purpose, (100_000,), x.dtype, x)[...] = np.nan
        for _ in range(2):
            assert_same(winograd_sum(x, w, axes, n).array, expected)


def test_padding_stays_zero_whatever_was_convolved_before():
    """What stands for the padding is asked for by its width; other widths must not take its place."""
    layers = {}
    for channels in (8, 11, 13):
        x, w, b = (
            numbers(shape, seed=channels) for shape in ((1, 8, 8, channels), (3, 3, channels, 8), (8,))
        )
        expected = xconv.conv(x, w, b, padding=1, algorithm="im2col")
        layers[channels] = (x, w, b), expected
    kept, x = [], numbers((1, 5, 5, 3))
    for width in range(20, 120):
        xconv.conv(x, numbers((3, 3, 3, width)), algorithm="direct")
        for channels, (arrays, expected) in layers.items():
            kept += [np.full(256 + channels, 7e9, "float32") for _ in range(20)]
            y = xconv.conv(*arrays, padding=1, algorithm="winograd")
            assert_close(y, expected, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------- shared out


@partial(Kernel, cache=False)
def counted(job, first, last):
    """How often each of the numbers was met, and where the pieces end, by where they begin."""
    times, pieces = words(job, 1, 2)
    for i in range(first, last):
        put(times, i, word(times, i) + 1)
    if first < last:
        put(pieces, first, last)


def count(size, multiplications, unit):
    """The times that each number is met when such work is shared out, and the pieces, in order."""
    times, pieces = np.zeros(size, np.int64), np.zeros(size + 1, np.int64)
    sharing.shared(counted, (), size, multiplications, unit, (address(times), address(pieces)))
    return times, [(int(i), int(pieces[i])) for i in np.flatnonzero(pieces)]


@settings(max_examples=200)
@given(
    st.integers(0, 3000),
    st.integers(1, 70),
    st.one_of(st.integers(0, 10**8), st.integers(0, 10**10)),
    st.sampled_from([1, 2, 3, 8]),
)
@example(3000, 1, 10**10, 8)
@example(25, 24, sharing.WORTH, 2)
@example(24, 24, sharing.WORTH, 2)
def test_work_is_shared_out_once(size, unit, multiplications, threads):
    with xconv.config(threads=threads):
        times, pieces = count(size, multiplications, unit)
    assert (times == 1).all()
    assert [start for start, _ in pieces] == [0, *(stop for _, stop in pieces[:-1])][: len(pieces)]
    assert all(start % unit == 0 for start, _ in pieces)
    if size <= unit or multiplications < sharing.WORTH or threads == 1:
        assert len(pieces) == min(size, 1)
    else:
        most = min(sharing.MOST, -(-size // unit))
        assert 2 <= len(pieces) <= most
        assert len(pieces) in (most, *range(2, threads)) or len(pieces) % threads == 0  # as many for each


def test_work_in_tiles_is_not_shared_out_again():
    with scratch(), xconv.config(threads=2):
        assert not sharing.is_large(10**12)
        assert count(1000, 10**12, 1)[1] == [(0, 1000)]
    assert sharing.is_large(10**12)


# how it is split: axes, groups, channels in and out of a group
SPLITS = {
    "pixels": ((Axis(60, 3), Axis(11, 3)), 2, 3, 20),
    "outputs": ((Axis(5, 3), Axis(4, 2)), 1, 30, 333),
    "groups": ((Axis(5, 3), Axis(4, 2)), 7, 20, 150),
    "pixels, for few blocks of outputs": ((Axis(14, 3), Axis(9, 2)), 1, 300, 33),
}


@pytest.fixture
def pieces(monkeypatch):
    """What is shared out, by size, work that is worth it being as small as one multiplication."""
    for name in ("WORTH", "PIECE", "LONG"):
        monkeypatch.setattr(sharing, name, 1)
    seen = []

    def noted(code, size, count, unit, helpers, job):
        seen.append((size, count if helpers else 1))
        crew.run(code, size, count, unit, helpers, job)

    monkeypatch.setattr(sharing, "run", noted)
    return seen


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("name", SPLITS)
def test_the_bits_do_not_depend_on_how_the_work_is_split(pieces, monkeypatch, name, chunk, threads):
    axes, groups, inputs, outputs = SPLITS[name]
    x = numbers((2, *(a.size for a in axes), groups * inputs))
    w = numbers((*(a.window for a in axes), inputs, groups * outputs))
    shape = (2, *(a.output for a in axes), groups * outputs)
    finish = Finish(numbers(shape[-1:]), numbers(shape, seed=1), -4.0, 5.0)
    with xconv.config(threads=threads):
        shared = convolve(x, w, axes, groups, "part", finish, chunk)
        sizes = {
            "pixels": math.prod(shape[:-1]),
            "outputs": outputs,
            "groups": groups,
        }
        assert [size for size, count in pieces[1:] if count > 1] == [sizes[name.split(",")[0]]] * (
            threads > 1
        )
        monkeypatch.setattr(sharing, "WORTH", INFINITE)
        whole = convolve(x, w, axes, groups, "part", finish, chunk)
    assert [count for _, count in pieces[2:]] == [1, 1]  # packing and sums
    assert_same(shared.whole, whole.whole)
    assert_close(whole.array, finished(summed(x, w, axes, groups), finish), rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("n", "taps"), FILTERS)
def test_the_bits_of_winograd_do_not_either(pieces, monkeypatch, n, taps, threads):
    axes = (Axis(3, 2, 1, 1, 1, 1, 0), *(Axis(size, taps, 1, 1, 1, 1, taps - 2) for size in (13, 15)))
    x, w = numbers((2, 3, 13, 15, 9)), numbers((2, taps, taps, 9, 70))
    finish = Finish(numbers((70,)), numbers((2, 3, 13, 15, 70), seed=1), 0.0)
    with xconv.config(threads=threads):
        shared = winograd_sum(x, w, axes, n, "part", finish)
        # the kernel, the inputs, the products, the outputs
        assert [count > 1 for _, count in pieces] == [threads > 1] * 4
        monkeypatch.setattr(sharing, "WORTH", INFINITE)
        assert_same(winograd_sum(x, w, axes, n, "part", finish).whole, shared.whole)


# -------------------------------------------------------------------------------------------------- public calls


def both(function, *arrays, **options):
    """What a call gives with compiled code, which it really uses, and without."""
    assert xconv.explain(function, *arrays, **options).plan.problem.fast
    with xconv.config(fast=False):
        expected = function(*arrays, **options)
    return function(*arrays, **options), expected


# what suits every algorithm: sizes, kernel, channels in and out, options
SUITED = {
    "pointwise": ((9, 11), (1, 1), 20, 70, {}),
    "direct": ((9, 11), (3, 2), 6, 20, {"groups": 2, "stride": (1, 2), "dilation": (2, 1)}),
    "im2col": ((9, 11), (3, 2), 6, 20, {"groups": 2, "stride": (1, 2)}),
    "kn2row": ((9, 11), (3, 2), 20, 3, {"dilation": (2, 1)}),
    "banded": ((9, 30), (3, 5), 1, 4, {}),
    "depthwise": ((9, 31), (3, 3), 20, 40, {"groups": 20}),
    "winograd": ((9, 11), (3, 3), 20, 70, {}),
    "winograd of a line": ((31,), (3,), 20, 40, {}),
    "winograd of a volume": ((5, 9, 11), (2, 3, 3), 7, 20, {"stride": (2, 1, 1)}),
    "winograd of a stride": ((29, 38), (7, 8), 3, 40, {"stride": 2}),
    "winograd of two strides": ((3, 31, 11), (2, 9, 3), 5, 20, {"stride": (2, 3, 1), "padding": 1}),
    "fft": ((9, 30), (5, 5), 3, 4, {}),
    "auto": ((9, 11), (3, 3), 20, 40, {"groups": 2}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize("name", SUITED)
def test_residual_bias_and_activation_on_every_algorithm(name, activation, dtype):
    """In one go and in tiles, wherever the residual lies."""
    sizes, kernel, channels, outputs, options = SUITED[name]
    x, b = numbers((2, *sizes, channels), dtype), 3 * numbers((outputs,), dtype)
    w = numbers((*kernel, channels // options.get("groups", 1), outputs), dtype)
    options = {**options, "padding": "same", "algorithm": name.partition(" ")[0]}
    plain = xconv.conv(x, w, **options)
    limit = (1e-5 if dtype == "float32" else 1e-12) * np.abs(plain).max()
    r = 5 * numbers(plain.shape, dtype, seed=1)
    first = np.ascontiguousarray(np.moveaxis(r, -1, 1))
    options["activation"] = activation
    for residual in (None, r, np.moveaxis(first, 1, -1), r[:, ::-1]):
        for workspace in (2**26, 20_000):
            with xconv.config(workspace=workspace):
                actual, expected = both(xconv.conv, x, w, b, residual=residual, **options)
            assert_close(actual, expected, rtol=0, atol=limit)


def test_the_suited_algorithms_are_all_there_are():
    elsewhere = {
        "separable",
        "spectral",
    }  # of filters only, and of one channel only: it has a file of its own
    assert {name.partition(" ")[0] for name in SUITED} == {*xconv._algorithms.ALGORITHMS, "auto"} - elsewhere


TRANSPOSED = {
    f"{rank}-D by {stride}{' in groups' * (groups > 1)}": (rank, stride, groups)
    for rank in (1, 2, 3)
    for stride in (2, 3)
    for groups in (1, 3)
}


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_phases_of_transposed_convolutions(name, layout):
    """Whole numbers, so that sums are exact; 3 taps a phase, so that Winograd's algorithm takes part."""
    rank, stride, groups = TRANSPOSED[name]
    sizes, kernel = (6, 5, 4)[-rank:], (3 * stride,) * rank
    x = small_integers((2, *sizes, 4 * groups), seed=rank)
    w = small_integers((*kernel, 5, 4 * groups), seed=stride)
    b = small_integers((5 * groups,), seed=3)
    sums = reference.conv_transpose(
        x,
        w,
        b,
        stride=(stride,) * rank,
        pads=((1, 2),) * rank,
        output_padding=(1,) * rank,
        dilation=(1,) * rank,
        groups=groups,
    )
    given_x, given_w = data_to(x, layout, rank), kernel_to(w, layout, rank)
    options = {"stride": stride, "padding": ((1, 2),) * rank, "output_padding": 1, "groups": groups}
    options |= {"layout": layout, "activation": "relu6"}
    expected = data_to(np.clip(sums, 0, 6), layout, rank, result=True).astype("float32")
    doing = willing(xconv.conv_transpose, given_x, given_w, b, **options)
    assert {"direct", "im2col", "auto"} <= set(doing)
    assert "winograd" in doing or groups > 1
    for algorithm in doing:
        actual, without = both(xconv.conv_transpose, given_x, given_w, b, algorithm=algorithm, **options)
        if algorithm in ("direct", "im2col"):
            assert_same(actual, expected)
            assert_same(without, expected)
        else:
            assert_close(actual, expected, rtol=0, atol=1e-5 * np.abs(sums).max())


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "auto"])
def test_outputs_that_meet_nothing_but_holes_hold_bias_and_bounds(algorithm):
    x, w = small_integers((1, 5, 6, 4)), small_integers((3, 3, 4, 4), seed=1)
    b = np.arange(-1, 3, dtype="float32")
    expected = reference.conv_transpose(x, w, b, stride=(4, 4), pads=((0, 0),) * 2, dilation=(1, 1))
    actual, _ = both(xconv.conv_transpose, x, w, b, stride=4, activation="relu", algorithm=algorithm)
    assert_same(actual, np.maximum(expected, 0).astype("float32"))
    assert (actual[:, 3::4] == np.maximum(b, 0)).all()


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "winograd", "depthwise"])
@pytest.mark.parametrize("layout", ["NCHW", "NCHW,HWIO->NHWC", "CHWN,IHWO->HNCW"])
def test_other_layouts(layout, algorithm):
    groups = 10 if algorithm == "depthwise" else 1
    x, w, b = numbers((3, 9, 11, 10)), numbers((3, 3, 10 // groups, 20)), numbers((20,))
    r = numbers((3, 9, 11, 20))
    plain = xconv.conv(x, w, b, padding=1, groups=groups, residual=r, algorithm="direct")
    actual, expected = both(
        xconv.conv,
        data_to(x, layout, 2),
        kernel_to(w, layout, 2),
        b,
        padding=1,
        groups=groups,
        layout=layout,
        residual=data_to(r, layout, 2, result=True),
        algorithm=algorithm,
    )
    assert_close(actual, expected, rtol=1e-5)
    assert_close(actual, data_to(plain, layout, 2, result=True), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(
    "name", [name for name in SUITED if name.partition(" ")[0] not in ("winograd", "fft")]
)
def test_small_integers_are_exact(name, dtype):
    sizes, kernel, channels, outputs, options = SUITED[name]
    algorithm, groups = name.partition(" ")[0], options.get("groups", 1)
    x, b = numbers((2, *sizes, channels), dtype), numbers((outputs,), dtype, seed=2)
    w = numbers((*kernel, channels // groups, outputs), dtype, seed=1)
    options = {**options, "padding": 1 if max(kernel) > 1 else 0}
    actual, expected = both(xconv.conv, x, w, b, algorithm=algorithm, **options)
    assert actual.dtype.kind in "iu"
    assert_same(actual, expected)
    r = numbers(actual.shape, dtype, seed=3)
    actual, expected = both(
        xconv.conv, x, w, b, residual=r, activation="relu6", algorithm=algorithm, **options
    )
    assert_same(actual, expected)


def test_small_integers_of_transposed_convolutions_are_exact():
    x, w = numbers((2, 5, 6, 9), "int8"), numbers((4, 4, 7, 9), "int8", seed=1)
    for algorithm in ("direct", "im2col"):
        assert_same(*both(xconv.conv_transpose, x, w, stride=2, padding=1, algorithm=algorithm))


@pytest.mark.parametrize("name", SUITED)
def test_half_precision_is_rounded_once(name):
    """Sums of whole numbers are exact before they are rounded; of others all but the last digits are."""
    sizes, kernel, channels, outputs, options = SUITED[name]
    algorithm, groups = name.partition(" ")[0], options.get("groups", 1)
    x, w, b = (
        small_integers(shape, "float16", seed=1)
        for shape in ((2, *sizes, channels), (*kernel, channels // groups, outputs), (outputs,))
    )
    options = {**options, "padding": "same", "algorithm": algorithm}
    r = small_integers(xconv.conv(x, w, **options).shape, "float16", seed=2)
    actual, expected = both(xconv.conv, x, w, b, residual=r, activation="relu", **options)
    assert actual.dtype == "float16"
    if algorithm in ("winograd", "fft", "auto"):
        assert_close(actual, expected)
    else:
        assert_same(actual, expected)


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "winograd", "depthwise", "auto"])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_every_pad_mode(mode, algorithm):
    """With more padding than there is input, and cropped."""
    groups = 6 if algorithm == "depthwise" else 1
    w = numbers((3, 3, 6 // groups, 12))
    for sizes, padding in (((9, 7), 1), ((2, 5), ((3, 2), (0, 7))), ((9, 8), ((-2, 3), (1, -1)))):
        x = numbers((2, *sizes, 6))
        pads = reference.pads_of(padding, sizes, (3, 3), (1, 1), (1, 1))
        expected = reference.conv(
            x, w, stride=(1, 1), pads=pads, dilation=(1, 1), groups=groups, pad_mode=mode
        ).astype("float32")
        options = {"padding": padding, "pad_mode": mode, "groups": groups, "algorithm": algorithm}
        actual, without = both(xconv.conv, x, w, **options)
        assert_close(actual, expected, rtol=1e-5)
        assert_close(actual, without, rtol=1e-5)


@pytest.mark.parametrize("name", SUITED)
def test_one_sample_and_none(name):
    sizes, kernel, channels, outputs, options = SUITED[name]
    algorithm = name.partition(" ")[0]
    x, b = numbers((2, *sizes, channels)), numbers((outputs,))
    w = numbers((*kernel, channels // options.get("groups", 1), outputs))
    options = {**options, "padding": "same", "activation": "relu"}
    y = xconv.conv(x, w, b, algorithm=algorithm, **options)
    r = numbers(y.shape, seed=1)
    for one in (0, 1):
        actual, _ = both(xconv.conv, x[one], w, b, algorithm=algorithm, **options)
        assert_close(actual, y[one], rtol=1e-5)
    if algorithm in willing(xconv.conv, x[:0], w, b, **options):
        assert xconv.conv(x[:0], w, b, residual=r[:0], algorithm=algorithm, **options).shape == (
            0,
            *y.shape[1:],
        )


def test_no_sample_transposed():
    x, w, b = numbers((0, 5, 6, 4)), numbers((4, 4, 3, 4)), numbers((3,))
    for algorithm in ("direct", "im2col", "auto"):
        y = xconv.conv_transpose(x, w, b, stride=2, activation="relu", algorithm=algorithm)
        assert y.shape == (0, 12, 14, 3)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


SEEN = {
    "read-only": read_only,
    "backwards": lambda x: x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "channels backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "every second": lambda x: np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)[:, ::2, 1::2],
    "some of the channels": lambda x: np.concatenate([x, np.full_like(x, np.nan)], axis=-1)[
        ..., : x.shape[-1]
    ],
    "Fortran's order": np.asfortranarray,
    "not on a number's boundary": lambda x: np.frombuffer(b"abc" + x.tobytes(), x.dtype, offset=3).reshape(
        x.shape
    ),
}


@pytest.mark.parametrize("memory", SEEN)
@pytest.mark.parametrize("algorithm", ["direct", "im2col", "winograd", "depthwise", "auto"])
def test_inputs_are_read_wherever_they_lie(algorithm, memory):
    groups = 6 if algorithm == "depthwise" else 1
    x, w, b = numbers((2, 9, 11, 6)), numbers((3, 3, 6 // groups, 12)), numbers((12,))
    r = numbers((2, 9, 11, 12), seed=1)
    options = {"padding": 1, "groups": groups, "algorithm": algorithm, "activation": "relu6"}
    expected = xconv.conv(x, w, b, residual=r, **options)
    seen = [SEEN[memory](x), SEEN[memory](w), read_only(b)]
    np.testing.assert_array_equal(seen[0], x)
    before = [array.copy() for array in seen]
    actual, _ = both(xconv.conv, *seen, residual=SEEN[memory](r), **options)
    assert_close(actual, expected, rtol=1e-5)
    for array, same in zip(seen, before, strict=True):
        assert_same(array, same)


@pytest.mark.parametrize("algorithm", ["direct", "winograd", "depthwise"])
def test_one_number_seen_everywhere(algorithm):
    groups = 6 if algorithm == "depthwise" else 1
    x, w = np.broadcast_to(np.float32(2), (2, 9, 11, 6)), np.ones((3, 3, 6 // groups, 12), "float32")
    r = np.broadcast_to(np.arange(12, dtype="float32"), (2, 7, 9, 12))
    y, _ = both(xconv.conv, x, w, groups=groups, residual=r, algorithm=algorithm)
    assert_close(y, np.broadcast_to(18 * 6 / groups + np.arange(12.0), (2, 7, 9, 12)), rtol=1e-6)


# ------------------------------------------------------------------------------------------- kept between calls


def in_a_new_thread(function):
    """What a function gives in a thread that has kept nothing yet."""
    found = []

    def run():
        try:
            found.append(function())
        except BaseException as error:  # raised below
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


@pytest.fixture
def in_scratch(monkeypatch):
    """Tiles are run by a crew, with spare memory, however few and small they are."""

    def run(job, x, operands, whole, edges, threads, xp):
        return _tiles.run(job, x, operands, whole, edges, max(threads, job.settings.threads or 1), xp)

    monkeypatch.setattr(_engine, "run", run)


def kept():
    """Bytes that this thread has kept for its next call."""
    return sum(array.nbytes for array in (_scratch._scratch.before or {}).values())


def test_a_thread_keeps_little_memory_and_gives_back_more():
    like = np.ones(1, "float32")

    def use(*sizes):
        with scratch():
            for i, size in enumerate(sizes):
                assert spare(f"purpose {i}", (size // 4,), like.dtype, like).nbytes == size
            assert kept() == 0
        return kept()

    def one_after_the_other():
        assert kept() == 0
        assert use(4000) == 4000
        assert use(400) == 4000
        assert use(_scratch.share() - 4000, 4000) == _scratch.share()
        assert use(100) == _scratch.share()
        assert use(100, 100, 4) == 0
        assert use(4000) == 4000
        assert use(_scratch.share() + 4) == 0
        return True

    assert in_a_new_thread(one_after_the_other)
    assert in_a_new_thread(one_after_the_other)  # what another thread has kept does not count


def test_kept_memory_is_used_again_where_it_fits():
    like, double = np.ones(1, "float32"), np.ones(1)

    def use():
        with scratch():
            a = spare("a", (10, 20), like.dtype, like)
            assert not np.shares_memory(a, spare("b", (10, 20), like.dtype, like))
        with scratch():
            assert np.shares_memory(a, spare("a", (5, 9), like.dtype, like))
            assert spare("a", (5, 9), like.dtype, like).shape == (5, 9)
            assert not np.shares_memory(a, spare("a", (10, 21), like.dtype, like))
            b = spare("b", (2, 3), double.dtype, double)
            assert b.dtype == "float64"
            assert b.ctypes.data % LINE == 0
        return a

    ours, theirs = in_a_new_thread(use), in_a_new_thread(use)
    assert not np.shares_memory(ours, theirs)
    assert spare("a", (5, 9), like.dtype, like) is None  # outside there is none


@pytest.mark.parametrize("failing", [False, True])
def test_a_call_inside_a_call_has_memory_of_its_own(failing):
    like = np.ones(1, "float32")

    def use():
        with scratch():
            mine = spare("a", (100,), like.dtype, like)
            try:
                with scratch():
                    inner = spare("a", (100,), like.dtype, like)
                    with scratch():
                        innermost = spare("a", (100,), like.dtype, like)
                    if failing:
                        raise ArithmeticError
            except ArithmeticError:
                pass
            for one, other in itertools.combinations((mine, inner, innermost), 2):
                assert not np.shares_memory(one, other)
            assert np.shares_memory(spare("a", (100,), like.dtype, like), mine)
            assert kept() == 0
        with scratch():
            assert np.shares_memory(spare("a", (100,), like.dtype, like), mine)
        return kept()

    assert in_a_new_thread(use) == 400


@pytest.mark.parametrize("keep", [0, 3000, 10**5])
@pytest.mark.parametrize("name", SUITED)
def test_calls_keep_no_more_than_that(monkeypatch, in_scratch, name, keep):
    monkeypatch.setattr(_scratch, "KEEP", keep)
    sizes, kernel, channels, outputs, options = SUITED[name]
    x = numbers((2, *sizes, channels))
    w = numbers((*kernel, channels // options.get("groups", 1), outputs))
    options = {**options, "padding": "same", "algorithm": name.partition(" ")[0]}
    expected = xconv.conv(x, w, **options)

    def call():
        with xconv.config(workspace=30_000, threads=1):
            for _ in range(2):
                assert_close(xconv.conv(x, w, **options), expected, rtol=1e-5)
                assert kept() <= keep
        return kept()

    assert in_a_new_thread(call) <= keep


@pytest.mark.parametrize("algorithm", ["im2col", "winograd"])
def test_calls_keep_something_for_the_next(in_scratch, algorithm):
    """Or the test above would say nothing."""
    x, w = numbers((2, 30, 30, 8)), numbers((3, 3, 8, 8))

    def call():
        with xconv.config(workspace=30_000, threads=1):
            xconv.conv(x, w, algorithm=algorithm)
        return kept()

    assert 0 < in_a_new_thread(call) <= _scratch.share()


SCALE = np.float32(0.5)


def nested(algorithm, groups=1):
    """An activation that convolves: element by element, as only the tap in the middle counts, its channel with itself.

    Two results of calls are alive at once, one of a call in one go and one of a call in tiles.
    """

    def activation(y):
        spatial, channels = y.ndim - 2, y.shape[-1]
        taps = 1 if algorithm == "pointwise" else 3
        w = np.zeros((*(taps,) * spatial, channels // groups, channels), y.dtype)
        for channel in range(channels):
            w[(*(taps // 2,) * spatial, channel % (channels // groups), channel)] = SCALE
        options = {"padding": "same", "groups": groups, "algorithm": algorithm}
        one = xconv.conv(y, w, **options)
        with xconv.config(workspace=1):
            other = xconv.conv(y, -3 * w, **options)
        two = xconv.conv(one, w, **options)
        return y + one + other + two

    return activation


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("inner", ["direct", "im2col", "winograd", "fft", "pointwise"])
@pytest.mark.parametrize("name", [name for name in SUITED if name != "auto"])
def test_an_activation_that_convolves_does_not_disturb_the_call(in_scratch, name, inner, threads):
    sizes, kernel, channels, outputs, options = SUITED[name]
    x, b = numbers((2, *sizes, channels)), numbers((outputs,))
    w = numbers((*kernel, channels // options.get("groups", 1), outputs))
    options = {**options, "padding": "same", "algorithm": name.partition(" ")[0]}
    expected = xconv.conv(x, w, b, **options) * (1 + 0.5 - 1.5 + 0.25)
    for workspace in (2**26, 20_000):
        with xconv.config(threads=threads, workspace=workspace):
            actual = xconv.conv(x, w, b, activation=nested(inner), **options)
        assert_close(actual, expected, rtol=2e-5)


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "winograd"])
def test_nor_that_of_a_transposed_convolution(in_scratch, algorithm):
    x, w, b = numbers((2, 7, 8, 5)), numbers((6, 6, 4, 5)), numbers((4,))
    options = {"stride": 2, "algorithm": algorithm}
    expected = xconv.conv_transpose(x, w, b, **options) * 0.25
    with xconv.config(workspace=8000, threads=1):
        actual = xconv.conv_transpose(x, w, b, activation=nested("winograd"), **options)
    assert_close(actual, expected, rtol=2e-5)
