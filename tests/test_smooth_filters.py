"""`gaussian_filter`, `gaussian_laplace`, `uniform_filter`, `sobel`, `laplace`: the reference, and SciPy."""

import itertools
import math
from functools import partial

import hypothesis.strategies as st
import numpy as np
import pytest

import reference
import xconv
from cases import default_float, numbers, pytest_generate_tests, thinned  # noqa: F401
from compare import assert_close, assert_same
from test_memory import OWN_OBJECTS, WORKSPACE, beyond_its_result
from test_properties import PAD_MODES, holds
from test_rank_filters import SCIPY
from xconv._scratch import scratch

LAZY_STEP = 3

SLOPE, SMOOTH, SECOND = [-1.0, 0.0, 1.0], [1.0, 2.0, 1.0], [1.0, -2.0, 1.0]


def gaussian(sigma, order=0, radius=None):
    """What is correlated with, order by order: g, and x g / sigma**2, and (x**2 / sigma**4 - 1 / sigma**2) g."""
    radius = int(4 * sigma + 0.5) if radius is None else radius
    places = range(-radius, radius + 1)
    total = math.fsum(math.exp(-(i**2) / (2 * sigma**2)) for i in places)
    factor = {
        0: lambda i: 1.0,
        1: lambda i: i / sigma**2,
        2: lambda i: i**2 / sigma**4 - 1 / sigma**2,
        3: lambda i: i**3 / sigma**6 - 3 * i / sigma**4,
    }[order]
    return [factor(i) * math.exp(-(i**2) / (2 * sigma**2)) / total for i in places]


def correlated(x, kernels, pad_mode="symmetric", value=0, origin=0):
    """Tap by tap: a dictionary of axes and what stands along them."""
    x = x.astype(np.result_type(x.dtype, np.float64))
    kernel = np.ones((1,) * x.ndim)
    for axis, taps in kernels.items():
        kernel = kernel * np.reshape(taps, [-1 if i == axis else 1 for i in range(x.ndim)])
    origins = [0] * x.ndim
    for axis in kernels:
        origins[axis] = origin
    return reference.filtered(
        x,
        kernel,
        tuple(range(x.ndim)),
        flip=False,
        mode="same",
        origin=tuple(origins),
        pad_mode=pad_mode,
        value=value,
    )


SHAPES = {
    "1d": ((9,), (0,)),
    "2d": ((6, 7), (0, 1)),
    "stack": ((3, 6, 5), (1, 2)),
    "channels": ((6, 5, 3), (0, 1)),
    "one-axis": ((4, 5, 3), (1,)),
    "axes-that-are-not-neighbours": ((4, 3, 5), (2, 0)),
    "3d": ((4, 5, 3), (0, 1, 2)),
    "shorter-than-the-kernel": ((2, 3), (0, 1)),
}


@thinned("name, pad_mode", list(itertools.product(SHAPES, PAD_MODES)), 4)
def test_a_gaussian_is_that_of_the_reference(backend, name, pad_mode):
    shape, axes = SHAPES[name]
    x = numbers(shape)
    options = {"value": 0.5} if pad_mode == "constant" else {}
    sigma = (0.8, 1.3, 0.6)[: len(axes)]
    actual = backend.call(xconv.gaussian_filter, x, sigma, axes=axes, pad_mode=pad_mode, **options)
    kernels = {axis: gaussian(s) for axis, s in zip(axes, sigma, strict=True)}
    assert_close(actual, correlated(x, kernels, pad_mode, 0.5))


@thinned(
    "order, radius", [((1, 0), None), ((0, 2), 3), ((1, 1), (2, 5)), ((3, 0), None), ((2, 2), (4, 0))], 2
)
def test_derivatives(backend, order, radius):
    x = numbers((7, 9))
    actual = backend.call(xconv.gaussian_filter, x, 1.1, order=order, radius=radius)
    radii = (radius, radius) if radius is None or isinstance(radius, int) else radius
    kernels = {axis: gaussian(1.1, order[axis], radii[axis]) for axis in (0, 1)}
    assert_close(actual, correlated(x, kernels))


def test_truncate_says_where_the_gaussian_ends(backend):
    x = numbers((12,))
    actual = backend.call(xconv.gaussian_filter, x, 1.5, truncate=2.0)
    assert_close(actual, correlated(x, {0: gaussian(1.5, radius=3)}))


def test_a_wide_gaussian_is_cut_into_bands(backend):
    x = numbers((2, 150))
    actual = backend.call(xconv.gaussian_filter, x, 9, axes=1)
    assert_close(actual, correlated(x, {1: gaussian(9)}))
    actual = backend.call(xconv.gaussian_filter, x.T, 9, axes=0)
    assert_close(actual, correlated(x.T, {0: gaussian(9)}))


@thinned("name, pad_mode", list(itertools.product(SHAPES, PAD_MODES)), 6)
def test_the_others_are_those_of_the_reference(backend, name, pad_mode):
    shape, axes = SHAPES[name]
    x = numbers(shape)
    value = 0.5 if pad_mode == "constant" else 0
    options = {"axes": axes, "pad_mode": pad_mode, "value": value}

    def expected(kernels, origin=0):
        return correlated(x, kernels, pad_mode, value, origin)

    for size, origin in ((3, 0), (4, -2), (6, 2)):
        actual = backend.call(xconv.uniform_filter, x, size, origin=origin, **options)
        assert_close(actual, expected({axis: [1 / size] * size for axis in axes}, origin))
    actual = backend.call(xconv.sobel, x, axis=axes[0], **options)
    assert_close(actual, expected({axis: SLOPE if axis == axes[0] else SMOOTH for axis in axes}))
    actual = backend.call(xconv.laplace, x, **options)
    assert_close(actual, sum(expected({axis: SECOND}) for axis in axes))
    actual = backend.call(xconv.gaussian_laplace, x, 0.9, **options)
    terms = ({a: gaussian(0.9, 2 * (a == axis)) for a in axes} for axis in axes)
    assert_close(actual, sum(map(expected, terms)), atol=1e-6)


FILTERS = {
    "gaussian": (xconv.gaussian_filter, (1,)),
    "gaussian_laplace": (xconv.gaussian_laplace, (1,)),
    "uniform": (xconv.uniform_filter, (3,)),
    "sobel": (partial(xconv.sobel, axis=1), ()),
    "laplace": (xconv.laplace, ()),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32", "float64", "complex64"])
def test_dtypes(backend, name, dtype):
    """Floating and complex ones stay; integers give the default floating dtype, and nothing is cut off."""
    if not backend.has(dtype):
        dtype = "float32"
    function, arguments = FILTERS[name]
    x = numbers((6, 7), dtype)
    actual = backend.call(function, x, *arguments)
    kind = np.dtype(dtype).kind
    assert actual.dtype == (default_float(backend) if kind in "iu" else np.dtype(dtype))
    wide = x.astype("complex128" if kind == "c" else "float64")
    assert_close(
        actual, function(wide, *arguments).astype(actual.dtype), rtol=4e-3 if dtype == "float16" else 1e-5
    )


@pytest.mark.parametrize("name", FILTERS)
def test_one_image_does_not_touch_another(backend, name):
    function, arguments = FILTERS[name]
    x = numbers((3, 5, 40))
    x[1] = np.nan
    actual = backend.call(function, x, *arguments, axes=(1, 2))
    assert np.isnan(actual[1]).all()
    assert not np.isnan(actual[[0, 2]]).any()


def test_of_short_kernels_nan_reaches_its_neighbours_only(backend):
    x = numbers((9, 9))
    x[4, 4] = np.inf
    expected = np.zeros((9, 9), bool)
    expected[3:6, 3:6] = True
    assert_same(~np.isfinite(backend.call(xconv.uniform_filter, x, 3)), expected)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0)])
def test_of_nothing_there_is_nothing(backend, name, shape):
    function, arguments = FILTERS[name]
    actual = backend.call(function, np.zeros(shape, "float32"), *arguments, axes=(1, 2))
    assert_same(actual, np.zeros(shape, "float32"))


@pytest.mark.parametrize("name", FILTERS)
def test_a_result_is_never_the_callers_own_memory(name):
    function, arguments = FILTERS[name]
    for shape in ((4, 5), (300, 400), (1, 1)):
        x = numbers(shape)
        y = function(x, *arguments)
        assert not np.may_share_memory(x, y)
        y[...] = 7  # it can be written to


def test_nor_where_nothing_is_to_be_done():
    x = numbers((4, 5))
    for y in (xconv.uniform_filter(x, 1), xconv.gaussian_filter(x, 1, radius=0)):
        assert not np.may_share_memory(x, y)
        assert_same(y, x)


def test_a_call_inside_of_another_ones_tiles_has_memory_of_its_own():
    """An activation may filter: what two such calls give is not one and the same memory."""
    x = numbers((40, 50))
    with scratch():  # as in a tile
        first, second = xconv.gaussian_filter(x, 2), xconv.gaussian_filter(x, 3)
        assert not np.may_share_memory(first, second)


def test_arrays_that_are_not_packed():
    x = numbers((40, 30, 3))
    whole = xconv.gaussian_filter(np.ascontiguousarray(x[::-1, ::2, 1]), 2)
    assert_close(xconv.gaussian_filter(x[::-1, ::2, 1], 2), whole)
    assert_close(xconv.gaussian_filter(x[::-1, ::2, 1].T, 2), whole.T)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("pad_mode", ["symmetric", "constant"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_call_needs_its_result_and_the_workspace(name, pad_mode, dtype):
    function, arguments = FILTERS[name]
    x = numbers((120, 90, 7), dtype)
    with xconv.config(workspace=WORKSPACE):
        beyond, _ = beyond_its_result(lambda: function(x, *arguments, axes=(0, 1), pad_mode=pad_mode))
    assert beyond <= WORKSPACE + OWN_OBJECTS


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_have_the_same_bits_for_any_number_of_threads(threads):
    x = numbers((60, 500, 30))
    whole = xconv.gaussian_filter(x, 2)
    with xconv.config(threads=threads):
        assert_same(xconv.gaussian_filter(x, 2), whole)


@pytest.mark.backends("numpy", "fast")
def test_results_do_not_depend_on_the_tiles():
    x = numbers((30, 40, 20))
    whole = xconv.gaussian_filter(x, 1)
    for workspace in (2**18, 2**20):
        with xconv.config(workspace=workspace):
            assert_close(xconv.gaussian_filter(x, 1), whole, rtol=1e-6)


# ------------------------------------------------------------------------------------------ beside SciPy


@st.composite
def filters(draw):
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=rank, max_size=rank)))
    axes = tuple(draw(st.permutations(range(rank))))[: draw(st.integers(1, rank))]
    sizes = tuple(draw(st.integers(1, 9)) for _ in axes)
    return {
        "x": numbers(shape, draw(st.sampled_from(["float32", "float64"]))),
        "axes": axes,
        "mode": draw(st.sampled_from(PAD_MODES)),
        "sizes": sizes,
        "origin": tuple(draw(st.integers(-(k // 2), k - 1 - k // 2)) for k in sizes),
        "sigma": tuple(draw(st.floats(0.3, 3)) for _ in axes),
        "order": tuple(draw(st.integers(0, 3)) for _ in axes),
    }


@pytest.mark.backends("numpy")
def test_what_scipy_computes_is_what_we_compute(backend):
    ndimage = pytest.importorskip("scipy.ndimage")

    def check(example):
        x, axes, sigma, order = (example[name] for name in ("x", "axes", "sigma", "order"))
        ours, theirs = {"pad_mode": example["mode"]}, {"mode": SCIPY[example["mode"]]}
        some, options = {**ours, "axes": axes}, {**theirs, "axes": axes}
        rtol = {"float32": 1e-6, "float64": 1e-12}[x.dtype.name]
        pairs = [
            (
                xconv.gaussian_filter(x, sigma, order=order, **some),
                ndimage.gaussian_filter(x, sigma, order=order, **options),
            ),
            (
                xconv.uniform_filter(x, example["sizes"], origin=example["origin"], **some),
                ndimage.uniform_filter(x, example["sizes"], origin=example["origin"], **options),
            ),
            (xconv.sobel(x, axis=axes[0], **ours), ndimage.sobel(x, axes[0], **theirs)),
            (xconv.laplace(x, **ours), ndimage.laplace(x, **theirs)),
            (
                xconv.gaussian_laplace(x, sigma[0], **ours),
                ndimage.gaussian_laplace(x, sigma[0], **theirs),
            ),
        ]
        for actual, expected in pairs:
            assert actual.dtype == expected.dtype
            # Where positive and negative terms cancel, what is left is as exact as the terms are.
            scale = float(np.max(np.abs(x))) / min(sigma) ** max(order)
            assert_close(actual, expected, rtol=rtol, atol=8 * rtol * scale)

    holds(backend, filters(), check, examples=300)


# ---------------------------------------------------------------------------------------------- bad input

X = np.zeros((4, 5), "float32")
IN = "\n  in gaussian_filter(x: float32[4, 5]"

REFUSED = {
    "sigma-zero": (
        (0,),
        {},
        ValueError,
        "sigma must be positive and finite; leave an axis out of axes= that is not to be smoothed; got sigma=0"
        + IN
        + ", 0)",
    ),
    "sigma-negative": (
        ((1, -1.5),),
        {},
        ValueError,
        "sigma must be positive and finite; leave an axis out of axes= that is not to be smoothed; got sigma=(1, -1.5)"
        + IN
        + ", (1, -1.5))",
    ),
    "sigma-nan": (
        (math.nan,),
        {},
        ValueError,
        "sigma must be positive and finite; leave an axis out of axes= that is not to be smoothed; got sigma=nan"
        + IN
        + ", nan)",
    ),
    "sigma-text": (
        ("3",),
        {},
        TypeError,
        "sigma must be a number or one number per axis that is filtered; got sigma='3'" + IN + ", '3')",
    ),
    "sigma-too-many": (
        ((1, 2, 3),),
        {},
        ValueError,
        "sigma must have one number for each of the 2 axes that are filtered; got sigma=(1, 2, 3)"
        + IN
        + ", (1, 2, 3))",
    ),
    "order-negative": (
        (1,),
        {"order": -1},
        ValueError,
        "order must be at least 0; got order=-1" + IN + ", 1, order=-1)",
    ),
    "radius-negative": (
        (1,),
        {"radius": (1, -1)},
        ValueError,
        "radius must be at least 0; got radius=(1, -1)" + IN + ", 1, radius=(1, -1))",
    ),
    "radius-no-int": (
        (1,),
        {"radius": 1.5},
        TypeError,
        "radius must be an int or one int per axis that is filtered; got radius=1.5"
        + IN
        + ", 1, radius=1.5)",
    ),
    "truncate": (
        (1,),
        {"truncate": 0},
        ValueError,
        "truncate must be positive and finite; got truncate=0" + IN + ", 1, truncate=0)",
    ),
    "axes": (
        (1,),
        {"axes": 2},
        ValueError,
        "axes must name axes of x, which has 2; got axes=2" + IN + ", 1, axes=2)",
    ),
    "pad-mode": (
        (1,),
        {"pad_mode": "nearest"},
        ValueError,
        "pad_mode must be one of NumPy's names; 'nearest' is called 'edge' here; got pad_mode='nearest'"
        + IN
        + ", 1, pad_mode='nearest')",
    ),
    "value": (
        (1,),
        {"value": 2},
        ValueError,
        "value must be left out with pad_mode='symmetric'; got value=2" + IN + ", 1, value=2)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_by_name_value_and_rule(name):
    arguments, options, error, text = REFUSED[name]
    with pytest.raises(error) as caught:
        xconv.gaussian_filter(X, *arguments, **options)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: xconv.sobel(X, axis=2),
            ValueError,
            "axis must be one of the axes that are filtered, (0, 1); got axis=2\n  in sobel(x: float32[4, 5], axis=2)",
        ),
        (
            lambda: xconv.sobel(X, axis=0, axes=1),
            ValueError,
            "axis must be one of the axes that are filtered, (1,); got axis=0",
        ),
        (lambda: xconv.sobel(X, axis=1.0), TypeError, "axis must be an int; got axis=1.0"),
        (lambda: xconv.uniform_filter(X, 0), ValueError, "size must be positive; got size=0"),
        (
            lambda: xconv.uniform_filter(X, 4, origin=2),
            ValueError,
            "origin must be from -2 to 1 along axis 0, so that the centre is in the window; got origin=2",
        ),
        (
            lambda: xconv.laplace(X > 0),
            TypeError,
            "x must not be boolean; convert it to integers first; got x=bool[4, 5]",
        ),
        (
            lambda: xconv.laplace(X.astype(object)),
            TypeError,
            "arrays must hold numbers of the array API standard; got dtype object",
        ),
        (
            lambda: xconv.laplace(X, pad_mode="constant", value=1j),
            TypeError,
            "value must be a number that a float array can hold; got value=1j",
        ),
    ],
)
def test_so_is_the_rest(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(text)
