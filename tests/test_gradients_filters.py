"""Gradients of the linear filters: the adjoint identity, in whole numbers where the kernels are whole."""

import itertools
from functools import partial

import numpy as np
import pytest

import xconv
from cases import numbers, pytest_generate_tests, small_integers, thinned  # noqa: F401
from compare import assert_close, assert_same
from test_gradients_convolutions import differences, inner, pulled

LAZY_STEP = 6

FUNCTIONS = {"convolve": xconv.convolve, "correlate": xconv.correlate}
PAD_MODES = ["constant", "edge", "reflect", "symmetric", "wrap"]
MODES = ["full", "same", "valid"]

# ------------------------------------------------------------------------------------- convolution and correlation

# Shapes of x and kernel, and options.
CASES = {
    "one-axis": ((9,), (3,), {}),
    "even-kernel": ((9,), (4,), {}),
    "two-axes": ((6, 7), (3, 2), {}),
    "three-axes": ((4, 5, 4), (2, 3, 3), {"stride": (1, 2, 1)}),
    "stack": ((3, 6, 5), (3, 2), {}),
    "stack-last": ((6, 5, 3), (3, 2), {"axes": (0, 1), "dilation": (1, 2)}),
    "batch-between": ((6, 3, 5), (3, 2), {"axes": (0, -1)}),
    "batch-everywhere": ((2, 6, 3, 5, 2), (3, 2), {"axes": (1, 3)}),
    "axes-in-another-order": ((3, 7, 8), (2, 3), {"axes": (2, 1), "stride": (2, 1), "dilation": (1, 2)}),
    "middle-axis-alone": ((2, 7, 3), (4,), {"axes": 1, "stride": 3}),
    "kernel-of-each-image": ((3, 6, 5), (3, 3, 2), {"axes": (1, 2)}),
    "kernel-of-each-channel-last": ((6, 5, 3), (3, 2, 3), {"axes": (0, 1)}),
    "several-kernels": ((1, 6, 5), (4, 3, 2), {"axes": (1, 2)}),
    "axes-that-only-the-kernel-has": ((6,), (2, 4, 3), {"axes": 0}),
    "all-kinds-of-batches": ((2, 3, 1, 6), (1, 3, 2, 3), {"axes": (3,)}),
    "kinds-around": ((2, 6, 1, 3), (1, 3, 4, 3), {"axes": (1,), "stride": 2}),
    "ones-in-the-batch": ((1, 6, 1, 5), (3, 2), {"axes": (1, 3)}),
    "kernel-of-ones": ((3, 6, 5), (1, 1), {}),
    "stride": ((9, 10), (3, 4), {"stride": (2, 3)}),
    "stride-above-kernel": ((9, 8), (2, 1), {"stride": 3}),
    "dilation": ((9, 10), (3, 2), {"dilation": (2, 3)}),
    "empty-batch": ((0, 7), (3,), {}),
}


def check(backend, function, x, kernel, **options):
    """<dy, f(v, k)> = <dx, v> and <dy, f(x, u)> = <dk, u>; in whole numbers they are the same."""
    # a value makes y affine in x: its linear part has none
    linear = {name: option for name, option in options.items() if name != "value"}
    dy = small_integers(function(x, kernel, **options).shape, np.result_type(x, kernel), seed=3)
    if dy.dtype.kind == "c":
        dy = dy + 1j * small_integers(dy.shape, seed=4)
    dx, dk = backend.call(pulled(function, **options), x, kernel, dy)
    assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
    assert (dk.shape, dk.dtype) == (kernel.shape, kernel.dtype)
    for seed in (5, 6):
        v, u = (small_integers(a.shape, a.dtype, seed=seed) for a in (x, kernel))
        if seed == 6:
            v, u = (1j * a if a.dtype.kind == "c" else a for a in (v, u))
        assert inner(dx, v) == pytest.approx(inner(dy, function(v, kernel, **linear)), abs=1e-9)
        assert inner(dk, u) == pytest.approx(inner(dy, function(x, u, **options)), abs=1e-9)


def arrays(x, kernel, dtype="float64"):
    found = small_integers(x, dtype, seed=1), small_integers(kernel, dtype, seed=2)
    if found[0].dtype.kind == "c":
        found = tuple(a + 1j * small_integers(a.shape, seed=7) for a in found)
    return found


@thinned("name, case, mode", list(itertools.product(FUNCTIONS, CASES, MODES)), 11)
def test_a_gradient_is_the_transpose_of_the_call(backend, name, case, mode):
    x, kernel, options = CASES[case]
    check(backend, FUNCTIONS[name], *arrays(x, kernel), mode=mode, **options)


BATCHES = [((3, 4, 7), (5, 4), (2, 1)), ((4, 3, 7), (4, 3, 2), (0, 2)), ((1, 4, 7), (2, 3, 2), (1, 2))]
BORDERS = list(
    itertools.product(FUNCTIONS, PAD_MODES, ["full", "same"], ["float64", "complex128"], range(len(BATCHES)))
)


@thinned("name, pad_mode, mode, dtype, batch", BORDERS, 31)
def test_beyond_the_borders_with_every_other_option(backend, name, pad_mode, mode, dtype, batch):
    """Borders, of which a value drops out of dx and counts in dk, and complex numbers."""
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    x, kernel, axes = BATCHES[batch]
    options = {"axes": axes, "mode": mode, "pad_mode": pad_mode, "stride": (2, 1), "dilation": (1, 2)}
    if pad_mode == "constant":
        options["value"] = 3 - 2j if dtype == "complex128" else 3
    if mode == "same":
        options["origin"] = (-1, 1)
    check(backend, FUNCTIONS[name], *arrays(x, kernel, dtype), **options)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtypes", [("float64", "complex128"), ("complex128", "float64")])
def test_real_arguments_have_real_gradients(backend, name, dtypes):
    if not backend.has("complex128"):
        pytest.skip(f"{backend.name} has no complex128")
    (x, _), (_, kernel) = arrays((3, 6), (2, 3), dtypes[0]), arrays((3, 6), (2, 3), dtypes[1])
    check(backend, FUNCTIONS[name], x, kernel, mode="same", pad_mode="reflect")


@thinned("name, stride, pad_mode", list(itertools.product(FUNCTIONS, [1, 2], PAD_MODES)), 7)
def test_of_kernels_of_one_axis_each_the_image_has_a_gradient(backend, name, stride, pad_mode):
    function, x = FUNCTIONS[name], small_integers((2, 7, 3, 6), "float64", seed=1)
    factors = tuple(small_integers((k,), "float64", seed=k) for k in (4, 3))
    options = {"axes": (3, 1), "mode": "same", "pad_mode": pad_mode, "stride": stride, "origin": (0, 1)}
    dy = small_integers(function(x, factors, **options).shape, "float64", seed=3)

    def back(x, dy):
        (dx, nothing) = xconv.vjp(function, x, tuple(map(backend.asarray, factors)), **options)[1](dy)
        assert nothing is None
        return dx

    dx = backend.call(back, x, dy)
    v = small_integers(x.shape, "float64", seed=5)
    assert inner(dx, v) == inner(dy, function(v, factors, **options))


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (3, 1)])
def test_large_kernels_of_one_axis_each(monkeypatch, stride):
    """By whatever the planner takes, and one axis after the other, in bands, with holes where there are strides."""
    from xconv._gradients import _convolutions

    x = numbers((2, 60, 70), "complex128", seed=1)
    factors = numbers((21,), "complex128", seed=2), numbers((16,), "complex128", seed=3)
    call = partial(xconv.correlate, axes=(1, 2), stride=stride, pad_mode="symmetric", mode="same")
    dy = numbers(call(x, factors).shape, "complex128", seed=4)
    outer = np.multiply.outer(*factors)
    expected = pulled(xconv.correlate, wrt="x", **call.keywords)(x, outer, dy)[0]
    _, pullback = xconv.vjp(xconv.correlate, x, factors, **call.keywords)
    assert_close(pullback(dy)[0], expected)
    ready = _convolutions.ready

    def separable(problem, x, dtypes, activation, _, *rest):
        return ready(problem, x, dtypes, activation, "separable", *rest)

    monkeypatch.setattr(_convolutions, "ready", separable)
    assert_close(pullback(dy)[0], expected)


def test_several_kernels_are_not_differentiated():
    x, factors = np.ones((4, 5)), (np.ones(3), np.ones(2))
    rule = r"wrt must name arrays that were given and have a gradient: 'x'; got wrt='kernel'"
    with pytest.raises(ValueError, match=rule):
        xconv.vjp(xconv.convolve, x, factors, wrt="kernel")
    with pytest.raises(TypeError, match="kernel"):
        xconv.vjp(xconv.convolve, x, [[1.0, 2.0]])
    with pytest.raises(TypeError, match="x must be an array"):
        xconv.vjp(xconv.convolve, [1.0, 2.0], np.ones(2))


def test_an_image_of_integers_has_no_gradient_but_its_kernel_has(backend):
    x, kernel = numbers((5, 6), "uint8", seed=1), numbers((3, 2), "float32", seed=2)
    dy = numbers((5, 6), "float32", seed=3)
    options = {"wrt": "kernel", "mode": "same", "pad_mode": "edge"}
    (dk,) = backend.call(pulled(xconv.convolve, **options), x, kernel, dy)
    assert_close(dk, pulled(xconv.convolve, **options)(x.astype("float32"), kernel, dy)[0])
    options = {**options, "wrt": "x"}
    x, kernel = numbers((5, 6), "float32", seed=1), small_integers((3, 2), "int32", seed=2)
    (dx,) = backend.call(pulled(xconv.convolve, **options), x, kernel, dy)
    assert_close(dx, pulled(xconv.convolve, **options)(x, kernel.astype("float32"), dy)[0])


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("pad_mode", ["constant", "symmetric"])
def test_half_precision_is_summed_in_float32(backend, name, pad_mode):
    if not backend.has("float16"):
        pytest.skip(f"{backend.name} has no float16")
    x, kernel = numbers((30, 40), "float16", seed=1), numbers((5, 5), "float16", seed=2)
    dy = numbers((30, 40), "float16", seed=3)
    options = {"mode": "same", "pad_mode": pad_mode}
    found = backend.call(pulled(FUNCTIONS[name], **options), x, kernel, dy)
    expected = pulled(FUNCTIONS[name], **options)(*(a.astype("float64") for a in (x, kernel, dy)))
    for gradient, exact in zip(found, expected, strict=True):
        assert gradient.dtype == "float16"
        np.testing.assert_allclose(gradient, exact, rtol=2e-3, atol=1e-3)


@pytest.mark.backends("numpy", "fast")
def test_a_value_counts_in_any_tile_and_with_any_number_of_threads():
    x, kernel = small_integers((3, 40, 30), "float64", seed=1), small_integers((3, 5, 4), "float64", seed=2)
    options = {"axes": (1, 2), "value": 2.0, "wrt": "kernel"}
    dy = small_integers(xconv.convolve(x, kernel, axes=(1, 2)).shape, "float64", seed=3)
    padded = np.pad(x, ((0, 0), (4, 4), (3, 3)), constant_values=2.0)
    expected = pulled(xconv.convolve, axes=(1, 2), mode="valid", wrt="kernel")(padded, kernel, dy)[0]
    for threads, cache in itertools.product((1, 3), (None, 2**12)):
        with xconv.config(threads=threads, cache=cache):
            assert_same(pulled(xconv.convolve, **options)(x, kernel, dy)[0], expected)


# ---------------------------------------------------------------------------------------------- smoothing filters

FILTERS = {
    "gaussian": (xconv.gaussian_filter, (0.9,), {}),
    "gaussian-of-each-axis": (xconv.gaussian_filter, ((0.8, 1.3),), {"axes": (2, 0)}),
    "gaussian-slope": (xconv.gaussian_filter, (1.1,), {"order": (1, 0), "axes": (0, 2), "radius": (2, 3)}),
    "gaussian-curvature": (xconv.gaussian_filter, (1.0,), {"order": 2, "axes": 1, "truncate": 2.5}),
    "gaussian_laplace": (xconv.gaussian_laplace, (0.8,), {"axes": (1, 2)}),
    "gaussian_laplace-of-each": (xconv.gaussian_laplace, ((0.8, 0.5),), {"axes": (2, 1), "radius": 2}),
    "uniform": (xconv.uniform_filter, (3,), {}),
    "uniform-origin": (xconv.uniform_filter, ((4, 6),), {"axes": (2, 0), "origin": (1, -3)}),
    "uniform-one": (xconv.uniform_filter, (5,), {"axes": -1, "origin": 2}),
    "sobel": (xconv.sobel, (), {}),
    "sobel-axes": (xconv.sobel, (), {"axis": 0, "axes": (2, 0)}),
    "laplace": (xconv.laplace, (), {}),
    "laplace-axes": (xconv.laplace, (), {"axes": (0, 2)}),
}
SHAPES = [(5, 3, 6), (2, 3, 1)]  # the second is shorter than kernels reach


def smoothed(function, args, **options):
    """From an image and dy to the gradient by the image."""
    return lambda x, dy: xconv.vjp(function, x, *args, **options)[1](dy)[0]


@thinned("name, pad_mode", list(itertools.product(FILTERS, PAD_MODES)), 7)
def test_a_smoothing_filter_backwards(backend, name, pad_mode):
    function, args, options = FILTERS[name]
    options = {**options, "pad_mode": pad_mode}
    value = {"value": 2.0} if pad_mode == "constant" else {}
    for shape in SHAPES:
        x, dy = (small_integers(shape, "float64", seed=seed) for seed in (1, 3))
        dx = backend.call(smoothed(function, args, **options, **value), x, dy)
        assert dx.shape == shape
        for seed in (5, 6):
            v = small_integers(shape, "float64", seed=seed)
            found = inner(dx, v)
            assert found == pytest.approx(inner(dy, function(v, *args, **options)), rel=1e-10, abs=1e-10)
            if function in (xconv.sobel, xconv.laplace):
                assert found == inner(dy, function(v, *args, **options))


NAMES, DTYPES = (
    ["gaussian", "gaussian_laplace", "uniform", "sobel", "laplace"],
    ["float16", "float32", "complex64"],
)


@thinned("name, dtype", list(itertools.product(NAMES, DTYPES)), 4)
def test_dtypes(backend, name, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    function, args, options = FILTERS[name]
    x, dy = (numbers((5, 4, 6), dtype, seed=seed) for seed in (1, 3))
    wide = "complex128" if dtype == "complex64" else "float64"
    for pad_mode in ("symmetric", "constant"):
        found = backend.call(smoothed(function, args, **options, pad_mode=pad_mode), x, dy)
        assert found.dtype == dtype
        exact = smoothed(function, args, **options, pad_mode=pad_mode)(x.astype(wide), dy.astype(wide))
        tolerance = 2e-3 if dtype == "float16" else 1e-5
        np.testing.assert_allclose(found, exact, rtol=tolerance, atol=tolerance)


def test_a_wide_gaussian_is_cut_into_bands(backend):
    x, dy = (numbers((150, 3), "float64", seed=seed) for seed in (1, 3))
    call = partial(xconv.gaussian_filter, axes=0, pad_mode="reflect")
    dx = backend.call(smoothed(xconv.gaussian_filter, (9,), **call.keywords), x, dy)
    v = numbers(x.shape, "float64", seed=5)
    assert inner(dx, v) == pytest.approx(inner(dy, call(v, 9)))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_an_image_without_elements_has_a_gradient_without_elements(backend, shape):
    empty = np.zeros(shape, "float32")
    found = backend.call(smoothed(xconv.gaussian_filter, (1.0,), axes=1), empty, empty)
    assert (found.shape, found.dtype) == (shape, "float32")


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", ["gaussian", "gaussian_laplace", "uniform", "laplace"])
def test_any_tiles_and_any_number_of_threads_give_the_same_bits(name):
    function, args, options = FILTERS[name]
    x = numbers((12, 40, 30), "float64", seed=1)
    found = []
    for threads, workspace in ((1, None), (3, None), (1, 2**18), (3, 2**18)):
        with xconv.config(threads=threads, workspace=workspace):
            found.append(smoothed(function, args, **options)(x, x))
    assert_same(found[1], found[0])
    assert_same(found[3], found[2])
    assert_close(found[2], found[0])


@pytest.mark.backends("dask")
def test_chunks_are_not_computed(backend):
    import dask.array as da

    x, dy = (numbers((6, 8, 5), "float64", seed=seed) for seed in (1, 3))
    lazy = [da.from_array(a, chunks=(2, 4, 5)) for a in (x, dy)]
    found = smoothed(xconv.gaussian_filter, (1.0,), axes=(1, 2))(*lazy)
    assert_close(found.compute(), smoothed(xconv.gaussian_filter, (1.0,), axes=(1, 2))(x, dy))
    kernel = numbers((3, 2), "float64", seed=2)
    options = {"mode": "same", "value": 1.5}
    found = pulled(xconv.convolve, **options)(lazy[0], da.from_array(kernel), lazy[1])
    for one, expected in zip(found, pulled(xconv.convolve, **options)(x, kernel, dy), strict=True):
        assert_close(one.compute(), expected)


# ------------------------------------------------------------------------------------- differences, and once more


@pytest.mark.backends("numpy")
def test_against_differences():
    x, kernel = numbers((2, 5), "float64", seed=1), numbers((2, 3), "float64", seed=2)
    call = partial(xconv.correlate, axes=1, stride=2, value=0.7)
    dy = numbers(call(x, kernel).shape, "float64", seed=3)
    found = pulled(xconv.correlate, **call.keywords)(x, kernel, dy)
    for gradient, expected in zip(found, differences(call, (x, kernel), dy), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=2e-8)


SECOND = {
    "convolve": (partial(xconv.convolve, axes=(1, 2), mode="same", pad_mode="reflect"), (2, 5, 4), (2, 3, 2)),
    "correlate": (partial(xconv.correlate, axes=1, stride=2, value=0.5), (2, 7), (3,)),
    "gaussian": (partial(xconv.gaussian_filter, axes=1, pad_mode="wrap"), (2, 5), None),
    "laplace": (xconv.laplace, (4, 5), None),
}


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_by_autograd(name):
    """Of the pullback, by the arguments and by the cotangent: against differences of it."""
    import torch

    function, x, kernel = SECOND[name]
    function, options = (
        (function.func, function.keywords) if isinstance(function, partial) else (function, {})
    )
    inputs = [torch.tensor(numbers(x, "float64", seed=1), requires_grad=True)]
    rest = (1.0,) if name == "gaussian" else ()
    if kernel is not None:
        inputs.append(torch.tensor(numbers(kernel, "float64", seed=2), requires_grad=True))
    y = function(*(a.detach() for a in inputs), *rest, **options)
    dy = torch.tensor(numbers(tuple(y.shape), "float64", seed=3), requires_grad=True)

    def back(*arrays):
        *arrays, dy = arrays
        return xconv.vjp(function, *arrays, *rest, **options)[1](dy)

    torch.autograd.gradcheck(back, (*inputs, dy), fast_mode=True)
    torch.autograd.gradgradcheck(lambda *a: function(*a, *rest, **options), inputs, fast_mode=True)
