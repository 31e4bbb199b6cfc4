"""The workshop `banded`, asked directly: what it refuses, what it says it costs, and that its sums are right."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

import reference
from cases import numbers, seed_of, small_integers
from compare import assert_close, assert_same
from xconv._algorithms import banded
from xconv._geometry import Axis, ConvProblem
from xconv._namespace import NUMPY

LAZY_STEP = 3


def problem_of(sizes, kernel, *, batch=2, inputs=1, outputs=1, groups=1, stride=1, dilation=1, **others):
    """A convolution of a padded block, with one number or one per axis for the strides and dilations."""
    stride, dilation = (n if isinstance(n, tuple) else (n,) * len(kernel) for n in (stride, dilation))
    axes = tuple(map(Axis, sizes, kernel, stride, dilation))
    return ConvProblem(batch, axes, inputs, outputs, groups, **others)


def arrays(problem, make=numbers, dtype="float32", seed=0):
    """An input and a kernel for it."""
    sizes = tuple(axis.size for axis in problem.axes)
    x = make((problem.batch, *sizes, problem.channels_in), dtype, seed=seed)
    w = make(
        (*problem.window, problem.channels_in // problem.groups, problem.channels_out), dtype, seed=seed + 1
    )
    return x, w


def expected(x, w, problem):
    """What the dull loops give."""
    return reference.conv(
        x,
        w,
        stride=tuple(axis.stride for axis in problem.axes),
        pads=((0, 0),) * len(problem.axes),
        dilation=tuple(axis.dilation for axis in problem.axes),
        groups=problem.groups,
    )


def computed(backend, x, w, problem):
    """What the workshop gives on this backend."""
    return backend.call(
        lambda x, w: banded.run(x, banded.bind(w, problem, backend.xp), problem, backend.xp), x, w
    )


CASES = {
    # columns: one group, the band along the last axis
    "line": problem_of((37,), (5,)),
    "line-stride": problem_of((40,), (5,), stride=3),
    "line-dilation": problem_of((40,), (4,), dilation=2),
    "line-channels": problem_of((23,), (3,), inputs=3, outputs=2),
    "shorter-than-the-band": problem_of((6,), (4,)),
    "colours": problem_of((7, 21), (3, 5), inputs=3, outputs=5),
    "colours-stride": problem_of((9, 22), (3, 5), inputs=3, outputs=5, stride=(2, 3), dilation=(2, 1)),
    "grey-to-many": problem_of((6, 17), (3, 3), outputs=6),
    "row-kernel": problem_of((4, 19), (1, 5)),
    "volume-of-colours": problem_of((4, 5, 12), (2, 3, 3), inputs=2, outputs=2),
    # rows: groups of one channel, the band along the last axis but one
    "image": problem_of((13, 12), (5, 4)),
    "image-whole-bands": problem_of((12, 12), (5, 4)),
    "image-of-three-rows": problem_of((7, 12), (5, 4)),
    "image-stride": problem_of((20, 12), (5, 4), stride=(2, 3)),
    "image-dilation": problem_of((21, 12), (5, 3), dilation=(2, 3)),
    "image-several": problem_of((10, 9), (3, 3), outputs=3),
    "column-kernel": problem_of((19, 4), (5, 1)),
    "volume": problem_of((5, 9, 8), (2, 3, 4), stride=(2, 1, 2), dilation=(2, 1, 1)),
    "four-axes": problem_of((3, 3, 8, 5), (2, 2, 3, 2)),
    "groups": problem_of((9, 10), (3, 3), inputs=3, outputs=3, groups=3),
    "groups-several": problem_of((9, 10), (3, 3), inputs=3, outputs=6, groups=3, stride=(1, 2)),
    "groups-volume": problem_of((4, 7, 6), (2, 3, 2), inputs=2, outputs=2, groups=2),
}


@pytest.mark.backends("numpy", "fast", "strict", "torch", "jax", "cupy")  # chunks of Dask are NumPy's
@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_direct_sum(backend, name):
    problem = CASES[name]
    assert banded.why_not(problem, NUMPY) is None
    x, w = arrays(problem, seed=seed_of(name))
    assert_close(computed(backend, x, w, problem), expected(x, w, problem))


@pytest.mark.backends("numpy", "fast", "strict", "torch", "jax", "cupy")
@pytest.mark.parametrize("name", ["colours", "image", "groups-several"])
@pytest.mark.parametrize("dtype", ["float64", "complex64", "complex128"])
def test_every_floating_dtype(backend, name, dtype):
    problem = CASES[name]
    x, w = arrays(problem, dtype=dtype)
    y = computed(backend, x, w, problem)
    assert y.dtype == dtype
    assert_close(y, expected(x, w, problem))


@pytest.mark.backends("numpy", "fast", "strict", "torch", "jax", "cupy")
@pytest.mark.parametrize("name", CASES)
def test_integers_held_in_floats_are_summed_exactly(backend, name):
    problem = dataclasses.replace(CASES[name], direct=True)
    assert banded.why_not(problem, NUMPY) is None
    x, w = arrays(problem, small_integers)
    assert_same(computed(backend, x, w, problem), expected(x, w, problem).astype("float32"))


@pytest.mark.backends("numpy", "fast")
def test_a_bound_kernel_serves_every_tile(backend):
    whole = problem_of((30, 31), (4, 5))
    x, w = arrays(whole)
    bound = banded.bind(w, whole, backend.xp)
    for start, stop in ((0, 11), (11, 12), (12, 27)):
        tile = problem_of((stop - start + 3, 31), (4, 5))
        part = x[:, start : stop + 3]
        assert_close(banded.run(part, bound, tile, backend.xp), expected(part, w, tile))


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", ["image", "image-whole-bands", "colours", "groups-several", "line"])
def test_the_result_may_be_put_where_it_belongs(backend, name):
    problem = CASES[name]
    x, w = arrays(problem)
    bound = banded.bind(w, problem, backend.xp)
    out = np.full((problem.batch, *problem.outputs, problem.channels_out), np.nan, "float32")
    y = banded.run(x, bound, problem, backend.xp, out)
    assert_same(y, banded.run(x, bound, problem, backend.xp))
    if name == "image-whole-bands":
        assert np.shares_memory(y, out)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("form", ["image", "line"])
def test_a_value_that_is_not_finite_stays_within_its_bands(backend, form):
    """As the documentation says: it reaches the outputs computed beside those that read it, and no others."""
    problem = problem_of((40, 40), (3, 3), batch=1) if form == "image" else problem_of((40,), (3,), batch=1)
    x, w = arrays(problem)
    clean = banded.run(x, banded.bind(w, problem, backend.xp), problem, backend.xp)
    x[(0, *(20 for _ in problem.axes), 0)] = np.inf
    with np.errstate(invalid="ignore"):
        y = banded.run(x, banded.bind(w, problem, backend.xp), problem, backend.xp)
    touched = np.flatnonzero(~np.isfinite(y).all(axis=tuple(i for i in range(y.ndim) if i != 1)))
    reads = range(18, 21)  # the outputs that read position 20
    width = 4 if form == "image" else 8
    within = [o for o in range(38) if any(o // width == r // width for r in reads)]
    assert set(reads) <= set(touched) <= set(within)
    others = [o for o in range(38) if o not in within]
    assert_same(y[:, others], clean[:, others])


REFUSALS = {
    "the kernel has one tap along the last axis, where the band would be": problem_of(
        (9, 9), (3, 1), inputs=2, outputs=2
    ),
    "the kernel has one tap along the last axis but one, where the band would be": problem_of(
        (9, 9), (1, 3), inputs=2, outputs=2, groups=2
    ),
    "each of the 2 groups has 3 input channels, not one": problem_of(
        (9, 9), (3, 3), inputs=6, outputs=2, groups=2
    ),
    "there are 2 groups and one axis; they need two": problem_of((9,), (3,), inputs=2, outputs=2, groups=2),
    "a band of 4 outputs takes 5.0 times the products, more than 4": problem_of(
        (40, 9), (3, 3), stride=(4, 1)
    ),
    "a band of 2 outputs takes 4.5 times the products, more than 4": problem_of(
        (40,), (2,), dilation=4, stride=4
    ),
    "a band matrix of 2 outputs takes 4.5 MiB, more than 4": problem_of(
        (9, 9), (3, 3), inputs=256, outputs=192
    ),
    "there is nothing to compute": problem_of((9, 9), (3, 3), batch=0),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_it_says_why_it_refuses(text):
    assert banded.why_not(REFUSALS[text], NUMPY) == text


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", CASES)
def test_the_cost_is_what_is_done(backend, name):
    problem = CASES[name]
    _, w = arrays(problem)
    cost = banded.cost(problem, NUMPY)
    bound = banded.bind(w, problem, backend.xp)
    assert cost.bound == bound.nbytes
    assert problem.flops < cost.flops <= banded.WASTE * problem.flops
    assert all(isinstance(part, int) for part in cost)


LARGE = {
    "columns": problem_of((64, 67), (5, 5), inputs=3, outputs=4),
    "rows": problem_of((67, 64), (5, 5), batch=4),
    "groups": problem_of((67, 64), (3, 3), inputs=8, outputs=16, groups=8),
    "volume": problem_of((12, 18, 64), (3, 3, 5)),
}


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", LARGE)
def test_it_needs_its_result_and_the_workspace_it_says(name):
    import array_api_compat.numpy as xp

    problem = LARGE[name]
    x, w = arrays(problem)
    bound = banded.bind(w, problem, xp)
    banded.run(x, bound, problem, xp)
    tracemalloc.start()
    try:
        y = banded.run(x, bound, problem, xp)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    workspace = banded.cost(problem, NUMPY).workspace
    assert peak - y.nbytes <= workspace + 16 * 1024
    assert peak - y.nbytes >= workspace / 4, "the promise is worth nothing if it is far above what is needed"
