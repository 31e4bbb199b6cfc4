"""The workshop `winograd`, asked directly: that its matrices are right, how precise it is, and what it refuses."""

import dataclasses
import itertools
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

import reference
import xconv
from cases import numbers, seed_of
from compare import assert_close, assert_same
from xconv._algorithms import _filtering, winograd
from xconv._geometry import Axis, ConvProblem
from xconv._namespace import NUMPY, numpy_namespace
from xconv._scratch import scratch

LAZY_STEP = 3


@pytest.fixture(params=[4, 6, 8])
def points(request, monkeypatch):
    """Of a tile along one axis, whatever the numbers of taps and channels would choose.

    Four and five taps have six at least, two taps or more than 128 channels six at most.
    """
    monkeypatch.setattr(winograd, "_SMALL_KERNEL", 0 if request.param == 4 else 2**62)
    monkeypatch.setattr(winograd, "_LONG", 3 if request.param == 8 else 4)
    if request.param != 8:
        monkeypatch.setattr(winograd, "_PRECISE", 0)
    return request.param


def problem_of(sizes, kernel, *, batch=2, inputs=3, outputs=4, stride=1, dilation=1, **others):
    """A convolution of a padded block, with one number or one per axis for the strides and dilations."""
    stride, dilation = (n if isinstance(n, tuple) else (n,) * len(kernel) for n in (stride, dilation))
    axes = tuple(map(Axis, sizes, kernel, stride, dilation))
    return ConvProblem(batch, axes, inputs, outputs, **others)


def arrays(problem, dtype="float32", seed=0):
    """An input and a kernel for it."""
    sizes = tuple(axis.size for axis in problem.axes)
    x = numbers((problem.batch, *sizes, problem.channels_in), dtype, seed=seed)
    return x, numbers((*problem.window, problem.channels_in, problem.channels_out), dtype, seed=seed + 1)


def expected(x, w, problem):
    """What the dull loops give."""
    stride, dilation = (tuple(getattr(a, name) for a in problem.axes) for name in ("stride", "dilation"))
    return reference.conv(x, w, stride=stride, pads=((0, 0),) * len(problem.axes), dilation=dilation)


def run(x, w, problem, xp=numpy_namespace, out=None):
    return winograd.run(x, winograd.bind(w, problem, xp), problem, xp, out)


# -------------------------------------------------------------------------------------------------------- matrices


def exact(matrix):
    """A matrix in fractions: its entries are quotients of small numbers, rounded to floats."""
    return [[Fraction(entry).limit_denominator(100) for entry in row] for row in matrix]


def times(matrix, vector):
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


# Points of a tile along an axis, taps.
FILTERS = [(4, 2), (4, 3), (6, 2), *((n, taps) for n in (6, 8) for taps in (3, 4, 5))]


@pytest.mark.parametrize(("points", "taps"), FILTERS)
def test_the_matrices_filter_exactly(points, taps):
    """At ((G g) * (Bt d)) is the correlation of d with g: for unit vectors, and so for all."""
    bt, g, at = map(exact, _filtering.matrices(points, taps))
    m = points + 1 - taps
    assert (len(bt), len(bt[0])) == (points, points)
    assert (len(g), len(g[0])) == (points, taps)
    assert (len(at), len(at[0])) == (m, points)
    for t, i in itertools.product(range(taps), range(points)):
        tap, element = [Fraction(k == t) for k in range(taps)], [Fraction(k == i) for k in range(points)]
        products = [a * b for a, b in zip(times(g, tap), times(bt, element), strict=True)]
        assert times(at, products) == [Fraction(o + t == i) for o in range(m)]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize(("points", "taps"), FILTERS)
@pytest.mark.parametrize("into", ["fresh", "out", "rows", "spare"])
def test_a_matrix_transforms_both_axes_of_every_tile(points, taps, which, into):
    one = np.array(_filtering.matrices(points, taps)[which], "float64")
    x = numbers((one.shape[1] ** 2, 5, 7), "float64")
    both = np.einsum("ik,jl,klr->ijr", one, one, x.reshape(one.shape[1], one.shape[1], 35)).reshape(-1, 35)
    out = {"out": np.empty(both.shape), "rows": np.empty((len(both), 40))[:, :35]}.get(into)
    with scratch():
        y = _filtering.transformed(
            one, x, 2, numpy_namespace, out=out, purpose="y" if into == "spare" else None
        )
        assert_close(y, both)
    assert out is None or np.shares_memory(y, out)


# --------------------------------------------------------------------------------------------------------- results

CASES = {
    "line": problem_of((19,), (3,)),
    "one-output": problem_of((3,), (3,)),
    "one-tile": problem_of((6, 6), (3, 3)),
    "whole-tiles": problem_of((10, 14), (3, 3)),
    "ragged": problem_of((9, 11), (3, 3)),
    "ragged-by-three": problem_of((7, 9), (3, 3), batch=1),
    "one-channel": problem_of((8, 9), (3, 3), inputs=1, outputs=1),
    "five-by-three": problem_of((9, 8), (5, 3)),
    "three-by-one": problem_of((9, 8), (3, 1)),
    "one-by-three": problem_of((9, 8), (1, 3)),
    "stride-on-the-other": problem_of((9, 8), (3, 3), stride=(2, 1)),
    "dilation-on-the-other": problem_of((9, 8), (3, 3), dilation=(1, 2)),
    "long-stride-on-the-other": problem_of((9, 8), (2, 3), stride=(3, 1), dilation=(2, 1)),
    "volume": problem_of((5, 7, 8), (3, 3, 3)),
    "volume-with-a-flat-axis": problem_of((5, 7, 8), (3, 1, 3)),
    "volume-with-the-last-axis-strided": problem_of((5, 7, 8), (3, 3, 3), stride=(1, 1, 2)),
    "volume-with-one-axis-left": problem_of((5, 7, 8), (2, 3, 2), dilation=(2, 1, 1)),
    "four-axes": problem_of((4, 3, 5, 6), (2, 1, 3, 3)),
    "two-taps": problem_of((11, 13), (2, 2)),
    "four-taps": problem_of((9, 12), (4, 4)),
    "five-taps": problem_of((9, 12), (5, 5)),
    "five-taps-one-tile": problem_of((6, 6), (5, 5)),
    "five-taps-of-a-line": problem_of((19,), (5,)),
    "two-taps-before-five-by-five": problem_of((4, 9, 8), (2, 5, 5), stride=(2, 1, 1)),
    "three-by-four-along-one": problem_of((9, 10), (3, 4)),
    "two-by-two-beside-five": problem_of((5, 9, 8), (2, 5, 2)),
    "stride-two": problem_of((11, 14), (3, 3), stride=2),
    "stride-two-of-a-line": problem_of((30,), (7,), stride=2),
    "stride-two-and-whole-steps": problem_of((13, 16), (6, 6), stride=2),
    "stride-four": problem_of((27, 31), (11, 11), stride=4, outputs=3),
    "strides-of-their-own": problem_of((13, 17), (3, 8), stride=(1, 3)),
    "strides-the-other-way": problem_of((25, 9), (9, 3), stride=(3, 1)),
    "a-stride-that-leaves-a-rest": problem_of((18, 19), (7, 7), stride=3),
    "stride-of-a-volume": problem_of((5, 12, 13), (2, 5, 5), stride=(2, 2, 2), dilation=(2, 1, 1)),
    "empty-batch": problem_of((8, 9), (3, 3), batch=0),
}


@pytest.mark.backends("numpy", "strict", "torch", "jax", "cupy")  # chunks of Dask are NumPy's
@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_direct_sum(backend, points, name):
    problem = CASES[name]
    assert winograd.why_not(problem, NUMPY) is None
    x, w = arrays(problem, seed=seed_of(name))
    y = backend.call(lambda x, w: run(x, w, problem, backend.xp), x, w)
    assert_close(y, expected(x, w, problem), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    "name", ["ragged", "volume", "five-by-three", "two-taps", "four-taps", "five-taps", "stride-two"]
)
def test_every_floating_dtype(points, name, dtype):
    x, w = arrays(CASES[name], dtype)
    y = run(x, w, CASES[name])
    assert y.dtype == dtype
    assert_close(y, expected(x, w, CASES[name]), rtol=1e-5 if dtype == "complex64" else 1e-13)


def test_points_are_chosen_by_channels_and_taps_only():
    """So that a kernel made ready serves every tile; compiled code looks at the kernel."""
    few, many = {"inputs": 64, "outputs": 64}, {"inputs": 1024, "outputs": 512}
    for kernel, channels, points in (
        ((3, 3), few, 36),
        ((3, 3), many, 16),
        ((2, 2), few, 36),
        ((2, 2), many, 16),
        ((4, 4), few, 64),
        ((4, 4), many, 36),
        ((5, 5), few, 64),
        ((5, 5), {"inputs": 128, "outputs": 512}, 64),
        ((5, 5), {"inputs": 129, "outputs": 8}, 36),
        ((5, 5), many, 36),
    ):
        problem = problem_of((30, 30), kernel, **channels)
        tile = dataclasses.replace(problem, batch=1, axes=tuple(map(Axis, (6, 9), kernel)))
        w = np.zeros((*problem.window, problem.channels_in, problem.channels_out), "float32")
        shapes = {winograd.bind(w, p, numpy_namespace).shape for p in (problem, tile)}
        assert shapes == {(1, points, problem.channels_in, problem.channels_out)}
        assert winograd.cost(problem, NUMPY).bound == points * w.nbytes // math.prod(kernel)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize(("inputs", "outputs"), [(512, 512), (1024, 256), (2048, 128)])
def test_many_channels_are_as_exact_as_promised(inputs, outputs):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 10, 10, inputs)), rng.standard_normal((3, 3, inputs, outputs))
    exact = xconv.conv(x, w, algorithm="direct")
    error = xconv.conv(x.astype("float32"), w.astype("float32"), algorithm="winograd") - exact
    assert np.linalg.norm(error) < 5e-6 * np.linalg.norm(exact)


def test_a_bound_kernel_serves_every_tile(points):
    whole = problem_of((30, 13), (3, 3))
    x, w = arrays(whole)
    bound = winograd.bind(w, whole, numpy_namespace)
    for start, stop in ((0, 8), (8, 9), (9, 28)):
        tile = problem_of((stop - start + 2, 13), (3, 3))
        part = x[:, start : stop + 2]
        y = winograd.run(part, bound, tile, numpy_namespace)
        assert_close(y, expected(part, w, tile), rtol=1e-5)


@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize(
    "name", ["ragged", "whole-tiles", "volume", "five-by-three", "line", "two-taps", "five-taps"]
)
def test_the_result_may_be_put_where_it_belongs(points, name, spare):
    problem = CASES[name]
    x, w = arrays(problem)
    plain = run(x, w, problem)
    wide = np.full((problem.batch, *problem.outputs, 2 * problem.channels_out), np.nan, "float32")
    for out in (np.full(plain.shape, np.nan, "float32"), wide[..., :4]):
        if spare:
            with scratch():
                for _ in range(2):
                    assert_same(run(x, w, problem, out=out), plain)
        else:
            assert_same(run(x, w, problem, out=out), plain)
    assert np.isnan(wide[..., 4:]).all()


def test_images_do_not_touch(points):
    """Not even by rounding, and a NaN stays in its image."""
    problem = problem_of((12, 12), (3, 3), batch=3)
    x, w = arrays(problem)
    clean = run(x, w, problem)
    x[1, 3, 3, 0] = np.nan
    y = run(x, w, problem)
    assert np.isnan(y[1]).any()
    assert_same(y[::2], clean[::2])


# ------------------------------------------------------------------------------------------------------- precision

LAYERS = {
    "64 channels": (64, 64, 28),
    "128 channels": (128, 128, 14),
    "256 channels": (256, 256, 14),
    "256 to 64 channels": (256, 64, 14),
}


def relative_error(actual, exact):
    return np.linalg.norm(actual.astype("float64") - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
@pytest.mark.parametrize("layer", LAYERS)
def test_float32_is_within_5e_6_of_float64(points, layer, taps):
    """In relative norm, on what a layer sees: rectified inputs, and weights around zero."""
    inputs, outputs, size = LAYERS[layer]
    draw = np.random.default_rng(seed_of(layer))
    x = np.maximum(draw.normal(size=(1, size, size, inputs)), 0)
    w = draw.normal(size=(taps, taps, inputs, outputs)) * (2 / (taps**2 * inputs)) ** 0.5
    exact = xconv.conv(x, w, padding=1, algorithm="im2col")
    x, w = x.astype("float32"), w.astype("float32")
    error = relative_error(xconv.conv(x, w, padding=1, algorithm="winograd"), exact)
    direct = relative_error(xconv.conv(x, w, padding=1, algorithm="im2col"), exact)
    assert direct < error < 5e-6  # it rounds more than a sum does, so this measures something


@pytest.mark.backends("fast")
@pytest.mark.parametrize("inputs, outputs", [(64, 64), (128, 64)])
def test_compiled_code_takes_larger_tiles_of_large_images(backend, inputs, outputs):
    """Whose kernel, made for the whole, serves tiles for which it would have taken others."""
    x, w = arrays(problem_of((80, 80), (3, 3), inputs=inputs, outputs=outputs), "float64")
    exact = xconv.conv(x, w, algorithm="im2col")
    x, w = x.astype("float32"), w.astype("float32")

    def kernel(size, inputs=inputs, outputs=outputs):
        problem = problem_of((size, size), (3, 3), inputs=inputs, outputs=outputs, fast=True)
        return winograd.bind(w[:, :, :inputs, :outputs], problem, backend.xp)

    for channels, points in ((15, 36), (16, 64)):  # with five taps, whatever the size
        problem = problem_of((9, 9), (5, 5), inputs=channels, outputs=8, fast=True)
        assert len(winograd.bind(numbers((5, 5, channels, 8)), problem, backend.xp)) == points
    whole = kernel(80)
    assert [len(u) for u in (whole, kernel(16), kernel(80, inputs=63), kernel(80, outputs=63))] == [
        64,
        36,
        36,
        36,
    ]
    y = xconv.conv(x, w, algorithm="winograd")
    assert 1e-9 < relative_error(y, exact) < 5e-6
    tile = problem_of((14, 80), (3, 3), inputs=inputs, outputs=outputs, fast=True)
    assert_same(winograd.run(x[:, 36:50], whole, tile, backend.xp), y[:, 36:48])


@pytest.mark.parametrize(
    "algorithm",
    [name for name in xconv._algorithms.ALGORITHMS if name not in ("pointwise", "separable", "spectral")],
)
def test_every_algorithm_is_within_5e_6_of_float64(algorithm):
    groups = 48 if algorithm == "depthwise" else 1
    draw = np.random.default_rng(seed_of(algorithm))
    x, w = draw.normal(size=(1, 30, 30, 48)), draw.normal(size=(3, 3, 48 // groups, 48))
    exact = xconv.conv(x, w, groups=groups, algorithm="direct")
    y = xconv.conv(x.astype("float32"), w.astype("float32"), groups=groups, algorithm=algorithm)
    assert 1e-9 < relative_error(y, exact) < 5e-6


def test_so_is_spectral_which_takes_one_channel():
    draw = np.random.default_rng(seed_of("spectral"))
    x, w = draw.normal(size=(1, 90, 90, 1)), draw.normal(size=(31, 31, 1, 1))
    exact = xconv.conv(x, w, algorithm="direct")
    y = xconv.conv(x.astype("float32"), w.astype("float32"), algorithm="spectral")
    assert 1e-9 < relative_error(y, exact) < 5e-6


# -------------------------------------------------------------------------------------------------------- refusals

REFUSALS = {
    "only direct sums are allowed (integers, or precision='strict')": problem_of((9,), (3,), direct=True),
    "it divides, which integers cannot": problem_of((9,), (3,), kind="integer"),
    "there are 2 groups, not one": problem_of((9, 9), (3, 3), inputs=4, groups=2),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_it_says_why_it_refuses(text):
    assert winograd.why_not(REFUSALS[text], NUMPY) == text


@pytest.mark.parametrize(
    "problem",
    [
        problem_of((9, 9), (6, 6)),
        problem_of((9, 9), (3, 3), stride=3),
        problem_of((13, 13), (12, 11), stride=2),
        problem_of((9, 9), (3, 2), dilation=(2, 1), stride=(1, 2)),
        problem_of((9, 9), (1, 1)),
    ],
)
def test_it_needs_a_few_taps_side_by_side(problem):
    assert (
        winograd.why_not(problem, NUMPY)
        == "no axis has 2 to 5 taps for each step of its stride, and dilation 1"
    )


# ---------------------------------------------------------------------------------------------------------- memory

LARGE = {
    "image": problem_of((50, 58), (3, 3), inputs=16, outputs=24),
    "ragged": problem_of((49, 57), (3, 3), inputs=16, outputs=24),
    "five-by-three": problem_of((48, 50), (5, 3), inputs=16, outputs=24),
    "two-taps": problem_of((48, 50), (2, 2), inputs=16, outputs=24),
    "five-taps": problem_of((48, 49), (5, 5), inputs=16, outputs=24),
    "stride-two": problem_of((102, 103), (7, 7), inputs=8, outputs=24, stride=2),
    "stride-four": problem_of((139, 143), (11, 11), inputs=3, outputs=24, stride=4),
    "volume": problem_of((14, 18, 18), (3, 3, 3), inputs=16, outputs=8),
}


@pytest.mark.parametrize("name", LARGE)
def test_it_needs_its_result_and_the_workspace_it_says(points, name):
    problem = LARGE[name]
    x, w = arrays(problem)
    bound = winograd.bind(w, problem, numpy_namespace)
    winograd.run(x, bound, problem, numpy_namespace)
    tracemalloc.start()
    try:
        y = winograd.run(x, bound, problem, numpy_namespace)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    workspace = winograd.cost(problem, NUMPY).workspace
    assert peak - y.nbytes <= workspace + 16 * 1024
    assert peak - y.nbytes >= workspace / 4, "the promise is worth nothing if it is far above what is needed"
