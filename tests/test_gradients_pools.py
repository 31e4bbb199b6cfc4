"""Gradients of the pools, of unfold and fold, and of max_unpool."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
import xconv
from cases import numbers, pytest_generate_tests, thinned  # noqa: F401
from compare import assert_close, assert_same
from xconv import _extents, _plan
from xconv._grad import vjp

LAZY_STEP = 18


def back(function, *args, **options):
    """What carries a gradient back through a call: from (x, dy) to dx."""

    def pulled(x, dy):
        _, pullback = vjp(function, x, *args, **options)
        return pullback(dy)[0]

    return pulled


def spaced(shape, seed=0, dtype="float64"):
    """Numbers that are all different, by more than a finite difference; none is zero."""
    size = int(np.prod(shape))
    return (
        ((np.random.default_rng(seed).permutation(size) - size / 2 + 0.25) / size)
        .reshape(shape)
        .astype(dtype)
    )


def values(result):
    return result[0] if isinstance(result, tuple) else result


def ordered(name):
    """Whether a case is about numbers that have an order."""
    return "lp_pool" in name or "max" in name or {"max", "min"} & set(map(str, CASES[name][1]))


# ------------------------------------------------------------------------------------------- finite differences

INDICES = np.array([[[3], [0], [3], [9]]])  # one is written twice, one outside

CASES = {
    "max_pool": (xconv.max_pool, (3,), {"stride": 2, "padding": 1}, (2, 7, 6, 2)),
    "max_pool-1x1": (xconv.max_pool, (1,), {}, (1, 3, 3, 2)),
    "max_pool-stride-above-window": (xconv.max_pool, (2,), {"stride": 3}, (1, 7, 8, 2)),
    "max_pool-dilation": (xconv.max_pool, ((2, 3),), {"stride": 1, "dilation": (3, 2)}, (1, 7, 8, 2)),
    "max_pool-ceil": (xconv.max_pool, (3,), {"stride": 2, "ceil_mode": True}, (1, 6, 8, 2)),
    "max_pool-crop": (xconv.max_pool, (2,), {"padding": ((-1, 1), (0, -2))}, (1, 6, 7, 2)),
    "max_pool-indices": (xconv.max_pool, (2,), {"return_indices": True}, (1, 4, 4, 2)),
    "max_pool-channels-first": (xconv.max_pool, (3,), {"stride": 1, "layout": "NCHW"}, (2, 3, 5, 6)),
    "max_pool-unbatched": (xconv.max_pool, ((2, 2),), {"padding": "same"}, (5, 4, 3)),
    "max_pool-four-axes": (xconv.max_pool, (2,), {"stride": 1}, (1, 3, 2, 3, 3, 2)),
    "max_pool-large-window": (xconv.max_pool, (7,), {"stride": 1, "padding": "same"}, (1, 9, 8, 2)),
    "max_pool1d": (xconv.max_pool1d, (2,), {}, (6, 2)),
    "max_pool2d": (xconv.max_pool2d, (2,), {"stride": 1}, (4, 4, 2)),
    "max_pool3d": (xconv.max_pool3d, (2,), {"padding": 1}, (3, 4, 4, 2)),
    "avg_pool": (xconv.avg_pool, (3,), {"stride": 2, "padding": 1}, (2, 7, 6, 2)),
    "avg_pool-include-pad": (xconv.avg_pool, (3,), {"padding": 1, "count_include_pad": True}, (1, 7, 6, 2)),
    "avg_pool-ceil": (xconv.avg_pool, (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (1, 6, 6, 2)),
    "avg_pool-divisor": (xconv.avg_pool, (2,), {"stride": 1, "divisor": 5}, (1, 4, 5, 2)),
    "avg_pool-dilation": (xconv.avg_pool, (2,), {"dilation": (1, 3), "stride": (3, 1)}, (1, 7, 6, 2)),
    "avg_pool-crop": (xconv.avg_pool, (2,), {"padding": ((-1, 0), (2, -2)), "dilation": 2}, (1, 6, 9, 2)),
    "avg_pool1d": (xconv.avg_pool1d, (3,), {"stride": 1, "layout": "NCHW"}, (2, 6)),
    "avg_pool2d": (xconv.avg_pool2d, (2,), {"layout": "channels_first"}, (2, 6, 4)),
    "avg_pool3d": (xconv.avg_pool3d, (2,), {}, (1, 4, 3, 2, 2)),
    "lp_pool": (xconv.lp_pool, (3,), {"stride": 2, "padding": 1}, (1, 6, 5, 2)),
    "lp_pool-3": (xconv.lp_pool, (2,), {"p": 3, "stride": 1, "layout": "NCHW"}, (1, 2, 4, 5)),
    "lp_pool-1": (xconv.lp_pool, (2,), {"p": 1, "ceil_mode": True}, (1, 5, 5, 2)),
    "lp_pool-half": (xconv.lp_pool, (2,), {"p": 0.5}, (1, 4, 4, 1)),
    "adaptive_max_pool": (xconv.adaptive_max_pool, (3,), {}, (2, 7, 4, 2)),
    "adaptive_max_pool-larger": (xconv.adaptive_max_pool, ((7, 2),), {"return_indices": True}, (4, 6, 2)),
    "adaptive_max_pool-even": (xconv.adaptive_max_pool, (3,), {"layout": "NCHW"}, (2, 2, 6, 9)),
    "adaptive_avg_pool": (xconv.adaptive_avg_pool, (3,), {"layout": "NCHW"}, (2, 2, 7, 4)),
    "adaptive_avg_pool-larger": (xconv.adaptive_avg_pool, ((5, 2, 1),), {}, (3, 5, 2, 2)),
    "adaptive_avg_pool-even": (xconv.adaptive_avg_pool, (2,), {}, (1, 8, 2)),
    "global_max_pool": (xconv.global_max_pool, (), {}, (2, 4, 5, 3)),
    "global_max_pool-first": (xconv.global_max_pool, (), {"layout": "NCHW", "keepdims": True}, (2, 3, 4, 5)),
    "global_avg_pool": (xconv.global_avg_pool, (), {"layout": "NCHW"}, (2, 3, 4, 5)),
    "global_avg_pool-keepdims": (xconv.global_avg_pool, (), {"keepdims": True}, (2, 4, 3)),
    "global_lp_pool": (xconv.global_lp_pool, (), {}, (2, 4, 3, 2)),
    "global_lp_pool-3": (xconv.global_lp_pool, (), {"p": 3, "keepdims": True}, (1, 4, 3, 2)),
    "unfold": (xconv.unfold, ((3, 2),), {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}, (1, 6, 7, 2)),
    "unfold-same": (xconv.unfold, (2,), {"stride": 2, "padding": "same", "layout": "NCHW"}, (2, 2, 5, 7)),
    "unfold-unbatched": (xconv.unfold, ((2,),), {"padding": "full"}, (5, 3)),
    "fold": (xconv.fold, ((4, 5), 2), {"stride": (2, 3)}, (2, 2, 2, 8)),
    "fold-padded": (xconv.fold, (4, (2, 2)), {"padding": 1, "dilation": 2, "layout": "NCHW"}, (4, 4, 4)),
    "reduce_window-holes": (
        xconv.reduce_window,
        ("max", 3),
        {"stride": 2, "input_dilation": 3, "padding": 2},
        (1, 4, 5, 2),
    ),
    "reduce_window-empty": (
        xconv.reduce_window,
        ("max", 2),
        {"stride": 3, "padding": ((4, 3), (0, 0))},
        (1, 4, 5, 2),
    ),
} | {
    f"reduce_window-{reduction}-{i}": (xconv.reduce_window, (reduction, window), options, (1, 5, 6, 2))
    for reduction in ("max", "min", "sum", "prod", "mean")
    for i, (window, options) in enumerate(
        [
            (3, {}),
            ((2, 3), {"stride": 2, "padding": 1, "dilation": (2, 1)}),
            (2, {"input_dilation": (2, 1), "stride": (2, 3), "layout": "NCHW"}),
            ((5,) * 3, {"stride": 5, "padding": 2}),
        ]
    )
}


def differences(function, x, dy):
    """The gradient of sum(dy * function(x)), one element after the other."""
    dx, step = np.zeros_like(x), 1e-4 / x.size
    for place in np.ndindex(*x.shape):
        for direction in (1, 1j) if x.dtype.kind == "c" else (1,):
            ends = []
            for sign in (1, -1):
                moved = x.copy()
                moved[place] += sign * direction * step
                y = values(function(moved))
                ends.append(np.sum((np.conj(dy) * np.where(np.isinf(y), 0, y)).real))
            dx[place] += direction * (ends[0] - ends[1]) / (2 * step)
    return dx


@pytest.mark.parametrize("name", CASES)
def test_finite_differences(backend, name):
    function, args, options, shape = CASES[name]
    x = spaced(shape)
    y = values(function(x, *args, **options))
    dy = numbers(y.shape, "float64", seed=1)
    expected = differences(lambda moved: function(moved, *args, **options), x, dy)
    actual = backend.call(back(function, *args, **options), x, dy)
    assert actual.dtype == x.dtype
    assert_close(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "complex128"])
@thinned("name", CASES, every=7)
def test_dtypes(backend, name, dtype):
    """A gradient has the dtype of its argument; 16-bit floats are summed in float32."""
    function, args, options, shape = CASES[name]
    if not backend.has(dtype) or (dtype.startswith("complex") and ordered(name)):
        return
    if dtype.startswith("complex"):
        x = numbers(shape, dtype)
        dy = numbers(function(x, *args, **options).shape, dtype, seed=1)
        x2, dy2 = x.astype("complex128"), dy.astype("complex128")
        expected = differences(lambda moved: function(moved, *args, **options), x2, dy2)
        rtol = 1e-6 if dtype == "complex128" else 1e-5
    else:
        x = spaced(shape, dtype="float16")  # so that there are the same ties in every dtype
        dy = numbers(values(function(x, *args, **options)).shape, "float16", seed=1)
        _, pullback = vjp(function, x.astype("float64"), *args, **options)
        expected = pullback(dy.astype("float64"))[0]
        x, dy = x.astype(dtype), dy.astype(dtype)
        rtol = 4e-3 if dtype == "float16" else 1e-5
        if dtype == "float16" and name == "lp_pool-half":
            return  # y itself is rounded
    actual = backend.call(back(function, *args, **options), x, dy)
    assert actual.dtype == np.dtype(dtype)
    assert_close(actual, expected, rtol=rtol)


@pytest.mark.parametrize("options", [{}, {"output_size": (5, 6)}, {"padding": ((0, 0), (0, 1))}])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_max_unpool(backend, options, layout):
    x = numbers((2, 2, 3, 2), "float64")
    indices = np.random.default_rng(0).integers(-1, 26, x.shape)
    if layout == "NCHW":
        x, indices = (np.moveaxis(a, -1, 1).copy() for a in (x, indices))
    y = xconv.max_unpool(x, indices, (2, 2), layout=layout, **options)
    dy = numbers(y.shape, "float64", seed=1)
    expected = differences(
        lambda moved: xconv.max_unpool(moved, indices, (2, 2), layout=layout, **options), x, dy
    )

    def pulled(x, indices, dy):
        _, pullback = vjp(xconv.max_unpool, x, indices, (2, 2), layout=layout, **options)
        dx, none = pullback(dy)
        assert none is None
        return dx

    assert_close(backend.call(pulled, x, indices, dy), expected, rtol=1e-6)


def test_max_unpool_the_last_one_has_the_gradient(backend):
    x, indices = np.ones((1, 4, 1)), np.array([[[3], [0], [3], [9]]])

    def pulled(x, indices, dy):
        return vjp(xconv.max_unpool, x, indices, 2)[1](dy)[0]

    dy = np.arange(1.0, 9).reshape(1, 8, 1)
    assert_same(backend.call(pulled, x, indices, dy).ravel(), np.array([0.0, 1, 4, 0]))


# ---------------------------------------------------------------------------------------------------------- ties

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("x", "window", "options", "expected"),
    [
        ([1, 1, 0, 2], 2, {}, [1, 0, 0, 1]),
        ([1, 1, 1, 1], 2, {"stride": 1}, [1, 1, 1, 0]),
        ([1, 1, 1, 1], 3, {"stride": 1}, [1, 1, 0, 0]),
        ([1, 1, 1, 1], 3, {"stride": 1, "padding": 1}, [2, 1, 1, 0]),
        ([-0.0, 0, 0, -0.0], 2, {}, [1, 0, 1, 0]),
        ([2, NAN, 3, NAN], 4, {}, [0, 1, 0, 0]),
        ([NAN, -NAN, INF, NAN], 2, {}, [1, 0, 0, 1]),
        ([INF, NAN, NAN, INF], 2, {}, [0, 1, 1, 0]),
        ([-INF, -INF, -INF, -INF], 2, {}, [1, 0, 1, 0]),
        ([-INF, -INF, -INF, -INF], 3, {"stride": 1, "padding": 1}, [2, 1, 1, 0]),
        ([NAN, 1, NAN, NAN], 2, {"nan": "omit"}, [0, 1, 1, 0]),
        ([NAN, -INF, -INF, NAN], 2, {"nan": "omit"}, [1, 0, 1, 0]),
        ([NAN, NAN, 2, 2], 3, {"nan": "omit", "stride": 1, "padding": 1}, [1, 0, 3, 0]),
        ([1, 3, 3, 3], 3, {"stride": 2, "ceil_mode": True}, [0, 1, 1, 0]),
        ([5, 1, 5, 5], 2, {"dilation": 2, "stride": 1}, [1, 0, 0, 1]),
    ],
)
def test_ties(backend, x, window, options, expected):
    """The first of equals, the first NaN, and of nothing but -inf the first."""
    x = np.array(x, "float32").reshape(1, -1, 1)
    dy = np.ones_like(xconv.max_pool(x, window, **options))
    actual = backend.call(back(xconv.max_pool, window, **options), x, dy)
    assert_same(actual.ravel(), np.array(expected, "float32"))


AWKWARD = np.array([0, 0, 0, 1, 1, 2, INF, -INF, NAN], "float32")


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("nan", ["propagate", "omit"])
@pytest.mark.parametrize("window", [(2, 2), (3, 3), (1, 4), (6, 6)])
def test_gradients_go_where_the_largest_stands(backend, window, nan, layout):
    """In two dimensions, with ties of every kind, whether axis by axis or all taps at once."""
    x = np.random.default_rng(0).choice(AWKWARD, (3, 12, 13, 4))
    pads, stride = tuple((w // 2, w // 2) for w in window), (2, 1)
    options = {"stride": stride, "pads": pads, "dilation": (1, 1), "omit_nan": nan == "omit"}
    indices = reference.max_pool_indices(x, window, **options)
    dy = np.random.default_rng(1).integers(1, 9, indices.shape).astype("float32")
    expected = scattered(x.shape, indices, dy)
    pulled = back(xconv.max_pool, window, stride=stride, padding=pads, nan=nan, layout=layout)
    if layout == "NCHW":
        actual = backend.call(pulled, np.moveaxis(x, -1, 1).copy(), np.moveaxis(dy, -1, 1).copy())
        assert_same(np.moveaxis(actual, 1, -1), expected)
    else:
        assert_same(backend.call(pulled, x, dy), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 13), (5, 5), (4, 13)])
def test_adaptive_gradients_go_where_the_largest_stands(backend, size):
    x = np.random.default_rng(0).choice(AWKWARD, (2, 12, 13, 3))
    _, indices = reference.adaptive(x, "max", size)
    dy = np.random.default_rng(1).integers(1, 9, indices.shape).astype("float32")
    expected = scattered(x.shape, indices, dy)
    assert_same(backend.call(back(xconv.adaptive_max_pool, size), x, dy), expected)
    if size == (1, 1):
        assert_same(backend.call(back(xconv.global_max_pool), x, dy[:, 0, 0]), expected)


def scattered(shape, indices, dy):
    """Every number of dy added to the place of its plane that an index names."""
    dx = np.zeros(shape, dy.dtype)
    for n, *place, c in np.ndindex(*indices.shape):
        at = np.unravel_index(indices[(n, *place, c)], shape[1:-1])
        dx[(n, *at, c)] += dy[(n, *place, c)]
    return dx


def test_min_has_ties_like_max(backend):
    x = np.random.default_rng(0).choice(AWKWARD, (2, 9, 8, 3))
    dy = np.random.default_rng(1).integers(1, 9, (2, 7, 6, 3)).astype("float32")
    expected = backend.call(back(xconv.reduce_window, "max", 3), -x, dy)
    assert_same(backend.call(back(xconv.reduce_window, "min", 3), x, dy), expected)


def test_an_infinite_gradient_stays_where_it_belongs(backend):
    x = np.array([1, 2, 3, 4, 5, 6], "float32").reshape(1, 6, 1)
    dy = np.array([INF, NAN, 1, 1, -INF], "float32").reshape(1, 5, 1)
    actual = backend.call(back(xconv.max_pool, 2, stride=1), x, dy)
    assert_same(actual.ravel(), np.array([0, INF, NAN, 1, 1, -INF], "float32"))


def test_products_with_zeros(backend):
    x = np.array([0, 2, 3, 0, 0, 5], "float64").reshape(1, 6, 1)
    actual = backend.call(back(xconv.reduce_window, "prod", 3, stride=3), x, np.ones((1, 2, 1)))
    assert_same(actual.ravel(), np.array([6.0, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("p", [0.5, 1, 2, 3])
def test_norms_of_zeros_have_no_slope(backend, p):
    x = np.array([0, 0, 0, 4], "float64").reshape(1, 4, 1)
    expected = np.array([0, 0, 0, 1.0])
    assert_close(backend.call(back(xconv.lp_pool, 2, p=p), x, np.ones((1, 2, 1))).ravel(), expected)
    assert_close(backend.call(back(xconv.global_lp_pool, p=p), x, np.ones((1, 1))).ravel(), expected)


@thinned("name", CASES, every=5)
def test_an_empty_batch(backend, name):
    function, args, options, shape = CASES[name]
    x = np.zeros((0, *shape[1:]), "float32")
    unbatched = any(isinstance(a, tuple) and len(a) == len(shape) - 1 for a in args) or name[-2:] in (
        "1d",
        "2d",
    )
    if unbatched or name in ("max_pool3d", "avg_pool1d", "avg_pool2d"):
        return
    y = values(function(x, *args, **options))
    assert backend.call(back(function, *args, **options), x, y).shape == x.shape


# ------------------------------------------------------------------------------------------------ against PyTorch


def torch_cases():
    """Pools of every rank: (function, name of theirs, window, options, their options, spatial sizes)."""
    chosen = np.random.default_rng(7)
    for rank, kind, i in itertools.product(
        (1, 2, 3), ("max", "avg", "lp", "adaptive_max", "adaptive_avg"), range(14)
    ):
        window = tuple(int(n) for n in chosen.integers(1, 4, rank))
        stride = tuple(int(n) for n in chosen.integers(1, 4, rank))
        dilation = tuple(int(n) for n in chosen.integers(1, 3, rank)) if kind == "max" else (1,) * rank
        padding = tuple(int(chosen.integers(0, w // 2 + 1)) for w in window) if kind in ("max", "avg") else ()
        sizes = tuple(d * (w - 1) + int(chosen.integers(1, 6)) for w, d in zip(window, dilation, strict=True))
        ceil = bool(i % 2)
        args, options = (window,), {"stride": stride, "ceil_mode": ceil, "layout": "NCHW"}
        theirs = {"stride": stride, "ceil_mode": ceil}
        if kind == "max":
            options |= {"padding": padding, "dilation": dilation}
            theirs |= {"padding": padding, "dilation": dilation}
        elif kind == "avg":
            include, divisor = bool(i % 3), 5 if i % 4 == 0 and rank > 1 else None
            theirs |= {"padding": padding, "count_include_pad": include}
            options |= {"padding": padding, "count_include_pad": include and divisor is None}
            if divisor:
                theirs["divisor_override"] = options["divisor"] = divisor
        elif kind == "lp":
            # Where ceil_mode reaches over the end, theirs differs (tests/test_against_torch.py).
            options |= {"p": 2 + 2 * (i % 2), "ceil_mode": False}
            theirs = {"norm_type": options["p"], "kernel_size": window, "stride": stride}
            theirs |= {"kernel_size": window[0], "stride": stride[0]} if rank == 1 else {}
        else:
            args, options, theirs = (window,), {"layout": "NCHW"}, {}
        name = f"{kind}_pool{rank}d"
        function = getattr(xconv, f"{kind}_pool")
        yield pytest.param(function, name, args, options, theirs, sizes, id=f"{name}-{i}")


@pytest.mark.backends("torch")
@pytest.mark.parametrize(("function", "name", "args", "options", "theirs", "sizes"), list(torch_cases()))
def test_against_torch(backend, function, name, args, options, theirs, sizes):
    """With ties of whole numbers where a maximum is taken; NumPy arrays and tensors."""
    import torch

    x = numbers((2, 3, *sizes), "float64")
    if "max" in name:
        x = np.round(2 * x)
    tensor = torch.tensor(x, requires_grad=True)
    y = getattr(torch.nn.functional, name)(tensor, *(() if "kernel_size" in theirs else args), **theirs)
    dy = numbers(tuple(y.shape), "float64", seed=1)
    y.backward(torch.from_numpy(dy))
    expected = tensor.grad.numpy()
    assert_close(backend.call(back(function, *args, **options), x, dy), expected, rtol=1e-10, atol=1e-10)
    assert_close(back(function, *args, **options)(x, dy), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("stride, padding, dilation", list(itertools.product((1, 2), (0, 1), (1, 2))))
def test_unfold_and_fold_against_torch(backend, stride, padding, dilation):
    import torch

    options = {"stride": stride, "padding": padding, "dilation": dilation}
    x = numbers((2, 3, 6, 7), "float64")
    tensor = torch.tensor(x, requires_grad=True)
    theirs = torch.nn.functional.unfold(tensor, 2, **options)
    columns = xconv.unfold(x, 2, layout="NCHW", **options)
    dy = numbers(columns.shape, "float64", seed=1)
    theirs.backward(torch.from_numpy(dy).reshape(theirs.shape))
    actual = backend.call(back(xconv.unfold, 2, layout="NCHW", **options), x, dy)
    assert_close(actual, tensor.grad.numpy(), rtol=1e-10)

    tensor = torch.tensor(columns.reshape(theirs.shape), requires_grad=True)
    theirs = torch.nn.functional.fold(tensor, (6, 7), 2, **options)
    theirs.backward(torch.from_numpy(x))
    actual = backend.call(back(xconv.fold, (6, 7), 2, layout="NCHW", **options), columns, x)
    assert_close(actual, tensor.grad.numpy().reshape(columns.shape), rtol=1e-10)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", CASES)
def test_autograd_passes_through_a_pullback(backend, name):
    """The derivative of dx by dy is the operation itself, by x it is a second derivative of it."""
    import torch

    function, args, options, shape = CASES[name]
    x = spaced(shape)
    dy = numbers(values(function(x, *args, **options)).shape, "float64", seed=1)
    torch.autograd.gradcheck(
        back(function, *args, **options),
        (torch.tensor(x, requires_grad=True), torch.tensor(dy, requires_grad=True)),
        eps=1e-5 / x.size,
        atol=1e-5,
        rtol=1e-4,
        fast_mode=True,
    )


@pytest.mark.backends("jax")
@thinned("name", CASES, every=3)
def test_jax_differentiates_and_maps_a_pullback(backend, name):
    import jax

    function, args, options, shape = CASES[name]
    x = spaced(shape)
    dy = numbers(values(function(x, *args, **options)).shape, "float64", seed=1)
    v = numbers(shape, "float64", seed=2)
    pulled = back(function, *args, **options)

    @jax.jit
    def asked(x, dy, v):
        dx, transposed = jax.vjp(lambda g: pulled(x, g), dy)
        return dx, transposed(v)[0], jax.vmap(lambda g: pulled(x, g))(jax.numpy.stack([dy, -2 * dy]))

    dx, by_dy, mapped = map(np.asarray, asked(*map(backend.asarray, (x, dy, v))))
    # dx is linear in dy, and so v can be carried on: <v, dx> is <by_dy, dy>.
    assert abs(np.vdot(v, dx) - np.vdot(by_dy, dy)) <= 1e-10
    assert_close(mapped, np.stack([dx, -2 * dx]))


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", [name for name in CASES if "fold" not in name])
def test_torch_maps_a_pullback(backend, name):
    import torch

    function, args, options, shape = CASES[name]
    x = spaced(shape)
    dy = numbers(values(function(x, *args, **options)).shape, "float64", seed=1)
    _, pullback = vjp(function, torch.tensor(x), *args, **options)
    mapped = torch.func.vmap(lambda g: pullback(g)[0])(torch.tensor(np.stack([dy, 2 * dy])))
    assert_close(mapped[0].numpy(), back(function, *args, **options)(x, dy))
    assert_close(mapped[1].numpy(), 2 * mapped[0].numpy())


# ------------------------------------------------------------------------------------------------ properties


@given(data=st.data())
def test_the_adjoint_identity(data):
    """<vjp(dy), v> = <dy, J v> for what is linear."""
    draw = data.draw
    rank = draw(st.integers(1, 2))
    ints = st.tuples(*[st.integers(1, 3)] * rank)
    window, stride, dilation, holes = draw(ints), draw(ints), draw(ints), draw(ints)
    pads = draw(st.tuples(*[st.tuples(st.integers(-1, 3), st.integers(-1, 3))] * rank))
    sizes = draw(st.tuples(*[st.integers(1, 8)] * rank))
    operation = draw(
        st.sampled_from(["sum", "mean", "avg_pool", "unfold", "adaptive_avg_pool", "global_avg_pool"])
    )
    options = {"stride": stride, "padding": pads, "dilation": dilation}
    if operation in ("sum", "mean"):
        function, args = xconv.reduce_window, (operation, window)
        options["input_dilation"] = holes
    else:
        function = getattr(xconv, operation)
        args = () if operation == "global_avg_pool" else (window,)
        options = {} if operation.startswith(("adaptive", "global")) else options
    x, v = (numbers((2, *sizes, 2), "float64", seed=seed) for seed in (0, 1))
    try:
        y, pullback = vjp(function, x, *args, **options)
    except ValueError:
        return  # no window, or one without an element
    dy = numbers(y.shape, "float64", seed=2)
    left, right = np.vdot(pullback(dy)[0], v), np.vdot(dy, function(v, *args, **options))
    assert abs(left - right) <= 1e-12 * max(1, np.abs(v).sum())


# -------------------------------------------------------------------------------------- threads, memory, errors

LARGE = {
    "max_pool": (xconv.max_pool, (3,), {"stride": 2, "padding": 1}),
    "max_pool-first": (xconv.max_pool, (2,), {"stride": 1, "layout": "NCHW"}),
    "avg_pool": (xconv.avg_pool, (3,), {"stride": 1, "padding": 1}),
    "lp_pool": (xconv.lp_pool, (3,), {"p": 3, "stride": 1}),
    "prod": (xconv.reduce_window, ("prod", 3), {}),
    "sum": (xconv.reduce_window, ("sum", 3), {"stride": 2}),
    "adaptive_avg_pool": (xconv.adaptive_avg_pool, (5,), {}),
    "adaptive_max_pool": (xconv.adaptive_max_pool, (5,), {}),
    "global_max_pool": (xconv.global_max_pool, (), {}),
    "global_lp_pool": (xconv.global_lp_pool, (), {"p": 3}),
}


@pytest.fixture
def eager(monkeypatch):
    """Plans are made as where threads cost nothing, so that small problems are shared out, too."""
    for rates in ("CPU", "FAST"):
        monkeypatch.setattr(_plan, rates, getattr(_plan, rates)._replace(start=0.0, call=0.0))
    monkeypatch.setattr(_extents, "GRAIN", 1e-5)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", LARGE)
def test_the_same_bits_for_any_number_of_threads(name):
    function, args, options = LARGE[name]
    x = numbers((3, 37, 40, 8), seed=1)
    y, pullback = vjp(function, x, *args, **options)
    dy = numbers(y.shape, seed=2)
    found = []
    for threads in (1, 2, 3):
        with xconv.config(threads=threads, workspace=2**18):
            found.append(pullback(dy)[0])
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    assert_close(found[0], pullback(dy)[0])


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", LARGE)
def test_a_gradient_needs_its_result_and_the_workspace(name):
    import tracemalloc

    function, args, options = LARGE[name]
    x = numbers((2, 96, 96, 8), seed=1)
    y, pullback = vjp(function, x, *args, **options)
    dy = numbers(y.shape, seed=2)
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
    assert peak - dx.nbytes <= workspace + 32 * 1024


@pytest.mark.parametrize("name", ["max_pool", "adaptive_max_pool", "unfold", "reduce_window-sum-0"])
def test_wrong_cotangents_are_refused(name):
    function, args, options, shape = CASES[name]
    x = spaced(shape)
    y, pullback = vjp(function, x, *args, **options)
    with pytest.raises(ValueError, match=r"dy must have the shape of the result, \["):
        pullback(values(y)[:, :1])
    with pytest.raises(TypeError, match="dy must have the dtype of the result, float64"):
        pullback(values(y).astype("float32"))


@pytest.mark.parametrize("name", ["max_pool", "global_avg_pool", "fold"])
def test_integers_have_no_gradient(name):
    function, args, options, shape = CASES[name]
    with pytest.raises(TypeError, match="must be floating to be differentiated"):
        vjp(function, np.ones(shape, "int32"), *args, **options)


def test_indices_have_no_gradient():
    x = np.ones((1, 4, 1))
    with pytest.raises(ValueError, match="wrt must name arrays that were given and have a gradient: 'x'"):
        vjp(xconv.max_unpool, x, INDICES, 2, wrt="indices")


def test_bad_options_are_refused_as_by_the_operation():
    with pytest.raises(ValueError, match="nan must be 'propagate' or 'omit'"):
        vjp(xconv.max_pool, np.ones((1, 4, 1)), 2, nan="x")
