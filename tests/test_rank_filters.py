"""`maximum_filter`, `minimum_filter`, `median_filter`, `rank_filter`, `percentile_filter`: the reference, and SciPy."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest

import reference
import xconv
from cases import numbers, pytest_generate_tests, small_integers, thinned  # noqa: F401
from compare import assert_same
from test_memory import OWN_OBJECTS, WORKSPACE, beyond_its_result
from test_properties import PAD_MODES, holds
from xconv import _borders, _extents, _footprints, _movers, _networks, _scratch

LAZY_STEP = 3

SCIPY = {
    "constant": "constant",
    "edge": "nearest",
    "reflect": "mirror",
    "symmetric": "reflect",
    "wrap": "wrap",
}
DISC = [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 0, 0]]


def offsets_of(rank, axes, sizes=None, footprint=None, origin=0):
    """Where the elements of a window stand, seen from the one in its centre, along all axes of an array."""
    covered = np.ones(sizes, bool) if footprint is None else np.asarray(footprint, bool)
    origins = (origin,) * len(axes) if isinstance(origin, int) else origin
    found = []
    for cell in np.argwhere(covered):
        offset = [0] * rank
        for axis, place, size, shift in zip(axes, cell, covered.shape, origins, strict=True):
            offset[axis] = int(place) - size // 2 - shift
        found.append(tuple(offset))
    return found


CASES = {
    "1d": ((7,), (0,), (3,), 0),
    "2d": ((5, 6), (0, 1), (3, 3), 0),
    "2d-even": ((5, 6), (0, 1), (2, 4), 0),
    "origin": ((6, 5), (0, 1), (3, 4), (1, -2)),
    "stack": ((3, 6, 5), (1, 2), (3, 2), 0),
    "channels": ((6, 5, 3), (0, 1), (3, 3), (0, 1)),
    "one-axis": ((4, 5, 3), (1,), (5,), -1),
    "axes-that-are-not-neighbours": ((4, 3, 5), (2, 0), (2, 3), 0),
    "3d": ((4, 5, 3), (0, 1, 2), (3, 2, 3), 0),
    "wider-than-the-image": ((3, 4), (0, 1), (7, 9), 2),
    "one-element": ((4, 5), (0, 1), (1, 1), 0),
    "four-axes": ((2, 3, 4, 2), (1, 2), (3, 3), 0),
}


@thinned("name, pad_mode", list(itertools.product(CASES, PAD_MODES)), 4)
def test_a_median_is_that_of_the_reference(backend, name, pad_mode):
    shape, axes, sizes, origin = CASES[name]
    x = small_integers(shape)
    offsets = offsets_of(len(shape), axes, sizes, origin=origin)
    options = {"value": 2} if pad_mode == "constant" else {}
    actual = backend.call(
        xconv.median_filter, x, sizes, axes=axes, origin=origin, pad_mode=pad_mode, **options
    )
    assert_same(actual, reference.ranked(x, len(offsets) // 2, offsets, pad_mode, 2))


@pytest.mark.parametrize("name", ["2d", "stack", "wider-than-the-image"])
@pytest.mark.parametrize(
    ("function", "of"),
    [
        (xconv.maximum_filter, lambda taps: taps - 1),
        (xconv.minimum_filter, lambda taps: 0),
        (xconv.median_filter, lambda taps: taps // 2),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float64"])
def test_every_real_dtype_stays_what_it_is(backend, name, function, of, dtype):
    if not backend.has(dtype):
        dtype = {"int64": "int32", "float64": "float32"}[dtype]
    shape, axes, sizes, origin = CASES[name]
    x = numbers(shape, dtype)
    offsets = offsets_of(len(shape), axes, sizes, origin=origin)
    actual = backend.call(function, x, sizes, axes=axes, origin=origin)
    assert_same(actual, reference.ranked(x, of(len(offsets)), offsets))


@pytest.mark.parametrize("rank", [0, 1, 3, -1, -3])
@pytest.mark.parametrize("footprint", [DISC, [[1, 0], [0, 0]], [[0, 0, 0], [0, 1, 1], [0, 0, 1]]])
def test_a_footprint_says_which_elements_count(backend, rank, footprint):
    x = numbers((6, 5))
    offsets = offsets_of(2, (0, 1), footprint=footprint, origin=(0, -1))
    rank = min(max(rank, -len(offsets)), len(offsets) - 1)
    actual = backend.call(xconv.rank_filter, x, rank, footprint=footprint, origin=(0, -1))
    assert_same(actual, reference.ranked(x, rank % len(offsets), offsets))


def test_a_footprint_may_be_an_array():
    x = numbers((6, 5))
    covered = np.array(DISC, bool)
    expected = xconv.maximum_filter(x, footprint=DISC)
    assert_same(xconv.maximum_filter(x, footprint=covered), expected)
    assert_same(xconv.maximum_filter(x, footprint=covered.astype("int8")), expected)


@pytest.mark.parametrize(("percentile", "rank"), [(0, 0), (20, 1), (50, 4), (99.9, 8), (100, 8), (-30, 6)])
def test_a_percentile_is_a_rank(backend, percentile, rank):
    x = numbers((5, 6))
    offsets = offsets_of(2, (0, 1), (3, 3))
    actual = backend.call(xconv.percentile_filter, x, percentile, 3)
    assert_same(actual, reference.ranked(x, rank, offsets))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rank", [0, 4, 8])
def test_a_window_with_nan_gives_nan_and_infinity_has_its_place(backend, bad, rank):
    x = numbers((7, 8))
    x[2, 3] = x[6, 7] = bad
    offsets = offsets_of(2, (0, 1), (3, 3))
    assert_same(backend.call(xconv.rank_filter, x, rank, 3), reference.ranked(x, rank, offsets))


def test_windows_that_are_sorted_treat_nan_alike(backend):
    x = numbers((25, 26))
    x[12, 3] = np.nan
    x[2, 20] = -np.inf
    offsets = offsets_of(2, (0, 1), (23, 23))
    assert_same(backend.call(xconv.rank_filter, x, 7, 23), reference.ranked(x, 7, offsets))


def test_one_image_does_not_touch_another(backend):
    x = numbers((3, 5, 4))
    x[1] = np.nan
    actual = backend.call(xconv.median_filter, x, 3, axes=(1, 2))
    assert np.isnan(actual[1]).all()
    assert not np.isnan(actual[[0, 2]]).any()


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0)])
@pytest.mark.parametrize("pad_mode", ["symmetric", "constant"])
def test_of_nothing_there_is_nothing(backend, shape, pad_mode):
    x = np.zeros(shape, "float32")
    actual = backend.call(xconv.median_filter, x, 3, axes=(1, 2), pad_mode=pad_mode)
    assert_same(actual, x)


def test_a_result_is_never_the_callers_own_memory():
    for size, shape in ((1, (4, 5)), (1, (300, 400)), ((1, 3), (300, 1))):
        x = numbers(shape)
        y = xconv.median_filter(x, size)
        assert not np.may_share_memory(x, y)
        y[...] = 7  # it can be written to


def test_arrays_that_are_not_packed():
    x = numbers((40, 30, 3))
    whole = xconv.median_filter(np.ascontiguousarray(x[::-1, ::2, 1]), 3)
    assert_same(xconv.median_filter(x[::-1, ::2, 1], 3), whole)
    assert_same(xconv.median_filter(x[::-1, ::2, 1].T, 3), whole.T)


def test_a_foreign_byte_order():
    x = numbers((20, 30)).astype(">f4")
    assert (xconv.median_filter(x, 3) == xconv.median_filter(x.astype("f4"), 3)).all()


# ------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("sizes", [(3,), (5,), (2, 3), (3, 3), (2, 2, 2)])
def test_a_network_selects_every_rank_of_every_order(sizes):
    """The principle of zeros and ones (Knuth 5.3.4): what selects right among all of these selects right among all."""
    pattern = _networks.box(sizes)
    taps = len(pattern)
    for rank in range(taps):
        network = _networks.network(pattern, rank)
        for bits in range(2**taps) if taps <= 6 else np.random.default_rng(rank).integers(2**taps, size=60):
            window = np.array([int(bits) >> i & 1 for i in range(taps)]).reshape(sizes)
            assert run_network(network, window) == sorted(window.ravel())[rank]


def run_network(network, window):
    """The last result of the network at the first element of an array: slots as arrays of their own."""
    slots = {0: window}

    def part(slot, offset):
        return slots[slot][tuple(slice(o, None) for o in offset)]

    for step in network.steps:
        a, b = part(step.a, step.at_a), part(step.b, step.at_b)
        common = tuple(slice(0, min(m, n)) for m, n in zip(a.shape, b.shape, strict=True))
        slots[step.target] = (np.maximum if step.largest else np.minimum)(a[common], b[common])
    last = network.steps[-1].target if network.steps else 0
    return slots[last].flat[0]


@pytest.mark.parametrize(
    ("sizes", "rank", "steps"), [((3, 3), 4, 22), ((5, 5), 12, 88), ((7, 7), 24, 290), ((31, 31), 960, 16)]
)
def test_networks_are_as_short_as_the_documentation_says(sizes, rank, steps):
    assert len(_networks.network(_networks.box(sizes), rank).steps) == steps


# ---------------------------------------------------------------------------------------------------- tiles


def test_tiles_are_cut_where_no_window_reaches_first():
    """Axes that are not filtered, then long ones: a tile is never nearly all halo while it can be another."""
    stack = _footprints.rank_spec((40, 200, 300), (9, 9), None, (1, 2), 0, "symmetric").problem
    assert _extents.balanced(stack, lambda tile: math.prod(tile.outputs), 60_000) == (1, 1, 200, 300)
    bundle = _footprints.rank_spec((200, 300, 40), (9, 9), None, (0, 1), 0, "symmetric").problem
    batch, rows, columns, others = _extents.balanced(bundle, lambda tile: math.prod(tile.outputs), 60_000)
    assert batch == 1
    assert min(rows, columns) > 2 * 9
    assert rows * columns * others <= 60_000


def test_there_are_tiles_for_the_threads_where_there_is_work_for_them():
    problem = _footprints.rank_spec((1024, 1024), 3, None, None, 0, "symmetric").problem
    extents = _extents.balanced(problem, lambda tile: 0, 1, 8)
    assert math.prod(-(-1024 // extent) for extent in extents[1:]) >= 8
    small = _footprints.rank_spec((100, 100), 3, None, None, 0, "symmetric").problem
    assert _extents.balanced(small, lambda tile: 0, 1, 8) == (1, 100, 100)


@pytest.mark.parametrize("mode", PAD_MODES)
def test_a_block_is_continued_in_memory_that_is_kept(mode):
    """As axis by axis, at any distance; not where nothing is kept, or with more runs than are placed one by one."""
    x = numbers((2, 4, 3, 1))
    for ends in (((-2, 6), (0, 3)), ((-1, 3), (-7, 9)), ((1, 4), (1, 2)), ((-9, 12), (2, 8))):
        pieces = [_borders.runs(*end, size, mode) for end, size in zip(ends, (4, 3), strict=True)]
        with _scratch.scratch():
            found = _movers.continued_block(x, pieces, x.dtype, 7)
            expected = x
            for axis, along in enumerate(pieces, 1):
                expected = _movers.continued(expected, axis, along, 7, np)
            assert_same(found.copy(), expected)
    assert _movers.continued_block(x, pieces, x.dtype, 7) is None
    with _scratch.scratch():
        assert _movers.continued_block(x, [_borders.runs(-200, 200, 3, "reflect")] * 2, x.dtype, 7) is None


# --------------------------------------------------------------------------------------------------- memory


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("pad_mode", ["symmetric", "constant"])
@pytest.mark.parametrize(("size", "axes"), [(3, None), (5, None), (7, (0,)), (1, None), (23, None)])
def test_a_call_needs_its_result_and_the_workspace(size, axes, pad_mode):
    x = numbers((300, 240) if size != 23 else (20, 80))
    with xconv.config(workspace=WORKSPACE):
        beyond, _ = beyond_its_result(lambda: xconv.median_filter(x, size, axes=axes, pad_mode=pad_mode))
    assert beyond <= WORKSPACE + OWN_OBJECTS


@pytest.mark.backends("numpy", "fast")
def test_results_do_not_depend_on_the_tiles():
    x = numbers((60, 50, 3))
    whole = xconv.median_filter(x, (5, 3), axes=(0, 1))
    for workspace in (2**12, 2**15, 2**18):
        with xconv.config(workspace=workspace, threads=2):
            assert_same(xconv.median_filter(x, (5, 3), axes=(0, 1)), whole)


# ------------------------------------------------------------------------------------------ beside SciPy


@st.composite
def filters(draw):
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank)))
    axes = tuple(sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1))))
    sizes = tuple(draw(st.integers(1, 4)) for _ in axes)
    origin = tuple(draw(st.integers(-(k // 2), k - 1 - k // 2)) for k in sizes)
    footprint = None
    if draw(st.booleans()):
        footprint = draw(
            st.lists(st.booleans(), min_size=int(np.prod(sizes)), max_size=int(np.prod(sizes))).filter(any)
        )
        footprint = np.reshape(footprint, sizes)
    mode = draw(st.sampled_from(PAD_MODES))
    return {
        "x": small_integers(shape, draw(st.sampled_from(["uint8", "int16", "float32", "float64"]))),
        "footprint": footprint,
        "sizes": sizes,
        "percentile": draw(st.integers(0, 100)),
        "seed": draw(st.integers(0, 10**6)),
        "options": {"axes": axes, "origin": origin, "mode": mode, "value": 3 if mode == "constant" else 0},
    }


@pytest.mark.backends("numpy")
def test_what_scipy_computes_is_what_we_compute(backend):
    """SciPy, given a footprint for its size: then it takes sizes in the order of the axes, as we do."""
    ndimage = pytest.importorskip("scipy.ndimage")

    def check(example):
        x, options = example["x"], dict(example["options"])
        covered = np.ones(example["sizes"], bool) if example["footprint"] is None else example["footprint"]
        mode, value = options.pop("mode"), options.pop("value")
        theirs = {**options, "mode": SCIPY[mode], "cval": value}
        ours = {**options, "pad_mode": mode, "value": value}
        taps = int(covered.sum())
        rank = example["seed"] % taps
        window = {"footprint": covered.tolist()}
        if example["footprint"] is None:
            window = {}
        size = example["sizes"] if example["footprint"] is None else None
        for name, before in (
            ("maximum_filter", ()),
            ("minimum_filter", ()),
            ("median_filter", ()),
            ("rank_filter", (rank,)),
            ("percentile_filter", (example["percentile"],)),
        ):
            actual = getattr(xconv, name)(x, *before, size, **window, **ours)
            # As one row of an image: SciPy 1.17 reads outside of a 1-D array that is shorter than its window.
            row = {**theirs, "axes": tuple(axis + 1 for axis in theirs["axes"])}
            expected = getattr(ndimage, name)(x[None], *before, footprint=covered, **row)[0]
            assert_same(actual, expected)

    holds(backend, filters(), check, examples=300)


# ---------------------------------------------------------------------------------------------- bad input

X = np.zeros((4, 5), "float32")
IN = "\n  in median_filter(x: float32[4, 5]"

REFUSED = {
    "axes-unknown": (
        (3,),
        {"axes": (0, 2)},
        ValueError,
        "axes must name axes of x, which has 2; got axes=(0, 2)" + IN + ", 3, axes=(0, 2))",
    ),
    "axes-twice": (
        (3,),
        {"axes": (0, -2)},
        ValueError,
        "axes must name every axis once; got axes=(0, -2)" + IN + ", 3, axes=(0, -2))",
    ),
    "axes-none": (
        (3,),
        {"axes": ()},
        ValueError,
        "axes must name at least one axis; got axes=()" + IN + ", 3, axes=())",
    ),
    "axes-no-ints": (
        (3,),
        {"axes": 1.0},
        TypeError,
        "axes must be an int, a tuple of ints, or None; got axes=1.0" + IN + ", 3, axes=1.0)",
    ),
    "size-zero": (
        ((3, 0),),
        {},
        ValueError,
        "size must be positive; got size=(3, 0)" + IN + ", (3, 0))",
    ),
    "size-too-many": (
        ((3, 3),),
        {"axes": 0},
        ValueError,
        "size must have one int for each of the 1 axes that are filtered; got size=(3, 3)"
        + IN
        + ", (3, 3), axes=0)",
    ),
    "size-no-int": (
        (2.5,),
        {},
        TypeError,
        "size must be an int or one int per axis that is filtered; got size=2.5" + IN + ", 2.5)",
    ),
    "size-missing": (
        (),
        {},
        ValueError,
        "size must be given, or a footprint in its place; got size=None" + IN + ")",
    ),
    "size-and-footprint": (
        (3,),
        {"footprint": [[1]]},
        ValueError,
        "size must be left out when a footprint is given; got size=3" + IN + ", 3, footprint=[[1]])",
    ),
    "footprint-flat": (
        (),
        {"footprint": [1, 1]},
        TypeError,
        "footprint must be nested sequences of booleans, 2 deep as there are axes that are filtered, or such a NumPy "
        "array; got footprint=(1, 1)" + IN + ", footprint=[1, 1])",
    ),
    "footprint-deep": (
        (),
        {"footprint": [[[1]]]},
        TypeError,
        "footprint must be nested sequences of booleans, 2 deep as there are axes that are filtered, or such a NumPy "
        "array; got footprint=(((1,),),)" + IN + ", footprint=[[[1]]])",
    ),
    "footprint-ragged": (
        (),
        {"footprint": [[1, 1], [1]]},
        ValueError,
        "footprint must have rows of one length; got footprint=((1, 1), (1,))"
        + IN
        + ", footprint=[[1, 1], [1]])",
    ),
    "footprint-numbers": (
        (),
        {"footprint": [[1, 2]]},
        ValueError,
        "footprint must hold booleans, or 0 and 1; got footprint=((1, 2),)" + IN + ", footprint=[[1, 2]])",
    ),
    "footprint-empty": (
        (),
        {"footprint": [[0, 0]]},
        ValueError,
        "footprint must cover at least one element; got footprint=((0, 0),)" + IN + ", footprint=[[0, 0]])",
    ),
    "origin": (
        (3,),
        {"origin": (0, 2)},
        ValueError,
        "origin must be from -1 to 1 along axis 1, so that the centre is in the window; got origin=2"
        + IN
        + ", 3, origin=(0, 2))",
    ),
    "origin-of-an-even-size": (
        (4,),
        {"origin": 2},
        ValueError,
        "origin must be from -2 to 1 along axis 0, so that the centre is in the window; got origin=2"
        + IN
        + ", 4, origin=2)",
    ),
    "pad-mode-of-scipy": (
        (3,),
        {"pad_mode": "mirror"},
        ValueError,
        "pad_mode must be one of NumPy's names; 'mirror' is called 'reflect' here; got pad_mode='mirror'"
        + IN
        + ", 3, pad_mode='mirror')",
    ),
    "value-without-constant": (
        (3,),
        {"value": 1},
        ValueError,
        "value must be left out with pad_mode='symmetric'; got value=1" + IN + ", 3, value=1)",
    ),
    "value-complex": (
        (3,),
        {"pad_mode": "constant", "value": 1j},
        TypeError,
        "value must be a number that a float array can hold; got value=1j"
        + IN
        + ", 3, pad_mode='constant', value=1j)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_by_name_value_and_rule(name):
    arguments, options, error, text = REFUSED[name]
    with pytest.raises(error) as caught:
        xconv.median_filter(X, *arguments, **options)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: xconv.rank_filter(X, 9, 3),
            ValueError,
            "rank must be from -9 to 8, of the 9 elements of a window; got rank=9\n"
            "  in rank_filter(x: float32[4, 5], 9, 3)",
        ),
        (
            lambda: xconv.rank_filter(X, -10, 3),
            ValueError,
            "rank must be from -9 to 8, of the 9 elements of a window; got rank=-10",
        ),
        (lambda: xconv.rank_filter(X, 1.0, 3), TypeError, "rank must be an int; got rank=1.0"),
        (
            lambda: xconv.percentile_filter(X, 101, 3),
            ValueError,
            "percentile must be from -100 to 100; got percentile=101",
        ),
        (
            lambda: xconv.percentile_filter(X, "50", 3),
            TypeError,
            "percentile must be a number; got percentile='50'",
        ),
        (
            lambda: xconv.median_filter(X.astype("complex64"), 3),
            TypeError,
            "x must hold real numbers, which have an order; got x=complex64[4, 5]",
        ),
        (
            lambda: xconv.median_filter(X > 0, 3),
            TypeError,
            "x must hold real numbers, which have an order; got x=bool[4, 5]",
        ),
        (
            lambda: xconv.median_filter(X.astype(object), 3),
            TypeError,
            "arrays must hold numbers of the array API standard; got dtype object",
        ),
        (
            lambda: xconv.median_filter(np.zeros((), "float32"), 3),
            ValueError,
            "x must have at least one axis; got x=[]",
        ),
        (
            lambda: xconv.maximum_filter(X.astype("uint8"), 3, pad_mode="constant", value=256),
            ValueError,
            "value must be from 0 to 255, what uint8 can hold; got value=256",
        ),
        (
            lambda: xconv.maximum_filter(X.astype("uint8"), 3, pad_mode="constant", value=0.5),
            TypeError,
            "value must be a number that a integer array can hold; got value=0.5",
        ),
    ],
)
def test_so_is_the_rest(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(text)
