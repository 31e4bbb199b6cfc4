"""`max_pool`, `avg_pool`, `lp_pool` and `reduce_window`, against the reference."""

import itertools
import math
import random

import numpy as np
import pytest

import reference
import xconv
from cases import (
    data_to,
    default_float,
    default_integer,
    numbers,
    per_axis,
    pytest_generate_tests,  # noqa: F401
    seed_of,
    small_integers,
    sum_dtype,
    thinned,
)
from compare import assert_close, assert_same

LAZY_STEP = 3

SIZES = {1: (7,), 2: (6, 5), 3: (4, 5, 3), 4: (3, 4, 3, 3)}
WINDOWS = {1: (3,), 2: (3, 2), 3: (2, 3, 2), 4: (2, 2, 1, 3)}
REDUCTIONS = ["max", "min", "sum", "prod", "mean"]


class Case:
    """The geometry of one pool: canonical sizes, and the options as the caller spells them."""

    def __init__(self, name, sizes, window, /, *, channels=2, batch=2, int_window=False, **options):
        self.name, self.sizes, self.window = name, sizes, window
        self.channels, self.batch, self.options = channels, batch, options
        self.given_window = window[0] if int_window else window

    def __str__(self):
        return self.name

    @property
    def rank(self):
        return len(self.window)

    def geometry(self, stride=None):
        """What the reference is told; a pool's stride is its window unless it is given."""
        options = self.options
        stride = per_axis(options.get("stride") or stride or self.window, self.rank)
        dilation = per_axis(options.get("dilation", 1), self.rank)
        holes = per_axis(options.get("input_dilation", 1), self.rank)
        spread = [(n - 1) * hole + 1 for n, hole in zip(self.sizes, holes, strict=True)]
        pads = reference.pads_of(options.get("padding", "valid"), spread, self.window, stride, dilation)
        return {"stride": stride, "pads": pads, "dilation": dilation}

    def is_full(self):
        """Whether every window of `reduce_window` holds an element."""
        geometry = self.geometry(stride=1)
        geometry["input_dilation"] = per_axis(self.options.get("input_dilation", 1), self.rank)
        out = reference.pool_sizes(self.sizes, self.window, **geometry)
        return all(
            cells for _, cells, _ in reference.window_cells(self.sizes, self.window, out=out, **geometry)
        )

    def data(self, given="float32", make=numbers):
        shape = (1 if self.batch is None else self.batch, *self.sizes, self.channels)
        return make(shape, given, seed=seed_of(self.name))

    def arranged(self, array):
        array = array[0] if self.batch is None else array
        return data_to(array, self.options.get("layout", "NHWC"), self.rank)

    def call(self, backend, function, x, **extra):
        return backend.call(function, self.arranged(x), self.given_window, **self.options, **extra)

    def max_pool(self, backend, x, *, nan="propagate"):
        """Values and indices: what the call gives, and what the reference gives."""
        ceil, omit = self.options.get("ceil_mode", False), nan == "omit"
        geometry = self.geometry() | {"ceil": ceil, "omit_nan": omit}
        values = reference.pool(x, "max", self.window, **geometry).astype(x.dtype)
        indices = reference.max_pool_indices(x, self.window, **geometry)
        actual = self.call(backend, xconv.max_pool, x, nan=nan, return_indices=True)
        alone = self.call(backend, xconv.max_pool, x, nan=nan)
        assert_same(alone, actual[0])
        return actual, (self.arranged(values), self.arranged(indices).astype(default_integer(backend)))

    def avg_pool(self, backend, x, *, result_dtype=None, **extra):
        """What the call gives, and what the reference gives."""
        reduction = "mean_padded" if extra.get("count_include_pad") else "mean"
        geometry = self.geometry() | {"ceil": self.options.get("ceil_mode", False)}
        if "divisor" in extra:
            reduction, geometry = "divided", geometry | {"divisor": extra["divisor"]}
        expected = reference.pool(x, reduction, self.window, **geometry).astype(result_dtype or x.dtype)
        return self.call(backend, xconv.avg_pool, x, **extra), self.arranged(expected)

    def lp_pool(self, backend, x, p):
        """What the call gives, and what the reference gives."""
        geometry = self.geometry() | {"ceil": self.options.get("ceil_mode", False), "p": p}
        expected = reference.pool(x, "lp", self.window, **geometry).astype(x.dtype)
        return self.call(backend, xconv.lp_pool, x, p=p), self.arranged(expected)

    def reduce_window(self, backend, x, reduction, *, result_dtype=None):
        """What the call gives, and what the reference gives."""
        geometry = self.geometry(stride=1)
        geometry["input_dilation"] = per_axis(self.options.get("input_dilation", 1), self.rank)
        expected = reference.pool(x, reduction, self.window, **geometry).astype(result_dtype or x.dtype)
        arguments = self.arranged(x), reduction, self.given_window
        return backend.call(xconv.reduce_window, *arguments, **self.options), self.arranged(expected)


def pool_cases():
    """Geometries that every pool must know."""
    for rank, sizes in SIZES.items():
        window = WINDOWS[rank]
        yield Case(f"{rank}d", sizes, window)
        yield Case(f"{rank}d-stride-1", sizes, window, stride=1)
        yield Case(f"{rank}d-stride", sizes, window, stride=tuple(range(1, rank + 1)))
        yield Case(f"{rank}d-ceil", sizes, (2,) * rank, ceil_mode=True)
        yield Case(f"{rank}d-ceil-stride", sizes, window, stride=2, ceil_mode=True)
        yield Case(f"{rank}d-padding", sizes, (3,) * rank, padding=1, stride=2)
        yield Case(f"{rank}d-padding-ceil", sizes, (3,) * rank, padding=1, stride=2, ceil_mode=True)
        yield Case(f"{rank}d-pairs", sizes, (2,) * rank, padding=((1, 0),) * (rank - 1) + ((0, 1),))
        yield Case(f"{rank}d-same", sizes, window, padding="same", stride=2)
        yield Case(f"{rank}d-same-lower", sizes, window, padding="same_lower", stride=2)
        yield Case(f"{rank}d-dilation", sizes, (2,) * rank, dilation=2, stride=1)
        yield Case(f"{rank}d-first", sizes, window, layout="channels_first", padding="same")
        yield Case(f"{rank}d-unbatched", sizes, window, batch=None)
        yield Case(f"{rank}d-unbatched-first", sizes, window, batch=None, layout="NCHW", stride=1)
        yield Case(f"{rank}d-int-window", sizes, (2,) * rank, int_window=True)
        yield Case(f"{rank}d-global", sizes, sizes)
    yield Case("ceil-drops-a-window-in-the-padding", (4,), (2,), stride=3, padding=1, ceil_mode=True)
    yield Case("ceil-stride-past-the-window", (5,), (1,), stride=3, ceil_mode=True)
    yield Case("ceil-and-high-padding", (6,), (3,), stride=2, padding=((0, 1),), ceil_mode=True)
    yield Case("ceil-and-dilation", (8,), (2,), stride=3, dilation=3, ceil_mode=True)
    yield Case("ceil-and-same", (7,), (2,), stride=3, padding="same", ceil_mode=True)
    yield Case("dilation-over-padding", (6,), (2,), stride=1, dilation=3, padding=1)
    yield Case("asymmetric", (6, 7), (3, 4), stride=(2, 3), padding=((2, 0), (1, 3)))
    yield Case("crop", (7, 6), (3, 2), padding=((-1, 0), (0, -2)), stride=1)
    yield Case("full", (4,), (3,), padding="full", stride=1)
    yield Case("causal", (5,), (3,), padding="causal", stride=1)
    yield Case("window-1", (3, 4), (1, 1))
    yield Case("window-1-stride", (5, 4), (1, 1), stride=2)
    yield Case("layout-NCW", (6,), (2,), layout="NCW")
    yield Case("layout-NDHWC", (3, 4, 3), (2, 2, 2), layout="NDHWC")
    draw = random.Random(5)
    for number in range(40):
        rank = draw.choice((1, 2, 2, 3))
        window = tuple(draw.randint(1, 3) for _ in range(rank))
        dilation = draw.choice((1, 1, 2))
        sizes = tuple(dilation * (k - 1) + 1 + draw.randint(0, 3) for k in window)
        # Padding that is less than the reach of one step into the window leaves no window without elements.
        pads = tuple((draw.randint(0, min(1, k - 1)), draw.randint(0, min(1, k - 1))) for k in window)
        yield Case(
            f"mixed-{number}",
            sizes,
            window,
            batch=draw.choice((None, 1, 2)),
            stride=tuple(draw.randint(1, 3) for _ in range(rank)),
            padding=draw.choice([pads, "same", "same_lower", "valid"]) if dilation == 1 else pads,
            dilation=dilation,
            ceil_mode=draw.random() < 0.5,
            layout=draw.choice(["channels_last", "channels_first"]),
        )


def window_cases():
    """Geometries of `reduce_window`, which also has holes and windows without any element."""
    for rank, sizes in SIZES.items():
        window = WINDOWS[rank]
        yield Case(f"window-{rank}d", sizes, window)
        yield Case(f"window-{rank}d-stride", sizes, window, stride=2, padding="same")
        yield Case(f"window-{rank}d-first", sizes, window, layout="channels_first", dilation=1, padding=1)
        yield Case(f"window-{rank}d-holes", (3,) * rank, (2,) * rank, input_dilation=2)
        yield Case(f"window-{rank}d-unbatched", sizes, window, batch=None)
    yield Case("window-crop", (6, 5), (2, 3), padding=((-1, 1), (2, -1)))
    yield Case("window-holes-and-padding", (4, 3), (3, 2), input_dilation=(2, 3), padding=((1, 2), (-1, 1)))
    yield Case("window-holes-dilation", (4,), (2,), input_dilation=3, dilation=3, stride=2)
    yield Case("window-int", (5, 4), (2, 2), int_window=True)
    yield Case("empty-padding", (3,), (2,), padding=((3, 4),))
    yield Case("empty-holes", (3,), (1,), input_dilation=2)
    yield Case("empty-2d", (3, 2), (2, 1), padding=((0, 4), (2, 0)), stride=2)


POOLS = list(pool_cases())
FULL_WINDOWS = [case for case in window_cases() if case.is_full()]
EMPTY_WINDOWS = [case for case in window_cases() if not case.is_full()]
WINDOW_GRID = [(case, reduction) for case in FULL_WINDOWS for reduction in REDUCTIONS]
EMPTY_GRID = [(case, r) for case in EMPTY_WINDOWS for r in REDUCTIONS if r != "mean"]


def many_cells(case, *_):
    """Whether a window has so many cells that each of them makes a compiler work for long."""
    return math.prod(case.window) > 12


def require(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")


def test_names_of_cases_are_unique():
    assert len({case.name for case in POOLS}) == len(POOLS)


# ---------------------------------------------------------------------------------------------------- max_pool


@thinned("case", POOLS, every=13, heavy=many_cells)
def test_max_pool_agrees_with_the_reference(backend, case):
    actual, expected = case.max_pool(backend, case.data())
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other)


@thinned("case", POOLS[2:], every=17, heavy=many_cells)
def test_max_pool_with_ties(backend, case):
    """Whole numbers of a small range, so that most windows hold their largest element twice."""
    actual, expected = case.max_pool(backend, case.data(make=small_integers))
    assert_same(actual[1], expected[1])


@thinned("dtype", ["float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64"], every=2)
def test_max_pool_keeps_the_dtype(backend, dtype):
    require(backend, dtype)
    case = Case("max-dtypes", (5, 4), (3, 2), padding=((1, 1), (0, 1)), stride=(1, 2))
    x = case.data(dtype)
    if np.dtype(dtype).kind in "iu":
        x[0, :3] = np.iinfo(dtype).min  # the smallest integer is an element, not padding
    actual, expected = case.max_pool(backend, x)
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other)


def with_nans(case):
    """Data with some NaNs, a window of nothing else, and infinities."""
    x = case.data()
    x[0, 1] = np.nan
    x[0, 2:5, 1] = np.nan
    x[1, 0, 0] = -np.inf
    x[1, 3:, 1] = np.inf
    return x


NAN_CASES = [
    Case("nan-1d", (8,), (3,), stride=1),
    Case("nan-padded", (8,), (3,), stride=2, padding=1, ceil_mode=True),
    Case("nan-dilation", (8,), (2,), stride=1, dilation=2),
    Case("nan-first", (8,), (3,), stride=1, layout="NCW"),
]


@thinned("case", NAN_CASES, every=2)
def test_nan_propagates_and_its_index_is_that_of_a_nan(backend, case):
    x = with_nans(case)
    (values, indices), (expected, first) = case.max_pool(backend, x)
    assert_same(values, expected)
    found = ~np.isnan(expected)
    assert_same(indices[found], first[found])
    plane = np.moveaxis(case.arranged(x), 1, -1) if case.options.get("layout") == "NCW" else x
    rows = np.moveaxis(indices, 1, -1) if case.options.get("layout") == "NCW" else indices
    pointed = np.take_along_axis(plane, rows, axis=1)
    pointed = np.moveaxis(pointed, -1, 1) if case.options.get("layout") == "NCW" else pointed
    assert_same(pointed, values)


@thinned("case", NAN_CASES, every=2)
def test_nan_may_be_omitted(backend, case):
    """A window of nothing but NaN gives -inf."""
    x = with_nans(case)
    actual, expected = case.max_pool(backend, x, nan="omit")
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other)
    assert np.isneginf(actual[0]).any()
    assert not np.isnan(actual[0]).any()


def test_nan_policy_of_integers_is_without_effect(backend):
    x = small_integers((1, 6, 2), "int32")
    plain = backend.call(xconv.max_pool, x, 2)
    assert_same(backend.call(xconv.max_pool, x, 2, nan="omit"), plain)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_index_of_a_padded_window_is_never_in_the_padding(backend, layout):
    """Two channels, so that in one of the layouts they do not stand side by side."""
    x = np.full((1, 3, 3, 2) if layout == "NHWC" else (1, 2, 3, 3), -np.inf, "float32")
    options = {"stride": 1, "padding": 1, "return_indices": True, "layout": layout}
    _, indices = backend.call(xconv.max_pool, x, 3, **options)
    indices = np.moveaxis(indices, -1, 1) if layout == "NHWC" else indices
    assert indices.tolist() == [[[[0, 0, 1], [0, 0, 1], [3, 3, 4]]] * 2]


def test_indices_name_the_largest_elements(backend):
    case = Case("indices", (6, 5), (3, 2), padding=((1, 1), (0, 1)), stride=(2, 1))
    x = case.data()
    values, indices = case.call(backend, xconv.max_pool, x, return_indices=True)
    flat = x.reshape(2, 30, 2)
    assert_same(np.take_along_axis(flat, indices.reshape(2, -1, 2), axis=1).reshape(values.shape), values)


# ---------------------------------------------------------------------------------------------------- avg_pool


@thinned("case", POOLS[1:], every=13, heavy=many_cells)
def test_avg_pool_agrees_with_the_reference(backend, case):
    assert_close(*case.avg_pool(backend, case.data()))


@thinned("case", POOLS[3:], every=13, heavy=many_cells)
def test_avg_pool_including_pads(backend, case):
    assert_close(*case.avg_pool(backend, case.data(), count_include_pad=True))


@pytest.mark.parametrize("divisor", [3, 2.5, -1])
def test_avg_pool_with_a_divisor(backend, divisor):
    case = Case("divisor", (5, 4), (3, 2), padding=((1, 1), (0, 1)), ceil_mode=True)
    assert_close(*case.avg_pool(backend, case.data(), divisor=divisor))


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "complex128"])
def test_avg_pool_keeps_the_dtype(backend, dtype):
    require(backend, dtype)
    case = Case("avg-dtypes", (5, 4), (3, 2), padding=((1, 1), (0, 1)), stride=(1, 2))
    actual, expected = case.avg_pool(backend, case.data(dtype))
    assert actual.dtype == dtype
    assert_close(actual, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_avg_pool_of_integers_is_floating(backend, dtype):
    """In the default floating dtype, and without wrapping on the way."""
    require(backend, dtype)
    result = default_float(backend)
    case = Case("avg-integers", (5, 4), (3, 2), padding=((1, 1), (0, 1)), stride=(1, 2))
    x = case.data(dtype) if dtype.endswith("8") else case.data(dtype, small_integers)
    actual, expected = case.avg_pool(backend, x, result_dtype=result)
    assert actual.dtype == result
    assert_close(actual, expected)


def test_avg_pool_of_float16_sums_in_float32(backend):
    require(backend, "float16")
    x = np.array([2048, 1, 1, 1, 1, 60000, 60000, -60000, 8, 8], "float16").reshape(1, 10, 1)
    expected = np.array([2052 / 5, 60016 / 5], "float16").reshape(1, 2, 1)
    assert_same(backend.call(xconv.avg_pool, x, (5,)), expected)


# ----------------------------------------------------------------------------------------------------- lp_pool


@thinned("case, p", itertools.product(POOLS, [1, 2, 3, 2.5]), every=71, heavy=many_cells)
def test_lp_pool_agrees_with_the_reference(backend, case, p):
    assert_close(*case.lp_pool(backend, case.data(), p))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_lp_pool_keeps_the_dtype(backend, dtype):
    require(backend, dtype)
    case = Case("lp-dtypes", (5, 4), (3, 2), padding=((1, 1), (0, 1)), stride=(1, 2))
    actual, expected = case.lp_pool(backend, case.data(dtype), 2)
    assert actual.dtype == dtype
    assert_close(actual, expected)


# ----------------------------------------------------------------------------------------------- reduce_window


@thinned("case, reduction", WINDOW_GRID, every=11)
def test_reduce_window_agrees_with_the_reference(backend, case, reduction):
    assert_close(*case.reduce_window(backend, case.data(), reduction))


@thinned("case, reduction", EMPTY_GRID, every=5)
def test_windows_without_elements_give_the_identity(backend, case, reduction):
    assert_close(*case.reduce_window(backend, case.data(), reduction))


@pytest.mark.parametrize("case", EMPTY_WINDOWS, ids=str)
def test_mean_of_windows_without_elements_is_refused(backend, case):
    with pytest.raises(ValueError, match=r"(padding|input_dilation|window) must "):
        backend.call(xconv.reduce_window, case.arranged(case.data()), "mean", case.window, **case.options)


@thinned(
    "dtype, reduction",
    itertools.product(["float16", "float64", "int8", "uint8", "int32", "int64"], REDUCTIONS),
    every=7,
)
def test_reduce_window_dtypes(backend, dtype, reduction):
    require(backend, dtype)
    result = np.dtype(dtype)
    if result.kind in "iu":
        result = {"sum": sum_dtype(backend, dtype), "prod": sum_dtype(backend, dtype)}.get(reduction, result)
        result = default_float(backend) if reduction == "mean" else result
    case = Case(f"window-dtypes-{reduction}", (5, 4), (3, 2), padding=((1, 1), (0, 1)))
    x = case.data(dtype, small_integers) if reduction == "prod" or dtype.endswith("64") else case.data(dtype)
    if dtype == "int32":
        x = x // 2**10
    actual, expected = case.reduce_window(backend, x, reduction, result_dtype=result)
    assert actual.dtype == result
    assert_close(actual, expected)


@pytest.mark.parametrize("reduction", ["sum", "prod", "mean"])
def test_reduce_window_of_complex_numbers(backend, reduction):
    require(backend, "complex64")
    case = Case("window-complex", (5, 4), (2, 2))
    assert_close(*case.reduce_window(backend, case.data("complex64"), reduction))


@pytest.mark.parametrize("reduction", ["max", "min"])
def test_complex_numbers_have_no_order(backend, reduction):
    require(backend, "complex64")
    with pytest.raises(TypeError, match="x must "):
        backend.call(xconv.reduce_window, numbers((1, 4, 1), "complex64"), reduction, (2,))


@thinned("reduction", REDUCTIONS, every=2)
def test_reduce_window_propagates_nan(backend, reduction):
    case = Case("window-nan", (8,), (3,))
    x = case.data()
    x[0, 4] = np.nan
    actual, expected = case.reduce_window(backend, x, reduction)
    assert np.isnan(expected).any()
    assert not np.isnan(expected).all()
    assert_close(actual, expected)


# ---------------------------------------------------------------------------------------------------- all pools


TILED = [
    Case("tiles", (9, 8), (3, 2), stride=(2, 1), padding=((1, 1), (0, 1)), batch=3),
    Case("tiles-ceil", (9, 8), (3, 3), stride=2, padding=1, ceil_mode=True, layout="NCHW"),
    Case("tiles-dilation", (40,), (2,), stride=1, dilation=3, padding=1),
]


@thinned("case, workspace", itertools.product(TILED, [4000, 1]), every=6)
def test_tiles_join_without_seams(backend, case, workspace):
    with xconv.config(workspace=workspace):
        actual, expected = case.max_pool(backend, case.data())
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
        for include in (False, True):
            assert_close(*case.avg_pool(backend, case.data(), count_include_pad=include))
        assert_close(*case.lp_pool(backend, case.data(), 2))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_pool_with_its_rank_in_the_name(backend, name, rank):
    """It knows the rank, so that an int window does for an unbatched input as well."""
    named, general = getattr(xconv, f"{name}{rank}d"), getattr(xconv, name)
    x = numbers((2, *SIZES[rank], 2))
    whole = backend.call(general, x, (2,) * rank, stride=1)
    assert_same(backend.call(named, x, 2, stride=1), whole)
    with pytest.raises(ValueError, match=r"(x|window) must "):
        backend.call(named, numbers((2, 4, 4, 4, 4, 2)), 2)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_empty_batch_keeps_its_shape(backend, layout):
    case = Case("pool-empty", (5, 4), (3, 2), batch=0, layout=layout)
    actual, expected = case.max_pool(backend, case.data())
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other)
    assert_same(*case.avg_pool(backend, case.data()))
    assert_same(*case.lp_pool(backend, case.data(), 2))
    assert_same(*case.reduce_window(backend, case.data(), "sum"))


X = np.ones((1, 5, 4, 1), "float32")


@pytest.mark.parametrize("function", [xconv.max_pool, xconv.avg_pool, xconv.lp_pool])
@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"padding": 2, "stride": 1}, "padding"),  # the first window lies in the padding
        ({"padding": ((0, 2), (0, 0)), "stride": 1}, "padding"),
        ({"padding": 1, "dilation": 7, "stride": 1}, "window"),
        ({"stride": 0}, "stride"),
        ({"dilation": -1}, "dilation"),
        ({"padding": "sane"}, "padding"),
        ({"layout": "NHCW"}, "layout"),
    ],
)
def test_geometry_that_makes_no_sense_is_refused(backend, function, options, argument):
    with pytest.raises(ValueError, match=f"{argument} must "):
        backend.call(function, X, 2, **options)


@pytest.mark.parametrize(
    ("name", "options", "error", "argument"),
    [
        ("max_pool", {"nan": "ignore"}, ValueError, "nan"),
        ("avg_pool", {"divisor": 0}, ValueError, "divisor"),
        ("avg_pool", {"divisor": 4, "count_include_pad": True}, ValueError, "count_include_pad"),
        ("lp_pool", {"p": 0}, ValueError, "p"),
        ("lp_pool", {"p": -1}, ValueError, "p"),
    ],
)
def test_options_that_make_no_sense_are_refused(backend, name, options, error, argument):
    with pytest.raises(error, match=f"^{argument} must "):
        backend.call(getattr(xconv, name), X, 2, **options)


def test_an_unknown_reduction_is_refused(backend):
    with pytest.raises(ValueError, match="reduction must be 'max', 'min', 'sum', 'prod' or 'mean'"):
        backend.call(xconv.reduce_window, X, "median", 2)


def test_a_dilated_window_between_which_the_whole_input_lies_is_refused(backend):
    """Both of its cells are padding, one on either side."""
    with pytest.raises(ValueError, match="padding must "):
        backend.call(xconv.max_pool, np.ones((1, 2, 1), "float32"), (2,), dilation=3, padding=1)
