"""The workshop `spectral`, asked directly: what it refuses, what it says it costs, and that its sums are right."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

import reference
import xconv
from cases import numbers, seed_of
from compare import assert_close, assert_same
from xconv._algorithms import _waves, spectral
from xconv._geometry import Axis, ConvProblem, materialised
from xconv._namespace import NUMPY

LAZY_STEP = 3


def problem_of(sizes, kernel, *, batch=2, stride=1, dilation=1, pads=0, **others):
    """A convolution of one channel, with one number or one per axis for strides, dilations and pads."""
    stride, dilation, pads = (
        n if isinstance(n, tuple) else (n,) * len(kernel) for n in (stride, dilation, pads)
    )
    ends = [p if isinstance(p, tuple) else (p, p) for p in pads]
    axes = tuple(
        Axis(n, k, s, d, 1, *end)
        for n, k, s, d, end in zip(sizes, kernel, stride, dilation, ends, strict=True)
    )
    return ConvProblem(batch, axes, 1, 1, **others)


def arrays(problem, dtype="float32", seed=0):
    """An input and a kernel for it."""
    sizes = tuple(axis.size for axis in problem.axes)
    return numbers((problem.batch, *sizes, 1), dtype, seed=seed), numbers(
        (*problem.window, 1, 1), dtype, seed=seed + 1
    )


def expected(x, w, problem):
    """What the dull loops give."""
    return reference.conv(
        x,
        w,
        stride=tuple(axis.stride for axis in problem.axes),
        pads=tuple((axis.low, axis.high) for axis in problem.axes),
        dilation=tuple(axis.dilation for axis in problem.axes),
    )


def computed(backend, x, w, problem):
    """What the workshop gives on this backend: bound for the written-out problem, as the foreman does."""

    def both(x, w):
        return spectral.run(x, spectral.bind(w, materialised(problem), backend.xp), problem, backend.xp)

    return backend.call(both, x, w)


CASES = {
    "one-block": problem_of((9, 12), (5, 4)),
    "several-blocks": problem_of((60, 23), (5, 4)),
    "blocks-and-a-rest": problem_of((61, 40), (7, 5)),
    "bands-and-a-rest": problem_of((12, 55), (3, 6)),
    "one-band": problem_of((30, 9), (4, 5)),
    "even-and-odd": problem_of((40, 41), (8, 3)),
    "one-output": problem_of((6, 5), (6, 5)),
    "kernel-of-two": problem_of((20, 21), (2, 2)),
    "stride": problem_of((50, 70), (6, 5), stride=(2, 3)),
    "dilation": problem_of((50, 60), (5, 4), dilation=(3, 2)),
    "stride-and-dilation": problem_of((61, 62), (4, 5), stride=(3, 2), dilation=(2, 4)),
    "same": problem_of((33, 35), (7, 9), pads=(3, 4)),
    "full": problem_of((33, 35), (6, 9), pads=(5, 8)),
    "padding-longer-than-a-block": problem_of((8, 9), (3, 3), pads=(20, 40)),
    "padding-at-one-end": problem_of((30, 40), (5, 6), pads=((7, 0), (0, 9))),
    "padding-and-stride": problem_of((41, 43), (5, 7), stride=(2, 3), pads=(4, (2, 5)), dilation=(2, 1)),
    "more-padding-than-input": problem_of((2, 3), (5, 6), pads=(4, 5)),
    "colours": problem_of((20, 21, 3), (4, 5, 1)),
    "colours-same": problem_of((20, 21, 3), (5, 4, 1), pads=(2, (1, 2), 0), dilation=(2, 3, 1)),
    "slices": problem_of((4, 20, 21), (1, 4, 5)),
    "slices-of-colours": problem_of((2, 13, 14, 3), (1, 3, 4, 1), pads=(0, 1, 2, 0)),
    "padding-of-slices": problem_of((3, 13, 14), (1, 3, 4), pads=((1, 2), 1, 2)),
}


@pytest.mark.backends("numpy", "fast", "strict", "torch", "jax", "cupy")  # chunks of Dask are NumPy's
@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_direct_sum(backend, name):
    problem = CASES[name]
    assert spectral.why_not(materialised(problem), NUMPY) is None
    if not spectral.reads_borders(problem):  # the foreman writes such padding out
        x, w = arrays(problem)
        pads = [(0, 0), *((a.low, a.high) for a in problem.axes), (0, 0)]
        problem = materialised(problem)
        assert_close(computed(backend, np.pad(x, pads), w, problem), expected(np.pad(x, pads), w, problem))
        return
    x, w = arrays(problem, seed=seed_of(name))
    assert_close(computed(backend, x, w, problem), expected(x, w, problem))


@pytest.mark.backends("numpy", "fast", "strict", "torch", "jax", "cupy")
@pytest.mark.parametrize("name", ["same", "several-blocks", "colours-same", "stride-and-dilation"])
def test_float64_loses_nothing(backend, name):
    problem = CASES[name]
    x, w = arrays(problem, "float64")
    y = computed(backend, x, w, problem)
    assert y.dtype == "float64"
    assert_close(y, expected(x, w, problem))


@pytest.mark.parametrize("length", [*range(1, 14), 30, 31, 64])
def test_a_block_comes_back_as_it_was(length):
    """Forth, by a kernel of one, and back: what the two matrices of the transform say is one transform."""
    forth, ones = (np.asarray(rows) for rows in (_waves.forward(length), _waves.of_kernel(length, 1, 1)))
    back = np.asarray(_waves.backward(length, length, 1))
    assert _waves.length_of(len(forth)) == length
    np.testing.assert_allclose((back * ones[:, 0]) @ forth, np.eye(length), atol=1e-13)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("pads", [0, 3])
def test_a_bound_kernel_serves_every_tile(backend, pads):
    whole = problem_of((50, 61), (7, 6), pads=pads)
    x, w = arrays(whole)
    bound = spectral.bind(w, materialised(whole), backend.xp)
    rows, last = whole.axes
    for start, stop in ((0, 11), (11, 12), (12, 44)):
        for left, right in ((0, 5), (5, 55)):
            (top, bottom, high), (first, end, wide) = rows.tile(start, stop), last.tile(left, right)
            part, tile = x[:, top:bottom, first:end], dataclasses.replace(whole, axes=(high, wide))
            assert_close(spectral.run(part, bound, tile, backend.xp), expected(part, w, tile))


@pytest.mark.backends("numpy", "fast")
def test_a_tile_may_meet_padding_only(backend):
    whole = CASES["padding-longer-than-a-block"]
    x, w = arrays(whole)
    bound = spectral.bind(w, materialised(whole), backend.xp)
    for part, there in ((0, slice(0, 5)), (1, slice(30, 44))):
        start, stop, axis = whole.axes[part].tile(there.start, there.stop)
        tile = dataclasses.replace(whole, axes=(*whole.axes[:part], axis, *whole.axes[part + 1 :]))
        here = x[:, start:stop] if part == 0 else x[:, :, start:stop]
        assert_close(spectral.run(here, bound, tile, backend.xp), expected(here, w, tile))


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", ["same", "several-blocks", "colours-same", "one-band", "stride"])
def test_the_result_may_be_put_where_it_belongs(backend, name):
    problem = CASES[name]
    x, w = arrays(problem)
    bound = spectral.bind(w, materialised(problem), backend.xp)
    shape = (problem.batch, *problem.outputs, 1)
    out = np.full(shape, np.nan, "float32")
    y = spectral.run(x, bound, problem, backend.xp, out)
    assert np.shares_memory(y, out)
    assert_same(y, spectral.run(x, bound, problem, backend.xp))
    wider = np.full((*shape[:2], shape[2] + 3, *shape[3:]), np.nan, "float32")
    for place in (wider[:, :, 1:-2], np.full(shape[::-1], np.nan, "float32").T):  # rows apart, and no rows
        assert_same(spectral.run(x, bound, problem, backend.xp, place), y)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("form", ["turned", "reversed", "repeated", "every-second"])
def test_images_that_blas_cannot_read_are_copied(backend, form):
    problem = problem_of((21, 22), (5, 4), pads=(2, 1))
    x, w = arrays(problem)
    x = {
        "turned": lambda: np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2),
        "reversed": lambda: x[:, ::-1, ::-1],
        "repeated": lambda: np.broadcast_to(x[:1, :1], x.shape),
        "every-second": lambda: np.repeat(x, 2, axis=2)[:, :, ::2],
    }[form]()
    assert_close(computed(backend, x, w, problem), expected(x, w, problem))


@pytest.mark.backends("numpy", "fast")
def test_a_value_that_is_not_finite_stays_within_its_block_and_bands(backend):
    """As the documentation says; other images have nothing of it."""
    problem = problem_of((64, 64), (5, 5))
    x, w = arrays(problem)
    clean = computed(backend, x, w, problem)
    x[0, 30, 40, 0] = np.inf
    with np.errstate(invalid="ignore"):
        y = computed(backend, x, w, problem)
    reads = ~np.isfinite(expected(x, w, problem))
    touched = ~np.isfinite(y)
    assert (touched | ~reads).all()
    assert_same(y[1], clean[1])
    columns = np.flatnonzero(touched[0].any(axis=(0, 2)))
    rows = np.flatnonzero(touched[0].any(axis=(1, 2)))
    kept = spectral._blocks(problem.axes[0], spectral._length(*problem.axes)).kept
    assert columns.max() - columns.min() < 2 * spectral.WIDTH + 4
    assert rows.max() - rows.min() < 2 * kept + 4
    assert_same(y[~touched], clean[~touched])


REFUSALS = {
    "only direct sums are allowed (integers, or precision='strict')": problem_of((9, 9), (3, 3), direct=True),
    "its matrices are of real floats, and the numbers are of kind 'complex'": problem_of(
        (9, 9), (3, 3), kind="complex", itemsize=8
    ),
    "there are 2 input and 1 output channels, not one each": ConvProblem(1, (Axis(9, 3), Axis(9, 3)), 2, 1),
    "there is nothing to compute": problem_of((9, 9), (3, 3), batch=0),
    "the kernel does not lie in two neighbouring axes, with strides along these alone": problem_of(
        (9, 9, 9), (3, 3, 3)
    ),
    "its band matrices would take 7.1 MiB, more than 4": problem_of((400, 400), (180, 180)),
    "its transform would take 22.9 MiB, more than 4": problem_of((2000, 90), (11, 3), dilation=(120, 1)),
}
ELSEWHERE = {
    "one-axis": problem_of((9,), (3,)),
    "a-row": problem_of((9, 9), (1, 3)),
    "axes-apart": problem_of((9, 9, 9), (3, 1, 3)),
    "every-second-slice": problem_of((9, 9, 9), (1, 3, 3), stride=(2, 1, 1)),
    "every-second-colour": problem_of((9, 9, 4), (3, 3, 1), stride=(1, 1, 2)),
    "columns-of-colours-apart": problem_of((9, 9, 3), (3, 3, 1), stride=(1, 2, 1)),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_it_says_why_it_refuses(text):
    assert spectral.why_not(REFUSALS[text], NUMPY) == text


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_kernel_lies_in_two_neighbouring_axes(name):
    assert spectral.why_not(ELSEWHERE[name], NUMPY).startswith("the kernel does not lie in two neighbouring")


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", CASES)
def test_the_cost_is_what_is_done(monkeypatch, backend, name):
    problem = materialised(CASES[name])
    x, w = arrays(problem)
    cost, done = spectral.cost(problem, NUMPY), []
    bound = spectral.bind(w, problem, backend.xp)
    assert cost.bound == bound.nbytes
    product_into = spectral.product_into

    def counted(a, b, xp, out):
        y = product_into(a, b, xp, out)
        done.append(2 * y.size * a.shape[-1] * (spectral.SLOW if a.ndim == 4 else 1))
        return y

    monkeypatch.setattr(spectral, "product_into", counted)
    spectral.run(x, bound, problem, backend.xp)
    assert 0.95 * sum(done) <= cost.flops <= 1.05 * sum(done)
    assert all(isinstance(part, int) for part in cost)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", ["same", "colours", "long"])
def test_it_needs_its_result_and_the_workspace_it_says(name):
    import array_api_compat.numpy as xp

    problem = {
        "same": problem_of((90, 120), (9, 11), batch=3),
        "colours": problem_of((90, 60, 3), (7, 7, 1), batch=3),
        "long": problem_of((150, 130), (31, 31)),
    }[name]
    x, w = arrays(problem)
    bound = spectral.bind(w, problem, xp)
    spectral.run(x, bound, problem, xp)
    tracemalloc.start()
    try:
        y = spectral.run(x, bound, problem, xp)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    workspace = spectral.cost(problem, NUMPY).workspace
    assert peak - y.nbytes <= workspace + 16 * 1024
    assert peak - y.nbytes >= workspace / 2, "the promise is worth nothing if it is far above what is needed"


@pytest.mark.backends("numpy", "fast", "dask", "torch", "jax", "cupy")
@pytest.mark.parametrize("options", [{}, {"pad_mode": "wrap"}, {"value": 3}, {"stride": (2, 3)}], ids=str)
def test_through_the_door_with_every_border(backend, options):
    """Zeros are left to it; everything else beyond the border is written out for it."""
    x, kernel = numbers((3, 40, 41), "float64"), numbers((6, 7), "float64", seed=1)
    call = {"mode": "same", **options}
    result = backend.call(xconv.correlate, x, backend.asarray(kernel), method="spectral", **call)
    assert_close(result, xconv.correlate(x, kernel, method="direct", **call))


@pytest.mark.backends("numpy", "fast")
def test_sixteen_bits_are_computed_in_more(backend):
    x, kernel = numbers((2, 30, 30), "float16"), numbers((5, 5), "float16", seed=1)
    y = backend.call(xconv.convolve, x, kernel, mode="same", method="spectral")
    assert y.dtype == "float16"
    wanted = xconv.convolve(x.astype("float64"), kernel.astype("float64"), mode="same", method="direct")
    assert_close(y, wanted.astype("float16"), rtol=2e-3)


@pytest.mark.backends("numpy", "fast")
def test_long_kernels_over_stacks_are_its_own(backend):
    x, kernel = np.ones((50, 100, 100), "float32"), np.ones((11, 11), "float32")
    assert xconv.explain(xconv.convolve, x, kernel, mode="same").algorithm == "spectral"
