"""What the test files of the doors share: arrays of numbers, arrangements of axes, and cases of convolution.

Everything is written in the one arrangement of `reference` and turned into what a call asks for at the last moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import zlib

import numpy as np
import pytest

import descriptions
import reference
import xconv

SPATIAL = "XYZUV"


# ---------------------------------------------------------------------------------------------------- numbers


def numbers(shape, dtype="float32", *, seed=0, result_bits=64):
    """Random numbers of a type. Sums of a hundred products of two such integers fit into `result_bits`."""
    random = np.random.default_rng([seed, *shape])
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        largest = 2 ** (result_bits // 2 - 4)
        low, high = max(int(limits.min), -largest), min(int(limits.max), largest)
        return random.integers(low, high, size=shape, dtype=dtype, endpoint=True)
    values = random.uniform(-1, 1, shape)
    if dtype.kind == "c":
        values = values + 1j * random.uniform(-1, 1, shape)
    return values.astype(dtype)


def small_integers(shape, dtype="float32", *, seed=0):
    """Whole numbers from -4 (or 0) to 4, so that sums of products are exact in every type."""
    random = np.random.default_rng([seed, *shape])
    low = 0 if np.dtype(dtype).kind == "u" else -4
    return random.integers(low, 4, size=shape, endpoint=True).astype(dtype)


def seed_of(name):
    """A seed that a name always gives."""
    return zlib.crc32(name.encode())


def sum_dtype(backend, *dtypes):
    """The type that the backend's own `sum` gives to an array of the joint type of these integers."""
    xp = backend.xp
    joint = xp.result_type(*(backend.asarray(np.ones(1, dtype)) for dtype in dtypes))
    total = xp.sum(xp.ones((1,), dtype=joint), axis=0, keepdims=True)
    return backend.numpy(total).dtype


def default_float(backend):
    """The backend's default floating-point type."""
    return backend.numpy(backend.xp.ones((1,))).dtype


def default_integer(backend):
    """The backend's default integer type."""
    return backend.numpy(backend.xp.arange(1)).dtype


# ---------------------------------------------------------------------------------------------------- layouts


def arrangements(layout, rank):
    """The axis names of the data, of the kernel and of the result that a layout asks for."""
    spatial = SPATIAL[:rank]
    if "->" in layout:
        arrays, result = layout.split("->")
        data, kernel = arrays.split(",")
        return data, kernel, result
    first = layout == "channels_first" or layout[1] == "C"
    data = "NC" + spatial if first else "N" + spatial + "C"
    kernel = "OI" + spatial if first else spatial + "IO"
    return data, kernel, data


def spatial_order(kernel):
    """The spatial letters of a kernel's arrangement, in order."""
    return "".join(letter for letter in kernel if letter not in "IO")


def arrange(array, source, target):
    """Transpose `array` whose axes are named by `source` to the order of `target`."""
    assert sorted(source) == sorted(target), (source, target)
    return np.transpose(array, [source.index(letter) for letter in target])


def data_to(array, layout, rank, *, result=False):
    """Canonical data (N, *spatial, C), or (*spatial, C) when unbatched, in the arrangement of a layout."""
    data, kernel, out = arrangements(layout, rank)
    target = out if result else data
    source = "N" + spatial_order(kernel) + "C"
    if array.ndim == rank + 1:
        source, target = source.replace("N", ""), target.replace("N", "")
    return arrange(array, source, target)


def kernel_to(array, layout, rank):
    """A canonical kernel (*kernel, I, O) in the arrangement of a layout."""
    kernel = arrangements(layout, rank)[1]
    return arrange(array, spatial_order(kernel) + "IO", kernel)


def per_axis(value, rank):
    """An option given once or per axis, as a tuple."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


# ------------------------------------------------------------------------------------------ cases of convolution


@dataclasses.dataclass(frozen=True)
class ConvCase:
    """One convolution: sizes in the canonical arrangement and the options as the caller spells them."""

    name: str
    sizes: tuple = (6, 5)
    kernel: tuple = (3, 2)
    channels: int = 2
    outputs: int = 3
    batch: int | None = 2
    bias: bool = False
    dtype: str = "float32"
    kernel_dtype: str | None = None
    options: dict = dataclasses.field(default_factory=dict)

    def __str__(self):
        return self.name

    @property
    def rank(self):
        return len(self.kernel)

    @property
    def groups(self):
        return self.options.get("groups", 1)

    @property
    def layout(self):
        return self.options.get("layout", "NHWC")

    def arrays(self, result_bits=64, kernel_shape=None, make=numbers):
        """The data, the kernel and the bias (or None), canonical."""
        seed = seed_of(self.name)
        kernel_dtype = self.kernel_dtype or self.dtype
        x = make(
            (1 if self.batch is None else self.batch, *self.sizes, self.channels),
            self.dtype,
            seed=seed,
            **_bits(make, result_bits),
        )
        kernel_shape = kernel_shape or (*self.kernel, self.channels // self.groups, self.outputs)
        w = make(kernel_shape, kernel_dtype, seed=seed + 1, **_bits(make, result_bits))
        b = None
        if self.bias:
            b = make((self.outputs,), kernel_dtype, seed=seed + 2, **_bits(make, result_bits))
        return x, w, b

    def geometry(self):
        """Stride and dilation per axis, and the padding as pairs."""
        stride = per_axis(self.options.get("stride", 1), self.rank)
        dilation = per_axis(self.options.get("dilation", 1), self.rank)
        pads = reference.pads_of(
            self.options.get("padding", "valid"), self.sizes, self.kernel, stride, dilation
        )
        return {"stride": stride, "dilation": dilation, "pads": pads}

    def given(self, x, w, b):
        """The arrays as the caller holds them: arranged by the layout, unbatched if the case is."""
        x = x[0] if self.batch is None else x
        return data_to(x, self.layout, self.rank), kernel_to(w, self.layout, self.rank), b

    def expected(self, y, dtype):
        """A canonical result of the reference in the arrangement and the type that the call should give."""
        y = y[0] if self.batch is None else y
        return data_to(y, self.layout, self.rank, result=True).astype(dtype)


def _bits(make, result_bits):
    return {"result_bits": result_bits} if make is numbers else {}


def run_conv(backend, function, case, *, result_dtype=None, meant=None, make=numbers, **extra):
    """Call `function` (a convolution) for a case: what it gives and what the reference gives.

    `extra` are further options of the call, `meant` what they do to the result of the reference, if anything.
    """
    bits = 64
    if np.dtype(case.dtype).kind in "iu" and result_dtype is not None:
        bits = 8 * np.dtype(result_dtype).itemsize
    x, w, b = case.arrays(bits, make=make)
    y = reference.conv(
        x, w, b, **case.geometry(), groups=case.groups, pad_mode=case.options.get("pad_mode", "constant")
    )
    if meant is not None:
        y = meant(y)
    actual = backend.call(function, *case.given(x, w, b), **case.options, **extra)
    return actual, case.expected(y, result_dtype or case.dtype)


def cells(case):
    """How many cells a kernel has."""
    return math.prod(case.kernel)


# ------------------------------------------------------------------------------------------------- algorithms

ALGORITHMS = [
    "pointwise",
    "direct",
    "im2col",
    "kn2row",
    "banded",
    "depthwise",
    "winograd",
    "spectral",
    "fft",
    "auto",
]
EXACT = [
    name for name in ALGORITHMS if name not in ("winograd", "spectral", "fft")
]  # they add products, and nothing else


def refusal(algorithm, kernel, channels, outputs, *, groups=1, stride=1, dilation=1, batch=1):
    """Words of the reason why an algorithm cannot do a convolution of floats without holes, or None if it can."""
    rank, inputs = len(kernel), channels // groups
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    few = [k for k, s, d in zip(kernel, stride, dilation, strict=True) if 2 <= -(-k // s) <= 5 and d == 1]
    match algorithm:
        case "pointwise":
            return f"{math.prod(kernel)} taps" if math.prod(kernel) > 1 else _only_one(groups)
        case "depthwise":
            return None if inputs == 1 else f"{inputs} input channels"
        case "kn2row":
            return _only_one(groups) or ("the pixels that a stride leaves out" if max(stride) > 1 else None)
        case "winograd":
            return _only_one(groups) or (
                None if few else "no axis has 2 to 5 taps for each step of its stride, and dilation 1"
            )
        case "spectral":
            return _no_plane(kernel, channels, outputs, stride, batch)
        case "fft":
            return "one tap" if math.prod(kernel) == 1 else None if batch != 0 else "nothing to compute"
        case "banded":
            return (
                "nothing to compute"
                if batch == 0
                else _no_band(kernel, inputs, outputs, groups, stride, dilation)
            )
    return None


def _only_one(groups):
    return f"{groups} groups" if groups > 1 else None


def _no_plane(kernel, channels, outputs, stride, batch):
    """One channel, and two axes next to each other that are filtered."""
    if (channels, outputs) != (1, 1):
        return f"{channels} input and {outputs} output channels"
    if batch == 0:
        return "nothing to compute"
    long = [axis for axis, taps in enumerate(kernel) if taps > 1]
    short = [steps for taps, steps in zip(kernel, stride, strict=True) if taps == 1]
    behind = len(long) == 2 and long[1] < len(kernel) - 1 and stride[long[1]] > 1
    if len(long) != 2 or long[1] != long[0] + 1 or max(short, default=1) > 1 or behind:
        return "the kernel does not lie in two neighbouring axes"
    return None


def _no_band(kernel, inputs, outputs, groups, stride, dilation):
    """Bands are made along the last axis, or, of groups of one channel, along the last but one."""
    rows = len(kernel) > 1 and inputs == 1 and (groups > 1 or (kernel[-2] > 1 and outputs <= 4))
    if groups > 1 and inputs > 1:
        return f"each of the {groups} groups has {inputs} input channels"
    if groups > 1 and not rows:
        return f"{groups} groups and one axis"
    axis = -2 if rows else -1
    taps, fewest = kernel[axis], 4 if rows else 2
    if taps == 1:
        return "one tap along the last axis" + (" but one" if rows else "")
    wide = (fewest - 1) * stride[axis] + (taps - 1) * dilation[axis] + 1
    return None if wide <= 4 * taps else f"a band of {fewest} outputs"


def willing(function, *arrays, **options):
    """The algorithms that do a call, as `explain` says: of an input with holes, each phase is a kernel of its own."""
    refusals = dict(xconv.explain(function, *arrays, **options).plan.refusals)
    return [name for name in ALGORITHMS if name not in refusals]


@contextlib.contextmanager
def lacking(backend, algorithm):
    """Around a call that a library refuses if it lacks what the algorithm needs, which is Fourier transforms."""
    if algorithm != "fft" or hasattr(backend.xp, "fft"):
        yield
        return
    with pytest.raises(
        ValueError, match=r"(algorithm|method) must .* has no Fourier transforms here; got \1='fft'"
    ):
        yield


# -------------------------------------------------------------------------------------------------- selection


def thinned(names, items, every, *, heavy=None):
    """Parametrize a test with all items, or on a lazy backend, which traces and compiles each call, each `every`-th.

    Items for which `heavy(*item)` holds are then left out as well. The test's module imports `pytest_generate_tests`
    from here.
    """

    def mark(function):
        function.thinned = [*getattr(function, "thinned", []), (names, list(items), every, heavy)]
        return function

    return mark


def pytest_generate_tests(metafunc):
    """Do what `thinned` says."""
    for names, items, every, heavy in getattr(metafunc.function, "thinned", []):
        lazy = descriptions.load(metafunc.config.getoption("backend")).lazy
        chosen = items
        if lazy:
            light = [
                item
                for item in items
                if not (heavy and heavy(*(item if isinstance(item, tuple) else (item,))))
            ]
            chosen = light[::every]
        metafunc.parametrize(names, chosen, ids=[label(item) for item in chosen])


def label(item):
    """The id of a case, or of a tuple of a case and more."""
    parts = item if isinstance(item, tuple) else (item,)
    text = "-".join(getattr(part, "__name__", str(part)) for part in parts)
    text = re.sub(r" at 0x[0-9a-f]+", "", text)  # which is another one in every process
    return text.replace(" ", "")
