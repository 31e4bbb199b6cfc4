"""`max_unpool`: the elements of a pool, put back where their indices say."""

import numpy as np
import pytest

import reference
import xconv
from cases import data_to, default_integer, numbers, pytest_generate_tests, thinned  # noqa: F401
from compare import assert_same


class Case:
    """One unpool: canonical sizes, and the options as the caller spells them."""

    def __init__(self, name, sizes, window, outputs, /, *, batch=2, int_window=False, **options):
        self.name, self.sizes, self.window, self.outputs = name, sizes, window, outputs
        self.batch, self.options = batch, options
        self.given_window = window[0] if int_window else window

    def __str__(self):
        return self.name

    def run(self, backend, given="float32", indices=None):
        """What the call gives, and what the reference gives for `outputs` sizes."""
        rank, layout = len(self.window), self.options.get("layout", "NHWC")
        random = np.random.default_rng(6)
        shape = (1 if self.batch is None else self.batch, *self.sizes, 2)
        x = numbers(shape, given, seed=6)
        if indices is None:
            plane = int(np.prod(self.outputs))
            indices = random.integers(0, plane, size=shape, dtype=default_integer(backend))
        expected = reference.max_unpool(x, indices, self.outputs)
        if self.batch is None:
            x, indices, expected = x[0], indices[0], expected[0]
        arrays = data_to(x, layout, rank), data_to(indices, layout, rank)
        actual = backend.call(xconv.max_unpool, *arrays, self.given_window, **self.options)
        return actual, data_to(expected, layout, rank)


GRID = [
    Case("1d", (3,), (2,), (6,)),
    Case("1d-stride", (3,), (3,), (7,), stride=2),
    Case("1d-padding", (4,), (3,), (7,), stride=2, padding=1),
    Case("1d-first", (3,), (2,), (6,), layout="NCW"),
    Case("2d", (2, 3), (2, 2), (4, 6)),
    Case("2d-int", (2, 3), (2, 2), (4, 6), int_window=True),
    Case("2d-first", (2, 3), (2, 2), (4, 6), layout="NCHW"),
    Case("2d-per-axis", (2, 3), (3, 2), (5, 7), stride=(2, 3), padding=(0, 0), output_size=(5, 7)),
    Case("2d-pairs", (2, 3), (3, 2), (4, 6), padding=((1, 1), (0, 0))),
    Case("2d-output-size", (2, 2), (2, 2), (5, 5), output_size=(5, 5)),
    Case("2d-output-size-int", (2, 2), (2, 2), (5, 5), output_size=5),
    Case("2d-unbatched", (2, 3), (2, 2), (4, 6), batch=None),
    Case("2d-unbatched-first", (2, 3), (2, 2), (4, 6), batch=None, layout="NCHW"),
    Case("2d-empty-batch", (2, 3), (2, 2), (4, 6), batch=0),
    Case("3d", (2, 1, 2), (2, 2, 2), (4, 2, 4)),
    Case("3d-first", (2, 1, 2), (2, 2, 2), (4, 2, 4), layout="NCDHW"),
    Case("4d", (1, 2, 1, 2), (2, 1, 2, 2), (2, 2, 2, 4)),
]


@thinned("case", GRID, every=2)
def test_unpool_agrees_with_the_reference(backend, case):
    """The indices are random, so that several elements of a plane share one: the last write wins."""
    assert_same(*case.run(backend))


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "int8", "int64"])
def test_unpool_keeps_the_dtype(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    assert_same(*Case("unpool-dtype", (2, 3), (2, 2), (4, 6)).run(backend, dtype))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_indices_may_be_of_any_integer_type(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    indices = np.random.default_rng(7).integers(0, 24, size=(2, 2, 3, 2)).astype(dtype)
    assert_same(*Case("unpool-indices", (2, 3), (2, 2), (4, 6)).run(backend, indices=indices))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("options", [{}, {"stride": 3}, {"padding": 1}, {"stride": 1}], ids=str)
def test_unpool_puts_back_what_max_pool_took(backend, layout, options):
    """Every largest element stands in its old place, and everything else is zero."""
    x = numbers((2, 6, 9, 3)) + 2
    given = data_to(x, layout, 2)
    values, indices = backend.call(xconv.max_pool, given, 3, return_indices=True, layout=layout, **options)
    result = backend.call(xconv.max_unpool, values, indices, 3, output_size=(6, 9), layout=layout, **options)
    kept = result != 0
    assert_same(result[kept], given[kept])
    assert set(np.unique(values)) == set(np.unique(result[kept]))


def test_the_last_write_wins_in_raster_order(backend):
    """In every plane by itself, over both spatial axes."""
    x = np.arange(1, 9, dtype="float32").reshape(1, 2, 2, 2)
    result = backend.call(xconv.max_unpool, x, np.full((1, 2, 2, 2), 5, default_integer(backend)), 2)
    assert result[0, 1, 1].tolist() == [7, 8]
    assert np.count_nonzero(result) == 2


def test_nan_and_zero_are_elements_like_others(backend):
    """A later zero replaces an earlier NaN."""
    x = np.array([np.nan, 0, np.nan, 3], "float32").reshape(1, 4, 1)
    indices = np.array([1, 1, 2, 0], default_integer(backend)).reshape(1, 4, 1)
    result = backend.call(xconv.max_unpool, x, indices, (1,))
    assert_same(result, np.array([3, 0, np.nan, 0], "float32").reshape(1, 4, 1))


INTEGERS = np.zeros((1, 2, 2, 1), "int32")


@pytest.mark.parametrize(
    ("indices", "window", "options", "error", "argument"),
    [
        (INTEGERS.astype("float32"), 2, {}, TypeError, "indices"),
        (INTEGERS[:, :1], 2, {}, ValueError, "indices"),
        (INTEGERS, (2,), {}, ValueError, "x|window"),
        (INTEGERS, 2, {"stride": 0}, ValueError, "stride"),
        (INTEGERS, 2, {"output_size": (4,)}, ValueError, "output_size"),
        (INTEGERS, 2, {"output_size": (4, 0)}, ValueError, "output_size"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(backend, indices, window, options, error, argument):
    x = np.ones((1, 2, 2, 1), "float32")
    with pytest.raises(error, match=f"({argument}) must "):
        backend.call(xconv.max_unpool, x, indices, window, **options)
