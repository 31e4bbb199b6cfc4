"""`conv_transpose`: the scatter of the reference, in every option, and the adjoint of `conv`."""

import itertools
import math
import random

import numpy as np
import pytest

import reference
import xconv
from cases import (
    ALGORITHMS,
    arrange,
    arrangements,
    data_to,
    lacking,
    numbers,
    per_axis,
    pytest_generate_tests,  # noqa: F401
    seed_of,
    small_integers,
    spatial_order,
    sum_dtype,
    thinned,
    willing,
)
from compare import assert_close, assert_same

LAZY_STEP = 3

SIZES = {1: (5,), 2: (4, 3), 3: (3, 2, 3), 4: (2, 3, 2, 2)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 2), 4: (2, 1, 2, 3)}


class Case:
    """One transposed convolution: canonical sizes, and the options as the caller spells them."""

    def __init__(
        self, name, rank, /, *, sizes=None, kernel=None, channels=2, outputs=3, batch=2, bias=False, **options
    ):
        self.name, self.rank = name, rank
        self.sizes, self.kernel = sizes or SIZES[rank], kernel or KERNELS[rank]
        self.channels, self.outputs, self.batch, self.bias = channels, outputs, batch, bias
        self.options = options

    def __str__(self):
        return self.name

    def phases(self):
        """How many interleaved convolutions a transposed one consists of."""
        return math.prod(per_axis(self.options.get("stride", 1), self.rank))

    def arrays(self, given="float32", make=numbers):
        """The data, the kernel and the bias (or None), canonical."""
        seed, groups = seed_of(self.name), self.options.get("groups", 1)
        x = make((1 if self.batch is None else self.batch, *self.sizes, self.channels), given, seed=seed)
        w = make((*self.kernel, self.outputs // groups, self.channels), given, seed=seed + 1)
        return x, w, make((self.outputs,), given, seed=seed + 2) if self.bias else None

    def given(self, x, w, b):
        """The same as the caller holds them."""
        layout = self.options.get("layout", "NHWC")
        kernel = arrangements(layout, self.rank)[1]
        x = data_to(x[0] if self.batch is None else x, layout, self.rank)
        return x, arrange(w, spatial_order(kernel) + "IO", kernel), b

    def run(self, backend, function=None, *, given="float32", result_dtype=None, make=numbers, **extra):
        """What the call gives and what the reference gives."""
        options = self.options
        groups, layout = options.get("groups", 1), options.get("layout", "NHWC")
        stride = per_axis(options.get("stride", 1), self.rank)
        dilation = per_axis(options.get("dilation", 1), self.rank)
        output_shape = options.get("output_shape")
        if output_shape is not None:
            output_shape = per_axis(output_shape, self.rank)
        geometry = (self.sizes, self.kernel, stride, dilation)
        pads = reference.transposed_pads(options.get("padding", "valid"), *geometry, output_shape)
        extra_outputs = per_axis(options.get("output_padding", 0), self.rank)
        if output_shape is not None:
            natural = [
                reference.transposed_size(m, k, s, lo, hi, d)
                for m, k, s, (lo, hi), d in zip(self.sizes, self.kernel, stride, pads, dilation, strict=True)
            ]
            extra_outputs = tuple(n - m for n, m in zip(output_shape, natural, strict=True))
        x, w, b = self.arrays(given, make)
        y = reference.conv_transpose(
            x, w, b, stride=stride, pads=pads, output_padding=extra_outputs, dilation=dilation, groups=groups
        )
        y = y[0] if self.batch is None else y
        function = function or xconv.conv_transpose
        actual = backend.call(function, *self.given(x, w, b), **options, **extra)
        return actual, data_to(y, layout, self.rank, result=True).astype(result_dtype or given)


def single_options():
    """Cases that each turn one option away from its default."""
    for rank in SIZES:
        yield Case(f"{rank}d", rank)
        yield Case(f"{rank}d-bias", rank, bias=True, stride=2)
        yield Case(f"{rank}d-unbatched", rank, batch=None, stride=2, bias=True)
        yield Case(f"{rank}d-unbatched-first", rank, batch=None, stride=2, layout="channels_first")
        for stride in (2, 4, tuple(range(1, rank + 1))):
            yield Case(f"{rank}d-stride-{stride}", rank, stride=stride)
            yield Case(f"{rank}d-stride-{stride}-kernel-1", rank, stride=stride, kernel=(1,) * rank)
            for padding in ("same", "same_lower"):
                yield Case(f"{rank}d-{padding}-stride-{stride}", rank, stride=stride, padding=padding)
        for padding in (1, (1,) * rank, ((1, 0),) * rank, ((0, 1),) * rank, ((-1, 2),) * rank):
            yield Case(f"{rank}d-padding-{padding}", rank, padding=padding, stride=2)
        for padding in ("valid", "same", "same_lower", "full", "causal"):
            yield Case(
                f"{rank}d-padding-{padding}", rank, padding=padding, sizes=(4,) * rank, kernel=(2,) * rank
            )
        yield Case(f"{rank}d-dilation", rank, dilation=2, stride=3)
        yield Case(f"{rank}d-dilation-past-stride", rank, dilation=3, stride=2, output_padding=2)
        yield Case(
            f"{rank}d-output-padding",
            rank,
            stride=3,
            output_padding=tuple(axis % 3 for axis in range(1, rank + 1)),
        )
        yield Case(f"{rank}d-output-padding-and-padding", rank, stride=2, padding=1, output_padding=1)
        for groups, channels, outputs in ((2, 4, 6), (3, 3, 3), (2, 2, 6), (2, 4, 2)):
            name = f"{rank}d-groups-{groups}-of-{channels}-to-{outputs}"
            yield Case(name, rank, groups=groups, channels=channels, outputs=outputs, stride=2)
    for rank, layouts in {
        1: ["NWC", "NCW", "NCW,WIO->NWC"],
        2: ["NHWC", "NCHW", "NCHW,HWIO->NHWC", "NHWC,OIHW->NCHW"],
        3: ["NDHWC", "NCDHW", "channels_last", "channels_first"],
    }.items():
        for layout in layouts:
            yield Case(f"layout-{layout}", rank, layout=layout, stride=2, padding=1, bias=True)
            yield Case(
                f"layout-{layout}-groups", rank, layout=layout, stride=2, groups=2, channels=4, outputs=2
            )
    for padding in ("valid", "same", "same_lower"):
        for length in (6, 7, 8, 9, 10, 11, 12, 13):
            yield Case(f"output-shape-{padding}-{length}", 1, stride=2, padding=padding, output_shape=length)
        yield Case(
            f"output-shape-{padding}-2d", 2, stride=(2, 3), padding=padding, output_shape=(7, 8), bias=True
        )
    for groups in (1, 2):  # what is left of the output meets no element at all
        only_zeros = {"sizes": (1,), "kernel": (2,), "channels": 2, "outputs": 2, "groups": groups}
        name = f"only-zeros-groups-{groups}"
        yield Case(name, 1, **only_zeros, stride=3, dilation=2, padding=((-2, 4),), bias=True)
    yield Case("three-taps", 2, sizes=(5, 6), kernel=(3, 3), padding=1, bias=True)
    yield Case("three-taps-same", 3, sizes=(4, 5, 4), kernel=(3, 3, 3), padding="same")
    yield Case("three-taps-of-two-phases", 2, sizes=(5, 4), kernel=(6, 6), stride=2, padding=2)
    yield Case("three-taps-of-three-phases", 1, sizes=(7,), kernel=(9,), stride=3, output_padding=2)
    for rank in (1, 2, 3):  # phases of the last axis that are one convolution
        beside = {"sizes": SIZES[rank], "kernel": (2,) * rank, "stride": 2}
        yield Case(f"beside-{rank}d", rank, **beside)
        yield Case(f"beside-{rank}d-bias", rank, **beside, bias=True, batch=None, layout="channels_first")
        yield Case(f"beside-{rank}d-cropped", rank, **{**beside, "sizes": (5,) * rank}, padding=2, bias=True)
    yield Case("beside-taps", 2, kernel=(3, 6), stride=(1, 3), padding=(1, 3), bias=True)
    yield Case("beside-taps-of-three", 2, sizes=(5, 6), kernel=(3, 6), stride=(1, 2), padding=(1, 2))
    yield Case("beside-grown", 2, kernel=(2, 2), stride=2, padding=((0, 1), (-2, -4)), output_padding=(1, 0))
    for multiplier in (1, 2):
        each = {"channels": 2 * multiplier, "outputs": 2, "groups": 2}
        yield Case(f"depthwise-{multiplier}", 2, **each, kernel=(4, 4), stride=2, padding=1)
    yield Case("one-channel", 2, channels=1, outputs=1, sizes=(6, 7), kernel=(4, 5))
    for length in (7, 8):
        yield Case(f"output-shape-numeric-{length}", 1, stride=2, padding=2, output_shape=length)
    yield Case("output-shape-numeric-pairs", 2, stride=3, padding=((1, 0), (0, 2)), output_shape=(13, 7))


def grey_cases():
    """Images of one channel, whose phases are filtered in their plane."""
    for number, kernel in enumerate(((4, 4), (5, 6), (7, 5), (4, 9))):
        options = {"stride": (2, 1 + number % 2), "padding": number % 3}
        yield Case(f"grey-{number}", 2, sizes=(7, 8), kernel=kernel, channels=1, outputs=1, **options)


def mixed_cases(count=40):
    """Cases that mix all options, drawn once and for all from a seeded generator."""
    draw = random.Random(3)
    for number in range(count):
        rank = draw.choice((1, 2, 2, 3))
        stride = tuple(draw.randint(1, 3) for _ in range(rank))
        dilation = tuple(draw.randint(1, 2) for _ in range(rank))
        groups = draw.choice((1, 1, 2, 3))
        options = {
            "padding": draw.choice(["same", "same_lower", "valid", ((1, 0),) * rank, ((-1, 1),) * rank, 1]),
            "output_padding": tuple(draw.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)),
        }
        yield Case(
            f"mixed-{number}",
            rank,
            sizes=tuple(draw.randint(3, 4) for _ in range(rank)),
            kernel=tuple(draw.randint(1, 3) for _ in range(rank)),
            channels=groups * draw.randint(1, 2),
            outputs=groups * draw.randint(1, 2),
            batch=draw.choice((None, 1, 2)),
            bias=draw.random() < 0.5,
            stride=stride,
            dilation=dilation,
            groups=groups,
            layout=draw.choice(["channels_last", "channels_first"]),
            **options,
        )


GRID = [*single_options(), *grey_cases(), *mixed_cases()]
FORCED = [
    (case, algorithm)
    for case in GRID
    for algorithm in willing(xconv.conv_transpose, *case.given(*case.arrays()), **case.options)
]


def test_names_of_cases_are_unique():
    assert len({case.name for case in GRID}) == len(GRID)


def test_the_grid_names_every_algorithm():
    forced = [algorithm for _, algorithm in FORCED]
    for algorithm in ALGORITHMS:
        assert forced.count(algorithm) >= 4, algorithm


@thinned("case, algorithm", FORCED, every=29, heavy=lambda case, algorithm: case.phases() > 4)
def test_transposed_agrees_with_the_reference(backend, case, algorithm):
    with lacking(backend, algorithm):
        assert_close(*case.run(backend, algorithm=algorithm))


@pytest.mark.parametrize("algorithm", ["pointwise", "depthwise"])
def test_special_algorithms_where_they_can(backend, algorithm):
    """A 1x1 kernel is pointwise, and one output channel per group depthwise, also when transposed."""
    if algorithm == "pointwise":
        case = Case("transposed-pointwise", 2, kernel=(1, 1), stride=2, bias=True)
    else:
        case = Case("transposed-depthwise", 2, groups=3, channels=3, outputs=3, stride=2)
    assert_close(*case.run(backend, algorithm=algorithm))


@pytest.mark.parametrize(
    ("algorithm", "stride", "reason"),
    [
        ("pointwise", 1, "6 taps"),
        ("depthwise", 1, "2 input channels"),
        ("winograd", 2, "no axis has 2 to 5 taps"),
        ("banded", 2, "one tap along the last axis"),
    ],
)
def test_special_algorithms_refuse_with_their_own_reason(backend, algorithm, stride, reason):
    with pytest.raises(ValueError, match=f"algorithm must .*{reason}.*algorithm='{algorithm}'"):
        Case("transposed-refused", 2, stride=stride).run(backend, algorithm=algorithm)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_floating_dtypes_are_kept(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    case = Case("transposed-dtype", 2, stride=2, padding=1, bias=True)
    actual, expected = case.run(backend, given=dtype)
    assert actual.dtype == dtype
    assert_close(actual, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_integers_are_exact(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    result = sum_dtype(backend, dtype)
    case = Case("transposed-integers", 2, stride=2, padding=1, bias=True)
    make = numbers if result.itemsize == 8 else small_integers
    assert_same(*case.run(backend, given=dtype, result_dtype=result, make=make))


@pytest.mark.parametrize(
    ("given", "asked"), [("float32", "complex64"), ("int8", "float32"), ("int8", "int32")]
)
def test_dtype_option_is_the_type_of_the_result(backend, given, asked):
    case = Case("transposed-dtype-option", 1, stride=2)
    dtype = getattr(backend.xp, asked)
    actual, expected = case.run(backend, given=given, result_dtype=asked, make=small_integers, dtype=dtype)
    assert_same(actual, expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_with_its_rank_in_the_name(backend, rank):
    named = getattr(xconv, f"conv_transpose{rank}d")
    assert_close(*Case(f"named-{rank}d", rank, stride=2, bias=True).run(backend, named))


@pytest.mark.parametrize(("rank", "other"), [(1, 2), (2, 1), (3, 2)])
def test_transposed_with_its_rank_in_the_name_refuses_other_ranks(backend, rank, other):
    with pytest.raises(ValueError, match="w must "):
        Case("wrong-rank", other).run(backend, getattr(xconv, f"conv_transpose{rank}d"))


def test_activation(backend):
    case = Case("transposed-activation", 1, stride=2, bias=True)
    plain, _ = case.run(backend)
    assert plain.min() < 0
    activated, _ = case.run(backend, activation="relu")
    assert_same(activated, np.maximum(plain, 0))


@thinned("workspace, padding", itertools.product([1024, 1], ["valid", "same", ((2, -1), (-1, 1))]), every=6)
def test_tiles_join_without_seams(backend, padding, workspace):
    case = Case("transposed-tiles", 2, sizes=(7, 6), kernel=(3, 3), stride=(2, 3), padding=padding)
    with xconv.config(workspace=workspace):
        assert_close(*case.run(backend))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_empty_batch_keeps_its_shape(backend, layout):
    actual, expected = Case("transposed-empty", 2, batch=0, stride=2, layout=layout).run(backend)
    assert 0 in expected.shape
    assert_same(actual, expected)


# ---------------------------------------------------------------------------------------------------- refusals

X, W = np.ones((1, 4, 2), "float32"), np.ones((3, 3, 2), "float32")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"output_padding": 1}, "output_padding"),
        ({"stride": 2, "output_padding": 2}, "output_padding"),
        ({"stride": 2, "output_padding": -1}, "output_padding"),
        ({"stride": 2, "dilation": 3, "output_padding": 3}, "output_padding"),
        ({"stride": 2, "output_padding": 1, "output_shape": 8}, "output_padding"),
        ({"stride": 2, "padding": 1, "output_shape": 6}, "output_shape"),
        ({"stride": 2, "padding": 1, "output_shape": 9}, "output_shape"),
        ({"stride": 2, "output_shape": (8, 8)}, "output_shape"),
        ({"stride": 0}, "stride"),
        ({"groups": 3}, "groups"),
        ({"padding": "sama"}, "padding"),
    ],
)
def test_contradictions_are_refused(backend, options, argument):
    with pytest.raises(ValueError, match=f"{argument}.* must "):
        backend.call(xconv.conv_transpose, X, W, **options)


def test_a_kernel_with_its_channels_exchanged_is_refused(backend):
    with pytest.raises(ValueError, match="w must "):
        backend.call(xconv.conv_transpose, X, np.ones((3, 2, 3), "float32"))


# ------------------------------------------------------------------------------------------------- adjointness


@thinned(
    "padding, stride, dilation, groups",
    [
        (padding, stride, dilation, groups)
        for padding in ("valid", "same", "same_lower", "full", ((1, 0), (-1, 2)), ((3, 1), (0, 1)))
        for stride, dilation in ((1, 1), (2, 1), ((3, 2), (1, 2)))
        for groups in (1, 2)
    ],
    every=7,
)
def test_transposed_is_the_adjoint_of_conv(backend, padding, stride, dilation, groups):
    """<conv(x, w), g> = <x, conv_transpose(g, w)> for the same kernel and the same options, exactly in integers."""
    x = small_integers((2, 7, 6, 2 * groups), seed=1)
    w = small_integers((3, 2, 2, 2 * groups), seed=2)
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    y = backend.call(xconv.conv, x, w, **options)
    g = small_integers(y.shape, seed=3)
    if padding in ("valid", "full"):  # an output shape leaves these no meaning of their own
        steps = per_axis(stride, 2), per_axis(dilation, 2)
        options["padding"] = reference.pads_of(padding, x.shape[1:3], w.shape[:2], *steps)
    back = backend.call(xconv.conv_transpose, g, w, **options, output_shape=x.shape[1:3])
    assert back.shape == x.shape
    assert np.sum(y * g) == np.sum(x * back)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("bound", [False, True])
def test_phases_of_the_last_axis_stand_side_by_side(bound):
    """Where they can: it is said, and a small workspace cuts it as anything else."""
    x, b = numbers((2, 5, 6, 3)), numbers((4,), seed=2)
    w = numbers((2, 4, 4, 3), seed=1)
    explained = xconv.explain(xconv.conv_transpose, x, w, b, stride=2)
    assert "2 neighbours on the last axis stand side by side in the channels" in str(explained)
    assert "side by side" not in str(xconv.explain(xconv.conv_transpose, x, w, b, stride=2, padding=1))
    layer = xconv.plan(xconv.conv_transpose, x, w, b, stride=2)
    call = layer if bound else (lambda x: xconv.conv_transpose(x, w, b, stride=2))
    expected = reference.conv_transpose(
        x, w, b, stride=(2, 2), pads=((0, 0),) * 2, output_padding=(0, 0), dilation=(1, 1), groups=1
    )
    for workspace in (2**26, 2000):
        with xconv.config(workspace=workspace):
            assert_close(call(x), expected)
