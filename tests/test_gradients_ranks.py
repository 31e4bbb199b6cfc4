"""Gradients of rank filters: finite differences, and where the gradient goes among equals."""

import itertools

import numpy as np
import pytest

import xconv
from cases import numbers, pytest_generate_tests, thinned  # noqa: F401
from compare import assert_close, assert_same
from test_gradients_pools import back, differences, eager, spaced  # noqa: F401
from test_memory import OWN_OBJECTS
from test_properties import PAD_MODES
from test_rank_filters import DISC, offsets_of
from xconv._borders import boundary
from xconv._grad import vjp

LAZY_STEP = 3

INF, NAN = float("inf"), float("nan")
AWKWARD = np.array([0, 0, 0, 1, 1, 2, INF, -INF, NAN], "float32")

CASES = {
    "median_filter": (xconv.median_filter, (3,), {}, (5, 6)),
    "median_filter-1d": (xconv.median_filter, (5,), {}, (7,)),
    "median_filter-even": (xconv.median_filter, ((2, 4),), {"origin": (0, 1)}, (5, 6)),
    "median_filter-one-axis": (xconv.median_filter, (3,), {"axes": 1, "origin": -1}, (3, 6, 2)),
    "median_filter-stack": (xconv.median_filter, ((3, 2),), {"axes": (2, 1)}, (2, 5, 4)),
    "median_filter-3d": (xconv.median_filter, (2,), {}, (3, 4, 3)),
    "median_filter-wider": (xconv.median_filter, ((5, 7),), {"origin": (1, -2)}, (3, 4)),
    "median_filter-one-element": (xconv.median_filter, (1,), {}, (3, 4)),
    "median_filter-large": (xconv.median_filter, ((5, 7),), {}, (9, 8)),
    "rank_filter": (xconv.rank_filter, (2, 3), {}, (5, 6)),
    "rank_filter-last": (xconv.rank_filter, (-1, (3, 2)), {}, (5, 6)),
    "rank_filter-disc": (xconv.rank_filter, (-2,), {"footprint": DISC, "origin": (0, -1)}, (6, 5)),
    "percentile_filter": (xconv.percentile_filter, (30, 3), {}, (5, 6)),
    "percentile_filter-disc": (xconv.percentile_filter, (-10.5,), {"footprint": DISC}, (2, 6, 5)),
    "maximum_filter": (xconv.maximum_filter, (3,), {}, (5, 6)),
    "maximum_filter-origin": (xconv.maximum_filter, ((4, 3),), {"origin": (1, -1)}, (5, 6)),
    "maximum_filter-large": (xconv.maximum_filter, (7,), {}, (9, 8)),
    "maximum_filter-disc": (xconv.maximum_filter, (), {"footprint": DISC}, (6, 5)),
    "minimum_filter": (xconv.minimum_filter, ((2, 3),), {}, (5, 6)),
    "minimum_filter-axes": (xconv.minimum_filter, (3,), {"axes": (-3, 2)}, (4, 2, 5)),
    "minimum_filter-corner": (xconv.minimum_filter, (), {"footprint": [[0, 0], [0, 1]]}, (4, 5)),
}
CASES["percentile_filter-disc"][2]["axes"] = (1, 2)


def padded_case(name, pad_mode):
    """A call with this pad mode; a constant that some windows have for their result."""
    function, args, options, shape = CASES[name]
    return (
        function,
        args,
        {**options, "pad_mode": pad_mode} | ({"value": 0.1} if pad_mode == "constant" else {}),
        shape,
    )


def to_first(x, y, dy, offsets, pad_mode="symmetric", value=0):
    """Every number of dy added to where the first element of its window stands that equals y."""
    dx = np.zeros_like(dy)
    for place in np.ndindex(*x.shape):
        for offset in offsets:
            at = tuple(p + o for p, o in zip(place, offset, strict=True))
            outside = any(not 0 <= a < n for a, n in zip(at, x.shape, strict=True))
            if pad_mode != "constant":
                at = tuple(boundary(a, n, pad_mode) for a, n in zip(at, x.shape, strict=True))
            border = outside and pad_mode == "constant"
            element = value if border else x[at]
            if element == y[place] or (np.isnan(element) and np.isnan(y[place])):
                if not border:
                    dx[at] += dy[place]
                break
        else:
            raise AssertionError(place)
    return dx


# ------------------------------------------------------------------------------------------- finite differences


@thinned("name, pad_mode", list(itertools.product(CASES, PAD_MODES)), 12)
def test_finite_differences(backend, name, pad_mode):
    function, args, options, shape = padded_case(name, pad_mode)
    x = spaced(shape)
    dy = numbers(shape, "float64", seed=1)
    expected = differences(lambda moved: function(moved, *args, **options), x, dy)
    actual = backend.call(back(function, *args, **options), x, dy)
    assert actual.dtype == x.dtype
    assert_close(actual, expected, rtol=1e-6)


@thinned("name, dtype", list(itertools.product(CASES, ["float16", "float32"])), 12)
def test_dtypes(backend, name, dtype):
    """16-bit floats are summed in float32."""
    if not backend.has(dtype):
        return
    function, args, options, shape = CASES[name]
    x = spaced(shape, dtype="float16")  # so that there are the same ties in every dtype
    dy = numbers(shape, "float16", seed=1)
    expected = back(function, *args, **options)(x.astype("float64"), dy.astype("float64"))
    actual = backend.call(back(function, *args, **options), x.astype(dtype), dy.astype(dtype))
    assert actual.dtype == np.dtype(dtype)
    assert_close(actual, expected, rtol=4e-3 if dtype == "float16" else 1e-5)


# ---------------------------------------------------------------------------------------------------------- ties


@pytest.mark.parametrize(
    ("x", "rank", "options", "expected"),
    [
        ([3, 3, 3, 3], 1, {}, [2, 1, 1, 0]),
        ([3, 3, 3, 3], 2, {}, [2, 1, 1, 0]),
        ([1, 2, 2, 3], 1, {}, [1, 2, 0, 1]),
        ([1, 2, 2, 3], 1, {"pad_mode": "constant", "value": 9}, [0, 3, 0, 1]),
        ([1, 2, 2, 3], 1, {"pad_mode": "constant", "value": 2}, [0, 2, 1, 0]),
        ([-0.0, 0, 5, 0], 1, {}, [2, 1, 0, 1]),
        ([NAN, 1, 2, NAN], 0, {"pad_mode": "edge"}, [2, 0, 0, 2]),
        ([1, NAN, NAN, 1], 2, {"pad_mode": "edge"}, [0, 3, 1, 0]),
        ([-INF, -INF, INF, INF], 1, {"pad_mode": "wrap"}, [2, 0, 2, 0]),
    ],
)
def test_ties(backend, x, rank, options, expected):
    x = np.array(x, "float32")
    y = xconv.rank_filter(x, rank, 3, **options)
    dx = to_first(x, y, np.ones_like(x), [(-1,), (0,), (1,)], **options)
    assert_same(dx, np.array(expected, "float32"))
    assert_same(backend.call(back(xconv.rank_filter, rank, 3, **options), x, np.ones_like(x)), dx)


@thinned("name, pad_mode", list(itertools.product(CASES, PAD_MODES)), 12)
def test_gradients_go_to_the_first_of_equals(backend, name, pad_mode):
    """With ties of every kind, NaN, and constants beyond the border that are equal to elements."""
    function, args, options, shape = padded_case(name, pad_mode)
    options = options | ({"value": 1} if pad_mode == "constant" else {})
    x = np.random.default_rng(0).choice(AWKWARD, shape)
    y = function(x, *args, **options)
    dy = np.random.default_rng(1).integers(1, 9, shape).astype("float32")
    axes = options.get("axes", tuple(range(x.ndim)))
    axes = tuple(a % x.ndim for a in (axes if isinstance(axes, tuple) else (axes,)))
    footprint = options.get("footprint")
    sizes = None if footprint is not None else args[-1]
    sizes = (sizes,) * len(axes) if isinstance(sizes, int) else sizes
    offsets = sorted(offsets_of(x.ndim, axes, sizes, footprint, options.get("origin", 0)))
    expected = to_first(x, y, dy, offsets, pad_mode, 1)
    assert_same(backend.call(back(function, *args, **options), x, dy), expected)


def test_an_infinite_gradient_stays_where_it_belongs(backend):
    x = np.array([1, 2, 3, 4, 5], "float32")
    dy = np.array([INF, NAN, 1, 1, -INF], "float32")
    actual = backend.call(back(xconv.maximum_filter, 2, origin=-1), x, dy)
    assert_same(actual, np.array([0, INF, NAN, 1, -INF], "float32"))


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5)])
def test_of_nothing_there_is_nothing(backend, shape):
    x = np.zeros(shape, "float32")
    assert backend.call(back(xconv.median_filter, 3, axes=(1, 2)), x, x).shape == shape


# ------------------------------------------------------------------------------------------------ differentiated


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", CASES)
def test_autograd_passes_through_a_pullback(backend, name):
    import torch

    function, args, options, shape = CASES[name]
    x, dy = spaced(shape), numbers(shape, "float64", seed=1)
    torch.autograd.gradcheck(
        back(function, *args, **options),
        (torch.tensor(x, requires_grad=True), torch.tensor(dy, requires_grad=True)),
        eps=1e-5 / x.size,
        atol=1e-5,
        rtol=1e-4,
        fast_mode=True,
    )


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", ["median_filter-even", "maximum_filter", "rank_filter-disc"])
def test_jax_differentiates_and_maps_a_pullback(backend, name):
    import jax

    function, args, options, shape = CASES[name]
    x, v = (backend.asarray(spaced(shape, seed)) for seed in (0, 1))
    dy = numbers(shape, "float64", seed=1)
    pulled = back(function, *args, **options)
    (by_dy,) = jax.vjp(lambda g: pulled(x, g), backend.asarray(dy))[1](v)
    left, right = np.vdot(np.asarray(by_dy), dy), np.vdot(np.asarray(pulled(x, backend.asarray(dy))), v)
    assert abs(left - right) <= 1e-10 * max(abs(left), 1)
    both = backend.asarray(np.stack([dy, -dy]))
    mapped = np.asarray(jax.vmap(lambda g: pulled(x, g))(both))
    assert_close(mapped[1], -mapped[0])


# -------------------------------------------------------------------------------------- tiles, threads, memory

LARGE = {
    "median_filter": (xconv.median_filter, (3,), {}),
    "maximum_filter": (xconv.maximum_filter, (9,), {}),
    "rank_filter": (xconv.rank_filter, (3,), {"footprint": DISC}),
    "percentile_filter": (xconv.percentile_filter, (30, (1, 7)), {"pad_mode": "wrap"}),
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("workspace", [1, 2000, 9000])
@pytest.mark.parametrize("pad_mode", PAD_MODES)
@pytest.mark.parametrize(
    "name", ["median_filter", "median_filter-wider", "maximum_filter-origin", "rank_filter-disc"]
)
def test_the_same_in_tiles(name, pad_mode, workspace):
    function, args, options, shape = padded_case(name, pad_mode)
    for x in (spaced(shape), spaced((13, 17))):
        dy = np.random.default_rng(1).integers(1, 9, x.shape).astype(float)
        expected = back(function, *args, **options)(x, dy)
        with xconv.config(workspace=workspace):
            assert_same(back(function, *args, **options)(x, dy), expected)


@pytest.mark.backends("dask")
@pytest.mark.parametrize("pad_mode", PAD_MODES)
def test_chunks_stay_chunks(backend, pad_mode):
    import dask.array as da

    x = np.round(8 * spaced((12, 15)))
    dy = np.random.default_rng(1).integers(1, 9, x.shape).astype(float)
    expected = back(xconv.median_filter, (5, 3), pad_mode=pad_mode)(x, dy)
    chunked = back(xconv.median_filter, (5, 3), pad_mode=pad_mode)(
        da.from_array(x, (5, 7)), da.from_array(dy, (12, 4))
    )
    assert chunked.shape == x.shape
    assert max(map(max, chunked.chunks)) <= 7
    assert_same(chunked.compute(), expected)


@pytest.mark.backends("numpy")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", LARGE)
def test_the_same_bits_for_any_number_of_threads(name):
    function, args, options = LARGE[name]
    x = np.round(numbers((147, 160), seed=1), 1)
    y, pullback = vjp(function, x, *args, **options)
    dy = numbers(y.shape, seed=2)
    found = []
    for threads in (1, 2, 3):
        with xconv.config(threads=threads, workspace=2**18):
            found.append(pullback(dy)[0])
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    assert_close(found[0], pullback(dy)[0])


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", LARGE)
def test_a_gradient_needs_its_result_and_the_workspace(name, dtype):
    import tracemalloc

    function, args, options = LARGE[name]
    x = numbers((700, 700), dtype, seed=1)
    y, pullback = vjp(function, x, *args, **options)
    dy = numbers(y.shape, dtype, seed=2)
    workspace = 512 * 1024
    with xconv.config(workspace=workspace):
        pullback(dy)
        tracemalloc.start()
        try:
            dx = pullback(dy)[0]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert dx.nbytes > workspace
    assert peak - dx.nbytes <= workspace + 2 * OWN_OBJECTS


# ------------------------------------------------------------------------------------------------------- errors


def test_integers_have_no_gradient():
    with pytest.raises(TypeError, match="must be floating to be differentiated"):
        vjp(xconv.median_filter, np.ones((4, 5), "int32"), 3)


def test_bad_options_are_refused_as_by_the_operation():
    with pytest.raises(ValueError, match="rank must be from -9 to 8"):
        vjp(xconv.rank_filter, np.ones((4, 5)), 9, 3)
