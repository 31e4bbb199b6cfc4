"""`plan`: weights made ready once, results as from the function itself, for any input that comes."""

import threading
import tracemalloc

import numpy as np
import pytest

import xconv
from cases import numbers, pytest_generate_tests, thinned  # noqa: F401
from compare import assert_close, assert_same
from xconv import _blocks, _conv, _dense, _plan, _products, _transposed
from xconv._algorithms import ALGORITHMS, FACTORED
from xconv._explain import PLANNED
from xconv._kernels import KERNELS

pytestmark = pytest.mark.backends("numpy", "fast")

X = numbers((2, 9, 8, 4), seed=1)
W, B = numbers((3, 3, 4, 6), seed=2), numbers((6,), seed=3)
MIX, EACH = numbers((1, 1, 8, 6), seed=4), numbers((3, 3, 4, 2), seed=5)
T = numbers((3, 3, 6, 4), seed=6)

# A call of every function that is planned: function, input, other arguments, options.
CALLS = {
    "conv": (xconv.conv, X, (W, B), {"padding": "same", "activation": "relu"}),
    "conv-strided": (xconv.conv, X, (W,), {"stride": (2, 1), "padding": ((1, 2), (-1, 3))}),
    "conv-wrap": (xconv.conv, X, (W,), {"padding": 2, "pad_mode": "wrap"}),
    "conv-groups": (xconv.conv, X, (W[:, :, :2],), {"groups": 2}),
    "conv-1x1": (xconv.conv, X, (W[:1, :1], B), {}),
    "conv-unbatched": (xconv.conv, X[0], (W,), {"padding": 1}),
    "conv-channels-first": (
        xconv.conv,
        np.moveaxis(X, -1, 1),
        (np.moveaxis(W, (3, 2), (0, 1)), B),
        {"layout": "NCHW", "padding": 1},
    ),
    "conv-named-layout": (xconv.conv, X, (np.moveaxis(W, (3, 2), (0, 1)),), {"layout": "NHWC,OIHW->NCHW"}),
    "conv-residual": (xconv.conv, X, (W,), {"residual": numbers((2, 7, 6, 6)), "activation": "tanh"}),
    "conv1d": (xconv.conv1d, X[:, :, 0], (W[:, 0],), {"dilation": 2}),
    "conv2d": (xconv.conv2d, X, (W,), {}),
    "conv3d": (xconv.conv3d, X[:, :, :, :, None], (W[:, :, :2, None],), {}),
    "conv_general": (xconv.conv_general, X, (W,), {"input_dilation": 2, "padding": ((3, -1), (0, 2))}),
    "depthwise_conv": (xconv.depthwise_conv, X, (EACH,), {"padding": 1}),
    "separable_conv": (xconv.separable_conv, X, (EACH, MIX, B), {"padding": 1}),
    "conv_transpose": (xconv.conv_transpose, X, (T, B), {"stride": 2, "padding": 1}),
    "conv_transpose-channels-first": (
        xconv.conv_transpose,
        np.moveaxis(X, -1, 1),
        (np.moveaxis(T, (3, 2), (0, 1)),),
        {"stride": (3, 2), "layout": "NCHW"},
    ),
    "conv_transpose1d": (xconv.conv_transpose1d, X[:, :, 0], (T[:, 0],), {}),
    "conv_transpose2d": (xconv.conv_transpose2d, X, (T,), {}),
    "conv_transpose3d": (xconv.conv_transpose3d, X[:, :3, :3, None], (T[:, :2, None],), {}),
    "unfold": (xconv.unfold, X, (3,), {"padding": 1}),
    "fold": (xconv.fold, X, ((10, 9), 2), {}),
    "max_pool": (xconv.max_pool, X, (2,), {}),
    "max_pool-indices": (xconv.max_pool, X, (3,), {"stride": 2, "return_indices": True}),
    "max_pool1d": (xconv.max_pool1d, X[:, :, 0], (2,), {}),
    "max_pool2d": (xconv.max_pool2d, X, (2,), {}),
    "max_pool3d": (xconv.max_pool3d, X[..., None], (2,), {}),
    "avg_pool": (xconv.avg_pool, X, ((2, 3),), {"padding": 1, "count_include_pad": True}),
    "avg_pool1d": (xconv.avg_pool1d, X[:, :, 0], (2,), {}),
    "avg_pool2d": (xconv.avg_pool2d, X, (2,), {}),
    "avg_pool3d": (xconv.avg_pool3d, X[..., None], (2,), {}),
    "lp_pool": (xconv.lp_pool, X, (2,), {"p": 3}),
    "adaptive_max_pool": (xconv.adaptive_max_pool, X, ((4, 3),), {}),
    "adaptive_avg_pool": (xconv.adaptive_avg_pool, X, ((4, 3),), {}),
    "reduce_window": (xconv.reduce_window, X, ("min", 3), {}),
    "convolve": (xconv.convolve, X, (EACH[..., 0, 0],), {"axes": (1, 2), "mode": "same", "value": 2}),
    "convolve-separable": (
        xconv.convolve,
        X,
        ((numbers((3,), seed=8), numbers((2,), seed=9)),),
        {"axes": (2, 1)},
    ),
    "dense": (xconv.dense, X, (W[0, 0], B), {"activation": "relu"}),
    "dense-wide": (xconv.dense, X, (numbers((4, 192), seed=10),), {}),
    "dense-integers": (xconv.dense, X[0, 0].astype("int8"), (W[0, 0].astype("int8"),), {}),
    "correlate": (xconv.correlate, X, (numbers((3, 2, 2), seed=7),), {"axes": (0, 1, 3), "mode": "same"}),
}


def test_every_function_that_is_planned_is_here():
    assert {function for function, *_ in CALLS.values()} == set(PLANNED)


def bound(backend, name, x=None):
    """A plan on arrays of the backend, made for an array or for a shape."""
    function, given, others, options = CALLS[name]

    def convert(item):
        return tuple(map(convert, item)) if isinstance(item, tuple) else backend._converted(item)

    options = {key: convert(value) for key, value in options.items()}
    return xconv.plan(function, convert(given) if x is None else x, *map(convert, others), **options)


def results(values):
    return values if isinstance(values, tuple) else (values,)


def assert_alike(actual, expected):
    for one, other in zip(results(actual), results(expected), strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other)


@thinned("name", CALLS, every=3)
def test_a_plan_gives_what_the_function_gives(backend, name):
    """Called twice, and on JAX a second time inside ``jax.jit``."""
    function, x, others, options = CALLS[name]
    expected = backend.call(function, x, *others, **options)
    layer = bound(backend, name)
    for _ in range(2):
        assert_alike(backend.call(layer, x), expected)


@thinned("name", [n for n in CALLS if hasattr(CALLS[n][2][0], "dtype")], every=4)
def test_a_plan_can_be_made_for_a_shape(backend, name):
    function, x, others, options = CALLS[name]
    for shape in (x.shape, list(x.shape)):
        layer = bound(backend, name, shape)
        assert_alike(backend.call(layer, x), backend.call(function, x, *others, **options))


@thinned("name", [n for n in CALLS if not n.startswith(("fold", "conv-residual"))], every=5)
def test_another_batch_and_other_sizes(backend, name):
    """On JAX inside ``jax.jit`` first of all, where what is made there must not be kept for later."""
    function, x, others, options = CALLS[name]
    layer = bound(backend, name)
    batches = [x] if name == "conv-unbatched" else [x, x[:1], np.concatenate([x, x, x])]
    spatial = 2 if name.endswith("first") else 1 if x.ndim > 3 or name.endswith("1d") else 0
    if name != "conv_transpose3d":
        batches += [np.repeat(x, 2, axis=spatial), np.repeat(x, 3, axis=spatial)]
    for other in [*batches, x]:
        if backend.name == "jax":
            import jax

            jitted = jax.jit(layer)(backend.asarray(other))
            assert_alike(backend._values(jitted), backend.call(function, other, *others, **options))
        assert_alike(backend.call(layer, other), backend.call(function, other, *others, **options))


@thinned("algorithm", [name for name in ALGORITHMS if name not in FACTORED], every=2)
def test_every_algorithm(backend, algorithm):
    if algorithm == "fft" and not hasattr(backend.xp, "fft"):
        pytest.skip(f"{backend.name} has no Fourier transforms")
    function, w = (xconv.depthwise_conv, EACH) if algorithm == "depthwise" else (xconv.conv, W)
    w = w[:1, :1] if algorithm == "pointwise" else w
    images, w = (X[..., :1], w[:, :, :1, :1]) if algorithm == "spectral" else (X, w)
    layer = xconv.plan(function, images.shape, backend.asarray(w), algorithm=algorithm)
    assert layer.algorithm == algorithm
    expected = function(images, w)
    for x in (images, images[:1], images[:, :7], images):
        assert_close(backend.call(layer, x), expected[: len(x), : x.shape[1] - len(w) + 1])


def test_another_dtype():
    layer = xconv.plan(xconv.conv, X.shape, W, padding=1)
    for dtype in ("float64", "int16", "float16", "complex64", "float32"):
        x = (4 * X).astype(dtype)
        y, expected = layer(x), xconv.conv(x, W, padding=1)
        assert y.dtype == expected.dtype
        assert_close(y, expected)


def test_other_settings():
    """They count when the call is made."""
    x, w = numbers((1, 30, 30, 32)), numbers((3, 3, 32, 32))
    layer = xconv.plan(xconv.conv, x, w, padding=1)
    expected = xconv.conv(x.astype("float64"), w.astype("float64"), padding=1).astype("float32")
    for settings in ({"precision": "strict"}, {"workspace": 2**16}, {"threads": 1}, {"cache": 2**15}):
        with xconv.config(**settings):
            assert_close(layer(x), expected)
    assert_close(layer(x), expected)
    with xconv.config(precision="strict"), pytest.raises(ValueError, match="only direct sums are allowed"):
        xconv.plan(xconv.conv, x, w, algorithm="winograd")


# -------------------------------------------------------------------------------------------------- what is kept


@pytest.fixture
def made(monkeypatch):
    """How often each algorithm has made a kernel ready."""
    counts = dict.fromkeys(ALGORITHMS, 0)

    def counted(name, bind):
        def count(*arguments):
            counts[name] += 1
            return bind(*arguments)

        return count

    for name, room in ALGORITHMS.items():
        monkeypatch.setattr(room, "bind", counted(name, room.bind))
    return counts


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "kn2row", "banded", "winograd", "fft"])
def test_a_kernel_is_made_ready_when_the_plan_is_made_and_never_again(made, algorithm):
    layer = xconv.plan(xconv.conv, X.shape, W, padding="same", algorithm=algorithm)
    assert made == dict.fromkeys(ALGORITHMS, 0) | {algorithm: 1}
    for x in (X, X, X[:1], np.concatenate([X, X])):  # whatever the batch
        layer(x)
    with xconv.config(cache=2**14, threads=3):
        layer(X)
    assert made[algorithm] == 1
    xconv.conv(X, W, padding="same", algorithm=algorithm)
    assert made[algorithm] == 2


def test_a_transposed_convolution_has_a_kernel_for_each_phase(made):
    layer = xconv.plan(xconv.conv_transpose, X.shape, T, stride=2)
    assert sum(made.values()) == 4
    layer(X)
    assert sum(made.values()) == 4


def test_kernels_of_the_last_sizes_are_kept_and_of_no_more(made):
    layer = xconv.plan(xconv.conv, (1, 40, 40, 4), W, algorithm="fft")
    inputs = [numbers((1, 12 + i, 12, 4)) for i in range(2 * KERNELS)]
    for _ in range(2):
        for x in inputs:
            assert_close(layer(x), xconv.conv(x, W))
    assert len(layer._kept.kernels) <= KERNELS
    before = made["fft"]
    for x in inputs[-KERNELS:]:
        layer(x)
    assert made["fft"] == before


LIKE_ONE_BEFORE = {
    "conv": (xconv.conv, (W, B), {"padding": 1, "activation": "relu", "layout": "NCHW,HWIO->NHWC"}),
    "conv_transpose": (xconv.conv_transpose, (T[:2, :2], B), {"stride": 2, "layout": "NCHW,HWIO->NHWC"}),
    "dense": (xconv.dense, (W[0, 0], B), {"activation": "relu"}),
    "dense-by-its-own": (xconv.dense, (W[0, 0], B), {"activation": np.abs}),
}


@pytest.mark.parametrize("name", LIKE_ONE_BEFORE)
def test_a_call_like_one_before_needs_its_input_only(monkeypatch, name):
    """Another shape, dtype or setting, plans that are forgotten, or a residual: and everything is looked up again."""
    function, others, options = LIKE_ONE_BEFORE[name]
    x = np.moveaxis(X, -1, 1) if "layout" in options else X
    layer = xconv.plan(function, x.shape, *others, **options)
    expected = layer(x)
    assert_close(expected, function(x, *others, **options))

    def forbidden(*_given, **_options):
        raise AssertionError("looked up")

    with monkeypatch.context() as patch:
        for module in (_conv, _transposed, _dense):
            patch.setattr(module, "inspect", forbidden)
        assert_same(layer(x), expected)
        assert_same(layer(x[:, ::-1][:, ::-1]), expected)
        for other in (x[:1], x.astype("float64")):
            with pytest.raises(AssertionError, match="looked up"):
                layer(other)
        with xconv.config(threads=1), pytest.raises(AssertionError, match="looked up"):
            layer(x)
        if name == "conv":
            with pytest.raises(AssertionError, match="looked up"):
                layer(x, residual=expected)
        _plan.forget_plans()
        with pytest.raises(AssertionError, match="looked up"):
            layer(x)
    if name == "conv":
        more = layer(x, residual=np.ones_like(expected))
        assert_close(more, np.maximum(xconv.conv(x, *others, **options | {"activation": None}) + 1, 0))
    assert_same(layer(x), expected)
    with pytest.raises(TypeError, match="mask"):
        layer(np.ma.masked_array(x))


def test_calls_like_the_last_ones_are_kept_and_no_more():
    layer = xconv.plan(xconv.conv, X.shape, W)
    for size in range(3, 3 + 2 * KERNELS):
        layer(numbers((1, size, 5, 4)))
    assert len(layer._kept.calls) == KERNELS


def test_an_activation_that_convolves_is_not_taken_for_the_call():
    inner = []

    def activation(y):
        inner.append(xconv.conv(y[..., :4], W, padding=1))
        return y

    layer = xconv.plan(xconv.conv, X.shape, W, activation=activation)
    expected = xconv.conv(X, W)
    for _ in range(3):
        assert_same(layer(X), expected)
    assert len(inner) == 3


def test_a_plan_is_not_changed_by_a_call_that_fails():
    layer = xconv.plan(xconv.conv, X.shape, W)
    with pytest.raises(ValueError, match="x must have"):
        layer(X[0, 0])
    with pytest.raises(TypeError, match="x must"):
        layer(X > 0)
    assert_close(layer(X), xconv.conv(X, W))


@pytest.mark.parametrize("algorithm", ["winograd", "im2col", "fft", "banded"])
def test_a_call_needs_its_result_and_the_workspace_and_no_kernel(algorithm):
    x, w = numbers((1, 60, 60, 16)), numbers((3, 3, 16, 16))
    workspace = 2**20 if algorithm == "fft" else 2**18  # a block cannot be cut
    with xconv.config(workspace=workspace):
        layer = xconv.plan(xconv.conv, x, w, algorithm=algorithm)
        layer(x)
        tracemalloc.start()
        try:
            y = layer(x)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak <= y.nbytes + workspace + 16 * 1024


def test_plans_are_used_by_many_threads_at_once():
    """Two plans and more sizes than are kept, so that kernels come and go while others are looked for."""
    layers = {
        algorithm: xconv.plan(xconv.conv, (1, 20, 20, 4), W, algorithm=algorithm)
        for algorithm in ("winograd", "fft")
    }
    inputs = [numbers((1, 12 + i, 12, 4), seed=i) for i in range(KERNELS + 4)]
    expected = [xconv.conv(x, W) for x in inputs]
    wrong = []

    def work(number):
        try:
            for turn in range(60):
                i = (turn * (number + 1) + number) % len(inputs)
                for layer in layers.values():
                    assert_close(layer(inputs[i]), expected[i])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


# ----------------------------------------------------------------------------------------------------- printing


def test_a_plan_explains_itself():
    layer = xconv.plan(xconv.conv, X, W, padding=1)
    assert str(layer).startswith("conv: x (2, 9, 8, 4), w (3, 3, 4, 6) -> (2, 9, 8, 6), channels last\n")
    assert str(layer).endswith("\n  weights bound")
    assert f"> {layer.algorithm} " in str(layer)
    assert repr(layer) == str(layer)
    assert layer.explanation.algorithm == layer.algorithm
    assert "weights bound" not in str(xconv.explain(xconv.conv, X, W, padding=1))


def test_transforms_of_the_kernel_cost_nothing_in_a_plan():
    x, w = (1, 14, 14, 256), numbers((3, 3, 256, 256))
    price = {
        name: next(bid.seconds for bid in plan.candidates if bid.algorithm == "winograd")
        for name, plan in (
            ("bound", xconv.plan(xconv.conv, x, w, padding=1).explanation.plan),
            ("unbound", xconv.explain(xconv.conv, x, w, padding=1).plan),
        )
    }
    assert price["bound"] < price["unbound"]


# ------------------------------------------------------------------------------------------------------- refusals


def test_mistakes_are_found_when_the_plan_is_made():
    with pytest.raises(ValueError, match="function must be one of conv, conv1d"):
        xconv.plan(xconv.relu, X)
    with pytest.raises(ValueError, match=r"stride must be positive; got stride=0\n  in conv\("):
        xconv.plan(xconv.conv, X, W, stride=0)
    with pytest.raises(ValueError, match="w must have 3 input channels"):
        xconv.plan(xconv.conv, (1, 8, 8, 3), W)
    with pytest.raises(ValueError, match="algorithm must be able to do this problem"):
        xconv.plan(xconv.conv, X, W, algorithm="pointwise")
    with pytest.raises(TypeError):
        xconv.plan(xconv.conv, X, W, stried=2)
    with pytest.raises(TypeError):
        xconv.plan(function=xconv.conv)


@pytest.mark.parametrize("shape", [(1, 8.0, 8, 4), (1, -8, 8, 4), (1, True, 8, 4), ("a",)])
def test_a_shape_is_integers_that_are_not_negative(shape):
    with pytest.raises(
        ValueError, match="x must be an array, or a shape: integers that are not negative; got x="
    ):
        xconv.plan(xconv.conv, shape, W)


def test_a_shape_needs_an_array_beside_it():
    with pytest.raises(ValueError, match="x must be an array where no other argument is one"):
        xconv.plan(xconv.max_pool, (1, 8, 8, 4), 2)
    with pytest.raises(ValueError, match="x must be an array where no other argument is one"):
        xconv.explain(xconv.max_pool, (1, 8, 8, 4), 2)


def test_a_call_takes_its_input_by_position_only():
    layer = xconv.plan(xconv.conv, X, W)
    with pytest.raises(TypeError):
        layer(x=X)
    with pytest.raises(TypeError):
        layer(X, W)


def test_a_dense_layer_keeps_its_matrix_in_blocks(monkeypatch):
    """Whatever the number of rows that come, it is laid out once, for those that are planned: few want it as it is."""
    for module in (_blocks, _products):
        monkeypatch.setattr(module, "small_products", lambda: 5000)
    w, b = numbers((40, 192), seed=1), numbers((192,), seed=2)
    with xconv.config(fast=False):
        keeps_matrix(w, b, _blocks.FEWEST, (3, 40, 64))
        keeps_matrix(w, b, _blocks.FEWEST - 1, (40, 192))


def keeps_matrix(w, b, rows, kept):
    layer = xconv.plan(xconv.dense, (rows, 40), w, b, activation="relu")
    assert layer.algorithm == "pointwise"
    (kernel,) = layer._kept.kernels.values()
    assert kernel.weights.shape == kept
    for shape in ((40,), (1, 40), (3, 40), (2, 9, 40), (0, 40)):
        x = numbers(shape, seed=3)
        assert_close(layer(x), xconv.dense(x, w, b, activation="relu"), rtol=1e-5)
    assert list(layer._kept.kernels.values()) == [kernel]
