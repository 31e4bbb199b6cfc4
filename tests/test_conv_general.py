"""`conv_general`: the closed form, with holes in the input and pads of any sign."""

import random

import numpy as np
import pytest

import reference
import xconv
from cases import (
    ALGORITHMS,
    data_to,
    kernel_to,
    lacking,
    numbers,
    per_axis,
    pytest_generate_tests,  # noqa: F401
    seed_of,
    small_integers,
    sum_dtype,
    thinned,
    willing,
)
from compare import assert_close, assert_same

LAZY_STEP = 3


class Case:
    """One general convolution: canonical sizes, and the options as the caller spells them."""

    def __init__(self, name, sizes, kernel, /, *, channels=2, outputs=3, batch=2, **options):
        self.name, self.sizes, self.kernel = name, sizes, kernel
        self.channels, self.outputs, self.batch, self.options = channels, outputs, batch, options

    def __str__(self):
        return self.name

    def arrays(self, given="float32", make=numbers):
        """The data and the kernel, canonical."""
        seed, inputs = seed_of(self.name), self.channels // self.options.get("groups", 1)
        x = make((1 if self.batch is None else self.batch, *self.sizes, self.channels), given, seed=seed)
        return x, make((*self.kernel, inputs, self.outputs), given, seed=seed + 1)

    def given(self, x, w):
        """The same as the caller holds them."""
        rank, layout = len(self.kernel), self.options.get("layout", "NHWC")
        return data_to(x[0] if self.batch is None else x, layout, rank), kernel_to(w, layout, rank)

    def run(self, backend, *, given="float32", result_dtype=None, make=numbers, **extra):
        """What the call gives and what the reference gives."""
        options, rank = self.options, len(self.kernel)
        groups, layout = options.get("groups", 1), options.get("layout", "NHWC")
        stride, dilation, holes = (
            per_axis(options.get(name, 1), rank) for name in ("stride", "dilation", "input_dilation")
        )
        spread = [max((n - 1) * hole + 1, 0) for n, hole in zip(self.sizes, holes, strict=True)]
        pads = reference.pads_of(options.get("padding", "valid"), spread, self.kernel, stride, dilation)
        x, w = self.arrays(given, make)
        y = reference.conv(
            x, w, stride=stride, pads=pads, dilation=dilation, input_dilation=holes, groups=groups
        )
        y = y[0] if self.batch is None else y
        expected = data_to(y, layout, rank, result=True).astype(result_dtype or given)
        return backend.call(xconv.conv_general, *self.given(x, w), **options, **extra), expected


def cases():
    """Named cases first, then mixtures drawn once and for all from a seeded generator."""
    yield Case("plain", (5,), (3,))
    yield Case("as-conv", (6, 5), (3, 2), stride=(2, 1), padding="same", dilation=2)
    yield Case("holes-1d", (4,), (3,), input_dilation=3)
    yield Case("holes-2d", (3, 4), (2, 3), input_dilation=(2, 3), padding=1)
    yield Case("holes-3d", (2, 3, 2), (2, 2, 2), input_dilation=2, padding=((1, 0), (0, 2), (1, 1)))
    yield Case("holes-4d", (2, 2, 2, 3), (2, 1, 2, 2), input_dilation=(1, 2, 1, 3), stride=2)
    yield Case("holes-and-same", (4,), (3,), input_dilation=2, padding="same", stride=2)
    yield Case("holes-and-full", (4,), (3,), input_dilation=2, padding="full", dilation=2)
    yield Case("crop-both-ends", (8,), (3,), padding=((-2, -1),))
    yield Case("crop-and-pad", (5, 6), (2, 3), padding=((-2, 3), (2, -3)))
    yield Case("crop-by-one-int", (9,), (3,), padding=-2)
    yield Case("crop-into-a-hole", (4,), (2,), padding=((-1, -2),), input_dilation=3)
    yield Case("crop-past-elements", (4,), (2,), padding=((-4, 3),), input_dilation=3, stride=2)
    yield Case("only-padding-is-read", (2,), (2,), padding=((-2, 4),))
    yield Case("only-holes-are-read", (3,), (1,), padding=((-1, 0),), input_dilation=2, stride=2)
    yield Case("stride-dilation-holes", (5,), (3,), stride=3, dilation=2, input_dilation=4, padding=3)
    yield Case("groups", (4,), (2,), groups=2, channels=4, outputs=6, input_dilation=2, padding=((2, -1),))
    yield Case("depthwise", (4, 3), (2, 2), groups=3, channels=3, outputs=3, input_dilation=2)
    yield Case("unbatched", (4,), (2,), batch=None, input_dilation=2, padding=1)
    yield Case("three-taps-of-two-phases", (6, 7), (6, 6), input_dilation=2, padding=((3, 2), (5, 5)))
    yield Case("three-taps-of-three-phases", (7,), (9,), input_dilation=3, padding=((8, 8),), outputs=2)
    yield Case("three-taps-cropped", (9, 8), (3, 3), padding=((-1, 2), (1, -2)))
    yield Case("one-channel", (12,), (7,), channels=1, outputs=1, input_dilation=2, padding=((6, 6),))
    for number, kernel in enumerate(((4, 5), (7, 4), (6, 6), (5, 9))):
        options = {"input_dilation": (2, 1 + number % 2), "padding": ((number, 4), (3, number))}
        yield Case(f"grey-{number}", (9, 11), kernel, channels=1, outputs=1, **options)
    yield Case("kernel-1", (3, 4), (1, 1), input_dilation=(2, 1), padding=1)
    yield Case("kernel-1-of-each", (3, 4), (1, 1), groups=2, outputs=2, input_dilation=2)
    for layout in ("channels_first", "NCHW,HWIO->NHWC"):
        yield Case(
            f"layout-{layout}", (3, 4), (2, 2), layout=layout, input_dilation=2, padding=((-1, 1), (2, 0))
        )
    draw = random.Random(4)
    for number in range(40):
        rank = draw.choice((1, 1, 2, 2, 3))
        kernel = tuple(draw.randint(1, 3) for _ in range(rank))
        dilation = tuple(draw.randint(1, 3) for _ in range(rank))
        holes = tuple(draw.randint(1, 3) for _ in range(rank))
        sizes = tuple(draw.randint(1, 4) for _ in range(rank))
        pads = []
        for n, k, d, h in zip(sizes, kernel, dilation, holes, strict=True):
            low = draw.randint(-2, 3)
            least = d * (k - 1) + 1 - ((n - 1) * h + 1) - low  # so that at least one window fits
            pads.append((low, least + draw.randint(0, 4)))
        groups = draw.choice((1, 2))
        yield Case(
            f"mixed-{number}",
            sizes,
            kernel,
            channels=groups * draw.randint(1, 2),
            outputs=groups * draw.randint(1, 2),
            batch=draw.choice((None, 1, 2)),
            stride=tuple(draw.randint(1, 3) for _ in range(rank)),
            padding=tuple(pads),
            dilation=dilation,
            input_dilation=holes,
            groups=groups,
            layout=draw.choice(["channels_last", "channels_first"]),
        )


GRID = list(cases())
FORCED = [
    (case, algorithm)
    for case in GRID
    for algorithm in willing(xconv.conv_general, *case.given(*case.arrays()), **case.options)
]


def test_the_grid_names_every_algorithm():
    forced = [algorithm for _, algorithm in FORCED]
    for algorithm in ALGORITHMS:
        assert forced.count(algorithm) >= 4, algorithm


@thinned("case, algorithm", FORCED, every=13)
def test_closed_form_agrees_with_the_reference(backend, case, algorithm):
    with lacking(backend, algorithm):
        assert_close(*case.run(backend, algorithm=algorithm))


@pytest.mark.parametrize("dtype", ["float64", "complex64", "int8", "int64"])
def test_dtypes(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    result = sum_dtype(backend, dtype) if dtype.startswith("int") else np.dtype(dtype)
    case = Case("general-dtypes", (4, 3), (2, 2), input_dilation=2, padding=((-1, 2), (1, 0)))
    actual, expected = case.run(backend, given=dtype, result_dtype=result, make=small_integers)
    assert_same(actual, expected)


@thinned("workspace", [700, 1], every=2)
def test_tiles_join_without_seams(backend, workspace):
    """A tile may read nothing but holes or padding."""
    case = Case(
        "general-tiles", (4, 3), (3, 2), input_dilation=(3, 4), padding=((5, -2), (-3, 6)), stride=(1, 2)
    )
    with xconv.config(workspace=workspace):
        assert_close(*case.run(backend))


def test_pads_that_crop_too_much_are_refused(backend):
    x, w = np.ones((1, 5, 1), "float32"), np.ones((2, 1, 1), "float32")
    with pytest.raises(ValueError, match="w must "):
        backend.call(xconv.conv_general, x, w, padding=-2)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("option", ["stride", "dilation", "input_dilation", "groups"])
def test_counts_must_be_positive(backend, option, value):
    x, w = np.ones((1, 5, 1), "float32"), np.ones((2, 1, 1), "float32")
    with pytest.raises(ValueError, match=f"{option} must be positive; got {option}={value}"):
        backend.call(xconv.conv_general, x, w, **{option: value})


def test_transposed_problem_is_the_gradient(backend):
    """<conv(x, w), g> = <x, dx> with dx a general convolution: holes of the stride, flipped kernel, and pads of

    either sign.
    """
    n, k, s, low, high = 7, 3, 2, 1, -1
    x, w = small_integers((1, n, 2), seed=1), small_integers((k, 2, 3), seed=2)
    y = backend.call(xconv.conv, x, w, stride=s, padding=((low, high),))
    g = small_integers(y.shape, seed=3)
    spread = (y.shape[1] - 1) * s + 1
    before = k - 1 - low
    pads = ((before, n + k - 1 - spread - before),)
    flipped = np.ascontiguousarray(np.swapaxes(w[::-1], 1, 2))
    back = backend.call(xconv.conv_general, g, flipped, input_dilation=s, padding=pads)
    assert back.shape == x.shape
    assert np.sum(y * g) == np.sum(x * back)


@pytest.mark.backends("dask")
def test_a_chunk_that_reads_nothing_is_not_refused(backend):
    """Beyond the border there is nothing to do; of the whole problem the algorithm was found to be able."""
    case = next(case for case in GRID if case.name == "mixed-10")
    assert_close(*case.run(backend, algorithm="winograd"))
