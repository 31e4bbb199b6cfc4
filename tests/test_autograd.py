"""Differentiation by the array's own library passes through every operation, with the ties that the indices have.

What is right is found without calculus: first derivatives by differences of NumPy's results, second ones by differences
of the first. At ties and kinks, where there is no derivative, the numbers are written down.
"""

from __future__ import annotations

import numpy as np
import pytest

import xconv
from gradients import CASES, OTHERS, Case, loss, normal, numeric_gradient, slope

LAZY_STEP = 2

pytestmark = pytest.mark.backends("torch", "jax")


class Torch:
    """PyTorch's transformations of functions."""

    def __init__(self, asarray):
        import torch

        self.asarray, self.lib = asarray, torch
        self.vmap = torch.func.vmap
        torch.set_num_threads(1)  # the arrays are tiny

    def value_and_grad(self, function, count):
        both = self.lib.func.grad_and_value(function, tuple(range(count)))
        return lambda *arrays: both(*arrays)[::-1]

    def jvp(self, function, primals, tangents):
        return self.lib.func.jvp(function, primals, tangents)

    def jit(self, function):
        return function

    def hessian(self, function):
        return self.lib.func.hessian(function)

    def numpy(self, array):
        return array.detach().cpu().numpy()


class Jax:
    """The same of JAX, always compiled."""

    def __init__(self, asarray):
        import jax

        self.asarray, self.lib = asarray, jax
        self.vmap, self.jvp, self.jit, self.hessian = jax.vmap, jax.jvp, jax.jit, jax.hessian

    def value_and_grad(self, function, count):
        return self.lib.value_and_grad(function, tuple(range(count)))

    def numpy(self, array):
        return np.asarray(array)


@pytest.fixture
def lib(backend):
    return {"torch": Torch, "jax": Jax}[backend.name](backend.asarray)


def gradient(lib, function, *arrays, weights=None):
    """The gradients of the sum of what a function gives, as NumPy arrays, computed twice: forwards and backwards."""

    def total(*arrays):
        y = function(*arrays)
        return (y if weights is None else y * lib.asarray(weights)).sum()

    arrays = tuple(map(lib.asarray, arrays))
    _, found = lib.jit(lib.value_and_grad(total, len(arrays)))(*arrays)
    found = [np.array(lib.numpy(g)) for g in found]
    tangents = tuple(
        lib.asarray(normal(*a.shape, seed=5).astype(f.dtype)) for a, f in zip(arrays, found, strict=True)
    )
    _, forwards = lib.jvp(total, arrays, tangents)
    expected = sum((g * lib.numpy(t)).sum() for g, t in zip(found, tangents, strict=True))
    np.testing.assert_allclose(
        lib.numpy(forwards), expected, rtol=1e-4 if found[0].dtype == "f4" else 1e-10, atol=1e-6
    )
    return found[0] if len(found) == 1 else found


# -- every operation ---------------------------------------------------------------------------------------------------


def test_every_operation_is_among_the_cases():
    missing = {n for n in xconv.__all__ if n not in OTHERS} - {case.function.__name__ for case in CASES}
    assert not missing, f"tests/gradients.py has no case for {', '.join(sorted(missing))}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_derivatives_of_both_orders_are_those_that_differences_find(lib, case: Case):
    count = len(case.arrays)
    arrays = tuple(map(lib.asarray, case.arrays))
    direction = tuple(normal(*a.shape, seed=11) for a in case.arrays)
    tangents = tuple(map(lib.asarray, direction))
    both = lib.value_and_grad(lambda *a: loss(case(*a), lib.asarray), count)
    # forwards over backwards, and backwards over a batch
    twice = lib.jit(lambda primals: lib.jvp(both, primals, tangents))
    (value, first), (change, second) = twice(arrays)
    first, second = list(map(lib.numpy, first)), list(map(lib.numpy, second))

    np.testing.assert_allclose(lib.numpy(value), loss(case(*case.arrays), np.asarray), rtol=1e-9, atol=1e-9)
    for found, expected in zip(first, numeric_gradient(case), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)
    along = sum((g * d).sum() for g, d in zip(first, direction, strict=True))
    np.testing.assert_allclose(lib.numpy(change), along, rtol=1e-9, atol=1e-9)

    def first_at(t):
        moved = tuple(lib.asarray(a + t * d) for a, d in zip(case.arrays, direction, strict=True))
        return np.concatenate([lib.numpy(g).ravel() for g in twice(moved)[0][1]])

    found = np.concatenate([g.ravel() for g in second])
    np.testing.assert_allclose(found, slope(first_at), rtol=1e-6, atol=1e-7)

    stacks = tuple(lib.asarray(np.stack([1.01 * a, a])) for a in case.arrays)
    values, firsts = lib.jit(lib.vmap(both))(*stacks)
    np.testing.assert_allclose(lib.numpy(values)[1], lib.numpy(value), rtol=1e-9, atol=1e-9)
    for batch, one in zip(firsts, first, strict=True):
        np.testing.assert_allclose(lib.numpy(batch)[1], one, rtol=1e-9, atol=1e-9)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_double_backward_and_hessian(lib, case: Case):
    torch = lib.lib
    arrays = [lib.asarray(a).requires_grad_() for a in case.arrays]
    torch.autograd.gradcheck(case, arrays, check_forward_ad=True, fast_mode=True)
    torch.autograd.gradgradcheck(case, arrays, fast_mode=True)
    flat = lib.asarray(np.concatenate([a.ravel() for a in case.arrays]))

    def of_flat(flat):
        parts = flat.split([a.size for a in case.arrays])
        return loss(case(*(p.reshape(a.shape) for p, a in zip(parts, case.arrays, strict=True))), lib.asarray)

    backwards = torch.autograd.functional.hessian(of_flat, flat)
    torch.testing.assert_close(lib.hessian(of_flat)(flat), backwards, rtol=1e-9, atol=1e-9)


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", ["mish", "max_pool", "lp_pool-p3", "conv_transpose1d", "bilinear"])
def test_checks_of_the_library_itself(lib, name):
    from jax.test_util import check_grads

    (case,) = (case for case in CASES if case.id == name)
    check_grads(
        lib.jit(lambda *a: case(*a)),
        tuple(map(lib.asarray, case.arrays)),
        order=2,
        modes=("fwd", "rev"),
        rtol=1e-3,
    )


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", ["gelu", "global_max_pool", "reduce_window-prod", "conv2d", "conv-edge"])
def test_hessians(lib, name):
    (case,) = (case for case in CASES if case.id == name)

    def of_first(x):
        return loss(case(x, *map(lib.asarray, case.arrays[1:])), lib.asarray)

    x = lib.asarray(case.arrays[0])
    forwards = lib.numpy(lib.jit(lib.hessian(of_first))(x))
    backwards = lib.jit(lib.lib.jacrev(lib.lib.jacrev(of_first)))(x)
    np.testing.assert_allclose(forwards, lib.numpy(backwards), rtol=1e-9, atol=1e-9)


# -- ties --------------------------------------------------------------------------------------------------------------

INF, NAN = np.inf, np.nan
TIES = np.random.default_rng(3).integers(-1, 2, (2, 5, 6, 2)).astype(float)


def line(*values):
    return np.asarray(values, dtype=float).reshape(1, -1, 1)


@pytest.mark.parametrize(
    "function, expected",
    [
        (lambda x: xconv.max_pool(x, 2), [1, 0, 1, 0]),
        (lambda x: xconv.max_pool(x, 2, return_indices=True)[0], [1, 0, 1, 0]),
        (lambda x: xconv.max_pool(x, 2, nan="omit"), [1, 0, 1, 0]),
        (lambda x: xconv.max_pool(x, 3, stride=1, padding=1), [2, 1, 1, 0]),
        (lambda x: xconv.reduce_window(x, "max", 2, stride=2), [1, 0, 1, 0]),
        (lambda x: xconv.reduce_window(x, "min", 2, stride=2), [1, 0, 1, 0]),
        (lambda x: xconv.adaptive_max_pool(x, 2), [1, 0, 1, 0]),
        (lambda x: xconv.adaptive_max_pool(x, 2, return_indices=True)[0], [1, 0, 1, 0]),
        (xconv.global_max_pool, [1, 0, 0, 0]),
    ],
)
def test_the_gradient_goes_to_the_first_of_equals(lib, function, expected):
    np.testing.assert_array_equal(gradient(lib, function, line(3, 3, 3, 3)).ravel(), expected)


def to_places(indices: np.ndarray, weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Every weight where its index points, channels last; what meets there is added."""
    found = np.zeros((shape[0], np.prod(shape[1:-1]), shape[-1]))
    for n, *out, c in np.ndindex(indices.shape):
        found[n, indices[(n, *out, c)], c] += weights[(n, *out, c)]
    return found.reshape(shape)


POOLS = [
    (xconv.max_pool, 2, {}),
    (xconv.max_pool, 3, {"stride": 1, "padding": 1}),
    (xconv.max_pool, (2, 3), {"stride": 2, "padding": 1, "ceil_mode": True}),
    (xconv.max_pool, 2, {"dilation": 2, "stride": 1, "padding": ((0, 2), (1, 1))}),
    (xconv.adaptive_max_pool, (3, 4), {}),
    (xconv.adaptive_max_pool, 1, {}),
]
FILLS = {
    "ties": TIES,
    "nan": np.where(TIES == 0, NAN, TIES),
    "lowest": np.where(TIES == 0, -INF, TIES),
    "all lowest": np.full_like(TIES, -INF),
}


@pytest.mark.parametrize("pool, window, options", POOLS)
def test_the_gradient_goes_where_the_index_points(lib, pool, window, options):
    def alone(x):
        with xconv.config(workspace=700):  # several tiles
            return pool(x, window, **options)

    def beside_indices(x):
        return pool(x, window, return_indices=True, **options)[0]

    def over_all(x):
        return xconv.global_max_pool(x, keepdims=True)

    for function in (alone, beside_indices, *([over_all] if window == 1 else [])):
        both = lib.jit(lib.value_and_grad(lambda x, weights, f=function: (f(x) * weights).sum(), 2))
        for name, x in FILLS.items():
            _, indices = pool(x, window, return_indices=True, **options)
            weights = normal(*indices.shape)
            _, (found, _) = both(lib.asarray(x), lib.asarray(weights))
            expected = to_places(indices, weights, x.shape)
            np.testing.assert_allclose(lib.numpy(found), expected, rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize(
    "function, args, options",
    [
        (xconv.median_filter, (3,), {"axes": (1, 2)}),
        (xconv.rank_filter, (7, (5, 7)), {"axes": (1, 2), "pad_mode": "wrap"}),
        (
            xconv.rank_filter,
            (1,),
            {"footprint": [[1, 0], [1, 1]], "axes": (1, 2), "pad_mode": "constant", "value": 1},
        ),
        (xconv.maximum_filter, ((3, 2),), {"axes": (1, 2)}),
        (
            xconv.minimum_filter,
            (),
            {"footprint": np.ones((6, 7), bool) ^ np.eye(6, 7, dtype=bool), "axes": (1, 2)},
        ),
    ],
)
def test_of_a_rank_it_goes_where_vjp_sends_it(lib, function, args, options):
    """The first of equals, in raster order of the window; of NaN the first as well."""

    def filtered(x, weights):
        return (function(x, *args, **options) * weights).sum()

    both = lib.jit(lib.value_and_grad(filtered, 2))
    for name, x in FILLS.items():
        weights = normal(*x.shape)
        _, (found, _) = both(lib.asarray(x), lib.asarray(weights))
        expected = xconv.vjp(function, x, *args, **options)[1](weights)[0]
        np.testing.assert_allclose(lib.numpy(found), expected, rtol=1e-12, atol=1e-14, err_msg=name)


def test_what_is_left_out_as_nan_has_no_gradient(lib):
    found = gradient(lib, lambda x: xconv.max_pool(x, 2, nan="omit")[:, :2], line(NAN, 1, 2, NAN, NAN, NAN))
    np.testing.assert_array_equal(found.ravel(), [0, 1, 1, 0, 0, 0])


def test_zeros_in_a_product(lib):
    found = gradient(lib, lambda x: xconv.reduce_window(x, "prod", 2, stride=2), line(0, 3, 0, 0, 2, 5))
    np.testing.assert_array_equal(found.ravel(), [3, 0, 0, 0, 5, 2])


def test_only_the_last_of_several_values_for_one_place_has_a_gradient(lib):
    def unpooled(x):
        return xconv.max_unpool(x, lib.asarray(np.array([1, 1, 5, 9]).reshape(1, 4, 1)), 2)

    np.testing.assert_array_equal(gradient(lib, unpooled, line(1, 2, 3, 4)).ravel(), [0, 1, 1, 0])


# -- kinks, and functions whose formula has one though they have none --------------------------------------------------

SELU = 1.0507009873554805 * 1.6732632423543772


@pytest.mark.parametrize(
    "function, at, first",
    [
        (xconv.relu, 0, 0),
        (xconv.relu6, 0, 0),
        (xconv.relu6, 6, 0),
        (xconv.hard_sigmoid, -3, 0),
        (xconv.hard_sigmoid, 3, 0),
        (xconv.hard_swish, -3, 0),
        (xconv.hard_swish, 3, 1),
        (xconv.leaky_relu, 0, 0.01),
        (lambda x: xconv.elu(x, alpha=0.7), 0, 0.7),
        (xconv.selu, 0, SELU),
    ],
)
def test_the_slope_at_a_kink(lib, function, at, first):
    np.testing.assert_allclose(gradient(lib, function, np.full(2, float(at))), first, rtol=1e-14)


def test_the_slope_of_prelu_at_its_kink(lib):
    by_x, by_slope = gradient(lib, xconv.prelu, np.zeros(2), np.asarray([0.25, 3.0]))
    np.testing.assert_array_equal(by_x, [0.25, 3])
    np.testing.assert_array_equal(by_slope, 0)


@pytest.mark.parametrize(
    "function, first, second",
    [
        (xconv.sigmoid, 1 / 4, 0),
        (xconv.softplus, 1 / 2, 1 / 4),
        (xconv.silu, 1 / 2, 1 / 2),
        (xconv.mish, 3 / 5, 16 / 25),
        (xconv.gelu, 1 / 2, np.sqrt(2 / np.pi)),
        (lambda x: xconv.gelu(x, approximate="tanh"), 1 / 2, np.sqrt(2 / np.pi)),
        (xconv.tanh, 1, 0),
    ],
)
def test_smooth_functions_at_0(lib, function, first, second):
    both = lib.value_and_grad(lambda x: function(x).sum(), 1)
    x = lib.asarray(np.zeros(2))
    (_, (found,)), (_, (curvature,)) = lib.jvp(both, (x,), (lib.asarray(np.ones(2)),))
    np.testing.assert_allclose(lib.numpy(found), first, rtol=1e-13)
    np.testing.assert_allclose(lib.numpy(curvature), second, rtol=1e-12, atol=1e-13)


def test_the_slope_of_gelu_far_from_its_middle(lib):
    """The derivative of a Chebyshev series is not as good as the series; this one still is."""
    from math import erfc, exp, pi, sqrt

    x = np.linspace(-12, 12, 97)
    expected = [0.5 * erfc(-v / sqrt(2)) + v * exp(-v * v / 2) / sqrt(2 * pi) for v in x]
    np.testing.assert_allclose(gradient(lib, xconv.gelu, x), expected, rtol=1e-10)


TAILS = [xconv.sigmoid, xconv.softplus, xconv.silu, xconv.mish, xconv.gelu, xconv.tanh, xconv.elu, xconv.selu]
TAILS += [xconv.softmax, xconv.log_softmax, lambda x: xconv.gelu(x, approximate="tanh")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_away_all_derivatives_are_finite(lib, dtype):
    far = np.asarray([30, 100, 800, 1e4, 1e18, 1e30], dtype=dtype)
    x = lib.asarray(np.concatenate([far, -far]))
    ones = lib.asarray(np.ones(12, dtype))
    for function in TAILS:
        both = lib.value_and_grad(lambda x, f=function: f(x).sum(), 1)
        (_, (first,)), (_, (second,)) = lib.jvp(both, (x,), (ones,))
        assert np.all(np.isfinite(lib.numpy(first))), function
        assert np.all(np.isfinite(lib.numpy(second))), function


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3])
def test_a_norm_of_zeros_has_no_slope(lib, p):
    x = line(0, 0, 0, 2, 3, NAN)
    for function in (
        lambda x: xconv.lp_pool(x, 2, p=p)[:, :2],
        lambda x: xconv.global_lp_pool(x[:, :4], p=p),
    ):
        both = lib.value_and_grad(lambda x, f=function: f(x).sum(), 1)
        (_, (first,)), (_, (second,)) = lib.jvp(both, (lib.asarray(x),), (lib.asarray(np.ones(x.shape)),))
        np.testing.assert_allclose(lib.numpy(first).ravel()[:4], [0, 0, 0, 1], atol=1e-15)
        assert np.all(np.isfinite(lib.numpy(second).ravel()[:4]))
    assert np.isnan(lib.numpy(xconv.lp_pool(lib.asarray(x), 2, p=p))).ravel().tolist() == [False, False, True]


# -- what is not differentiated, and what is between -------------------------------------------------------------------


@pytest.mark.backends("torch")
def test_a_bound_kernel_is_made_anew_for_every_backward_pass(lib):
    x, w = lib.asarray(normal(1, 6, 6, 2)), lib.asarray(normal(3, 3, 2, 2)).requires_grad_()
    bound = xconv.plan(xconv.conv2d, x, w, algorithm="winograd")
    with lib.lib.no_grad():
        expected = bound(x)
    for _ in range(2):
        w.grad = None
        y = bound(x)
        (y * y).sum().backward()
        lib.lib.testing.assert_close(y.detach(), expected)
        (direct,) = lib.lib.autograd.grad((xconv.conv2d(x, w, algorithm="direct") ** 2).sum(), w)
        lib.lib.testing.assert_close(w.grad, direct)


@pytest.mark.backends("torch")
def test_a_kernel_bound_inside_of_a_transformation_stays_inside(lib):
    x, w = lib.asarray(normal(2, 1, 6, 6, 2)), lib.asarray(normal(3, 3, 2, 2))
    bound = xconv.plan(xconv.conv2d, tuple(x.shape[1:]), w, algorithm="winograd")
    inside = lib.vmap(bound)(x)
    lib.lib.testing.assert_close(inside, lib.lib.stack([bound(part) for part in x]))


@pytest.mark.backends("torch")
def test_dual_numbers(lib):
    from torch.autograd import forward_ad

    x, w = lib.asarray(normal(1, 5, 1)), lib.asarray(normal(2, 1, 1))
    with forward_ad.dual_level():
        y = xconv.conv(forward_ad.make_dual(x, lib.lib.ones_like(x)), w)
        lib.lib.testing.assert_close(forward_ad.unpack_dual(y).tangent, xconv.conv(lib.lib.ones_like(x), w))


@pytest.mark.backends("torch")
@pytest.mark.parametrize(
    "function", [lambda x: xconv.pad(x, -1), lambda x: xconv.unfold(x, 1), lambda x: xconv.max_pool(x, 1)]
)
def test_a_copy_is_no_end_of_derivatives(lib, function, recwarn):
    x = lib.asarray(normal(3, 3, 3)).requires_grad_()
    assert function(x).requires_grad
    assert not recwarn


@pytest.mark.parametrize("options", [{}, {"algorithm": "fft"}])
def test_complex_gradients_are_as_the_library_has_them(lib, options):
    """Of a holomorphic function of complex numbers: conjugated in PyTorch, as it is in JAX."""
    x, w = (
        normal(1, 4, 1) + 1j * normal(1, 4, 1, seed=2),
        normal(2, 1, 1, seed=3) + 1j * normal(2, 1, 1, seed=4),
    )
    weights = normal(1, 3, 1, seed=5)
    _, (found,) = lib.value_and_grad(
        lambda x: (xconv.conv(x, lib.asarray(w), **options) * lib.asarray(weights)).real.sum(), 1
    )(lib.asarray(x))
    expected = np.zeros(4, complex)
    for o in range(3):
        expected[o : o + 2] += weights[0, o, 0] * w[:, 0, 0]
    if type(lib) is Torch:
        expected = expected.conj()
    np.testing.assert_allclose(lib.numpy(found).ravel(), expected, rtol=1e-12)
