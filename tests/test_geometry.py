"""The surveyor: the two transposes of a convolution, tiles that cover it, boundary modes as runs."""

from dataclasses import replace
from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from reference import conv as reference_conv
from reference import output_size
from xconv._borders import boundary, runs
from xconv._geometry import Axis, ConvProblem, ceil_high, cut, edges, has_empty_window, materialised
from xconv._phases import _phase, periods, phases, side_by_side

axes = st.builds(
    Axis,
    size=st.integers(1, 7),
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    input_dilation=st.integers(1, 3),
    low=st.integers(-2, 4),
    high=st.integers(-2, 4),
).filter(lambda axis: axis.output > 0)


@st.composite
def problems(draw):
    spatial = tuple(draw(st.lists(axes, min_size=1, max_size=2)))
    groups = draw(st.integers(1, 3))
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return ConvProblem(draw(st.integers(1, 2)), spatial, groups * inputs, groups * outputs, groups)


def convolve(problem, x, w):
    """The dull reference, called with a closed problem."""
    return reference_conv(
        x,
        w,
        stride=tuple(a.stride for a in problem.axes),
        pads=tuple((a.low, a.high) for a in problem.axes),
        dilation=tuple(a.dilation for a in problem.axes),
        input_dilation=tuple(a.input_dilation for a in problem.axes),
        groups=problem.groups,
    )


def arrays(problem, seed):
    rng = np.random.default_rng(seed)
    sizes = tuple(a.size for a in problem.axes)
    x = rng.integers(-4, 5, (problem.batch, *sizes, problem.channels_in)).astype("float64")
    w = rng.integers(-4, 5, (*problem.window, problem.channels_in // problem.groups, problem.channels_out))
    g = rng.integers(-4, 5, (problem.batch, *problem.outputs, problem.channels_out)).astype("float64")
    return x, w.astype("float64"), g


def grouped(w, groups):
    """(*k, I, G * O) as (*k, I, G, O)."""
    return w.reshape(*w.shape[:-1], groups, -1)


@given(problems(), st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_the_two_transposes_are_adjoint(problem, seed):
    """<conv(x, w), g> = <x, dx> = <w, dw>, where dx and dw are convolutions again."""
    x, w, g = arrays(problem, seed)
    product_of_outputs = np.sum(convolve(problem, x, w) * g)

    transposed = problem.transposed()
    flipped = np.flip(w, axis=tuple(range(len(problem.axes))))
    exchanged = np.moveaxis(grouped(flipped, problem.groups), -1, -3)  # (*k, O, I, G)
    exchanged = np.moveaxis(exchanged, -1, -2).reshape(*problem.window, -1, problem.channels_in)
    dx = convolve(transposed, g, exchanged)
    assert dx.shape == x.shape
    assert np.sum(x * dx) == product_of_outputs

    by_weight = problem.weight_transposed()
    entered = grouped(x, problem.groups)  # (N, *n, G, I) -> (I, *n, G * N)
    entered = np.moveaxis(entered, (-1, 0), (0, -1)).reshape(by_weight.batch, *x.shape[1:-1], -1)
    dw = convolve(by_weight, entered, np.moveaxis(g, 0, -2))
    dw = np.moveaxis(dw, 0, -2)  # (I, *k, G * O) -> (*k, I, G * O)
    assert dw.shape == w.shape
    assert np.sum(w * dw) == product_of_outputs


@given(problems())
@settings(max_examples=200)
def test_the_transpose_of_the_transpose_is_the_problem_again(problem):
    for axis in problem.axes:
        again = axis.transposed().transposed()
        # what of the high padding no window reaches is not remembered
        assert again._replace(high=axis.high) == axis
        assert again.output == axis.output


@given(axes)
def test_output_sizes_are_those_of_the_reference(axis):
    expected = output_size(
        axis.size, axis.window, axis.stride, axis.low, axis.high, axis.dilation, axis.input_dilation
    )
    assert axis.output == expected


@given(axes)
def test_what_the_windows_meet_is_where_their_taps_stand(axis):
    axis = axis._replace(input_dilation=1)
    assume(axis.output > 0)
    stands = [
        [o * axis.stride + t * axis.dilation - axis.low for o in range(axis.output)]
        for t in range(axis.window)
    ]
    whole = [o for o in range(axis.output) if all(0 <= taps[o] < axis.size for taps in stands)]
    assert list(range(*axis.inner)) == whole
    for t, taps in enumerate(stands):
        for start, stop in ((0, axis.output), axis.inner, (0, 1)):
            outputs, elements = axis.met(t, start, stop)
            found = [o for o in range(start, stop) if 0 <= taps[o] < axis.size]
            assert list(range(axis.output)[outputs]) == found
            assert list(range(axis.size)[elements]) == [taps[o] for o in found]


@given(problems(), st.data())
@settings(max_examples=200)
def test_tiles_cover_every_output_once_and_compute_it(problem, data):
    x, w, _ = arrays(problem, 0)
    sizes = (problem.batch, *problem.outputs)
    extents = [data.draw(st.integers(1, size)) for size in sizes]
    whole = convolve(problem, x, w)
    result = np.full(whole.shape, np.nan)
    for tile in cut(problem, tuple(map(edges, sizes, extents))):
        assert np.isnan(result[tile.target]).all()
        part = tile.problem
        assert all(a.low >= 0 and a.high >= 0 for a in part.axes)  # a tile never crops
        assert part.outputs == tuple(s.stop - s.start for s in tile.target[1:])
        assert materialised(part).outputs == part.outputs
        source = x[tile.source]
        assert source.shape[1:-1] == tuple(a.size for a in part.axes)
        assert tile.entire == (source.shape == x.shape)
        result[tile.target] = convolve(part, source, w)
    assert np.array_equal(result, whole)


def test_edges_are_as_even_as_possible():
    assert edges(10, 4) == (0, 3, 6, 10)
    assert edges(10, 10) == (0, 10)
    assert edges(0, 3) == (0,)


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_runs_are_the_boundary_rule_element_by_element(mode, size):
    for start, stop in product(range(-3 * size, 2 * size), range(-2 * size, 4 * size)):
        if stop <= start:
            continue
        found = []
        for first, length, step in runs(start, stop, size, mode):
            assert step in (-1, 0, 1)
            found += [first + i * step for i in range(length)]
        assert found == [boundary(p, size, mode) for p in range(start, stop)]


def test_runs_of_constant_padding_hold_fill_outside():
    assert runs(-2, 5, 3, "constant") == ((0, 2, None), (0, 3, 1), (0, 2, None))
    assert runs(4, 6, 3, "constant") == ((0, 2, None),)
    assert runs(1, 3, 3, "constant") == ((1, 2, 1),)


@pytest.mark.parametrize(("n", "k", "s", "p", "outputs"), [(4, 2, 3, 1, 2), (5, 1, 3, 0, 2), (6, 2, 4, 1, 2)])
def test_ceil_mode_drops_a_window_that_starts_in_the_right_padding(n, k, s, p, outputs):
    axis = Axis(n, k, s, low=p, high=p)
    assert axis._replace(high=ceil_high(axis)).output == outputs


@given(axes)
@settings(max_examples=300)
def test_empty_windows_are_found(axis):
    def empty(o):
        positions = (o * axis.stride + t * axis.dilation - axis.low for t in range(axis.window))
        return not any(0 <= p < axis.spread and p % axis.input_dilation == 0 for p in positions)

    assert has_empty_window(axis) == any(empty(o) for o in range(axis.output))


@given(problems())
@settings(max_examples=200)
def test_phases_compute_the_outputs_of_their_remainders_without_holes(problem):
    x, w, _ = arrays(problem, 0)
    whole = convolve(problem, x, w)
    steps, found = periods(problem), phases(problem)
    for remainders in product(*map(range, steps)):
        theirs = tuple(slice(r, None, step) for r, step in zip(remainders, steps, strict=True))
        expected = whole[(slice(None), *theirs)]
        if remainders not in found:
            assert not expected.any()
            continue
        source, kernel, part = found[remainders]
        assert not part.holes
        assert all(a.low >= 0 and a.high >= 0 for a in part.axes)
        result = convolve(part, x[(slice(None), *source)], w[kernel])
        assert np.array_equal(result, expected)


@given(problems(), st.data())
@settings(max_examples=300)
def test_phases_stand_side_by_side_where_all_of_the_last_axis_meet_the_same(problem, data):
    """They do if, and only if, they are the same convolution of the same elements, with kernels of their own."""
    if data.draw(st.booleans()):  # which is rare by chance
        holes, taps = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 2))
        low = holes * data.draw(st.integers(0, 2)) - 1
        axis = problem.axes[-1]._replace(
            window=holes * taps, stride=1, dilation=1, input_dilation=holes, low=low
        )
        short = -axis.output % holes if axis.output > 0 else holes - axis.output
        axis = axis._replace(high=axis.high + short)
        problem = replace(problem, axes=(*problem.axes[:-1], axis))
    beside, last, found = side_by_side(problem), problem.axes[-1], phases(problem)
    along = [_phase(last, r) for r in range(last.input_dilation)]
    alike = None not in along and len({(source.start, source.stop, part) for source, _, part in along}) == 1
    alike = alike and along[0][2].size > 0  # else they meet nothing at all
    suits = problem.groups == 1 and problem.channels_in * problem.channels_out > 1
    if beside.beside == 1:
        assert beside == problem
        assert not (alike and suits and last.stride == last.dilation == 1 < last.input_dilation)
        return
    assert alike or not along[0][2].size
    holes, (*window, taps) = last.input_dilation, problem.window
    assert beside.beside == holes
    assert not beside.axes[-1].input_dilation > 1
    x, w, _ = arrays(problem, 0)
    kernel = w.reshape(*window, taps // holes, holes, *w.shape[-2:])
    kernel = np.moveaxis(np.flip(kernel, axis=len(window) + 1), len(window) + 1, -2)
    kernel = kernel.reshape(*window, taps // holes, problem.channels_in, -1)
    result = convolve(beside, x, kernel)
    assert np.array_equal(result.reshape(convolve(problem, x, w).shape), convolve(problem, x, w))
    assert found.keys() == {(*r, i) for *r, _ in found for i in range(holes)}


def test_a_transposed_convolution_multiplies_no_holes():
    """4x4 taps at stride 2 are four phases of 2x2 taps."""
    axis = Axis(size=32, window=4, stride=2, low=1, high=1)
    forward = ConvProblem(1, (axis, axis), 3, 8)
    found = phases(forward.transposed())
    assert sorted(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {phase.problem.window for phase in found.values()} == {(2, 2)}
    assert sum(phase.problem.flops for phase in found.values()) == forward.flops


@given(axes)
def test_meets_names_the_outputs_whose_tap_is_an_element(axis):
    for tap in range(axis.window):
        places = ((o, o * axis.stride + tap * axis.dilation - axis.low) for o in range(axis.output))
        expected = [
            (o, p // axis.input_dilation)
            for o, p in places
            if 0 <= p < axis.spread and p % axis.input_dilation == 0
        ]
        found = axis.meets(tap)
        if found is None:
            assert not expected
            continue
        outputs, elements = (range(*s.indices(10**6)) for s in found)
        assert list(zip(outputs, elements, strict=True)) == expected


@given(axes, st.data())
def test_reached_holds_every_output_that_reads_the_elements(axis, data):
    start = data.draw(st.integers(0, axis.size - 1))
    stop = data.draw(st.integers(start + 1, axis.size))
    begin, end = axis.reached(start, stop)
    assert 0 <= begin <= end <= axis.output
    for o, t in product(range(axis.output), range(axis.window)):
        p = o * axis.stride + t * axis.dilation - axis.low
        if p % axis.input_dilation == 0 and start <= p // axis.input_dilation < stop:
            assert begin <= o < end
