"""Matrix products of NumPy arrays, cut into pieces for the crew where they are large."""

import itertools
import threading
import tracemalloc
from functools import partial

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

import xconv
from cases import numbers
from compare import assert_close
from xconv import _epilogue, _products
from xconv._machine import cores
from xconv._namespace import numpy_namespace as xp
from xconv._products import matmul
from xconv._scratch import scratch

SHAPES = {
    "square": ((70, 60), (60, 50)),
    "tall": ((4001, 8), (8, 12)),
    "wide": ((12, 8), (8, 4001)),
    "one-row": ((1, 300), (300, 700)),
    "one-column": ((700, 300), (300, 1)),
    "inner-of-one": ((90, 1), (1, 80)),
    "many-images": ((130, 9, 8), (8, 7)),
    "few-images": ((3, 200, 8), (8, 7)),
    "few-wide-images": ((3, 7, 8), (8, 900)),
    "batch": ((130, 9, 8), (130, 8, 7)),
    "few-of-a-batch": ((2, 90, 8), (2, 8, 100)),
    "four-axes": ((90, 2, 9, 8), (8, 7)),
    "more-axes-on-the-right": ((9, 8), (90, 8, 7)),
}


@pytest.fixture
def eager(monkeypatch):
    """Products of any size are shared out, in many pieces."""
    monkeypatch.setattr(_products, "ALONE", 0)
    monkeypatch.setattr(_products, "LARGE", 0)
    monkeypatch.setattr(_products, "PIECE", 1000)
    with xconv.config(threads=4):
        yield


def operands(name, dtype="float32"):
    a, b = SHAPES[name]
    return numbers(a, dtype, seed=1), numbers(b, dtype, seed=2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int64"])
@pytest.mark.parametrize("name", SHAPES)
def test_pieces_make_the_whole(eager, name, dtype):
    a, b = operands(name, dtype)
    y = matmul(a, b, xp)
    assert y.dtype == dtype
    assert_close(y, np.matmul(a, b))


@pytest.mark.parametrize("name", SHAPES)
def test_the_result_is_put_where_it_belongs(eager, name):
    a, b = operands(name)
    expected = np.matmul(a, b)
    out = np.full(expected.size, np.nan, "float32").reshape(2, -1) if expected.size % 2 == 0 else None
    y = matmul(a, b, xp, out)
    assert_close(y, expected)
    if out is not None and name != "more-axes-on-the-right":
        assert np.shares_memory(y, out)
        np.testing.assert_array_equal(out.reshape(expected.shape), y)


@pytest.mark.parametrize("shared_out", [False, True])
@pytest.mark.parametrize("name", [name for name, (a, b) in SHAPES.items() if len(a) == len(b) == 2])
def test_every_piece_is_given_away_once(request, name, shared_out):
    """With its rows and columns, when it is there; and may be changed."""
    if shared_out:
        request.getfixturevalue("eager")
    a, b = operands(name)
    expected, seen = np.matmul(a, b), np.zeros((len(a), b.shape[1]), int)

    def each(y, rows, columns):
        assert_close(y, expected[rows, columns])
        seen[rows, columns] += 1
        y *= 2

    y = matmul(a, b, xp, each=each)
    assert (seen == 1).all()
    assert_close(y, 2 * expected)


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu", lambda y: y[::-1][::-1] + 1])
@pytest.mark.parametrize("sizes, channels, outputs", [((30, 41), 3, 40), ((3, 2), 30, 900), ((9, 9), 5, 70)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_what_comes_after_a_product_is_done_piece_by_piece(
    eager, monkeypatch, sizes, channels, outputs, activation, with_bias
):
    """Tall, wide and ragged, with any residual; the same bits for any number of threads."""
    monkeypatch.setattr(_epilogue, "PIECE", 1000)
    x, w = numbers((1, *sizes, channels)), numbers((1, 1, channels, outputs), seed=1)
    b = numbers((outputs,), seed=2) if with_bias else None
    r = numbers((1, *sizes, outputs), seed=3)
    function = {"relu": xconv.relu, "relu6": xconv.relu6, "silu": xconv.silu, None: lambda y: y}
    function = function.get(activation, activation)
    for residual in (None, r, np.moveaxis(np.ascontiguousarray(np.moveaxis(r, -1, 1)), 1, -1)):
        sums = np.matmul(x, w[0, 0]) + (0 if b is None else b) + (0 if residual is None else residual)
        options = {"activation": activation, "residual": residual, "algorithm": "pointwise"}
        y = xconv.conv(x, w, b, **options)
        assert_close(y, function(sums))
        with xconv.config(threads=1):
            np.testing.assert_array_equal(xconv.conv(x, w, b, **options), y)


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("layout", ["as the result", "first", "turned"])
def test_what_comes_after_a_product_needs_no_memory(layout, activation):
    """Of a residual that lies otherwise no copy is made, nor of the result."""
    x, w, b = numbers((1, 28, 28, 512)), numbers((1, 1, 512, 1024)), numbers((1024,))
    r = np.zeros((1, 28, 28, 1024), "float32")
    r = {"as the result": r, "first": np.moveaxis(r.reshape(1, 1024, 28, 28), 1, -1), "turned": r[:, ::-1]}[
        layout
    ]
    options = {"residual": r, "activation": activation, "algorithm": "pointwise"}
    call = partial(xconv.conv, x, w, b, **options)
    assert xconv.explain(xconv.conv, x, w, b, **options).plan.tiles == 1
    call()
    tracemalloc.start()
    try:
        y = call()
        assert tracemalloc.get_traced_memory()[1] < y.nbytes + 2**20
    finally:
        tracemalloc.stop()


def test_memory_with_gaps_is_left_alone(eager):
    a, b = operands("square")
    out = np.full((70, 100), np.nan, "float32")[:, ::2]
    assert_close(matmul(a, b, xp, out), a @ b)
    assert np.isnan(out).all()


@pytest.mark.parametrize("name", SHAPES)
def test_any_number_of_threads_gives_the_same_bits(eager, name):
    a, b = operands(name)
    with xconv.config(threads=1):
        alone = matmul(a, b, xp)
    for threads in (2, 3, 8):
        with xconv.config(threads=threads):
            np.testing.assert_array_equal(matmul(a, b, xp), alone)


def test_large_products_are_shared_out_and_small_ones_are_not():
    seen = []

    def noted(tasks, threads, around, hold=None):
        tasks = list(tasks)
        seen.append(len(tasks))
        for task in tasks:
            task()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_products, "run_all", noted)
        large, small = numbers((12_000, 128)), numbers((128, 128))
        assert_close(matmul(large, small, xp), large @ small)
        assert seen == [2]
        matmul(small, small, xp)
        matmul(large.astype("int32"), small.astype("int32"), xp)  # for which there is no BLAS
        with scratch():  # inside of tiles, whose threads have enough to do
            matmul(large, small, xp)
    assert seen == [2]


def test_a_large_product_takes_more_than_one_thread(eager, monkeypatch):
    barrier, seen = threading.Barrier(2), set()

    def product(*arrays):
        if threading.get_ident() not in seen and len(seen) < 2:
            seen.add(threading.get_ident())
            barrier.wait(timeout=60)
        return np.matmul(*arrays)

    monkeypatch.setattr(_products, "numpy_matmul", product)
    monkeypatch.setattr(_products, "fits", lambda a, b: False)
    monkeypatch.setattr(_products, "is_middling", lambda *operands: False)
    a, b = operands("tall")
    with xconv.config(threads=2):
        assert_close(matmul(a, b, xp), a @ b)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("size", "count", "unit"), list(itertools.product([1, 15, 16, 17, 100, 4001], [2, 3, 64], [1, 16, 64]))
)
@pytest.mark.parametrize("head", [0.0, 0.1, 0.4])
def test_cuts_cover_everything_once(size, count, unit, head):
    cuts = list(_products._cuts(size, count, unit, head))
    assert cuts[0].start == 0
    assert cuts[-1].stop == size
    assert all(one.stop == other.start for one, other in itertools.pairwise(cuts))
    assert all(cut.start < cut.stop and cut.start % unit == 0 for cut in cuts)
    sizes = [cut.stop - cut.start for cut in cuts]
    rest = sizes[1:] if head else sizes
    assert max(rest, default=0) - min(rest[:-1], default=max(rest, default=0)) <= unit
    most = -(-size // unit) - len(cuts) + 1  # units: the others have one at least
    if head and len(cuts) > 1:  # the first one is longer, by that share of the whole
        assert sizes[0] == most * unit or abs(sizes[0] - sum(rest) / len(rest) - head * size) <= 2 * unit
    assert len(cuts) % 2 == 0 or len(cuts) == -(-size // unit)  # no thread of two is left without work


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(60, 3000), st.integers(40, 2200))
def test_few_rows_have_the_same_bits_on_any_threads(rows, inner, columns):
    """On those of BLAS, if there are as many, on ours, and on one; with the columns cut alike."""
    a, b = numbers((rows, inner), seed=1), numbers((inner, columns), seed=2)
    expected = a.astype("float64") @ b.astype("float64")
    found = []
    for blas, threads, large in itertools.product((1, cores()), (1, 2, 8), (0, 10**9)):
        with (
            pytest.MonkeyPatch.context() as patch,
            threadpoolctl.threadpool_limits(blas, user_api="blas"),
            xconv.config(threads=threads),
        ):
            patch.setattr(_products, "ROW_LARGE", large)
            found.append(matmul(a, b, xp))
    assert_close(found[0], expected.astype("float32"), rtol=1e-4, atol=1e-3)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 16, 127, 128])
def test_few_rows_times_a_narrow_matrix_too(columns):
    """Which BLAS would cut along its inner axis for threads of its own."""
    a, b = numbers((2, 2**20 // columns), seed=1), numbers((2**20 // columns, columns), seed=2)
    found = []
    for blas, threads in itertools.product((1, cores()), (1, 2, 8)):
        with threadpoolctl.threadpool_limits(blas, user_api="blas"), xconv.config(threads=threads):
            found.append(matmul(a, b, xp))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("count", [1, 2, 8, 9, 64])
@pytest.mark.parametrize("inner", [100, 600, 6000])
def test_few_rows_are_cut_by_the_number_of_cores(monkeypatch, count, inner):
    """As BLAS cuts them on few cores, in halves at most on many; the same for any number of threads."""
    a, b = numbers((2, inner), seed=1), numbers((inner, 1000), seed=2)
    seen = []
    by_rows = _products._by_rows
    monkeypatch.setattr(_products, "cores", lambda: count)
    monkeypatch.setattr(_products, "own_threads", lambda wanted: 0)
    monkeypatch.setattr(
        _products, "_by_rows", lambda *piece: seen.append(piece[1].shape[1]) or by_rows(*piece)
    )
    for threads in (1, 2, 8):
        seen.clear()
        with xconv.config(threads=threads):
            assert_close(matmul(a, b, xp), a @ b, rtol=1e-4, atol=1e-3)
        many = {100: 1, 600: count if count <= 8 else 1, 6000: count if count <= 8 else 2}[inner]
        assert sorted(seen) == [1000 // many] * many


@pytest.mark.parametrize(("size", "count"), [(1000, 2), (1001, 2), (10, 4), (3, 8), (1, 2), (0, 2), (7, 1)])
def test_parts_are_those_that_blas_gives_its_threads(size, count):
    parts = list(_products._parts(size, count))
    assert [i for part in parts for i in range(size)[part]] == list(range(size))
    lengths = [part.stop - part.start for part in parts]
    assert sorted(lengths, reverse=True) == lengths
    assert all(length in (size // count, -(-size // count)) and length for length in lengths)


def test_arrays_of_other_libraries_are_left_to_them(backend):
    a, b = operands("few-images")
    assert_close(backend.call(lambda a, b: matmul(a, b, backend.xp), a, b), np.matmul(a, b))


@pytest.mark.parametrize("rows", [1, 3, 700])
def test_dense_layers_are_such_products(backend, rows):
    x, w, b = numbers((rows, 90)), numbers((90, 70)), numbers((70,))
    expected = x.astype("float64") @ w.astype("float64") + b
    assert_close(backend.call(xconv.dense, x, w, b), expected.astype("float32"))
