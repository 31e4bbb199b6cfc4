"""Products in blocks that BLAS multiplies where they stand: the same numbers, wherever the cuts fall."""

import numpy as np
import pytest
import threadpoolctl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import xconv
from cases import numbers
from compare import assert_close
from xconv import _blas, _blocks, _products
from xconv._algorithms import _cost
from xconv._blas import one_blas_thread, own_threads
from xconv._blocks import fits, in_blocks, product
from xconv._namespace import numpy_namespace as xp
from xconv._products import matmul
from xconv._scratch import scratch

DTYPES = st.sampled_from(["float32", "float64"])


def limited(patch, most):
    """Blocks of so many multiplications, on any machine; none if zero."""
    for module in (_blocks, _products, _cost):
        patch.setattr(module, "small_products", lambda: most)


@pytest.fixture(params=[0, 200, 5000, 10**6])
def small(request, monkeypatch):
    """How many multiplications are not packed."""
    limited(monkeypatch, request.param)
    return request.param


@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(1, 60),
    st.integers(1, 80),
    st.integers(1, 200),
    st.sampled_from([60, 1000, 20_000, 10**6]),
    st.booleans(),
    st.booleans(),
    DTYPES,
)
def test_blocks_make_the_whole(lead, rows, inner, columns, most, shared, gaps, dtype):
    a = numbers((*lead, rows, inner), dtype, seed=1)
    b = numbers((inner, columns) if shared else (*lead, inner, columns), dtype, seed=2)
    expected = a @ b
    with pytest.MonkeyPatch.context() as patch:
        limited(patch, most)
        patch.setattr(_blocks, "SUM", 30)
        patch.setattr(_blocks, "STREAM", 10)
        patch.setattr(_blocks, "BAND", 2000)
        patch.setattr(_blocks, "TOGETHER", 3000)
        patch.setattr(_blocks, "CALL", min(most, 2**15))
        for right in (b, in_blocks(b)):
            out = np.full((*lead, rows, columns + 3 * gaps), np.nan, dtype)[..., :columns]
            assert product(a, right, out, blocked=right.ndim > b.ndim) is out
            assert_close(out, expected, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_blocks_of_columns_are_runs_of_memory(small):
    b = numbers((2, 7, 192), seed=3)
    blocks = in_blocks(b)
    if not small:
        assert blocks is b
        return
    assert blocks.shape == (2, 3, 7, 64)
    assert blocks.flags.c_contiguous
    assert not np.shares_memory(blocks, b)
    np.testing.assert_array_equal(np.concatenate(np.moveaxis(blocks, 1, 0), axis=-1), b)


@pytest.mark.parametrize(
    "b", [np.ones((7, 64), "f4"), np.ones((7, 70), "f4"), np.ones((7, 128), "c8"), np.ones((7, 0), "f4"), [1]],
    ids=["one-block", "no-width", "complex", "nothing", "a-list"],
)  # fmt: skip
def test_what_blocks_do_not_pay_for_is_left_as_it_is(monkeypatch, b):
    limited(monkeypatch, 10**6)
    assert in_blocks(b) is b


@pytest.mark.parametrize(
    ("columns", "width"), [(128, 64), (192, 64), (288, 96), (144, 48), (160, 32), (112, 16), (200, 40)]
)
def test_a_width_that_divides_the_columns_is_found(monkeypatch, columns, width):
    limited(monkeypatch, 10**6)
    assert in_blocks(np.ones((3, columns), "f4")).shape == (columns // width, 3, width)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_the_last_of_many_blocks_is_filled_with_zeros(monkeypatch, lead):
    """Which are not in the result."""
    limited(monkeypatch, 10**6)
    a, b = numbers((*lead, 5, 30), seed=1), numbers((*lead, 30, 1000), seed=2)
    blocks = in_blocks(b)
    assert blocks.shape == (*lead, 16, 30, 64)
    assert not blocks[..., -1, :, 40:].any()
    out = np.full((*lead, 5, 1003), np.nan, "float32")
    assert_close(product(a, blocks, out[..., :1000], blocked=True), a @ b)
    assert np.isnan(out[..., 1000:]).all()


@pytest.mark.parametrize("inner", [2048, 1030, 1031, 4096])
def test_a_long_inner_axis_is_added_up_in_parts(monkeypatch, inner):
    """Of equal length, all at once, where they can be; one after the other where not."""
    limited(monkeypatch, 10**6)
    a, b = numbers((20, inner), seed=1), numbers((inner, 192), seed=2)
    seen = []
    monkeypatch.setattr(
        _blocks, "numpy_matmul", lambda x, y, out: seen.append(x.shape[-1]) or np.matmul(x, y, out)
    )
    y = product(a, in_blocks(b), np.empty((20, 192), "float32"), blocked=True)
    assert max(seen) <= _blocks.SUM
    assert len(seen) <= 2 or inner == 1031
    expected = a.astype("float64") @ b.astype("float64")
    assert_close(y, expected.astype("float32"), rtol=1e-5, atol=1e-4)


def test_only_real_rows_that_are_large_enough_are_cut(monkeypatch):
    limited(monkeypatch, 1000)
    a, b = numbers((20, 30)), numbers((30, 40))
    assert fits(a, b)
    assert not fits(a[:3], b)
    assert not fits(a[:, :1], b[:1])  # 800 products
    assert not fits(a.astype("complex64"), b.astype("complex64"))
    assert not fits(a.astype("float64"), b)
    assert not fits(np.asfortranarray(a), b)
    assert not fits(a, np.asfortranarray(b))
    wide = numbers((30, 400))
    assert wide.nbytes > _blocks.NEAR
    assert fits(a[: _blocks.FEW], wide)
    assert not fits(a[: _blocks.FEW + 1], wide)  # packed
    limited(monkeypatch, 0)
    assert not fits(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize(
    "shape", [(300, 40, 64), (40, 70, 320), (9, 30, 128), (3, 50, 192), (8, 1030, 1000), (30, 7, 520)]
)
def test_shared_out_products_are_cut_as_well(monkeypatch, small, shape, blocked, threads, dtype):
    """Of any kind: too few for threads, for BLAS's own, for ours."""
    rows, inner, columns = shape
    a, b = numbers((rows, inner), dtype, seed=1), numbers((inner, columns), dtype, seed=2)
    right = in_blocks(b) if blocked else b
    blocked = columns if right.ndim > 2 else 0
    found = []
    for large, middling in ((0, 0), (10**9, 0), (0, 10**9)):
        for name, limit in (("ALONE", 0), ("LARGE", large), ("MIDDLING", middling), ("PIECE", 10_000)):
            monkeypatch.setattr(_products, name, limit)
        out = np.full((rows, columns), np.nan, dtype)
        with xconv.config(threads=threads):
            assert_close(matmul(a, right, xp, blocked=blocked), a @ b)
            matmul(a, right, xp, out, blocked=blocked)
            with scratch():
                assert_close(matmul(a, right, xp, blocked=blocked), a @ b)
        found.append(out)
    for y in found:
        assert_close(y, a @ b)


@pytest.mark.parametrize(
    ("name", "groups"), [("pointwise", 1), ("im2col", 1), ("im2col", 2), ("winograd", 1)]
)
@pytest.mark.parametrize("outputs", [256, 1044])
def test_a_plan_keeps_its_kernel_in_blocks(monkeypatch, small, name, groups, outputs):
    """The last of which may be filled with zeros; a bias may be one more term."""
    monkeypatch.setattr(_products, "MIDDLING", 0)
    size = 1 if name == "pointwise" else 3
    x, w = numbers((2, 29, 28, 12), seed=1), numbers((size, size, 12 // groups, outputs), seed=2)
    b = numbers((outputs,), seed=3)
    with xconv.config(fast=False):
        layer = xconv.plan(xconv.conv, x, w, b, padding=size // 2, groups=groups, algorithm=name)
        (kernel,) = layer._kept.kernels.values()
        plain = {"pointwise": 2, "im2col": 2 + (groups > 1), "winograd": 4}[name]
        assert kernel.weights.ndim == plain + bool(small)
        expected = xconv.conv(x, w, b, padding=size // 2, groups=groups, algorithm="direct")
        assert_close(layer(x), expected, rtol=1e-5)


def test_what_is_better_packed_is_not_kept_in_blocks(monkeypatch):
    """Long sums of many pixels, and what is left to BLAS and its threads; the matrix of few rows is."""
    limited(monkeypatch, 10**6)
    monkeypatch.setattr(_products, "ALONE", 0)

    def kept(x, w, call, **options):
        with xconv.config(fast=False):
            layer = xconv.plan(call, x, w, **options)
            layer(x)
        (kernel,) = layer._kept.kernels.values()
        return kernel.weights.ndim == 3

    x, w = numbers((3, 100, 100, 96), seed=1), numbers((1, 1, 96, 1024), seed=2)
    assert kept(x, w, xconv.conv)
    assert not kept(x[:, :10, :10], w, xconv.conv)  # middling
    long = numbers((3, 100, 100, 160), seed=1), numbers((1, 1, 160, 1024), seed=2)
    assert not kept(*long, xconv.conv)
    assert kept(numbers((16, 160)), long[1][0, 0], xconv.dense)
    assert not kept(numbers((17, 160)), long[1][0, 0], xconv.dense)


@settings(max_examples=150)
@given(
    st.one_of(st.integers(4, 127), st.integers(128, 900)),
    st.one_of(st.integers(1, 256), st.integers(1, 70).map(lambda n: 32 * n)),
    st.one_of(st.integers(2, 300), st.integers(300, 2000)),
)
def test_the_threads_of_blas_give_the_same_bits_in_float32(rows, inner, columns):
    """What `is_middling` rests on, for every size it may leave to them."""
    assume(max(rows, inner) >= _products.TALL and rows * inner * columns <= 3 * 10**7)
    a, b = numbers((rows, inner), seed=1), numbers((inner, columns), seed=2)
    left = _products.is_middling((rows, inner), 2**20 // (rows * inner) + 2, a)
    assert left == bool(_blocks.small_products())
    if not left:  # another BLAS, which is not asked
        return
    turned, stood = np.asfortranarray(a), np.asfortranarray(b)
    found = []
    for threads in (1, 2, 3, 8):
        with threadpoolctl.threadpool_limits(threads, user_api="blas"):
            found.append([a @ b, turned @ b, a @ stood, turned @ stood, a @ a.T])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(other, one)


@settings(max_examples=40)
@given(
    st.one_of(st.integers(4, 127), st.integers(128, 3000)),
    st.one_of(st.integers(2, 256), st.integers(1, 140).map(lambda n: 32 * n)),
    st.floats(0, 1),
)
def test_what_is_left_to_them_has_the_bits_of_one_thread(rows, inner, share):
    """Which does it in pieces, where it is large."""
    work = _products.LARGE + share * (_products.MIDDLING - _products.LARGE)
    columns = int(work / (rows * inner))
    assume(2 <= columns <= 5000)
    a, b = numbers((rows, inner), seed=1), numbers((inner, columns), seed=2)
    with threadpoolctl.threadpool_limits(4, user_api="blas"):
        found = matmul(a, b, xp)
        with xconv.config(threads=1):
            np.testing.assert_array_equal(matmul(a, b, xp), found)
    assert_close(found, a @ b, rtol=1e-5)


def test_other_sizes_are_not_left_to_them(monkeypatch):
    limited(monkeypatch, 10**6)
    a = numbers((2, 2))
    assert _products.is_middling((128, 480), 30, a)
    assert _products.is_middling((4, 128, 480), 30, a)
    assert _products.is_middling((128, 255), 30, a)
    assert not _products.is_middling((128, 481), 30, a)
    assert _products.is_middling((4, 480), 300, a)
    assert not _products.is_middling((3, 480), 300, a)
    assert _products.is_middling((128, 96), 30, a)
    assert not _products.is_middling((127, 96), 30, a)
    assert not _products.is_middling((128, 480), 4, a)
    assert not _products.is_middling((12800, 480), 1, a)
    assert not _products.is_middling((12800, 480), 30, a)
    assert not _products.is_middling((128, 480), 30, a.astype("float64"))
    limited(monkeypatch, 0)
    assert not _products.is_middling((128, 480), 30, a)


def test_blas_takes_its_own_threads_only_where_nobody_holds_it():
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        assert own_threads(None)
        assert own_threads(3)
        assert own_threads(8)
        assert not own_threads(2)
        assert not own_threads(1)
        with one_blas_thread():
            assert not own_threads(None)
        assert own_threads(None)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert not own_threads(None)


@pytest.mark.parametrize(
    ("architectures", "expected"),
    [
        (["SkylakeX"], 10**6),
        (["SkylakeX", "Cooperlake"], 10**6),
        (["Haswell"], 0),
        (["Prescott"], 0),
        (["SkylakeX", "Haswell"], 0),
        ([None], 0),
        ([], 0),
    ],
)
def test_only_kernels_that_are_known_are_trusted(monkeypatch, architectures, expected):
    class Library:
        def __init__(self, architecture):
            self.architecture, self.filepath = architecture, "/lib/libblas.so"

    monkeypatch.setattr(_blocks, "libraries", lambda: [Library(name) for name in architectures])
    assert _blocks.small_products.__wrapped__() == expected
    assert _blocks.cuts_columns.__wrapped__() == (
        bool(architectures) and {"SkylakeX", "Cooperlake", "Haswell"}.issuperset(architectures)
    )


def test_of_several_libraries_the_one_that_numpy_brings_counts(monkeypatch):
    class Library:
        def __init__(self, folder, architecture):
            self.filepath, self.architecture = folder + ".libs/libblas.so", architecture

    ours, other = Library(_blocks.numpy_home, "SkylakeX"), Library("/elsewhere/pictures", "Zen")
    monkeypatch.setattr(_blocks, "libraries", lambda: [other, ours])
    assert _blocks.small_products.__wrapped__() == 10**6


def test_the_libraries_are_those_of_this_process():
    assert {lib.filepath for lib in _blas.libraries()} <= {
        info["filepath"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"
    }


def test_a_long_sum_is_as_exact_as_a_short_one(monkeypatch):
    limited(monkeypatch, 10**6)
    a, b = numbers((240, 8000), seed=1), numbers((8000, 64), seed=2)
    exact = a.astype("float64") @ b.astype("float64")
    error = product(a, b, np.empty((240, 64), "float32")) - exact
    assert 1e-9 < np.linalg.norm(error) / np.linalg.norm(exact) < 1e-6


class Subclass(np.ndarray):
    """An array of NumPy of another type, as one that is mapped from a file."""


@pytest.mark.parametrize("function", [xconv.conv, xconv.dense])
@pytest.mark.parametrize("bound", [False, True])
def test_what_comes_after_a_product_is_done_for_arrays_of_other_types(tmp_path, small, function, bound):
    """Also with weights in blocks."""
    x, w, b = numbers((1, 30, 40, 100)), numbers((100, 128), seed=1), numbers((128,), seed=2)
    expected = np.maximum(x @ w + b, 0)
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=x.shape)
    mapped[...] = x
    w = w.reshape(1, 1, 100, 128) if function is xconv.conv else w
    for other in (mapped, x.view(Subclass)):
        call = xconv.plan(function, other, w, b, activation="relu") if bound else None
        for _ in range(2):
            y = call(other) if call else function(other, w, b, activation="relu")
            assert_close(np.asarray(y), expected)
