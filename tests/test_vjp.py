"""The door of gradients: what it takes, what it gives back, and what it refuses before any work."""

import inspect
import re

import numpy as np
import pytest

import xconv
from cases import numbers
from compare import assert_close, assert_same
from test_public import DOORS
from xconv._gradients import RULES

X, W, B = (numbers(shape, "float64", seed=1) for shape in ((3, 4), (4, 5), (5,)))
DY = numbers((3, 5), "float64", seed=2)
CALL = "\n  in vjp(dense, float64[3, 4], float64[4, 5], float64[5]"
STATISTICS = (np.zeros(5), np.ones(5))


def refused(error, message, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message), caught.value
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ what there is


def operations():
    """The public functions that compute something from arrays."""
    rest = {*DOORS["planning and settings"].split(), *DOORS["gradients"].split(), "__version__"}
    return sorted(set(xconv.__all__) - rest)


@pytest.mark.parametrize("name", operations())
def test_every_operation_has_a_gradient(name):
    assert getattr(xconv, name) in RULES


def test_there_are_rules_for_nothing_else():
    assert {function.__name__ for function in RULES} <= set(operations())
    assert all(getattr(xconv, function.__name__) is function for function in RULES)


@pytest.mark.parametrize("function", RULES, ids=lambda function: function.__name__)
def test_a_rule_names_arguments_as_the_operation_does(function):
    """By position, so that a name in wrt is the one in the description."""
    rule = RULES[function]
    positional = [
        p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_ONLY
    ]
    assert len(rule.arrays) <= len(positional)
    for ours, theirs in zip(rule.arrays, positional, strict=False):
        assert ours in (None, theirs)
    assert {*rule.fixed, *rule.several} <= set(rule.arrays)


# -------------------------------------------------------------------------------------------------- what it gives


def test_the_result_is_that_of_the_operation(backend):
    def through(x, w, b, **options):
        return xconv.vjp(xconv.dense, x, w, b, **options)[0]

    found = backend.call(through, X, W, B, activation="gelu")
    assert_same(found, backend.call(xconv.dense, X, W, B, activation="gelu"))


def test_a_gradient_for_every_array_in_order(backend):
    def gradients(dy, *arrays):
        return xconv.vjp(xconv.dense, *arrays)[1](dy)

    dx, dw, db = backend.call(gradients, DY, X, W, B)
    assert_close(dx, DY @ W.T)
    assert_close(dw, X.T @ DY)
    assert_close(db, DY.sum(0))
    assert len(backend.call(gradients, DY, X, W)) == 2


def test_what_is_no_array_has_no_place():
    y, pullback = xconv.vjp(xconv.pad, X, 1)
    assert len(pullback(y)) == 1


def test_what_is_not_wanted_is_none():
    for wrt, wanted in (("w", "w"), (["b"], "b"), (("x", "b"), "xb")):
        _, pullback = xconv.vjp(xconv.dense, X, W, B, wrt=wrt)
        assert [g is not None for g in pullback(DY)] == [name in wanted for name in "xwb"]
    _, pullback = xconv.vjp(xconv.dense, X, W, None)
    dx, dw, db = pullback(DY)
    assert db is None
    assert dx is not None
    assert dw is not None


def test_a_pullback_gives_the_same_twice(backend):
    def twice(dy, x, w, b):
        _, pullback = xconv.vjp(xconv.dense, x, w, b, activation="silu")
        return (*pullback(dy), *pullback(dy))

    found = backend.call(twice, DY, X, W, B)
    for first, second in zip(found[:3], found[3:], strict=True):
        assert_same(first, second)


def test_a_pullback_is_linear(backend):
    def of_three(dy, other, x, w, b):
        _, pullback = xconv.vjp(xconv.dense, x, w, b, activation="silu")
        return (*pullback(dy), *pullback(other), *pullback(2 * dy - other))

    other = numbers(DY.shape, "float64", seed=3)
    found = backend.call(of_three, DY, other, X, W, B)
    for i in range(3):
        assert_close(found[6 + i], 2 * found[i] - found[3 + i])


@pytest.mark.parametrize("dtypes", [("float32", "float64", "float32"), ("float64", "float32", "float32")])
def test_gradients_have_the_dtype_of_their_argument(backend, dtypes):
    def gradients(dy, *arrays):
        return xconv.vjp(xconv.dense, *arrays)[1](dy)

    found = backend.call(gradients, DY, *(a.astype(d) for a, d in zip((X, W, B), dtypes, strict=True)))
    assert tuple(g.dtype.name for g in found) == dtypes
    assert [g.shape for g in found] == [(3, 4), (4, 5), (5,)]


def test_of_two_results_the_cotangent_is_a_pair():
    (w, b), pullback = xconv.vjp(xconv.fold_batch_norm, W, B, *STATISTICS)
    for pair in ((w, b), [w, b]):
        dw, db, dmean, dvar = pullback(pair)
        assert (dw.shape, db.shape, dmean.shape, dvar.shape) == (W.shape, (5,), (5,), (5,))
    text = "dy must be 2 arrays, one for each result"
    refused(TypeError, text, lambda: pullback(w))
    refused(TypeError, text, lambda: pullback((w,)))
    refused(ValueError, "dy must have the shape of the result, [5]; got dy=[4]", lambda: pullback((w, b[1:])))


def test_nothing_that_was_given_is_shared_with_what_comes_back():
    """A gradient may be changed in place, which is how a step is taken."""
    dy = np.ones((3, 4))
    for function, rest in ((xconv.pad, (0,)), (xconv.relu, ()), (xconv.batch_norm, (W[:, 0], abs(W[:, 1])))):
        x = np.ones((3, 4))
        _, pullback = xconv.vjp(function, x, *rest)
        for gradient in pullback(dy):
            assert not np.may_share_memory(gradient, dy)
            assert not np.may_share_memory(gradient, x)


# ---------------------------------------------------------------------------------------------------- bad input


class Unhashable:
    """A layer of somebody else's that compares by value."""

    __hash__ = None
    __name__ = "Unhashable"

    def __call__(self, x):
        return x


def test_a_function_that_is_no_public_operation():
    rule = "function must be a public operation of xconv; got function="
    text = refused(TypeError, rule + "tanh", lambda: xconv.vjp(np.tanh, X))
    assert text.endswith("\n  in vjp(tanh, float64[3, 4])")
    refused(TypeError, rule + "Unhashable", lambda: xconv.vjp(Unhashable(), X))
    refused(TypeError, rule + "'relu'", lambda: xconv.vjp("relu", X))
    refused(TypeError, rule + "explain", lambda: xconv.vjp(xconv.explain, xconv.dense, X, W))
    refused(TypeError, rule + "vjp", lambda: xconv.vjp(xconv.vjp, xconv.relu, X))


def test_a_cotangent_of_another_shape_or_dtype():
    _, pullback = xconv.vjp(xconv.dense, X, W, B)
    text = refused(ValueError, "dy must have the shape of the result, [3, 5]", lambda: pullback(DY[:2]))
    assert text.endswith("got dy=[2, 5]\n  in pullback(dy: float64[2, 5])")
    refused(ValueError, "dy must have the shape of the result", lambda: pullback(DY[0]))
    single = DY.astype("float32")
    refused(TypeError, "dy must have the dtype of the result, float64", lambda: pullback(single))
    refused(TypeError, "dy must be an array of a library", lambda: pullback(1.0))
    refused(TypeError, "dy must be an array of a library", lambda: pullback(DY.tolist()))


@pytest.mark.backends("torch", "strict")
def test_a_cotangent_of_another_library(backend):
    _, pullback = xconv.vjp(xconv.dense, X, W)
    text = refused(
        TypeError, "dy must come from the same array library", lambda: pullback(backend.asarray(DY))
    )
    assert "as y, numpy" in text


def test_integers_are_not_differentiated():
    image = np.ones((3, 4), "uint8")
    rule = "x must be floating to be differentiated; leave it out of wrt; got x=uint8[3, 4]"
    text = refused(TypeError, rule, lambda: xconv.vjp(xconv.dense, image, W))
    assert text.endswith("\n  in vjp(dense, uint8[3, 4], float64[4, 5])")
    refused(TypeError, rule, lambda: xconv.vjp(xconv.dense, image, W, wrt=("w", "x")))
    refused(TypeError, "x must be floating", lambda: xconv.vjp(xconv.relu, image))
    refused(TypeError, "x must be floating", lambda: xconv.vjp(xconv.pad, image > 0, 1))
    _, pullback = xconv.vjp(xconv.dense, image, W, wrt="w")
    assert pullback(DY)[0] is None


@pytest.mark.parametrize("wrt", ["y", "", (), ("x", "dy"), ["mean"], "xw"])
def test_names_that_are_not_there(wrt):
    rule = "wrt must name arrays that were given and have a gradient: 'x', 'w', 'b'; got wrt="
    text = refused(ValueError, rule, lambda: xconv.vjp(xconv.dense, X, W, B, wrt=wrt))
    assert text.endswith(f"{CALL}, wrt={wrt!r})")


def test_a_name_that_was_not_given():
    rule = "wrt must name arrays that were given and have a gradient: 'x', 'w'; got wrt='b'"
    refused(ValueError, rule, lambda: xconv.vjp(xconv.dense, X, W, wrt="b"))
    refused(ValueError, rule, lambda: xconv.vjp(xconv.dense, X, W, None, wrt="b"))


@pytest.mark.parametrize("wrt", [0, 1.5, (0, 1), X, {"x"}])
def test_what_is_no_name(wrt):
    refused(
        TypeError,
        "wrt must be the name of an argument, or several",
        lambda: xconv.vjp(xconv.dense, X, W, wrt=wrt),
    )


def test_mistakes_in_the_operation_are_its_own():
    refused(ValueError, "w must have 4 input features", lambda: xconv.vjp(xconv.dense, X, W[1:]))
    refused(ValueError, "axis must be an axis of x", lambda: xconv.vjp(xconv.softmax, X, axis=2))
    with pytest.raises(TypeError, match="slope"):
        xconv.vjp(xconv.relu, X, slope=2)
    refused(TypeError, "w must be an array", lambda: xconv.vjp(xconv.dense, X, W.tolist()))


def test_nothing_is_computed_by_a_refusal(monkeypatch):
    """Not even the result."""
    from xconv import _dense

    monkeypatch.setattr(_dense, "matmul", lambda *_: pytest.fail("computed"))
    for options in ({"wrt": "y"}, {"wrt": 1}, {"activation": abs}, {"dtype": np.int64}):
        with pytest.raises((ValueError, TypeError)):
            xconv.vjp(xconv.dense, X, W, **options)
    with pytest.raises(TypeError):
        xconv.vjp(xconv.dense, X.astype("int32"), W)


def test_the_call_in_an_error_names_what_was_wrong():
    text = refused(
        ValueError, "wrt must", lambda: xconv.vjp(xconv.dense, X, W, B, activation="relu", wrt="q")
    )
    assert re.search(r"in vjp\(dense, .*activation='relu'", text)
