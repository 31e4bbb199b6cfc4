"""`depthwise_conv` and `separable_conv`."""

import numpy as np
import pytest

import reference
import xconv
from cases import (
    ALGORITHMS,
    data_to,
    lacking,
    numbers,
    per_axis,
    pytest_generate_tests,  # noqa: F401
    refusal,
    seed_of,
    small_integers,
    sum_dtype,
    thinned,
)
from compare import assert_close, assert_same

LAZY_STEP = 3


class Case:
    """One depthwise convolution: canonical sizes, and the options as the caller spells them."""

    def __init__(self, name, sizes, kernel, /, *, channels=3, multiplier=2, batch=2, bias=False, **options):
        self.name, self.sizes, self.kernel = name, sizes, kernel
        self.channels, self.multiplier = channels, multiplier
        self.batch, self.bias, self.options = batch, bias, options

    def __str__(self):
        return self.name

    @property
    def rank(self):
        return len(self.kernel)

    @property
    def first(self):
        """Whether the layout puts channels first."""
        layout = self.options.get("layout", "NHWC")
        return layout == "channels_first" or layout[1] == "C"

    def arrays(self, given, make):
        """Canonical data, depthwise kernel (*k, 1, C * M), bias."""
        seed, wide = seed_of(self.name), self.channels * self.multiplier
        x = make((1 if self.batch is None else self.batch, *self.sizes, self.channels), given, seed=seed)
        w = make((*self.kernel, 1, wide), given, seed=seed + 1)
        return x, w, make((wide,), given, seed=seed + 2) if self.bias else None

    def convolved(self, x, w, b=None):
        """What the reference gives."""
        options = self.options
        stride, dilation = (per_axis(options.get(name, 1), self.rank) for name in ("stride", "dilation"))
        pads = reference.pads_of(options.get("padding", "valid"), self.sizes, self.kernel, stride, dilation)
        mode = options.get("pad_mode", "constant")
        return reference.conv(
            x, w, b, stride=stride, pads=pads, dilation=dilation, groups=self.channels, pad_mode=mode
        )

    def kernel_given(self, w):
        """A canonical depthwise kernel as the caller holds it: (*k, C, M), or (C * M, 1, *k)."""
        if self.first:
            return np.moveaxis(w, (-1, -2), (0, 1))
        return w.reshape(*self.kernel, self.channels, self.multiplier)

    def data_given(self, x, *, result=False):
        """Canonical data in the layout of the case, unbatched if it is."""
        x = x[0] if self.batch is None else x
        return data_to(x, "NCHW" if self.first else "NHWC", self.rank, result=result)

    def run(self, backend, *, given="float32", result_dtype=None, make=numbers, **extra):
        """What the call gives and what the reference gives."""
        x, w, b = self.arrays(given, make)
        expected = self.data_given(self.convolved(x, w, b), result=True).astype(result_dtype or given)
        arrays = self.data_given(x), self.kernel_given(w), b
        return backend.call(xconv.depthwise_conv, *arrays, **self.options, **extra), expected

    def run_separable(self, backend, outputs=4, **extra):
        """The same for a separable convolution with a pointwise kernel to `outputs` channels."""
        x, w, _ = self.arrays("float32", numbers)
        wide, ones = self.channels * self.multiplier, (1,) * self.rank
        mix, b = numbers((*ones, wide, outputs), seed=5), numbers((outputs,), seed=6) if self.bias else None
        y = self.convolved(x, w)
        y = reference.conv(y, mix, b, stride=ones, pads=((0, 0),) * self.rank, dilation=ones)
        if self.first:
            mix = np.moveaxis(mix, (-1, -2), (0, 1))
        arrays = self.data_given(x), self.kernel_given(w), mix, b
        actual = backend.call(xconv.separable_conv, *arrays, **self.options, **extra)
        return actual, self.data_given(y, result=True).astype("float32")


def cases():
    """Cases over rank, multiplier, geometry and layout."""
    for rank, sizes in {1: (7,), 2: (6, 5), 3: (4, 5, 3), 4: (3, 3, 3, 3)}.items():
        kernel = (3, 2, 2, 2)[:rank]
        for multiplier in (1, 2, 3):
            yield Case(f"{rank}d-times-{multiplier}", sizes, kernel, multiplier=multiplier, bias=True)
            yield Case(
                f"{rank}d-times-{multiplier}-same", sizes, kernel, multiplier=multiplier, padding="same"
            )
            yield Case(
                f"{rank}d-times-{multiplier}-first",
                sizes,
                kernel,
                multiplier=multiplier,
                layout="channels_first",
            )
        yield Case(f"{rank}d-stride", sizes, kernel, stride=2, padding=1, multiplier=1)
        yield Case(f"{rank}d-dilation", sizes, (2,) * rank, dilation=2, multiplier=1)
        yield Case(f"{rank}d-unbatched", sizes, kernel, batch=None, bias=True)
        yield Case(f"{rank}d-unbatched-first", sizes, kernel, batch=None, bias=True, layout="NCHW")
        yield Case(f"{rank}d-one-channel", sizes, kernel, channels=1, multiplier=2)
    for mode in ("edge", "reflect", "symmetric", "wrap"):
        yield Case(f"mode-{mode}", (5, 4), (3, 3), padding=((2, 1), (0, 3)), pad_mode=mode, multiplier=1)
    yield Case("asymmetric-stride", (6, 7), (3, 2), stride=(3, 2), padding=((0, 2), (-1, 1)))
    yield Case("same-lower", (6, 7), (2, 4), stride=(3, 2), padding="same_lower")
    yield Case("full-first", (6, 7), (2, 4), padding="full", layout="NCHW", bias=True)
    yield Case("kernel-1", (4, 3), (1, 1), bias=True)
    yield Case("kernel-1-one-channel", (4, 3), (1, 1), channels=1)
    yield Case("three-taps-one-channel", (6, 7), (3, 3), channels=1, multiplier=5, bias=True)
    yield Case("grey", (9, 14), (4, 3), channels=1, multiplier=1, padding="same")
    yield Case("long", (11, 14), (5, 6), padding="same", bias=True)


GRID = list(cases())


def able(algorithm, case):
    """Whether an algorithm can do a case, by its definition."""
    options = {"stride": case.options.get("stride", 1), "dilation": case.options.get("dilation", 1)}
    channels = case.channels
    return not refusal(
        algorithm, case.kernel, channels, channels * case.multiplier, groups=channels, **options
    )


FORCED = [(case, algorithm) for case in GRID for algorithm in ALGORITHMS if able(algorithm, case)]


def test_the_grid_names_every_algorithm():
    forced = [algorithm for _, algorithm in FORCED]
    for algorithm in ALGORITHMS:
        assert algorithm in forced


@thinned("case, algorithm", FORCED, every=19)
def test_depthwise_agrees_with_the_reference(backend, case, algorithm):
    with lacking(backend, algorithm):
        assert_close(*case.run(backend, algorithm=algorithm))


@thinned("case, algorithm", FORCED, every=23)
def test_separable_agrees_with_the_reference(backend, case, algorithm):
    with lacking(backend, algorithm):
        assert_close(*case.run_separable(backend, algorithm=algorithm))


def test_depthwise_is_conv_with_a_group_for_each_channel(backend):
    x, w = small_integers((2, 5, 4, 3), seed=1), small_integers((3, 2, 3, 2), seed=2)
    result = backend.call(xconv.depthwise_conv, x, w, stride=2)
    assert_same(result, backend.call(xconv.conv, x, w.reshape(3, 2, 1, 6), stride=2, groups=3))


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "int8", "uint8", "int64"])
def test_dtypes(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    result = sum_dtype(backend, dtype) if "int" in dtype else np.dtype(dtype)
    case = Case("depthwise-dtypes", (5, 4), (3, 2), padding=1, bias=True)
    actual, expected = case.run(backend, given=dtype, result_dtype=result, make=small_integers)
    assert_same(actual, expected)


@pytest.mark.parametrize("name", ["relu", "sigmoid"])
def test_activation_comes_last(backend, name):
    case = Case("depthwise-activation", (5, 4), (3, 2), bias=True)
    meant = {"relu": lambda y: np.maximum(y, 0), "sigmoid": lambda y: 1 / (1 + np.exp(-y))}[name]
    for run in (case.run, case.run_separable):
        _, plain = run(backend)
        assert_close(run(backend, activation=name)[0], meant(plain))


def test_nan_in_one_channel_never_touches_another(backend):
    x, w = numbers((1, 5, 3)), numbers((3, 3, 2))
    x[0, 2, 1] = np.nan
    for algorithm in ("depthwise", "direct", "im2col", "auto"):
        y = backend.call(xconv.depthwise_conv, x, w, algorithm=algorithm)
        assert np.isnan(y[0]).all(axis=0).tolist() == [False, False, True, True, False, False]
        assert not np.isnan(y[0][:, [0, 1, 4, 5]]).any()


def test_empty_batch_keeps_its_shape(backend):
    for first in (False, True):
        layout = "NCHW" if first else "NHWC"
        case = Case("depthwise-empty", (5, 4), (3, 2), batch=0, layout=layout)
        assert_same(*case.run(backend))
        assert_same(*case.run_separable(backend))


X, W = np.ones((1, 5, 3), "float32"), np.ones((2, 3, 2), "float32")


def test_groups_are_no_option_of_a_depthwise_convolution(backend):
    with pytest.raises(TypeError):
        backend.call(xconv.depthwise_conv, X, W, groups=3)


def test_a_kernel_for_other_channels_is_refused(backend):
    with pytest.raises(ValueError, match="w must "):
        backend.call(xconv.depthwise_conv, X, np.ones((2, 2, 2), "float32"))
    with pytest.raises(ValueError, match="w must "):
        backend.call(
            xconv.depthwise_conv, np.moveaxis(X, -1, 1), np.ones((4, 1, 2), "float32"), layout="NCHW"
        )


def test_a_pointwise_kernel_of_more_than_one_element_is_refused(backend):
    with pytest.raises(ValueError, match="pointwise must "):
        backend.call(xconv.separable_conv, X, W, np.ones((2, 6, 4), "float32"))


def test_a_pointwise_kernel_for_other_channels_is_refused(backend):
    with pytest.raises(ValueError, match="pointwise must have 6 input channels"):
        backend.call(xconv.separable_conv, X, W, np.ones((1, 5, 4), "float32"))


def test_a_depthwise_kernel_that_does_not_fit_is_refused_under_its_own_name(backend):
    with pytest.raises(ValueError, match="depthwise must fit into the padded input"):
        backend.call(xconv.separable_conv, X, np.ones((6, 3, 2), "float32"), np.ones((1, 6, 4), "float32"))
