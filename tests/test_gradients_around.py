"""Gradients of the activations, of dense layers, of padding and of batch normalisation."""

from functools import partial

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import xconv
from cases import label, numbers, small_integers
from compare import assert_close, assert_same

LAZY_STEP = 18

# No difference quotient may step over a kink: everything stays half a hundredth away from 0, ±3 and 6.
AWAY = np.asarray([[-30, -6.1, -3.3, -2.7, -1.2, -0.4], [0.3, 0.9, 2.6, 3.4, 5.7, 30]])
X, W, B = (numbers(shape, "float64", seed=2) for shape in ((2, 3, 4), (4, 5), (5,)))
X1, X2, KERNELS = (numbers(shape, "float64", seed=3) for shape in ((2, 3, 4), (2, 3, 2), (5, 4, 2)))
IMAGE = numbers((2, 3, 2, 4), "float64", seed=4)
FIRST = np.ascontiguousarray(np.moveaxis(IMAGE, -1, 1))
STATISTICS = (numbers((4,), "float64", seed=5), numbers((4,), "float64", seed=6) + 1.5)
AFFINE = (numbers((4,), "float64", seed=7), numbers((4,), "float64", seed=8))
Z, ZW, ZB = (numbers(shape, "complex128", seed=9) for shape in ((3, 4), (4, 5), (5,)))
Z2, ZKERNELS = (numbers(shape, "complex128", seed=10) for shape in ((3, 2), (5, 4, 2)))

ELEMENTWISE = [
    "relu", "relu6", "leaky_relu", "elu", "selu", "sigmoid", "hard_sigmoid", "tanh", "silu", "hard_swish", "mish",
    "gelu", "softplus",
]  # fmt: skip
OPTIONS = {
    "leaky_relu": [{"slope": 0.3}, {"slope": 0.0}, {"slope": -0.5}],
    "elu": [{"alpha": 2.5}, {"alpha": -1.5}],
    "hard_sigmoid": [{"slope": 0.2, "offset": 0.4}],
    "gelu": [{"approximate": "tanh"}],
    "softmax": [{"axis": 0}],
    "log_softmax": [{"axis": 0}],
}
ACTIVATIONS = [
    (name, options)
    for name in [*ELEMENTWISE, "softmax", "log_softmax"]
    for options in [{}, *OPTIONS.get(name, [])]
]

CASES = {
    **{label(case): (getattr(xconv, case[0]), (AWAY,), case[1]) for case in ACTIVATIONS},
    "prelu": (xconv.prelu, (IMAGE, AFFINE[0]), {}),
    "prelu-one": (xconv.prelu, (IMAGE, np.asarray(0.3)), {}),
    "prelu-rows": (xconv.prelu, (IMAGE, numbers((3, 1, 4), "float64", seed=11)), {}),
    "dense": (xconv.dense, (X, W), {}),
    "dense-bias": (xconv.dense, (X, W, B), {}),
    "dense-vector": (xconv.dense, (X[0, 0], W, B), {"activation": "tanh"}),
    "dense-silu": (xconv.dense, (X, W, B), {"activation": "silu"}),
    "dense-partial": (xconv.dense, (X, W, B), {"activation": partial(xconv.leaky_relu, slope=-0.2)}),
    "dense-nothing": (xconv.dense, (X[0, :0], W, B), {}),
    "dense-complex": (xconv.dense, (Z, ZW, ZB), {}),
    "dense-complex-weights": (xconv.dense, (X, ZW, B), {}),
    "dense-complex-input": (xconv.dense, (Z, W, ZB), {}),
    "bilinear": (xconv.bilinear, (X1, X2, KERNELS), {}),
    "bilinear-bias": (xconv.bilinear, (X1, X2, KERNELS, B), {}),
    "bilinear-vector": (xconv.bilinear, (X1[0, 0], X2[0, 0], KERNELS, B), {}),
    "bilinear-complex": (xconv.bilinear, (Z, Z2, ZKERNELS, ZB), {}),
    "bilinear-complex-kernel": (xconv.bilinear, (X1, X2, ZKERNELS), {}),
    "pad-one-number": (xconv.pad, (X, 1), {"value": 3}),
    "pad-crop": (xconv.pad, (X, ((0, -1), (-1, 2), (-1, -2))), {}),
    "pad-nothing": (xconv.pad, (X, 0), {}),
    "pad-complex": (xconv.pad, (Z, ((1, 0), (2, 5))), {"mode": "symmetric"}),
    **{
        f"pad-{mode}-{label(widths)}": (xconv.pad, (X, widths), {"mode": mode})
        for mode in ("edge", "reflect", "symmetric", "wrap")
        for widths in [((0, 1), (2, 1), (0, 3)), ((5, 0), (0, 9), (13, 11)), ((1, -1), (-2, 4), (-1, -1))]
    },
    "norm": (xconv.batch_norm, (IMAGE, *STATISTICS), {}),
    "norm-affine": (xconv.batch_norm, (IMAGE, *STATISTICS, *AFFINE), {"eps": 1e-2}),
    "norm-scale": (xconv.batch_norm, (FIRST, *STATISTICS, AFFINE[0]), {"layout": "NCHW", "eps": 0}),
    "norm-shift": (xconv.batch_norm, (X, *STATISTICS, None, AFFINE[1]), {}),
    "norm-training": (xconv.batch_norm, (IMAGE, None, None), {}),
    "norm-training-affine": (xconv.batch_norm, (IMAGE, None, None, *AFFINE), {"eps": 1e-2}),
    "norm-training-first": (xconv.batch_norm, (FIRST, None, None, *AFFINE), {"layout": "NCHW"}),
    "norm-training-vectors": (xconv.batch_norm, (X[0], None, None, *AFFINE), {}),
}
KERNEL = numbers((3, 2, 5, 4), "float64", seed=12)
FOLDS = {
    "fold": ((KERNEL, AFFINE[0], *STATISTICS, *AFFINE), {}),
    "fold-no-bias": ((KERNEL, None, *STATISTICS), {"eps": 1e-2}),
    "fold-first": ((np.moveaxis(KERNEL, (3, 2), (0, 1)), None, *STATISTICS, *AFFINE), {"layout": "NCHW"}),
    "fold-dense": ((W.T, None, *STATISTICS, *AFFINE), {}),
    "fold-depthwise": ((KERNEL[..., :2, :2], AFFINE[0], *STATISTICS, *AFFINE), {}),
    "fold-transposed": ((KERNEL[..., :4, :3], AFFINE[0], *STATISTICS, *AFFINE), {"transposed": True}),
    "fold-groups": ((KERNEL[..., :2, :], None, *STATISTICS, AFFINE[0]), {"transposed": True}),
    "fold-groups-first": (
        (np.moveaxis(KERNEL[..., :2, :], (3, 2), (0, 1)), None, *STATISTICS, None, AFFINE[1]),
        {"transposed": True, "layout": "NCHW"},
    ),
    "fold-transposed-dense": ((W[:2, :4], None, *STATISTICS), {"transposed": True}),
}


def there_and_back(function, wrt=None, results=1):
    """What a call gives and all gradients, as a function of the cotangents and the arguments."""

    def call(*arrays, **options):
        y, pullback = xconv.vjp(function, *arrays[results:], wrt=wrt, **options)
        gradients = pullback(arrays[0] if results == 1 else arrays[:results])
        assert isinstance(gradients, tuple)
        return (*(y if results > 1 else [y]), *(g for g in gradients if g is not None))

    return call


def quotients(function, cotangents, arrays, options):
    """The gradient by every array by central differences of the real loss sum(conj(dy) * y)."""

    def loss(*arrays):
        y = function(*arrays, **options)
        pairs = zip(cotangents, y if isinstance(y, tuple) else (y,), strict=True)
        return sum(np.sum(np.conj(dy) * y).real for dy, y in pairs)

    h = 1e-5
    for position, array in enumerate(arrays):
        if not isinstance(array, np.ndarray):
            continue
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            for step in (h, 1j * h) if array.dtype.kind == "c" else (h,):
                moved = [array.copy() for _ in range(2)]
                moved[0][place] += step
                moved[1][place] -= step
                up, down = (loss(*arrays[:position], m, *arrays[position + 1 :]) for m in moved)
                gradient[place] += (up - down) / (2 * h) * (step / h)
        yield gradient


def cotangents_of(result, seed=20):
    results = result if isinstance(result, tuple) else (result,)
    return tuple(numbers(y.shape, y.dtype, seed=seed + i) for i, y in enumerate(results))


def same_shapes(gradients, arrays):
    theirs = [a for a in arrays if isinstance(a, np.ndarray)]
    assert [(g.shape, g.dtype) for g in gradients] == [(a.shape, a.dtype) for a in theirs]


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_is_the_limit_of_differences(backend, name):
    function, arrays, options = CASES[name]
    expected = function(*arrays, **options)
    dy = cotangents_of(expected)
    y, *gradients = backend.call(there_and_back(function), *dy, *arrays, **options)
    assert_close(y, expected)
    same_shapes(gradients, arrays)
    for gradient, quotient in zip(gradients, quotients(function, dy, arrays, options), strict=True):
        assert_close(gradient, quotient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", FOLDS)
def test_folding_has_a_gradient_by_both_results(backend, name):
    arrays, options = FOLDS[name]
    expected = xconv.fold_batch_norm(*arrays, **options)
    dy = cotangents_of(expected)
    found = backend.call(there_and_back(xconv.fold_batch_norm, results=2), *dy, *arrays, **options)
    for actual, wanted in zip(found[:2], expected, strict=True):
        assert_close(actual, wanted)
    same_shapes(found[2:], arrays)
    for gradient, quotient in zip(
        found[2:], quotients(xconv.fold_batch_norm, dy, arrays, options), strict=True
    ):
        assert_close(gradient, quotient, rtol=1e-8, atol=1e-8)


# ------------------------------------------------------------------------------------ the same questions to torch


KINKS = np.asarray([-6.0, -3.0, 0.0, 3.0, 6.0, 2.5, 2.0, -2.0])
TAILS = np.asarray([-1e4, 1e4, -300.0, 300.0, -40.0, 40.0, -15.0, 15.0])
POINTS = {"between": numbers((6, 7), "float64", seed=13) * 5, "kinks": KINKS, "tails": TAILS}


def theirs(name, options):
    """The same activation of torch."""
    import torch

    f = torch.nn.functional
    return {
        "relu": f.relu,
        "relu6": f.relu6,
        "leaky_relu": lambda x: f.leaky_relu(x, options.get("slope", 0.01)),
        "elu": lambda x: f.elu(x, options.get("alpha", 1.0)),
        "selu": f.selu,
        "sigmoid": torch.sigmoid,
        # f.hardsigmoid has a slope of 1/6 rounded to float32
        "hard_sigmoid": lambda x: f.hardtanh(
            options.get("slope", 1 / 6) * x + options.get("offset", 0.5), 0.0, 1.0
        ),
        "tanh": torch.tanh,
        "silu": f.silu,
        "hard_swish": f.hardswish,
        "mish": f.mish,
        "gelu": lambda x: f.gelu(x, **options),
        "softplus": lambda x: f.softplus(x, threshold=1e3),
        "softmax": lambda x: torch.softmax(x, options.get("axis", -1)),
        "log_softmax": lambda x: torch.log_softmax(x, options.get("axis", -1)),
    }[name]


def agrees_with_torch(backend, function, other, arrays, options):
    """Value and gradients are those of autograd through ``other``."""
    import torch

    leaves = [torch.tensor(a, requires_grad=True) for a in arrays if isinstance(a, np.ndarray)]
    given = iter(leaves)
    theirs = other(*(next(given) if isinstance(a, np.ndarray) else a for a in arrays))
    (dy,) = cotangents_of(theirs.detach().numpy())
    expected = torch.autograd.grad(theirs, leaves, torch.from_numpy(dy))
    y, *gradients = backend.call(there_and_back(function), dy, *arrays, **options)
    assert_close(y, theirs.detach().numpy(), rtol=1e-12, atol=1e-12)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert_close(gradient, wanted.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("case", ACTIVATIONS, ids=label)
def test_activations_have_the_gradients_of_torch(backend, case, points):
    """At their kinks too, and where torch computes with a float32 constant, to that."""
    name, options = case
    agrees_with_torch(backend, getattr(xconv, name), theirs(name, options), (POINTS[points],), options)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("slope", [(), (1,), (3,)], ids=label)
def test_prelu_has_the_gradients_of_torch(backend, slope):
    import torch

    x = np.concatenate([numbers((4, 3), "float64"), np.zeros((1, 3))])
    agrees_with_torch(
        backend,
        xconv.prelu,
        lambda x, s: torch.where(x > 0, x, s * x),
        (x, numbers(slope, "float64", seed=1)),
        {},
    )


@pytest.mark.backends("torch")
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=label)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, *ELEMENTWISE])
def test_dense_has_the_gradients_of_torch(backend, lead, bias, activation):
    x, b = numbers((*lead, 4), "float64"), B if bias else None
    act = theirs(activation, {}) if activation else lambda y: y

    def other(x, w, b):
        return act(x @ w if b is None else x @ w + b)

    agrees_with_torch(backend, xconv.dense, other, (x, W, b), {"activation": activation})


@pytest.mark.backends("torch")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_bilinear_has_the_gradients_of_torch(backend, bias, dtype):
    import torch

    arrays = [numbers(shape, dtype, seed=1) for shape in ((2, 3, 4), (2, 3, 2), (5, 4, 2))]
    b = numbers((5,), dtype) if bias else None

    def other(x1, x2, w, b):
        y = torch.einsum("...i,oij,...j->...o", x1, w, x2)
        return y if b is None else y + b

    agrees_with_torch(backend, xconv.bilinear, other, (*arrays, b), {})


@pytest.mark.backends("torch")
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_dense_has_the_complex_gradients_of_torch(backend, dtype):
    """The convention is the same, and what is real has a real gradient."""
    arrays = (numbers((3, 4), dtype), ZW, numbers((5,), dtype))
    agrees_with_torch(backend, xconv.dense, lambda x, w, b: x.to(w.dtype) @ w + b, arrays, {})


@pytest.mark.backends("torch")
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_batch_norm_has_the_gradients_of_torch(backend, rank, training, affine, layout):
    import torch

    x = numbers((3, 4, *(2, 3, 2)[:rank]), "float64") + 5
    x = x if layout == "channels_first" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    statistics = (None, None) if training else STATISTICS

    def other(x, mean, var, gamma, beta):
        x = x if layout == "channels_first" else x.movedim(-1, 1)
        if training:
            y = torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-3)
        else:  # which torch itself does not differentiate by mean and var
            shape = (1, 4, *[1] * rank)
            y = (x - mean.reshape(shape)) / torch.sqrt(var.reshape(shape) + 1e-3)
            y = y if gamma is None else y * gamma.reshape(shape) + beta.reshape(shape)
        return y if layout == "channels_first" else y.movedim(1, -1)

    arrays = (x, *statistics, *(AFFINE if affine else (None, None)))
    agrees_with_torch(backend, xconv.batch_norm, other, arrays, {"eps": 1e-3, "layout": layout})


@pytest.mark.backends("torch")
@pytest.mark.parametrize(
    "mode, other",
    [("edge", "replicate"), ("reflect", "reflect"), ("wrap", "circular"), ("constant", "constant")],
)
@pytest.mark.parametrize("widths", [((1, 2), (0, 3)), ((3, 0), (1, 1)), ((-1, 2), (2, -2))], ids=label)
def test_pad_has_the_gradients_of_torch(backend, mode, other, widths):
    import torch

    def expected(x, _):
        if mode == "constant" or min(map(min, widths)) >= 0:
            return torch.nn.functional.pad(x, (*widths[1], *widths[0]), mode=other)
        return torch.nn.functional.pad(x, (2, 0, 0, 2), mode=other)[
            :, :, 1:, :-2
        ]  # elsewhere torch only pads

    x, both = numbers((2, 3, 4, 5), "float64"), ((0, 0), (0, 0), *widths)
    agrees_with_torch(backend, xconv.pad, expected, (x, both), {"mode": mode})


# ------------------------------------------------------------------------------------------------- second derivatives


TWICE = [name for name in CASES if "nothing" not in name]


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", TWICE)
def test_torch_differentiates_a_pullback(backend, name):
    """By the cotangent and by the arguments, as difference quotients say."""
    import torch

    function, arrays, options = CASES[name]
    positions = [i for i, a in enumerate(arrays) if isinstance(a, np.ndarray)]
    leaves = [torch.tensor(arrays[i], requires_grad=True) for i in positions]
    (dy,) = cotangents_of(function(*arrays, **options))

    def gradients(dy, *leaves):
        given = dict(zip(positions, leaves, strict=True))
        _, pullback = xconv.vjp(function, *(given.get(i, a) for i, a in enumerate(arrays)), **options)
        return tuple(g for g in pullback(dy) if g is not None)

    assert torch.autograd.gradcheck(
        gradients, (torch.tensor(dy, requires_grad=True), *leaves), fast_mode=True
    )


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "silu", "mish", "gelu", "softplus"])
def test_the_second_derivative_at_zero(backend, name):
    """Where formulas are joined from two sides, which autograd must not notice."""
    import torch

    first, second = (
        torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    y, pullback = xconv.vjp(getattr(xconv, name), first)
    (slope,) = pullback(torch.ones_like(y))
    (found,) = torch.autograd.grad(slope.sum(), first)
    (slope,) = torch.autograd.grad(theirs(name, {})(second).sum(), second, create_graph=True)
    (expected,) = torch.autograd.grad(slope.sum(), second)
    assert_close(found.numpy(), expected.numpy())


@pytest.mark.backends("jax")
@pytest.mark.parametrize(
    "name", ["gelu-{}", "mish-{}", "softmax-{}", "dense-silu", "bilinear", "norm-training-affine"]
)
def test_jax_differentiates_a_pullback(backend, name):
    import jax

    function, arrays, options = CASES[name]
    (dy,) = cotangents_of(function(*arrays, **options))

    def gradient(x):
        _, pullback = xconv.vjp(function, x, *map(given, arrays[1:]), wrt=first, **options)
        return pullback(backend.asarray(dy))[0]

    def given(a):
        return None if a is None else backend.asarray(a)

    first = "x1" if function is xconv.bilinear else "x"
    direction = numbers(arrays[0].shape, "float64", seed=30)
    _, found = jax.jvp(gradient, (backend.asarray(arrays[0]),), (backend.asarray(direction),))
    h = 1e-5
    up, down = (backend.numpy(gradient(backend.asarray(arrays[0] + s * direction))) for s in (h, -h))
    assert_close(backend.numpy(found), (up - down) / (2 * h), rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------------------------------- kinks, tails, and dtypes


@pytest.mark.parametrize(
    "function, options, x, slopes",
    [
        (xconv.relu, {}, [-1, -0.0, 0, 1], [0, 0, 0, 1]),
        (xconv.relu6, {}, [0, 5, 6, 7], [0, 1, 0, 0]),
        (xconv.leaky_relu, {"slope": 0.5}, [-1, 0, 1], [0.5, 0.5, 1]),
        (xconv.elu, {"alpha": 3.0}, [0, 1], [3, 1]),
        (xconv.elu, {"alpha": -3.0}, [0, 1], [-3, 1]),
        (xconv.selu, {}, [0, 1], [1.0507009873554805 * 1.6732632423543772, 1.0507009873554805]),
        (xconv.hard_sigmoid, {"slope": 0.25}, [-3, -2, -1, 1, 2, 3], [0, 0, 0.25, 0.25, 0, 0]),
        (xconv.hard_swish, {}, [-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
        (xconv.softplus, {}, [0], [0.5]),
        (xconv.gelu, {}, [0], [0.5]),
    ],
    ids=label,
)
def test_the_slope_at_a_kink(backend, function, options, x, slopes):
    x, slopes = np.asarray(x, "float64"), np.asarray(slopes, "float64")
    _, gradient = backend.call(there_and_back(function), np.ones_like(x), x, **options)
    assert_close(gradient, slopes)


def test_the_slopes_of_prelu_at_zero(backend):
    x, slope = np.asarray([[-2.0, 0.0], [0.0, 3.0]]), np.asarray([0.5, 0.25])
    _, dx, dslope = backend.call(there_and_back(xconv.prelu), np.ones_like(x), x, slope)
    assert_close(dx, np.asarray([[0.5, 0.25], [0.5, 1]]))
    assert_close(dslope, np.asarray([-2.0, 0.0]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("case", ACTIVATIONS, ids=label)
def test_tails_are_finite_and_flat(backend, case, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    name, options = case
    x = np.asarray([-1e4, -300, 300, 1e4], dtype)
    _, gradient = backend.call(there_and_back(getattr(xconv, name)), np.ones_like(x), x, **options)
    assert gradient.dtype == dtype
    assert np.all(np.isfinite(gradient))
    if name in ("softplus", "silu", "mish", "gelu", "hard_swish"):
        assert_close(gradient, np.asarray([0, 0, 1, 1], dtype), atol=1e-100)


@pytest.mark.parametrize(
    "name", [*map(label, ACTIVATIONS), "prelu", "dense-silu", "dense-bias", "bilinear-bias"]
)
def test_half_precision_is_computed_in_single(backend, name):
    """Within the rounding of the arguments, of the result and of the gradient."""
    if not backend.has("float16"):
        pytest.skip(f"{backend.name} has no float16")
    function, arrays, options = CASES[name]
    arrays = [np.clip(a, -8, 8).astype("float16") for a in arrays]
    exact = [a.astype("float64") for a in arrays]
    (dy,) = (c.astype("float16") for c in cotangents_of(function(*exact, **options)))
    _, *gradients = backend.call(there_and_back(function), dy, *arrays, **options)
    _, *expected = there_and_back(function)(dy.astype("float64"), *exact, **options)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert gradient.dtype == "float16"
        assert_close(gradient, wanted, rtol=4e-3)


def test_a_sum_over_many_halves_does_not_stop_short(backend):
    if not backend.has("float16"):
        pytest.skip(f"{backend.name} has no float16")
    x, w, b = np.ones((5000, 1), "float16"), np.ones((1, 1), "float16"), np.zeros(1, "float16")
    dy = np.ones((5000, 1), "float16")
    _, dw, db = backend.call(there_and_back(xconv.dense, wrt=("w", "b")), dy, x, w, b)
    assert float(dw[0, 0]) == float(db[0]) == 5000
    _, dx = backend.call(
        there_and_back(xconv.pad), np.ones(4100, "float16"), x[:100, 0], ((0, 4000),), mode="edge"
    )
    assert float(dx[-1]) == 4000


def test_a_wider_result_has_a_gradient_in_the_dtype_of_each_argument(backend):
    x, w, b = X.astype("float32"), W, B.astype("float32")
    y, *gradients = backend.call(there_and_back(xconv.dense), numbers((2, 3, 5), "float64"), x, w, b)
    assert y.dtype == "float64"
    assert [g.dtype.name for g in gradients] == ["float32", "float64", "float32"]


def test_weights_of_an_image_of_integers(backend):
    """What holds integers is left out by name, and the others are differentiated."""
    image = small_integers((3, 4), "int32", seed=1)
    _, dw = backend.call(there_and_back(xconv.dense, wrt="w"), numbers((3, 5), "float64"), image, W)
    assert_close(dw, image.T.astype("float64") @ numbers((3, 5), "float64"))


# --------------------------------------------------------------------------------------------- layers' activations


@pytest.mark.parametrize(
    "activation",
    [
        *ELEMENTWISE,
        pytest.param(partial(xconv.elu, alpha=0.5), id="partial"),
        pytest.param(xconv.relu, id="itself"),
    ],
)
def test_an_activation_inside_of_a_layer_is_that_after_it(backend, activation):
    named = getattr(xconv, activation) if isinstance(activation, str) else activation
    function, options = (named.func, named.keywords) if isinstance(named, partial) else (named, {})

    def behind(dy, x, w, b):
        z, back = xconv.vjp(xconv.dense, x, w, b)
        y, through = xconv.vjp(function, z, **options)
        return (y, *back(*through(dy)))

    dy = numbers((2, 3, 5), "float64", seed=40)
    inside = backend.call(there_and_back(xconv.dense), dy, X, W, B, activation=activation)
    for actual, expected in zip(inside, backend.call(behind, dy, X, W, B), strict=True):
        assert_close(actual, expected, rtol=1e-13)


@pytest.mark.parametrize("activation", [abs, lambda y: y, xconv.softmax, xconv.prelu, partial(xconv.relu, 3)])
def test_an_activation_that_has_no_gradient_here_is_refused(activation):
    rule = (
        "activation must be one of xconv's activations where it is differentiated, by name or as a function"
    )
    with pytest.raises(ValueError, match=rule):
        xconv.vjp(xconv.dense, X, W, activation=activation)


def test_options_of_an_activation_are_checked():
    with pytest.raises(TypeError, match="activation must have options that elu has, not 'slope'"):
        xconv.vjp(xconv.dense, X, W, activation=partial(xconv.elu, slope=2))
    with pytest.raises(TypeError, match="slope must be a number"):
        xconv.vjp(xconv.dense, X, W, activation=partial(xconv.leaky_relu, slope="steep"))
    with pytest.raises(
        ValueError, match=r"be a function of one array or one of relu,.*got activation='cube'"
    ):
        xconv.vjp(xconv.dense, X, W, activation="cube")
    with pytest.raises(ValueError, match="activation must be defined for results of complex dtype"):
        xconv.vjp(xconv.dense, Z, ZW, activation="silu")


# ------------------------------------------------------------------------------------------------------- adjoints


@st.composite
def paddings(draw):
    """An array of whole numbers and widths of any sign that leave something or nothing of it."""
    mode = draw(st.sampled_from(["constant", "edge", "reflect", "symmetric", "wrap"]))
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    widths = []
    for n in sizes:
        low = draw(st.integers(-n, 12))
        widths.append((low, draw(st.integers(max(-n - low, -n), 12))))
    return mode, tuple(sizes), tuple(widths)


@hypothesis.given(paddings())
def test_padding_and_its_gradient_are_adjoint(example):
    mode, sizes, widths = example
    x = small_integers(sizes, "float64")
    y, pullback = xconv.vjp(xconv.pad, x, widths, mode=mode)
    dy = small_integers(y.shape, "float64", seed=1)
    (dx,) = pullback(dy)
    assert np.sum(dx * x) == np.sum(dy * y)


@hypothesis.given(st.lists(st.integers(0, 3), max_size=2), *[st.integers(0, 4)] * 2)
def test_the_products_of_a_dense_layer_are_adjoint(lead, inputs, outputs):
    x, w = small_integers((*lead, inputs), "float64"), small_integers((inputs, outputs), "float64", seed=1)
    y, pullback = xconv.vjp(xconv.dense, x, w)
    dy = small_integers(y.shape, "float64", seed=2)
    dx, dw = pullback(dy)
    assert np.sum(dy * y) == np.sum(dx * x) == np.sum(dw * w)


@hypothesis.given(st.lists(st.integers(1, 3), max_size=2), *[st.integers(1, 4)] * 3)
def test_the_products_of_a_bilinear_layer_are_adjoint(lead, first, second, outputs):
    shapes = (*lead, first), (*lead, second), (outputs, first, second)
    arrays = [small_integers(shape, "float64", seed=i) for i, shape in enumerate(shapes)]
    y, pullback = xconv.vjp(xconv.bilinear, *arrays)
    dy = small_integers(y.shape, "float64", seed=3)
    for gradient, array in zip(pullback(dy), arrays, strict=True):
        assert np.sum(gradient * array) == np.sum(dy * y)


# -------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    "function, arrays, names",
    [
        (xconv.prelu, (IMAGE, AFFINE[0]), ["x", "slope"]),
        (xconv.dense, (X, W, B), ["x", "w", "b"]),
        (xconv.bilinear, (X1, X2, KERNELS, B), ["x1", "x2", "w", "b"]),
        (xconv.batch_norm, (IMAGE, *STATISTICS, *AFFINE), ["x", "mean", "var", "gamma", "beta"]),
    ],
    ids=lambda p: p.__name__ if callable(p) else "",
)
def test_only_what_is_wanted_is_computed(backend, function, arrays, names):
    (dy,) = cotangents_of(function(*arrays))
    _, *every = backend.call(there_and_back(function), dy, *arrays)
    for name, expected in zip(names, every, strict=True):
        _, *found = backend.call(there_and_back(function, wrt=name), dy, *arrays)
        assert len(found) == 1
        assert_same(found[0], expected)


def test_arguments_that_are_none_have_none():
    y, pullback = xconv.vjp(xconv.batch_norm, IMAGE, None, None, None, AFFINE[1])
    gradients = pullback(np.ones_like(y))
    assert [g is None for g in gradients] == [False, True, True, True, False]
    result, pullback = xconv.vjp(xconv.fold_batch_norm, W, None, *cut(STATISTICS), None, B)
    assert [g is None for g in pullback(result)] == [False, True, False, False, True, False]


def cut(statistics):
    return tuple(np.concatenate([a, a[:1]]) for a in statistics)


# ------------------------------------------------------------------------------------ statistics of the batch


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (2, 3, 2, 3), (1, 2, 2, 2, 3)], ids=label)
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_in_training(backend, shape, affine):
    x = numbers(shape, "float64")
    gamma, beta = (numbers((3,), "float64", seed=i) if affine else None for i in (1, 2))
    axes = tuple(range(x.ndim - 1))
    expected = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-3)
    expected = expected * gamma + beta if affine else expected
    assert_close(backend.call(xconv.batch_norm, x, None, None, gamma, beta, eps=1e-3), expected)
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    found = backend.call(xconv.batch_norm, first, None, None, gamma, beta, eps=1e-3, layout="channels_first")
    assert_close(np.moveaxis(found, 1, -1), expected)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm_in_training_is_that_of_torch(backend, dtype):
    import torch

    x, gamma, beta = numbers((4, 3, 5, 6), dtype), *(a[:3].astype(dtype) for a in AFFINE)
    tensors = (torch.tensor(a) for a in (gamma, beta))
    expected = torch.nn.functional.batch_norm(torch.tensor(x), None, None, *tensors, training=True)
    actual = backend.call(xconv.batch_norm, x, None, None, gamma, beta, layout="NCHW")
    assert_close(actual, expected.numpy())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_statistics_of_numbers_far_from_zero(backend, dtype):
    """The difference of two mean squares would have nothing left of a variance so small."""
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    far = 1000 if dtype == "float16" else 100_000
    x = (far + small_integers((50, 8, 2), "float64")).astype(dtype)
    exact = x.astype("float64")
    expected = (exact - exact.mean((0, 1))) / exact.std((0, 1))
    assert_close(
        backend.call(xconv.batch_norm, x, None, None, eps=0),
        expected,
        rtol=None if dtype == "float16" else 1e-5,
    )


def test_a_batch_of_equal_numbers_is_shifted_only(backend):
    found = backend.call(xconv.batch_norm, np.full((4, 2), 7.0), None, None, None, np.asarray([1.0, 2.0]))
    assert_same(found, np.asarray([[1.0, 2.0]] * 4))


def test_statistics_are_given_both_or_not_at_all():
    rule = "must be given with the other of mean and var, or be None as it is"
    with pytest.raises(ValueError, match="mean must") as caught:
        xconv.batch_norm(IMAGE, None, STATISTICS[1])
    call = "batch_norm(x: float64[2, 3, 2, 4], None, var: float64[4])"
    assert str(caught.value) == f"mean {rule}; got mean=None\n  in {call}"
    with pytest.raises(ValueError, match=f"var {rule}; got var=None"):
        xconv.batch_norm(IMAGE, STATISTICS[0], None)
    with pytest.raises(ValueError, match="x must have elements, to take their mean and variance"):
        xconv.batch_norm(IMAGE[:0], None, None)
    assert xconv.batch_norm(IMAGE[:0], *STATISTICS).shape == (0, 3, 2, 4)
