"""The workshop `fft`, asked directly: what it refuses, what it says it costs, and that its sums are right."""

import dataclasses
import tracemalloc

import array_api_compat.numpy as numpy_namespace
import numpy as np
import pytest

import reference
from cases import numbers, seed_of
from compare import assert_close, assert_same
from xconv._algorithms import fft
from xconv._geometry import Axis, ConvProblem
from xconv._namespace import NUMPY, inspect

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
    return backend.call(lambda x, w: fft.run(x, fft.bind(w, problem, backend.xp), problem, backend.xp), x, w)


def run(x, w, problem):
    """What the workshop gives on NumPy."""
    return fft.run(x, fft.bind(w, problem, numpy_namespace), problem, numpy_namespace)


CASES = {
    "line": problem_of((37,), (5,)),
    "line-of-many-blocks": problem_of((400,), (7,)),
    "line-stride": problem_of((40,), (5,), stride=3),
    "line-long-stride": problem_of((200,), (3,), stride=7),
    "line-dilation": problem_of((40,), (4,), dilation=3),
    "kernel-as-long-as-the-line": problem_of((9,), (9,)),
    "image": problem_of((23, 22), (5, 4)),
    "image-of-many-blocks": problem_of((90, 41), (3, 3), batch=3),
    "image-stride": problem_of((30, 32), (5, 4), stride=(2, 3), dilation=(1, 2)),
    "row-kernel": problem_of((7, 30), (1, 5), stride=(2, 1)),
    "column-kernel": problem_of((30, 7), (5, 1), stride=(1, 2)),
    "channels": problem_of((20, 19), (4, 5), inputs=3, outputs=2),
    "many-channels": problem_of((20, 19), (4, 5), inputs=6, outputs=5),
    "groups": problem_of((20, 19), (4, 5), inputs=4, outputs=6, groups=2),
    "many-channels-in-groups": problem_of((12, 9), (4, 3), inputs=10, outputs=4, groups=2),
    "depthwise": problem_of((20, 19), (4, 5), inputs=3, outputs=6, groups=3),
    "volume": problem_of((9, 8, 10), (3, 2, 4), stride=(1, 2, 1)),
    "four-axes": problem_of((5, 4, 5, 6), (2, 1, 2, 3)),
}


@pytest.mark.backends(
    "numpy", "torch", "jax", "cupy"
)  # "strict" is without extensions, chunks of Dask are NumPy's
@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_direct_sum(backend, name):
    problem = CASES[name]
    assert fft.why_not(problem, NUMPY) is None
    x, w = arrays(problem, seed=seed_of(name))
    assert_close(computed(backend, x, w, problem), expected(x, w, problem), rtol=2e-6)


@pytest.mark.backends("numpy", "torch", "jax", "cupy")
@pytest.mark.parametrize("name", ["line-dilation", "image", "channels", "many-channels-in-groups"])
@pytest.mark.parametrize("dtype", ["float64", "complex64", "complex128"])
def test_every_floating_dtype(backend, name, dtype):
    """The kernel is not conjugated, nor is the input."""
    kind = "complex" if dtype.startswith("complex") else "float"
    problem = dataclasses.replace(CASES[name], kind=kind, itemsize=np.dtype(dtype).itemsize)
    x, w = arrays(problem, dtype=dtype)
    y = computed(backend, x, w, problem)
    assert y.dtype == dtype
    assert_close(y, expected(x, w, problem), rtol=2e-6 if dtype == "complex64" else 1e-14)


def test_the_spectrum_is_kept_in_the_precision_of_the_input():
    for dtype, spectrum in (("float32", "complex64"), ("float64", "complex128")):
        problem = dataclasses.replace(CASES["image"], itemsize=np.dtype(dtype).itemsize)
        assert fft.bind(arrays(problem, dtype=dtype)[1], problem, numpy_namespace).dtype == spectrum


@pytest.mark.backends("torch")
def test_it_agrees_with_torch_on_an_image_of_many_blocks(backend):
    import torch

    problem = problem_of((150, 200), (13, 9), inputs=2, outputs=3, stride=(1, 2), itemsize=8)
    x, w = arrays(problem, dtype="float64")
    data, kernel = (
        torch.from_numpy(array) for array in (np.moveaxis(x, -1, 1), np.moveaxis(w, (3, 2), (0, 1)))
    )
    theirs = torch.nn.functional.conv2d(data, kernel, stride=(1, 2)).numpy()
    assert_close(computed(backend, x, w, problem), np.moveaxis(theirs, 1, -1), rtol=1e-13)


def test_the_error_of_float32_is_that_of_a_transform():
    """The norm of the error, relative to the norm of the result in float64."""
    problem = problem_of((120, 120), (31, 31), batch=1)
    x, w = arrays(problem)
    exact = run(x.astype("float64"), w.astype("float64"), dataclasses.replace(problem, itemsize=8))
    error = np.linalg.norm(run(x, w, problem) - exact) / np.linalg.norm(exact)
    assert 1e-9 < error < 1e-6


def test_a_bound_kernel_serves_every_tile():
    whole = problem_of((90, 61), (4, 5))
    x, w = arrays(whole)
    bound = fft.bind(w, whole, numpy_namespace)
    for start, stop in ((0, 31), (31, 32), (32, 87)):
        tile = problem_of((stop - start + 3, 61), (4, 5))
        part = x[:, start : stop + 3]
        assert_close(fft.run(part, bound, tile, numpy_namespace), expected(part, w, tile), rtol=2e-6)


def test_images_do_not_touch():
    """Not even by rounding: an image gives the same bits alone, and a NaN stays in its image."""
    problem = problem_of((40, 40), (5, 5), batch=3)
    x, w = arrays(problem)
    x[1, 3, 3, 0] = np.nan
    y = run(x, w, problem)
    assert np.isnan(y[1]).any()
    for i in (0, 2):
        alone = run(x[i : i + 1], w, dataclasses.replace(problem, batch=1))
        assert_same(y[i : i + 1], alone)
        assert np.isfinite(alone).all()


@pytest.mark.parametrize("limit", [2**10, 2**13, 2**20])
def test_the_result_is_the_same_whatever_is_transformed_at_once(monkeypatch, limit):
    problem = CASES["image-of-many-blocks"]
    x, w = arrays(problem)
    monkeypatch.setattr(fft, "TOGETHER", limit)
    y = run(x, w, problem)
    monkeypatch.undo()
    assert_same(y, run(x, w, problem))


def test_the_result_may_be_put_where_it_belongs():
    problem = CASES["image-of-many-blocks"]
    x, w = arrays(problem)
    out = np.full((problem.batch, *problem.outputs, 1), np.nan, "float32")
    assert fft.run(x, fft.bind(w, problem, numpy_namespace), problem, numpy_namespace, out) is out
    assert_same(out, run(x, w, problem))


def test_lengths_are_even_where_half_is_left_out_and_smooth_everywhere():
    for name, problem in CASES.items():
        found = fft.lengths(problem)
        reached = [length for length, axis in zip(found, problem.axes, strict=True) if axis.reach > 1]
        assert reached[-1] % 2 == 0, name
        assert all(fft.smooth(length) == length for length in reached), name
        assert all(length >= axis.reach for length, axis in zip(found, problem.axes, strict=True)), name
    assert [fft.smooth(n) for n in (7, 11, 13, 101)] == [8, 12, 15, 108]
    assert fft.smooth(13, even=True) == 16


REFUSALS = {
    "only direct sums are allowed (integers, or precision='strict')": problem_of((9,), (3,), direct=True),
    "integers are summed as they are": problem_of((9,), (3,), kind="integer"),
    "the kernel has one tap, not several": problem_of((9, 9), (1, 1)),
    "there is nothing to compute": problem_of((9, 9), (3, 3), batch=0),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_it_says_why_it_refuses(text):
    assert fft.why_not(REFUSALS[text], NUMPY) == text


@pytest.mark.backends("numpy", "strict", "torch", "jax", "cupy")
def test_it_refuses_a_library_without_transforms(backend):
    _, traits = inspect(x=backend.asarray(np.ones(3, "float32")))
    refusal = fft.why_not(CASES["line"], traits)
    assert traits.fft == hasattr(backend.xp, "fft")
    if backend.name == "strict":
        assert refusal == "array_api_strict has no Fourier transforms here"
    else:
        assert refusal is None


LARGE = {
    "image": problem_of((300, 300), (9, 9)),
    "images": problem_of((40, 40), (9, 9), batch=40),
    "channels": problem_of((90, 90), (9, 9), inputs=3, outputs=4),
    "many-channels": problem_of((90, 90), (9, 9), inputs=24, outputs=2),
    "depthwise": problem_of((90, 90), (9, 9), inputs=16, outputs=16, groups=16),
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", LARGE)
def test_it_needs_its_result_and_the_workspace_it_says(name):
    if name == "many-channels" and np.__version__.startswith("2.0."):
        pytest.skip("NumPy 2.0 copies the operands of a matmul of many complex matrices")
    problem = LARGE[name]
    x, w = arrays(problem)
    bound = fft.bind(w, problem, numpy_namespace)
    assert fft.cost(problem, NUMPY).bound == pytest.approx(bound.nbytes, rel=0.1)
    fft.run(x, bound, problem, numpy_namespace)
    tracemalloc.start()
    try:
        y = fft.run(x, bound, problem, numpy_namespace)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    workspace = fft.cost(problem, NUMPY).workspace
    assert peak - y.nbytes <= workspace + 32 * 1024
    assert peak - y.nbytes >= workspace / 4, "the promise is worth nothing if it is far above what is needed"
