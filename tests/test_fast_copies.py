"""The compiled copies: each gives what NumPy and the written-once movers give, and writes nowhere else."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

pytest.importorskip("numba")

from xconv import _movers
from xconv._bridges.numba.copies import columns, finished
from xconv._bridges.numba.gathering import can_gather, gathered, maps
from xconv._finish import Finish
from xconv._geometry import Axis
from xconv._namespace import numpy_namespace

pytestmark = pytest.mark.backends("fast")

MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
LAYOUTS = ("channels last", "channels first", "every second", "backwards", "pixels first")
READ = ("int8", "uint8", "int16", "uint16", "int32", "float16", "float32", "float64")
MADE = ("float32", "float64")


# -------------------------------------------------------------------------------------------------------- arrays


def laid_out(values, layout):
    """The same values (N, *n, C) in another order, or with other things between them, in memory."""
    if layout == "channels first":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(values, -1, 1)), 1, -1)
    if layout == "pixels first":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 0, -1)), -1, 0)
    if layout == "every second":
        wide = np.zeros((*(2 * n for n in values.shape[:-1]), values.shape[-1] + 3), values.dtype)
        view = wide[(*(slice(1, None, 2),) * (values.ndim - 1), slice(2, -1))]
        view[...] = values
        return view
    if layout == "backwards":
        return np.ascontiguousarray(values[::-1, ::-1, ..., ::-1])[::-1, ::-1, ..., ::-1]
    return np.ascontiguousarray(values)


def numbers(shape, dtype, seed):
    """Random numbers of all the size of a type, with NaN and infinities among the floats."""
    random, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, size=shape, dtype=dtype, endpoint=True)
    values = random.normal(size=shape).astype(dtype)
    return np.where(
        random.random(shape) < 0.02, random.choice([np.nan, np.inf, -np.inf], shape), values
    ).astype(dtype)


class Guarded:
    """An array in the middle of other memory, of which it is found out whether it was written to."""

    MARK = 12345.0

    def __init__(self, shape, dtype):
        self.all = np.full(math.prod(shape) + 256, self.MARK, dtype)
        self.array = self.all[128:-128].reshape(shape)

    def assert_untouched(self):
        assert (self.all[:128] == self.MARK).all()
        assert (self.all[-128:] == self.MARK).all()


def test_guarded_memory_notices_what_is_written_beside_it():
    place = Guarded((2, 3), "float32")
    place.all[127] = 0
    with pytest.raises(AssertionError):
        place.assert_untouched()


# ---------------------------------------------------------------------------------------------------------- maps


@given(st.integers(1, 9), st.integers(-25, 25), st.integers(0, 40), st.sampled_from(MODES))
def test_maps_are_numpys_pad(size, start, count, mode):
    # far enough to both sides, and cut to what is asked for
    stop = start + count
    low, high = max(-start, 0), max(stop - size, 0)
    fill = {"constant_values": -1} if mode == "constant" else {}
    whole = np.pad(np.arange(size), (low, high), mode=mode, **fill)
    np.testing.assert_array_equal(maps(size, start, stop, 1, mode), whole[start + low : stop + low])


@given(st.integers(0, 9), st.integers(2, 4), st.integers(-5, 40), st.integers(0, 40))
def test_maps_have_holes_where_the_input_is_spread(size, input_dilation, start, count):
    whole = np.full(200, -1)
    whole[50 : 50 + size * input_dilation : input_dilation] = np.arange(size)
    expected = whole[50 + start : 50 + start + count]
    np.testing.assert_array_equal(maps(size, start, start + count, input_dilation, "constant"), expected)


@pytest.mark.parametrize("mode", MODES)
def test_maps_of_an_empty_axis_have_no_elements(mode):
    assert maps(0, -2, 3, 1, mode).tolist() == [-1] * 5


# ------------------------------------------------------------------------------------------------------ gathered


def chosen(x, tables, fill, dtype):
    """The elements that the tables name, and ``fill`` elsewhere."""
    with np.errstate(over="ignore"):  # a large float64 is an infinity in float32
        y = x.astype(dtype)
    for axis, table in enumerate(tables, 1):
        if not y.shape[axis]:
            y = np.zeros((*y.shape[:axis], 1, *y.shape[axis + 1 :]), dtype)
        y = np.take(y, np.maximum(table, 0), axis=axis)
        y[(*(slice(None),) * axis, table < 0)] = fill
    return y


def assert_gathers(x, tables, fill, dtype):
    place = Guarded((x.shape[0], *map(len, tables), x.shape[-1]), dtype)
    assert gathered(x, tables, fill, place.array) is place.array
    np.testing.assert_array_equal(place.array, chosen(x, tables, fill, dtype))
    place.assert_untouched()


@st.composite
def padded(draw):
    """An input, and how its axes are continued."""
    rank = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 5)) for _ in range(rank - 1)] + [draw(st.integers(1, 40))]
    shape = (draw(st.integers(1, 2)), *sizes, draw(st.integers(1, 70)))
    mode = draw(st.sampled_from(MODES))
    spread = draw(st.integers(1, 3)) if mode == "constant" else 1
    tables = []
    for size in sizes:
        low, high = draw(st.integers(-2, 7)), draw(st.integers(-2, 7))
        tables.append(maps(size, -low, max((size - 1) * spread + 1 + high, -low), spread, mode))
    return shape, tuple(tables), draw(st.integers(0, 2**32))


@given(
    padded(),
    st.sampled_from(LAYOUTS),
    st.sampled_from(READ),
    st.sampled_from(MADE),
    st.sampled_from([0, -np.inf, np.nan]),
)
def test_gathered_is_padding_cropping_spreading_and_converting(case, layout, read, made, fill):
    shape, tables, seed = case
    assume(can_gather(np.dtype(read), np.dtype(made)))  # not every processor reads 16-bit floats
    assert_gathers(laid_out(numbers(shape, read, seed), layout), tables, fill, made)


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 16, 17, 64, 67])
def test_gathered_meets_every_length_of_row(channels, layout, made):
    for width in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33):
        x = laid_out(numbers((1, 3, width, channels), "float32", width), layout)
        assert_gathers(x, (maps(3, -1, 4), maps(width, -1, width + 1)), 0, made)


@given(st.integers(1, 2), st.data(), st.sampled_from(LAYOUTS), st.integers(1, 20))
def test_gathered_takes_any_elements(rank, data, layout, channels):
    tables = tuple(
        np.array(data.draw(st.lists(st.integers(-1, 5), min_size=1, max_size=12)), np.int64)
        for _ in range(rank)
    )
    assert_gathers(
        laid_out(numbers((2, *(6,) * rank, channels), "float32", 0), layout), tables, -1, "float32"
    )


def test_gathered_does_not_take_a_hole_for_the_next_element_of_a_descending_run():
    x = numbers((1, 3, 2), "float32", 1)
    assert_gathers(x, (np.array([2, 1, 0, -1, -1, 0, -1, 1]),), 7, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gathered_keeps_the_sign_of_a_zero_whatever_was_filled_in_before(dtype):
    x, y = np.ones((1, 1, 1, 1), dtype), np.ones((1, 3, 3, 1), dtype)
    for fill in (0.0, -0.0, 0.0):
        gathered(x, (maps(1, -1, 2),) * 2, fill, y)
        assert np.signbit(y[0, 0, 0, 0]) == np.signbit(fill)


def test_gathered_writes_long_results_piece_by_piece():
    x = laid_out(numbers((1, 70, 30, 40), "float32", 2), "channels first")  # 336 KB
    assert_gathers(x, (maps(70, -1, 71), maps(30, -1, 31)), 0, "float32")


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (2, 0, 4, 3), (2, 4, 4, 0)])
def test_gathered_from_or_to_nothing(shape):
    tables = (maps(shape[1], -1, shape[1] + 1), maps(4, -1, 5))
    assert_gathers(np.ones(shape, "float32"), tables, 3, "float32")
    assert_gathers(np.ones((1, 4, 4, 2), "float32"), (maps(4, 2, 2), maps(4, 0, 4)), 3, "float32")


def test_can_gather_says_which_dtypes():
    real = [np.dtype(name) for name in READ if name != "float16"]
    assert all(can_gather(x, np.dtype(y)) for x, y in itertools.product(real, MADE))
    for refused in ("bool", "int64", "uint32", "complex64", ">f4"):
        assert not can_gather(np.dtype(refused), np.dtype("float32"))
    for refused in ("float16", "int32", "complex64"):
        assert not can_gather(np.dtype("float32"), np.dtype(refused))


# ------------------------------------------------------------------------------------------------------- columns


def written_once(x, axes):
    """The windows as the movers of all libraries give them, of an input that is cropped beforehand."""
    inside = tuple(slice(max(-a.low, 0), a.size - max(-a.high, 0)) for a in axes)
    x = x[(slice(None), *inside, ...)]
    axes = [
        a._replace(size=n, low=max(a.low, 0), high=max(a.high, 0))
        for a, n in zip(axes, x.shape[1:-1], strict=True)
    ]
    block = _movers.block(x, axes, x.dtype, 0, numpy_namespace)
    y = _movers.columns(block, [a.materialised() for a in axes], numpy_namespace)
    return y.reshape(*y.shape[:-2], -1)


def assert_columns(x, axes):
    taps = math.prod(a.window for a in axes)
    place = Guarded((x.shape[0], *(a.output for a in axes), taps * x.shape[-1]), x.dtype)
    assert columns(x, axes, place.array) is place.array
    np.testing.assert_array_equal(place.array, written_once(x, axes))
    place.assert_untouched()


@st.composite
def windowed(draw, largest):
    """An axis with at least one window, which may begin and end outside."""
    size, window = draw(st.integers(1, largest)), draw(st.integers(1, 5))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    low, high = draw(st.integers(-(size // 2), 7)), draw(st.integers(-((size - 1) // 2), 7))
    axis = Axis(size, window, stride, dilation, 1, low, high)
    missing = axis.reach - (size + low + high)
    return (
        axis._replace(high=high + max(missing, 0))
        if high + max(missing, 0) >= 0 or missing <= 0
        else Axis(size, 1)
    )


@given(
    st.integers(1, 3),
    st.data(),
    st.integers(1, 40),
    st.sampled_from(LAYOUTS[:1] + LAYOUTS[2:3] + ("rows turned",)),
)
def test_columns_are_the_written_out_windows(rank, data, channels, layout):
    axes = tuple(data.draw(windowed(30 if i == rank - 1 else 6)) for i in range(rank))
    dtype = data.draw(st.sampled_from(MADE))
    x = numbers((data.draw(st.integers(1, 2)), *(a.size for a in axes), channels), dtype, channels)
    x = x[:, ::-1, ...] if layout == "rows turned" else laid_out(x, layout)
    assert_columns(x, axes)


@pytest.mark.parametrize(
    "channels, window, stride, pad", [(3, 7, 2, 3), (3, 3, 1, 1), (1, 11, 4, 2), (64, 3, 1, 1)]
)
def test_columns_of_well_known_layers(channels, window, stride, pad):
    axes = (Axis(45, window, stride, 1, 1, pad, pad),) * 2
    assert_columns(numbers((2, 45, 45, channels), "float32", 3), axes)


def test_columns_write_long_rows_piece_by_piece():
    axes = (Axis(3, 3, 1, 1, 1, 1, 1), Axis(200, 3, 1, 1, 1, 1, 1))  # 346 KB a row
    assert_columns(numbers((1, 3, 200, 48), "float32", 4), axes)


def test_columns_that_are_all_padding_are_zeros():
    y = np.ones((1, 1, 6), "float32")
    assert not columns(np.ones((1, 2, 2), "float32"), (Axis(2, 3, 1, 1, 1, -2, 3),), y).any()


def test_columns_of_nothing():
    y = np.empty((0, 2, 9), "float32")
    assert columns(np.ones((0, 4, 3), "float32"), (Axis(4, 3),), y) is y


# ------------------------------------------------------------------------------------------------------ finished


def assert_finishes(y, finish):
    """In place, in the order bias, residual, bounds, and NaN stays NaN."""
    bias, residual, low, high = finish
    with np.errstate(invalid="ignore", over="ignore"):  # the sum of two opposite infinities
        expected = y.copy()
        expected += 0 if bias is None else bias
        expected += 0 if residual is None else residual.astype(y.dtype)
        expected = np.clip(expected, low, high)
    assert finished(y, finish) is y
    np.testing.assert_array_equal(y, expected)


BOUNDS = [(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-np.inf, 0.5)]


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.integers(1, 70),
    st.sampled_from(LAYOUTS[:1] + LAYOUTS[2:3]),
    st.sampled_from((None, *LAYOUTS)),
    st.booleans(),
    st.sampled_from(BOUNDS),
    st.sampled_from(MADE),
)
def test_finished_is_bias_residual_and_bounds(sizes, channels, layout, beside, with_bias, bounds, dtype):
    shape = (2, *sizes, channels)
    residual = None if beside is None else laid_out(numbers(shape, dtype, 1), beside)
    bias = numbers((channels,), dtype, 2) if with_bias else None
    assert_finishes(laid_out(numbers(shape, dtype, 0), layout), Finish(bias, residual, *bounds))


@pytest.mark.parametrize("channels", [*range(1, 18), 255, 256, 257, 1000])
def test_finished_knows_the_channel_of_every_number(channels):
    place = Guarded((1, 9, 41, channels), "float32")
    place.array[...] = numbers(place.array.shape, "float32", channels)
    assert_finishes(place.array, Finish(np.arange(channels, dtype="float32"), None, -1.0, channels / 2))
    place.assert_untouched()


@pytest.mark.parametrize(
    "part", [np.s_[:, :-1, :-1, :-1], np.s_[:, ::-1, 1:, 2:], np.s_[:, :, ::2], np.s_[::2, 1:]]
)
def test_finished_leaves_what_is_beside_its_array_alone(part):
    whole = np.full((4, 7, 19, 23), 100.0, "float32")
    bias = np.ones(whole[part].shape[-1], "float32")
    assert_finishes(whole[part], Finish(bias, whole[part].copy(), 0.0, 150.0))
    assert (whole[part] == 150).all()
    whole[part] = 100
    assert (whole == 100).all()


@pytest.mark.parametrize("other", ["float64", "int32", "bool"])
def test_finished_adds_a_residual_of_another_dtype(other):
    residual = np.arange(60).reshape(1, 4, 5, 3).astype(other)
    assert_finishes(np.ones((1, 4, 5, 3), "float32"), Finish(None, residual, 0.0, 30.0))


def test_finished_with_nothing_to_do():
    y = numbers((1, 5, 3), "float32", 0)
    before = y.copy()
    assert finished(y, Finish()) is y
    np.testing.assert_array_equal(y, before)
    y = np.empty((0, 5, 3), "float32")
    assert finished(y, Finish(np.ones(3, "float32"))) is y
