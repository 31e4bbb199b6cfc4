"""Compiled depthwise convolutions and pools give what the written-once movers give, wherever they stand in memory."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from xconv._finish import Finish
from xconv._geometry import Axis, WindowProblem
from xconv._movers import first_maximum as written_first_maximum
from xconv._movers import running as written_running
from xconv._movers import weighted_windows

pytest.importorskip("numba")
from xconv._bridges.numba.lanes import can, depthwise, first_maximum, running

pytestmark = pytest.mark.backends("fast")

IDENTITY = {"sum": 0.0, "max": -np.inf, "min": np.inf}
DTYPES = st.sampled_from([np.float32, np.float64])


@st.composite
def spatial(draw, *, window=4, crops=True):
    """Axes with at least one window each; windows may lie in the padding, and padding may be negative."""
    axes = []
    for _ in range(draw(st.integers(1, 3))):
        k, s, d = draw(st.integers(1, window)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        n, low, high = draw(st.integers(1, 17)), draw(st.integers(-2, 4)), draw(st.integers(-2, 4))
        if not crops:
            low, high = min(max(low, 0), d * (k - 1)), min(max(high, 0), d * (k - 1))
        n = max(n, 1 - min(low, 0) - min(high, 0))
        axes.append(Axis(n, k, s, d, 1, low, max(high, d * (k - 1) + 1 - n - low)))
    return tuple(axes)


def outputs(axes):
    return tuple(a.output for a in axes)


def values(seed, shape, dtype):
    """Whole numbers, so that sums are exact in any order, and there are ties."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def input_in(memory, seed, axes, channels, dtype):
    """An input (N, *n, C): by itself, backwards along space, or a part of a larger array."""
    sizes = tuple(a.size for a in axes)
    if memory == "plain":
        return values(seed, (2, *sizes, channels), dtype)
    if memory == "backwards":
        return values(seed, (2, *sizes, channels), dtype)[
            (slice(None), *(slice(None, None, -1),) * len(axes))
        ]
    whole = values(seed, (3, *(2 * n + 1 for n in sizes), channels + 2), dtype)
    return whole[(slice(1, None), *(slice(1, None, 2),) * len(axes), slice(1, -1))]


def written_out(x, axes, fill):
    """The input with its padding in memory, or cropped, and the axes over it."""
    inside = (slice(max(-a.low, 0), a.size - max(-a.high, 0)) for a in axes)
    pads = ((0, 0), *((max(a.low, 0), max(a.high, 0)) for a in axes), (0, 0))
    return np.pad(x[(slice(None), *inside)], pads, constant_values=fill), tuple(
        a.materialised() for a in axes
    )


class Target:
    """A result in the middle of a larger array, whose surroundings must stay as they are."""

    def __init__(self, shape, dtype):
        self.whole = np.full((*(n + 2 for n in shape[:-1]), shape[-1] + 3), 77, dtype)
        inner = (*(slice(1, -1),) * (len(shape) - 1), slice(1, -2))
        self.view = self.whole[inner]
        self.around = np.ones(self.whole.shape, bool)
        self.around[inner] = False

    def check(self, expected):
        np.testing.assert_array_equal(self.view, expected)
        assert (self.whole[self.around] == 77).all()


MEMORY = st.sampled_from(["plain", "backwards", "part"])


@hypothesis.settings(max_examples=300)
@hypothesis.given(spatial(window=7), st.integers(1, 40), st.integers(1, 3), DTYPES, MEMORY, st.integers(0, 9))
def test_depthwise_is_the_written_once_sum(axes, channels, multiplier, dtype, memory, seed):
    x, made = input_in(memory, seed, axes, channels, dtype), channels * multiplier
    w = values(seed + 1, (int(np.prod([a.window for a in axes])), made), dtype)
    target = Target((2, *outputs(axes), made), dtype)
    finish = Finish(
        values(seed + 2, (made,), dtype) if seed % 2 else None,
        values(seed + 3, target.view.shape, dtype) if seed % 3 == 0 else None,
        *((-20.0, 20.0) if seed % 4 == 0 else ()),
    )
    block, over = written_out(x, axes, 0)
    expected = weighted_windows(np.repeat(block, multiplier, axis=-1), over, w[:, None, :], None, np)
    expected = expected + (0 if finish.bias is None else finish.bias)
    expected = expected + (0 if finish.residual is None else finish.residual)
    assert depthwise(x, w, axes, target.view, finish) is target.view
    target.check(np.clip(expected, finish.low, finish.high))


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    spatial(), st.integers(1, 70), st.sampled_from(["sum", "max", "min"]), DTYPES, MEMORY, st.integers(0, 9)
)
def test_running_is_the_written_once_reduction(axes, channels, reduction, dtype, memory, seed):
    x = input_in(memory, seed, axes, channels, dtype)
    if seed % 2:
        odd = np.random.default_rng(seed).random(x.shape)
        x[odd < 0.02], x[odd > 0.98], x[(odd > 0.9) & (odd < 0.95)] = np.nan, np.inf, -np.inf
    block, over = written_out(x, axes, IDENTITY[reduction])
    target = Target((2, *outputs(axes), channels), dtype)
    assert running(x, axes, reduction, target.view) is target.view
    with np.errstate(invalid="ignore"):  # infinity less infinity
        target.check(written_running(block, over, reduction, np))


def compare_first_maximum(x, axes, whole, origin):
    block, over = written_out(x, axes, -np.inf)
    problem = WindowProblem(len(x), over, x.shape[-1])
    expected = written_first_maximum(block, whole, problem, origin, np.dtype(np.int64), np)
    found, places = Target(expected[0].shape, x.dtype), Target(expected[1].shape, np.int64)
    first_maximum(x, axes, whole, origin, found.view, places.view)
    found.check(expected[0])
    places.check(expected[1])


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.data(), spatial(crops=False), st.integers(1, 40), DTYPES, MEMORY, st.integers(0, 9))
def test_first_maximum_is_the_written_once_one_in_the_whole_and_in_a_tile(
    data, axes, channels, dtype, memory, seed
):
    x = input_in(memory, seed, axes, channels, dtype)
    odd = np.random.default_rng(seed).random(x.shape)
    x[odd < 0.3] = -np.inf
    if seed % 2:
        x[odd > 0.95] = np.nan
    hypothesis.assume(not any(a.low + a.size < 1 for a in axes))
    compare_first_maximum(x, axes, axes, (0,) * len(axes))
    origin, source, tile = [], [slice(None)], []
    for a in axes:
        start = data.draw(st.integers(0, a.output - 1))
        begin, end, axis = a.tile(start, data.draw(st.integers(start + 1, a.output)))
        hypothesis.assume(begin < end)
        origin.append(start)
        source.append(slice(begin, end))
        tile.append(axis)
    compare_first_maximum(x[tuple(source)], tuple(tile), axes, tuple(origin))


def test_of_equals_the_first_is_found_and_of_nans_too():
    x = np.array([1, 3, 3, 2, np.nan, 5, np.nan, -np.inf, -np.inf, -np.inf], np.float32).reshape(1, 10, 1)
    axes = (Axis(10, 3, 3, 1, 1, 1, 1),)
    values, places = np.empty((1, 4, 1), np.float32), np.empty((1, 4, 1), np.int64)
    first_maximum(x, axes, axes, (0,), values, places)
    np.testing.assert_array_equal(values[0, :, 0], [3, np.nan, np.nan, -np.inf])
    np.testing.assert_array_equal(places[0, :, 0], [1, 4, 6, 8])


@pytest.mark.parametrize("reduction", IDENTITY)
def test_windows_in_the_padding_give_the_identity(reduction):
    axes = (Axis(2, 2, 1, 1, 1, 3, 3), Axis(3, 3, 1, 1, 1, 4, 9))
    y = running(np.ones((1, 2, 3, 17), np.float32), axes, reduction, np.empty((1, 7, 14, 17), np.float32))
    away = np.ones((7, 14), bool)
    away[2:5, 2:7] = False
    assert (y[0, away] == IDENTITY[reduction]).all()
    assert (y[0, ~away] != IDENTITY[reduction]).all()


@pytest.mark.parametrize("low", [-1, 2])
def test_a_tile_that_lies_in_the_padding_has_no_input(low):
    axes = (Axis(0, 2, 1, 1, 1, 3), Axis(4, 1, 1, 1, 1, low))
    x, bias = np.empty((1, 0, 4, 5), np.float32), np.arange(5, dtype=np.float32)
    shape = (1, *outputs(axes), 5)
    assert (running(x, axes, "max", np.empty(shape, np.float32)) == -np.inf).all()
    y = depthwise(x, np.ones((2, 5), np.float32), axes, np.empty(shape, np.float32), Finish(bias))
    np.testing.assert_array_equal(y, np.broadcast_to(bias, shape))


@pytest.mark.parametrize(
    "batch, size, channels",
    [(0, 5, 3), (1, 2, 3), (1, 5, 0), (1, 0, 3)],
    ids=["batch", "output", "channels", "input"],
)
def test_what_is_empty_stays_empty(batch, size, channels):
    axes = (Axis(size, 3, 1),)
    x, shape = np.ones((batch, size, channels), np.float32), (batch, max(axes[0].output, 0), channels)
    y, places = np.empty(shape, np.float32), np.empty(shape, np.int64)
    assert depthwise(x, np.ones((3, channels), np.float32), axes, y, Finish()) is y
    assert running(x, axes, "sum", y) is y
    assert first_maximum(x, axes, axes, (0,), y, places) == (y, places)


def test_nan_and_infinity_reach_the_windows_that_hold_them_and_no_others():
    axes = (Axis(9, 3, 1, 1, 1, 1, 1),)
    x = np.zeros((1, 9, 20), np.float32)
    x[0, 0, 18], x[0, 4, 3], x[0, 4, 4], x[0, 8, 19] = np.nan, np.nan, np.inf, -np.inf
    expected = np.zeros((1, 9, 20), np.float32)
    expected[0, :2, 18], expected[0, 3:6, 3], expected[0, 3:6, 4], expected[0, 7:, 19] = (
        np.nan,
        np.nan,
        6.0,
        -1.0,
    )
    y = depthwise(x, np.ones((3, 20), np.float32), axes, np.empty_like(x), Finish(low=-1.0, high=6.0))
    np.testing.assert_array_equal(y, expected)
    largest = np.zeros((1, 9, 20), np.float32)
    largest[0, :2, 18], largest[0, 3:6, 3], largest[0, 3:6, 4] = np.nan, np.nan, np.inf
    np.testing.assert_array_equal(running(x, axes, "max", y), largest)


@pytest.mark.parametrize("window, stride", [(3, 1), (3, 2), (4, 1)])
def test_the_bits_do_not_depend_on_the_tiles(window, stride):
    random = np.random.default_rng(5)
    axes = (Axis(19, window, stride, 1, 1, 2, 1), Axis(31, window, stride, 1, 1, 2, 2))
    x = random.standard_normal((2, 19, 31, 21)).astype(np.float32)
    w = random.standard_normal((window**2, 21)).astype(np.float32)
    whole, sums = np.empty((2, *outputs(axes), 21), np.float32), np.empty((2, *outputs(axes), 21), np.float32)
    depthwise(x, w, axes, whole, Finish())
    running(x, axes, "sum", sums)
    for i in range(0, axes[0].output, 4):
        for j in range(0, axes[1].output, 5):
            place = (slice(None), slice(i, i + 4), slice(j, j + 5))
            cuts = [a.tile(p.start, min(p.stop, a.output)) for a, p in zip(axes, place[1:], strict=True)]
            part = x[(slice(None), *(slice(begin, end) for begin, end, _ in cuts))]
            tile = tuple(axis for _, _, axis in cuts)
            y = np.empty(whole[place].shape, np.float32)
            np.testing.assert_array_equal(depthwise(part, w, tile, y, Finish()), whole[place])
            np.testing.assert_array_equal(running(part, tile, "sum", y), sums[place])


def test_what_can_be_done():
    plain = Axis(7, 3)
    assert can((plain,))
    assert can((plain,) * 3)
    assert not can((plain,) * 4)
    assert not can((plain, Axis(7, 3, input_dilation=2)))
    assert can((Axis(2**15, 3), Axis(2**15, 3)))
    assert not can((Axis(2**16, 3), Axis(2**15, 3)))
