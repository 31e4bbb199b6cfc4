"""`unfold` and `fold`: windows as features, and their sum back to where they came from."""

import math

import numpy as np
import pytest

import reference
import xconv
from cases import (
    data_to,
    numbers,
    per_axis,
    pytest_generate_tests,  # noqa: F401
    seed_of,
    small_integers,
    thinned,
)
from compare import assert_close, assert_same

LAZY_STEP = 3


class Case:
    """One unfold, and the fold back: canonical sizes, and the options as the caller spells them."""

    def __init__(self, name, sizes, window, /, *, channels=2, batch=2, int_window=False, **options):
        self.name, self.sizes, self.window = name, sizes, window
        self.channels, self.batch, self.options = channels, batch, options
        self.given_window = window[0] if int_window else window

    def __str__(self):
        return self.name

    @property
    def rank(self):
        return len(self.window)

    @property
    def geometry(self):
        stride, dilation = (per_axis(self.options.get(name, 1), self.rank) for name in ("stride", "dilation"))
        padding = self.options.get("padding", "valid")
        pads = reference.pads_of(padding, self.sizes, self.window, stride, dilation)
        return {"stride": stride, "pads": pads, "dilation": dilation}

    def arranged(self, array):
        array = array[0] if self.batch is None else array
        return data_to(array, self.options.get("layout", "NHWC"), self.rank)

    def shape(self):
        return (1 if self.batch is None else self.batch, *self.sizes, self.channels)

    def run_unfold(self, backend, given="float32"):
        """What the call gives and what the reference gives."""
        x = numbers(self.shape(), given, seed=seed_of(self.name))
        expected = self.arranged(reference.unfold(x, self.window, **self.geometry))
        return backend.call(xconv.unfold, self.arranged(x), self.given_window, **self.options), expected

    def run_fold(self, backend, given="float32", make=numbers):
        """What the call gives and what the reference gives."""
        geometry = self.geometry
        counts = reference.pool_sizes(self.sizes, self.window, **geometry)
        shape = (self.shape()[0], *counts, self.channels * math.prod(self.window))
        columns = make(shape, given, seed=seed_of(self.name))
        expected = reference.fold(columns, self.sizes, self.window, **geometry)
        options = self.options | {"padding": geometry["pads"]}
        arguments = self.arranged(columns), self.sizes, self.given_window
        return backend.call(xconv.fold, *arguments, **options), self.arranged(expected)


def cases():
    """Cases over rank, geometry and layout."""
    for rank, sizes in {1: (7,), 2: (6, 5), 3: (4, 5, 3), 4: (3, 3, 2, 3)}.items():
        window = (3, 2, 2, 1)[:rank]
        yield Case(f"{rank}d", sizes, window)
        yield Case(f"{rank}d-stride", sizes, window, stride=2)
        yield Case(f"{rank}d-stride-window", sizes, (2,) * rank, stride=2)
        yield Case(f"{rank}d-padding", sizes, window, padding=1)
        yield Case(f"{rank}d-pairs", sizes, window, padding=((1, 0),) * (rank - 1) + ((0, 2),), stride=2)
        yield Case(f"{rank}d-dilation", sizes, (2,) * rank, dilation=2, padding=1)
        yield Case(f"{rank}d-same", sizes, window, padding="same", stride=2)
        yield Case(f"{rank}d-same-lower", sizes, window, padding="same_lower")
        yield Case(f"{rank}d-full", sizes, window, padding="full")
        yield Case(f"{rank}d-first", sizes, window, layout="channels_first", padding=1)
        yield Case(f"{rank}d-unbatched", sizes, window, batch=None)
        yield Case(f"{rank}d-unbatched-first", sizes, window, batch=None, layout="NCHW", stride=2)
    yield Case("int-window", (5, 6), (3, 3), int_window=True)
    yield Case("int-window-1d", (5,), (3,), int_window=True, layout="NCW")
    yield Case("per-axis", (6, 7), (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 3))
    yield Case("crop", (6, 7), (3, 2), padding=((-1, 0), (2, -2)))
    yield Case("window-1", (3, 4), (1, 1))
    yield Case("window-1-stride", (5, 4), (1, 1), stride=3)
    yield Case("window-is-all", (3, 4), (3, 4))
    yield Case("gaps", (9,), (2,), stride=4)


GRID = list(cases())


@thinned("case", GRID, every=5)
def test_unfold_agrees_with_the_reference(backend, case):
    actual, expected = case.run_unfold(backend)
    assert_same(actual, expected)


@thinned("case", GRID, every=5)
def test_fold_agrees_with_the_reference(backend, case):
    actual, expected = case.run_fold(backend)
    assert actual.dtype == "float32"
    assert_close(actual, expected)


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex128", "int8", "uint8", "int64"])
def test_unfold_keeps_the_dtype(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    assert_same(*Case("unfold-dtype", (5, 4), (3, 2), padding=1).run_unfold(backend, dtype))


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex128"])
def test_fold_keeps_the_floating_dtype(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    case = Case("fold-dtype", (5, 4), (3, 2), padding=1)
    actual, expected = case.run_fold(backend, dtype, small_integers)
    assert_same(actual, expected.astype(dtype))


def test_fold_of_integers_is_exact(backend):
    columns = np.full((1, 4, 2), 100, "int8")
    result = backend.call(xconv.fold, columns, (5,), 2)
    assert result.dtype.kind == "i"
    assert result.ravel().tolist() == [100, 200, 200, 200, 100]


def test_fold_adds_what_unfold_took(backend):
    """fold(unfold(x)) is x times the number of windows over each element."""
    case = Case("coverage", (6, 5), (3, 2), stride=(1, 2), padding=((1, 0), (0, 1)), dilation=(1, 2))
    x = small_integers(case.shape(), seed=1)

    def there_and_back(array):
        columns = backend.call(xconv.unfold, array, case.window, **case.options)
        return backend.call(xconv.fold, columns, case.sizes, case.window, **case.options)

    assert_same(there_and_back(x), x * there_and_back(np.ones_like(x)))


def test_a_matmul_after_unfold_is_conv(backend):
    x, w = small_integers((2, 5, 6, 3), seed=1), small_integers((3, 2, 3, 4), seed=2)
    columns = backend.call(xconv.unfold, x, (3, 2), stride=2)
    kernel = np.moveaxis(w, 2, 0).reshape(18, 4)  # channel-major, then raster
    assert_same(columns @ kernel, backend.call(xconv.conv, x, w, stride=2))


def test_output_size_may_be_one_int(backend):
    columns = small_integers((1, 3, 3, 4), seed=3)
    whole = backend.call(xconv.fold, columns, (4, 4), (2, 2))
    assert_same(backend.call(xconv.fold, columns, 4, (2, 2)), whole)


@thinned("workspace", [500, 1], every=2)
def test_tiles_join_without_seams(backend, workspace):
    case = Case("unfold-tiles", (7, 8), (3, 2), padding=((1, 2), (2, 0)), batch=3)
    with xconv.config(workspace=workspace):
        assert_same(*case.run_unfold(backend))
        assert_close(*case.run_fold(backend))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_empty_batch_keeps_its_shape(backend, layout):
    case = Case("unfold-empty", (5, 4), (3, 2), batch=0, layout=layout)
    assert_same(*case.run_unfold(backend))
    actual, expected = case.run_fold(backend)
    assert_same(actual, expected.astype("float32"))


@pytest.mark.parametrize(
    ("columns", "output_size", "window", "argument"),
    [
        ((1, 4, 3), (5,), (2,), "columns"),  # 3 features are no multiple of 2 cells
        ((1, 4, 2), (7,), (2,), "columns"),  # a fold into 7 has 6 windows, not 4
        ((1, 4, 2), (5, 5), (2,), "(window|output_size)"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(backend, columns, output_size, window, argument):
    with pytest.raises(ValueError, match=f"{argument} must "):
        backend.call(xconv.fold, np.ones(columns, "float32"), output_size, window)


def test_a_window_longer_than_the_input_is_refused(backend):
    with pytest.raises(ValueError, match="window must "):
        backend.call(xconv.unfold, np.ones((1, 3, 1), "float32"), (4,))
