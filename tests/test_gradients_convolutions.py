"""Gradients of the convolutions: transposes of what the calls themselves compute, and what torch's autograd gives."""

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xconv
from cases import numbers, pytest_generate_tests, thinned  # noqa: F401
from compare import assert_close, assert_same
from xconv import _weights
from xconv._geometry import Axis, ConvProblem

LAZY_STEP = 3

# ----------------------------------------------------------------------------------------------- the transpose

CASES = {
    "1d": (xconv.conv, (2, 9, 3), (3, 3, 4), {"padding": 1}),
    "1d-name": (xconv.conv1d, (9, 3), (3, 3, 4), {"stride": 2}),
    "2d": (xconv.conv, (2, 6, 7, 3), (3, 2, 3, 4), {"padding": ((1, 2), (0, 1))}),
    "2d-name": (xconv.conv2d, (6, 7, 3), (3, 2, 3, 4), {"padding": "same"}),
    "3d": (xconv.conv3d, (1, 4, 5, 4, 2), (2, 3, 2, 2, 3), {"stride": (1, 2, 2), "padding": "same_lower"}),
    "4d": (xconv.conv, (1, 3, 4, 3, 3, 2), (2, 2, 1, 2, 2, 2), {"padding": "full"}),
    "1x1": (xconv.conv, (2, 5, 4, 6), (1, 1, 6, 5), {}),
    "1x1-stride": (xconv.conv, (2, 5, 4, 6), (1, 1, 6, 5), {"stride": 2}),
    "stride": (xconv.conv, (2, 8, 9, 3), (3, 3, 3, 4), {"stride": (2, 3), "padding": 1}),
    "stride-above-kernel": (xconv.conv, (1, 8, 9, 2), (2, 1, 2, 3), {"stride": 3}),
    "dilation": (xconv.conv, (1, 9, 8, 2), (3, 2, 2, 3), {"dilation": (2, 3), "padding": 2}),
    "crop": (xconv.conv, (1, 9, 8, 2), (3, 2, 2, 3), {"padding": ((-2, 1), (0, -1))}),
    "causal": (xconv.conv, (1, 9, 2), (3, 2, 3), {"padding": "causal", "dilation": 2}),
    "groups": (xconv.conv, (2, 6, 5, 6), (3, 2, 2, 9), {"groups": 3, "padding": 1}),
    "groups-stride": (xconv.conv, (1, 7, 6, 4), (3, 3, 2, 4), {"groups": 2, "stride": 2, "dilation": 2, "padding": 2}),
    "groups-of-one": (xconv.conv, (2, 6, 5, 3), (3, 2, 1, 6), {"groups": 3, "stride": (2, 1)}),
    "channels-first": (xconv.conv, (2, 3, 6, 7), (4, 3, 3, 2), {"layout": "NCHW", "padding": 1}),
    "three-layouts": (xconv.conv, (3, 6, 2, 7), (2, 3, 3, 4), {"layout": "CHNW,HIWO->WNCH", "padding": "same"}),
    "edge": (xconv.conv, (1, 5, 4, 2), (3, 3, 2, 3), {"pad_mode": "edge", "padding": 2}),
    "reflect": (xconv.conv, (1, 5, 4, 2), (3, 2, 2, 3), {"pad_mode": "reflect", "padding": ((1, 3), (0, 2))}),
    "symmetric": (xconv.conv, (2, 3, 4, 2), (3, 3, 2, 3), {"pad_mode": "symmetric", "padding": 5, "stride": 2}),
    "wrap": (xconv.conv, (5, 4, 2), (3, 3, 2, 2), {"pad_mode": "wrap", "padding": "same", "dilation": 2}),
    "general": (xconv.conv_general, (2, 5, 4, 2), (3, 2, 2, 3), {"input_dilation": (2, 3), "padding": 2, "stride": 2}),
    "general-crop": (xconv.conv_general, (1, 5, 6, 2), (2, 2, 1, 4), {"input_dilation": 2, "groups": 2, "padding": -1}),
    "depthwise": (xconv.depthwise_conv, (2, 6, 5, 3), (3, 3, 3, 2), {"padding": "same", "stride": 2}),
    "depthwise-first": (xconv.depthwise_conv, (2, 3, 6, 5), (6, 1, 3, 3), {"layout": "NCHW", "dilation": 2}),
    "transpose": (xconv.conv_transpose, (2, 4, 5, 3), (3, 2, 4, 3), {"stride": 2}),
    "transpose-1d": (xconv.conv_transpose1d, (4, 3), (3, 4, 3), {"stride": 3, "output_padding": 2}),
    "transpose-2d": (xconv.conv_transpose2d, (3, 4, 5), (3, 4, 2, 3), {"layout": "NCHW", "padding": 1}),
    "transpose-3d": (xconv.conv_transpose3d, (1, 2, 3, 2, 2), (2, 2, 3, 4, 2), {"dilation": 2}),
    "transpose-groups": (xconv.conv_transpose, (2, 4, 3, 6), (3, 3, 2, 6), {"groups": 3, "stride": 2, "padding": 1}),
    "transpose-shape": (xconv.conv_transpose, (1, 3, 3, 2), (2, 2, 3, 2), {"stride": 3, "output_shape": (8, 9)}),
}  # fmt: skip


def given_arrays(name, dtype="float64"):
    function, x, w, options = CASES[name]
    x, w = numbers(x, dtype, seed=1), numbers(w, dtype, seed=2)
    y = function(x, w, **options)
    return function, x, w, numbers(y.shape, y.dtype, seed=3), options


def pulled(function, wrt=None, **options):
    """From the arrays of a call and dy to the gradients; a test's backend makes the call."""

    def back(*arrays):
        *inputs, dy = arrays
        _, pullback = xconv.vjp(function, *inputs, wrt=wrt, **options)
        return tuple(gradient for gradient in pullback(dy) if gradient is not None)

    return back


def inner(a, b):
    """The real inner product, by which a gradient points uphill."""
    return float(np.sum(a.real * b.real) + (np.sum(a.imag * b.imag) if a.dtype.kind == "c" else 0))


@thinned("name", CASES, every=4)
def test_a_gradient_is_the_transpose_of_the_call(backend, name):
    """<dy, f(v, w)> = <dx, v> and <dy, f(x, u)> = <dw, u> for any v and u, since f is linear in each."""
    function, x, w, dy, options = given_arrays(name)
    dx, dw = backend.call(pulled(function, **options), x, w, dy)
    assert dx.shape == x.shape
    assert dw.shape == w.shape
    for seed in (4, 5, 6):
        v, u = numbers(x.shape, "float64", seed=seed), numbers(w.shape, "float64", seed=seed)
        assert inner(dx, v) == pytest.approx(inner(dy, function(v, w, **options)), rel=1e-9, abs=1e-9)
        assert inner(dw, u) == pytest.approx(inner(dy, function(x, u, **options)), rel=1e-9, abs=1e-9)


@thinned("dtype", ["float16", "float32", "complex64", "complex128"], every=3)
@thinned("name", ["2d", "groups", "groups-of-one", "stride", "wrap", "transpose", "general"], every=3)
def test_dtypes(backend, name, dtype):
    """In the argument's own dtype; complex numbers as (x, w) -> the gradient of a real loss."""
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    wide = "complex128" if dtype.startswith("c") else "float64"
    function, x, w, dy, options = given_arrays(name, dtype)
    dx, dw = backend.call(pulled(function, **options), x, w, dy)
    assert dx.dtype == dw.dtype == dtype
    tolerance = {"float16": 1e-3, "float32": 1e-6, "complex64": 1e-6, "complex128": 1e-13}[dtype]
    x, w, dy = (a.astype(wide) for a in (x, w, dy))
    for seed in (4, 5):
        v, u = numbers(x.shape, wide, seed=seed), numbers(w.shape, wide, seed=seed)
        for gradient, along, moved in (
            (dx, v, function(v, w, **options)),
            (dw, u, function(x, u, **options)),
        ):
            found, expected = inner(gradient.astype(wide), along), inner(dy, moved)
            assert abs(found - expected) <= tolerance * np.linalg.norm(
                gradient.astype(wide)
            ) * np.linalg.norm(along)


def test_real_arguments_have_real_gradients(backend):
    function, x, w, _, options = given_arrays("2d")
    w = numbers(w.shape, "complex128", seed=2)
    if not backend.has("complex128"):
        pytest.skip(f"{backend.name} has no complex128")
    dy = numbers(function(x, w, **options).shape, "complex128", seed=3)
    dx, dw = backend.call(pulled(function, **options), x, w, dy)
    assert (dx.dtype, dw.dtype) == ("float64", "complex128")
    v, u = numbers(x.shape, "float64", seed=4), numbers(w.shape, "complex128", seed=5)
    assert inner(dx, v) == pytest.approx(inner(dy, function(v, w, **options)), rel=1e-9)
    assert inner(dw, u) == pytest.approx(inner(dy, function(x, u, **options)), rel=1e-9)


def test_a_uint8_image_has_no_gradient_but_its_kernel_has(backend):
    x, w = numbers((1, 6, 5, 2), "uint8", seed=1), numbers((3, 3, 2, 3), "float32", seed=2)
    dy = numbers((1, 4, 3, 3), "float32", seed=3)
    (dw,) = backend.call(pulled(xconv.conv, wrt="w"), x, w, dy)
    assert_close(dw, pulled(xconv.conv, wrt="w")(x.astype("float32"), w, dy)[0])
    with pytest.raises(
        TypeError, match=r"x must be floating to be differentiated; leave it out of wrt; got x=uint8"
    ):
        backend.call(pulled(xconv.conv), x, w, dy)


def test_in_the_dtype_of_the_call(backend):
    x, w = numbers((1, 6, 5, 2), seed=1), numbers((3, 3, 2, 3), seed=2)
    dy = numbers((1, 4, 3, 3), "float64", seed=3)
    dtype = backend.xp.float64
    dx, dw = backend.call(pulled(xconv.conv, dtype=dtype), x, w, dy)
    assert dx.dtype == dw.dtype == "float32"
    expected = pulled(xconv.conv)(x.astype("float64"), w.astype("float64"), dy)
    assert_close(dx, expected[0].astype("float32"))
    assert_close(dw, expected[1].astype("float32"))


def test_an_empty_batch_gives_zeros(backend):
    x, w, b = np.zeros((0, 6, 5, 2), "float32"), numbers((3, 3, 2, 3), seed=2), np.zeros(3, "float32")
    dx, dw, db = backend.call(pulled(xconv.conv), x, w, b, np.zeros((0, 4, 3, 3), "float32"))
    assert dx.shape == x.shape
    assert_same(dw, np.zeros_like(w))
    assert_same(db, b)


# -------------------------------------------------------------------------------- bias, residual, activation

X, W, B = (
    numbers((2, 6, 5, 3), "float64", seed=1),
    numbers((3, 3, 3, 4), "float64", seed=2),
    numbers((4,), "float64", seed=3),
)
R, DY = numbers((2, 6, 5, 4), "float64", seed=4), numbers((2, 6, 5, 4), "float64", seed=5)


def differences(call, arrays, dy, step=1e-6):
    """The gradient of <dy, call(*arrays)> by central differences."""
    found = []
    for i, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            sides = []
            for sign in (1, -1):
                moved = array.copy()
                moved[place] += sign * step
                sides.append(inner(dy, call(*arrays[:i], moved, *arrays[i + 1 :])))
            gradient[place] = (sides[0] - sides[1]) / (2 * step)
        found.append(gradient)
    return found


ACTIVATIONS = [
    None, "relu", "relu6", "leaky_relu", "elu", "selu", "sigmoid", "hard_sigmoid", "tanh", "silu", "hard_swish", "mish",
    "gelu", "softplus", xconv.silu, partial(xconv.leaky_relu, slope=0.3), partial(xconv.elu, alpha=-1.0),
]  # fmt: skip


@thinned("activation", ACTIVATIONS, every=6)
def test_through_bias_residual_and_activation(backend, activation):
    options = {"padding": 1, "activation": activation}
    small = X[:, :3, :2], W[..., :2], B[:2], R[:, :3, :2, :2]

    def call(x, w, b, r):
        return xconv.conv(x, w, b, residual=r, **options)

    def back(x, w, b, r, dy):
        return xconv.vjp(xconv.conv, x, w, b, residual=r, **options)[1](dy)

    found = backend.call(back, *small, DY[:, :3, :2, :2])
    for gradient, expected in zip(found, differences(call, small, DY[:, :3, :2, :2]), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=2e-8)


@thinned("layout, activation", itertools.product(["NHWC", "NCHW"], [None, "relu", "gelu"]), every=5)
def test_separable(backend, layout, activation):
    x, d, p = (
        numbers((1, 4, 5, 2), "float64", seed=1),
        numbers((3, 2, 2, 2), "float64", seed=2),
        numbers((1, 1, 4, 3), "float64", seed=3),
    )
    if layout == "NCHW":
        x, p = np.moveaxis(x, -1, 1), np.transpose(p, (3, 2, 0, 1))
        d = np.moveaxis(d.reshape(3, 2, 1, 4), (3, 2), (0, 1))
    options = {"padding": 1, "activation": activation, "layout": layout, "stride": (1, 2)}
    arrays = x, d, p, B[:3]
    call = partial(xconv.separable_conv, **options)
    dy = numbers(call(*arrays).shape, "float64", seed=5)
    found = backend.call(pulled(xconv.separable_conv, **options), *arrays, dy)
    for gradient, expected in zip(found, differences(call, arrays, dy), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=2e-8)
    _, pullback = xconv.vjp(xconv.separable_conv, *arrays, wrt="pointwise", **options)
    alone = pullback(dy)
    assert [g is None for g in alone] == [True, True, False, True]
    assert_close(alone[2], found[2])


def test_an_activation_that_is_unknown_here_is_refused_before_any_work():
    with pytest.raises(
        ValueError, match=r"activation must be one of xconv's activations where it is differentiated"
    ):
        xconv.vjp(xconv.conv, X, W, activation=np.tanh)


def test_what_is_not_wanted_is_not_computed(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("computed")

    from xconv._gradients import _convolutions

    monkeypatch.setattr(_convolutions, "weight_gradient", never)
    dx, dw, db = xconv.vjp(xconv.conv, X, W, B, padding=1, wrt=("x", "b"))[1](DY)
    assert dx.shape == X.shape
    assert dw is None
    assert_close(db, DY.sum(axis=(0, 1, 2)))
    monkeypatch.setattr(_convolutions, "execute", never)
    assert xconv.vjp(xconv.conv, X, W, B, padding=1, wrt="b")[1](DY)[0] is None


# ------------------------------------------------------------------------------------- the sum for the kernel

AXES = st.builds(
    lambda n, k, s, d, low, high: Axis(n, k, s, d, 1, low, high),
    *(st.integers(1, most) for most in (9, 4, 3, 3)),
    *(st.integers(-2, 4) for _ in range(2)),
).filter(lambda a: a.output > 0 and a.size + min(a.low, 0) + min(a.high, 0) > 0)


@pytest.mark.backends("numpy", "fast")
@settings(max_examples=150, deadline=None)
@given(
    st.lists(AXES, min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_the_sum_is_the_convolution_that_the_geometry_describes(axes, batch, groups, inputs, outputs):
    """`ConvProblem.weight_transposed` as a convolution, with batch and channels exchanged."""
    problem = ConvProblem(batch, tuple(axes), groups * inputs, groups * outputs, groups, itemsize=8)
    x = numbers((batch, *(a.size for a in axes), groups * inputs), "float64", seed=1)
    dy = numbers((batch, *problem.outputs, groups * outputs), "float64", seed=2)
    padding = [(a.low, a.high) for a in axes]
    w = np.zeros((*problem.window, inputs, groups * outputs))
    options = {"stride": [a.stride for a in axes], "dilation": [a.dilation for a in axes], "padding": padding}
    _, dw = pulled(xconv.conv_general, groups=groups, **options)(x, w, dy)
    # (N, *n, G I) -> (I, *n, G N), and (N, *m, G O) -> (*m, N, G O)
    rank = len(axes)
    split = x.reshape(*x.shape[:-1], groups, inputs)
    turned = np.moveaxis(split, (-1, 0), (0, -1)).reshape(inputs, *x.shape[1:-1], groups * batch)
    described = problem.weight_transposed().axes
    y = xconv.conv_general(
        turned,
        np.moveaxis(dy, 0, -2),
        stride=[a.stride for a in described],
        dilation=[a.dilation for a in described],
        padding=[(a.low, a.high) for a in described],
        groups=groups,
        algorithm="direct",
    )
    assert_close(dw, np.moveaxis(y, 0, rank))


@pytest.mark.backends("numpy", "fast")
@settings(max_examples=150, deadline=None)
@given(
    st.lists(AXES, min_size=1, max_size=3),
    st.integers(1, 3),
    st.sampled_from([(1, 2, 3), (2, 1, 2), (3, 2, 1)]),
    st.sampled_from(["constant", "edge", "reflect", "symmetric", "wrap"]),
)
def test_the_adjoint_identity(axes, batch, channels, pad_mode):
    """<dy, J v> = <J^T dy, v> for steps v of all three arguments at once, by the product rule."""
    groups, inputs, outputs = channels
    x, v = (numbers((batch, *(a.size for a in axes), groups * inputs), "float64", seed=s) for s in (1, 2))
    w, u = (numbers((*(a.window for a in axes), inputs, groups * outputs), "float64", seed=s) for s in (3, 4))
    b, c = (numbers((groups * outputs,), "float64", seed=s) for s in (5, 6))
    options = {
        "stride": [a.stride for a in axes],
        "dilation": [a.dilation for a in axes],
        "padding": [(a.low, a.high) for a in axes],
        "groups": groups,
        "pad_mode": pad_mode,
    }
    y, pullback = xconv.vjp(xconv.conv, x, w, b, **options)
    dy = numbers(y.shape, "float64", seed=7)
    step = xconv.conv(v, w, **options) + xconv.conv(x, u, **options) + c
    gradients = pullback(dy)
    moved = sum(inner(gradient, along) for gradient, along in zip(gradients, (v, u, c), strict=True))
    assert moved == pytest.approx(inner(dy, step), rel=1e-9, abs=1e-9)


SUMS = {
    "rows": ((6, 12, 9, 8), (3, 3, 8, 5), {"padding": 1}),
    "stride": ((6, 12, 9, 8), (3, 3, 8, 5), {"stride": 2}),
    "1x1": ((6, 12, 9, 16), (1, 1, 16, 8), {}),
    "groups": ((6, 12, 9, 8), (3, 3, 2, 8), {"groups": 4}),
    "groups-of-one": ((6, 12, 9, 8), (3, 3, 1, 16), {"groups": 8, "padding": 2}),
    "edge": ((6, 12, 9, 8), (3, 3, 8, 5), {"padding": 2, "pad_mode": "edge"}),
    "1d": ((6, 50, 8), (7, 8, 5), {"padding": 3, "dilation": 2}),
    "3d": ((2, 6, 5, 7, 3), (3, 2, 3, 3, 4), {"padding": 1}),
}


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("cache", [None, 2**13, 2**15])
@pytest.mark.parametrize("name", SUMS)
def test_any_tiles_and_pieces_give_the_same_sum_and_any_number_of_threads_the_same_bits(name, cache):
    x, w, options = SUMS[name]
    x, w = numbers(x, "float64", seed=1), numbers(w, "float64", seed=2)
    dy = numbers(xconv.conv(x, w, **options).shape, "float64", seed=3)
    expected = pulled(xconv.conv, wrt="w", **options)(x, w, dy)[0]
    found = []
    for threads in (1, 2, 3, 8):
        with xconv.config(threads=threads, cache=cache):
            found.append(pulled(xconv.conv, wrt="w", **options)(x, w, dy)[0])
    assert_close(found[0], expected)
    for other in found[1:]:
        assert_same(other, found[0])


@pytest.mark.backends("numpy", "fast")
def test_a_small_cache_cuts_the_kernel_along_taps_and_channels():
    axes = (Axis(9, 3), Axis(8, 3))
    problem = ConvProblem(2, axes, 16, 8, itemsize=4)
    for most in (10**6, 1600, 600, 200):
        pieces = _weights._pieces(problem, most)
        cells = [
            (t, c) for p in pieces for t in range(*p.taps.indices(9)) for c in range(*p.channels.indices(16))
        ]
        assert sorted(cells) == list(itertools.product(range(9), range(16)))
        for p in pieces:
            boxed = [a * 3 + b for a, b in itertools.product(*(range(*ends) for ends in p.window))]
            assert boxed == list(range(*p.taps.indices(9)))
    assert len(_weights._pieces(problem, 10**6)) == 1
    assert len(_weights._pieces(problem, 1600)) == 3
    assert len(_weights._pieces(problem, 600)) == 9
    assert len(_weights._pieces(problem, 200)) > 9


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", ["rows", "stride", "1x1", "groups", "groups-of-one"])
def test_memory_beyond_the_results_is_the_workspace(name):
    import tracemalloc

    workspace = 2**20
    (_, *sizes, channels), w, options = SUMS[name]
    x = numbers((8, *(n * 4 for n in sizes), channels), seed=1)
    w = numbers(w, seed=2)
    y = xconv.conv(x, w, **options)
    with xconv.config(workspace=workspace, cache=2**16):
        _, pullback = xconv.vjp(xconv.conv, x, w, **options)
        pullback(y)
        tracemalloc.start()
        dx, dw = pullback(y)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert dx.nbytes > workspace / 4
    assert peak - dx.nbytes - dw.nbytes <= workspace + 2**17


@pytest.mark.backends("dask")
def test_chunks_are_summed_and_nothing_is_computed(backend):
    import dask.array as da

    x = da.from_array(X, chunks=(1, 3, 5, 3))
    dy = da.from_array(DY, chunks=(2, 2, 3, 4))
    w = da.from_array(W)
    dx, dw = pulled(xconv.conv, padding=1)(x, w, dy)
    expected = pulled(xconv.conv, padding=1)(X, W, DY)
    assert_close(dx.compute(), expected[0])
    assert_close(dw.compute(), expected[1])
    assert len(dw.dask) > 4


# ------------------------------------------------------------------------------------------------ torch's word


def channels_first(a):
    return np.ascontiguousarray(np.moveaxis(a, -1, 1))


def grid():
    for rank, stride, dilation, groups, kernel, padding, batch in itertools.product(
        (1, 2, 3), (1, 2, 3), (1, 2), (1, 2, 4), (1, 2, 3), (0, 1, 2), (1, 2)
    ):
        if padding <= dilation * (kernel - 1) and not (rank == 3 and (stride == 3 or batch == 2)):
            yield rank, stride, dilation, groups, kernel, padding, batch


def test_the_grid_is_large():
    assert len(list(grid())) >= 300


@pytest.mark.backends("torch")
@pytest.mark.parametrize("rank, stride, dilation, groups, kernel, padding, batch", list(grid()))
def test_against_torch_autograd(rank, stride, dilation, groups, kernel, padding, batch):
    import torch

    sizes = (9, 7, 6)[:rank]
    x = numbers((batch, *sizes, 4), "float64", seed=1)
    w = numbers((*(kernel,) * rank, 4 // groups, 8), "float64", seed=2)
    b = numbers((8,), "float64", seed=3)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y, pullback = xconv.vjp(xconv.conv, x, w, b, **options)
    dy = numbers(y.shape, "float64", seed=4)
    theirs = [
        torch.tensor(a, requires_grad=True)
        for a in (channels_first(x), np.moveaxis(w, (-1, -2), (0, 1)).copy(), b)
    ]
    getattr(torch.nn.functional, f"conv{rank}d")(*theirs, **options).backward(
        torch.tensor(channels_first(dy))
    )
    dx, dw, db = pullback(dy)
    np.testing.assert_allclose(channels_first(dx), theirs[0].grad.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        np.moveaxis(dw, (-1, -2), (0, 1)), theirs[1].grad.numpy(), rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(db, theirs[2].grad.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "stride, padding, output_padding, dilation", [(1, 0, 0, 1), (2, 1, 1, 1), (3, 2, 1, 2), (2, 0, 0, 2)]
)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_against_torch_autograd(rank, stride, padding, output_padding, dilation, groups):
    import torch

    x = numbers((2, *(5, 4, 3)[:rank], 4), "float64", seed=1)
    w = numbers((*(3,) * rank, 6 // groups, 4), "float64", seed=2)
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "dilation": dilation,
        "groups": groups,
    }
    y, pullback = xconv.vjp(xconv.conv_transpose, x, w, **options)
    dy = numbers(y.shape, "float64", seed=4)
    theirs = [
        torch.tensor(a, requires_grad=True)
        for a in (channels_first(x), np.moveaxis(w, (-1, -2), (0, 1)).copy())
    ]
    function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    function(*theirs, None, **options).backward(torch.tensor(channels_first(dy)))
    dx, dw = pullback(dy)
    np.testing.assert_allclose(channels_first(dx), theirs[0].grad.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        np.moveaxis(dw, (-1, -2), (0, 1)), theirs[1].grad.numpy(), rtol=1e-10, atol=1e-10
    )


@pytest.mark.backends("torch")
def test_complex_numbers_as_torch_has_them():
    import torch

    x, w = numbers((2, 6, 5, 3), "complex128", seed=1), numbers((3, 3, 3, 4), "complex128", seed=2)
    y, pullback = xconv.vjp(xconv.conv, x, w, padding=1)
    dy = numbers(y.shape, "complex128", seed=4)
    theirs = [
        torch.tensor(a, requires_grad=True)
        for a in (channels_first(x), np.moveaxis(w, (-1, -2), (0, 1)).copy())
    ]
    torch.nn.functional.conv2d(*theirs, padding=1).backward(torch.tensor(channels_first(dy)))
    dx, dw = pullback(dy)
    assert_close(channels_first(dx), theirs[0].grad.resolve_conj().numpy())
    assert_close(np.moveaxis(dw, (-1, -2), (0, 1)), theirs[1].grad.resolve_conj().numpy())


@pytest.mark.backends("torch")
@pytest.mark.parametrize(
    "name", ["2d", "stride", "groups", "groups-of-one", "edge", "depthwise", "transpose", "general"]
)
def test_second_derivatives_close(name):
    """A pullback is made of operations that torch differentiates again."""
    import torch

    function, x, w, dy, options = given_arrays(name)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, dy)]
    assert torch.autograd.gradcheck(pulled(function, **options), tensors, fast_mode=True)


@pytest.mark.backends("jax")
def test_second_derivatives_close_under_jit():
    import jax
    import jax.numpy as jnp
    from jax.test_util import check_grads

    function, x, w, dy, options = given_arrays("2d")
    check_grads(jax.jit(pulled(function, **options)), tuple(map(jnp.asarray, (x, w, dy))), order=1, rtol=1e-5)
