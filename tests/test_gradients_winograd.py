"""The gradient by a 3x3 kernel with a quarter of the products, held against the sum as it is written down."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xconv
from cases import numbers
from compare import assert_close, assert_same
from xconv import _weights, _weights_winograd
from xconv._config import settings
from xconv._geometry import Axis, ConvProblem
from xconv._namespace import inspect

PAD_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


def by_definition(x, dy, pads, pad_mode="constant"):
    """For every tap, what it meets times the gradient there, in float64."""
    low_high = [(max(low, 0), max(high, 0)) for low, high in pads]
    x = np.pad(x.astype("float64"), ((0, 0), *low_high, (0, 0)), mode=pad_mode)
    cropped = [slice(max(-low, 0), x.shape[i] - max(-high, 0)) for i, (low, high) in enumerate(pads, 1)]
    x, dy = x[(slice(None), *cropped)], dy.astype("float64")
    rows, columns = dy.shape[1:3]
    taps = [
        np.einsum("nhwi,nhwo->io", x[:, i : i + rows, j : j + columns], dy)
        for i in range(3)
        for j in range(3)
    ]
    return np.reshape(taps, (3, 3, x.shape[-1], dy.shape[-1])), dy.sum(axis=(0, 1, 2))


def arranged(batch, sizes, inputs, outputs, pads, dtype="float64", pad_mode="constant"):
    axes = tuple(Axis(n, 3, low=low, high=high) for n, (low, high) in zip(sizes, pads, strict=True))
    problem = ConvProblem(batch, axes, inputs, outputs, itemsize=np.dtype(dtype).itemsize, pad_mode=pad_mode)
    x = numbers((batch, *sizes, inputs), dtype, seed=1)
    return problem, x, numbers((batch, *problem.outputs, outputs), dtype, seed=2)


def found(problem, x, dy, *, bias=True):
    xp, traits = inspect(x=x)
    return _weights_winograd.fewer_products(x, dy, problem, x.dtype, settings(), xp, traits, bias=bias)


@pytest.mark.parametrize("pad_mode", PAD_MODES)
@pytest.mark.parametrize(
    "pads", [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((2, 0), (1, 3))], ids=["same", "valid", "uneven"]
)
@pytest.mark.parametrize("sizes", [(8, 8), (5, 7), (3, 14), (4, 6)])
def test_it_is_the_sum(sizes, pads, pad_mode):
    problem, x, dy = arranged(2, sizes, 3, 5, pads, pad_mode=pad_mode)
    dw, db = found(problem, x, dy)
    expected, total = by_definition(x, dy, pads, pad_mode)
    assert_close(dw, expected, rtol=1e-11)
    assert_close(db, total, rtol=1e-12)


@given(
    batch=st.integers(1, 3),
    sizes=st.tuples(st.integers(3, 13), st.integers(3, 13)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pads=st.tuples(*[st.tuples(st.integers(-1, 2), st.integers(0, 2))] * 2),
)
def test_of_any_sizes_and_padding(batch, sizes, channels, pads):
    sizes = tuple(max(n, 3 - low - high) for n, (low, high) in zip(sizes, pads, strict=True))
    problem, x, dy = arranged(batch, sizes, *channels, pads)
    dw, none = found(problem, x, dy, bias=False)
    assert_close(dw, by_definition(x, dy, pads)[0], rtol=1e-11)
    assert none is None


@pytest.mark.parametrize("order", ["backwards", "channels-first", "read-only"])
def test_of_arrays_as_they_stand_in_memory(order):
    problem, x, dy = arranged(2, (9, 10), 4, 3, ((1, 1), (1, 1)))
    expected, _ = by_definition(x, dy, ((1, 1), (1, 1)))
    if order == "backwards":
        x, dy = (np.ascontiguousarray(a[:, ::-1])[:, ::-1] for a in (x, dy))
    elif order == "channels-first":
        x, dy = (np.ascontiguousarray(a.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1) for a in (x, dy))
    else:
        x.flags.writeable = dy.flags.writeable = False
    assert_close(found(problem, x, dy)[0], expected, rtol=1e-11)


@pytest.mark.parametrize("workspace", [2**16, 2**18, 2**26])
def test_any_tiles_give_the_same_sum_and_any_number_of_threads_the_same_bits(workspace, monkeypatch):
    problem, x, dy = arranged(3, (18, 21), 6, 8, ((1, 1), (1, 1)))
    expected, total = by_definition(x, dy, ((1, 1), (1, 1)))
    groups = []
    kept = _weights_winograd._groups
    monkeypatch.setattr(
        _weights_winograd, "_groups", lambda *a: groups.extend(found := list(kept(*a))) or iter(found)
    )
    with xconv.config(workspace=workspace, threads=1):
        first = found(problem, x, dy)
    assert (len(groups) == 1) == (workspace == 2**26)  # small ones have sums that are added to
    assert_close(first[0], expected, rtol=1e-11)
    assert_close(first[1], total, rtol=1e-12)
    for threads in (2, 3, 8):
        with xconv.config(workspace=workspace, threads=threads):
            for a, b in zip(found(problem, x, dy), first, strict=True):
                assert_same(a, b)


def test_precision_is_that_of_the_call():
    problem, x, dy = arranged(8, (28, 28), 128, 128, ((1, 1), (1, 1)), "float32")
    expected, _ = by_definition(x, dy, ((1, 1), (1, 1)))
    error = np.linalg.norm(found(problem, x, dy)[0] - expected) / np.linalg.norm(expected)
    assert 0 < error < 5e-6


def test_memory_beyond_the_results_is_the_workspace():
    problem, x, dy = arranged(8, (28, 28), 64, 64, ((1, 1), (1, 1)), "float32")
    for workspace in (2**22, 2**23, 2**25):
        with xconv.config(workspace=workspace, threads=2):
            found(problem, x, dy)
            tracemalloc.start()
            try:
                dw, _ = found(problem, x, dy)
                peak = tracemalloc.get_traced_memory()[1] - dw.nbytes
            finally:
                tracemalloc.stop()
        assert peak <= workspace


def suits(problem, **options):
    _, traits = inspect(x=np.zeros(1, "float32"))
    with xconv.config(**options):
        return _weights_winograd.suits(problem, settings(), traits)


def large(**changes):
    problem, _, _ = arranged(8, (28, 28), 128, 128, ((1, 1), (1, 1)), "float32")
    return replace(problem, **changes)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"groups": 2}, {}),
        ({"direct": True}, {}),
        ({"kind": "complex"}, {}),
        ({"axes": (Axis(28, 3, stride=2), Axis(28, 3))}, {}),
        ({"axes": (Axis(28, 3), Axis(28, 3, dilation=2))}, {}),
        ({"axes": (Axis(28, 3), Axis(28, 3, input_dilation=2))}, {}),
        ({"axes": (Axis(28, 3), Axis(28, 5, low=1, high=1))}, {}),
        ({"axes": (Axis(784, 3),)}, {}),
        ({"channels_in": 16}, {}),
        ({"batch": 1, "axes": (Axis(7, 3), Axis(7, 3))}, {}),
        ({}, {"precision": "strict"}),
        ({}, {"workspace": 2**20}),
    ],
)  # fmt: skip
def test_it_is_left_to_the_direct_sum_where_it_cannot_be_done_or_takes_longer(changes, options):
    assert suits(large())
    assert not suits(large(**changes), **options)


def test_a_gradient_takes_this_way(monkeypatch):
    x, dy = (numbers((4, 28, 28, 128), "float32", seed=seed) for seed in (1, 2))
    w = numbers((3, 3, 128, 128), "float32", seed=3)
    calls = []
    kept = _weights.fewer_products
    monkeypatch.setattr(
        _weights, "fewer_products", lambda *a, **options: calls.append(1) or kept(*a, **options)
    )
    _, pull = xconv.vjp(xconv.conv, x, w, np.zeros(128, "float32"), padding=1, wrt=("w", "b"))
    _, dw, db = pull(dy)
    assert calls == [1]
    expected, total = by_definition(x, dy, ((1, 1), (1, 1)))
    error = np.linalg.norm(dw - expected) / np.linalg.norm(expected)
    assert 1e-7 < error < 4e-6  # as the documentation has it
    assert_close(dw, expected.astype("float32"), rtol=1.5e-5)  # of single numbers among 147,456
    assert_close(db, total.astype("float32"), rtol=1e-5)
    with xconv.config(precision="strict"):
        assert_close(pull(dy)[1], expected.astype("float32"), rtol=1e-6)
    assert calls == [1]


@pytest.mark.parametrize(
    ("function", "x", "w", "options"),
    [
        (xconv.conv, (2, 9, 7, 3), (3, 3, 3, 4), {"padding": "same", "activation": "tanh"}),
        (xconv.conv2d, (9, 7, 3), (3, 3, 3, 4), {"padding": ((0, 2), (-1, 1))}),
        (xconv.conv, (2, 3, 9, 7), (4, 3, 3, 3), {"padding": 2, "pad_mode": "wrap", "layout": "NCHW"}),
        (xconv.conv_general, (2, 6, 7, 3), (3, 3, 3, 4), {"padding": 1}),
        (xconv.conv_transpose, (2, 6, 7, 3), (3, 3, 4, 3), {"padding": 1}),
        (xconv.conv_transpose2d, (2, 3, 6, 7), (3, 4, 3, 3), {"layout": "NCHW"}),
    ],
    ids=["activation", "crop", "wrap", "general", "transpose", "transpose-first"],
)
def test_forced_on_every_door_it_gives_what_the_direct_sum_gives(monkeypatch, function, x, w, options):
    for price in ("MULTIPLICATION", "TRANSFORM", "SUM"):
        monkeypatch.setattr(_weights_winograd, price, 0)
    calls = []
    kept = _weights.fewer_products
    monkeypatch.setattr(_weights, "fewer_products", lambda *a, **more: calls.append(1) or kept(*a, **more))
    x, w = numbers(x, "float64", seed=1), numbers(w, "float64", seed=2)
    y, pull = xconv.vjp(function, x, w, **options)
    dy = numbers(y.shape, "float64", seed=3)
    found = pull(dy)[1]
    assert calls == [1]
    with xconv.config(precision="strict"):
        assert_close(found, pull(dy)[1], rtol=1e-11)
    assert calls == [1]
