"""`conv`: every algorithm over a grid of cases, against the reference."""

import dataclasses
import itertools
import random

import numpy as np
import pytest

import xconv
from cases import (
    ALGORITHMS,
    EXACT,
    ConvCase,
    lacking,
    numbers,
    pytest_generate_tests,  # noqa: F401
    refusal,
    run_conv,
    small_integers,
    sum_dtype,
    thinned,
)
from compare import assert_close, assert_same
from xconv._algorithms import FACTORED

LAZY_STEP = 3

SIZES = {1: (7,), 2: (6, 5), 3: (4, 5, 3), 4: (3, 4, 3, 3)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 2), 4: (2, 2, 1, 3)}
PAD_MODES = ["constant", "edge", "reflect", "symmetric", "wrap"]
NAMED_LAYOUTS = {
    1: ["NWC", "NCW"],
    2: [],
    3: ["NDHWC", "NCDHW"],
    4: [],
}
SYNONYMS = ["NHWC", "NCHW", "channels_last", "channels_first"]  # for any rank
FULL_LAYOUTS = {
    1: ["NWC,WIO->NCW", "CWN,IWO->WNC"],
    2: ["NCHW,HWIO->NHWC", "NHWC,OIHW->NHWC", "CHWN,IHWO->NCHW", "NWHC,HWIO->NHWC"],
    3: ["NCDHW,DHWIO->NDHWC", "NDHWC,OIDHW->NCDHW"],
    4: ["NCABHW,ABHWIO->NABHWC"],
}


def paddings(rank):
    """Every kind of padding for a rank, with a name."""
    yield "int", 1
    yield "per-axis", tuple(range(rank))
    yield "pairs", tuple((axis % 2, 1 + (axis + 1) % 2) for axis in range(rank))
    yield "crop", ((-1, 0),) + ((0, 0),) * (rank - 1)
    yield "crop-and-pad", ((2, -1),) * (rank - 1) + ((-1, 2),)
    yield "wider-than-kernel", ((4, 0),) + ((0, 0),) * (rank - 1)
    for name in ("valid", "same", "same_lower", "full", "causal"):
        yield name, name


def case(name, rank, /, **given):
    """A case with the standing sizes of a rank; what is not a field is an option of the call."""
    fields = {f: given.pop(f) for f in list(given) if f in ConvCase.__dataclass_fields__}
    return ConvCase(name, **({"sizes": SIZES[rank], "kernel": KERNELS[rank]} | fields), options=given)


def single_options():
    """Cases that each turn one option away from its default."""
    for rank in SIZES:
        yield case(f"{rank}d", rank)
        yield case(f"{rank}d-kernel-1", rank, kernel=(1,) * rank)
        yield case(f"{rank}d-bias", rank, bias=True)
        yield case(f"{rank}d-one-image", rank, batch=1)
        for first in (False, True):
            layout = "channels_first" if first else "channels_last"
            yield case(f"{rank}d-unbatched-{layout}", rank, batch=None, bias=True, layout=layout)
        for stride in dict.fromkeys([2, tuple(range(1, rank + 1)), tuple(range(rank, 0, -1))]):
            yield case(f"{rank}d-stride-{stride}", rank, stride=stride)
        for dilation in (2, tuple(2 - axis % 2 for axis in range(rank))):
            kernel = tuple(min(k, 2) for k in KERNELS[rank])
            yield case(f"{rank}d-dilation-{dilation}", rank, dilation=dilation, kernel=kernel)
        for name, padding in paddings(rank):
            yield case(f"{rank}d-padding-{name}", rank, padding=padding)
            if name.startswith(("same", "full", "pairs")):
                yield case(f"{rank}d-padding-{name}-stride", rank, padding=padding, stride=2)
        for groups, channels, outputs in ((2, 4, 6), (3, 3, 3), (3, 3, 6), (2, 2, 6)):
            yield case(
                f"{rank}d-groups-{groups}-of-{channels}-to-{outputs}",
                rank,
                groups=groups,
                channels=channels,
                outputs=outputs,
            )
        for layout in [
            *NAMED_LAYOUTS[rank],
            "NHWC",
            "NCHW",
            "channels_first",
            "channels_last",
            *FULL_LAYOUTS[rank],
        ]:
            yield case(f"{rank}d-layout-{layout}", rank, layout=layout, bias=True, padding=1)
    for rank in (1, 2, 3):
        for mode in PAD_MODES:
            yield case(f"{rank}d-mode-{mode}", rank, pad_mode=mode, padding=1)
            yield case(f"{rank}d-mode-{mode}-pairs", rank, pad_mode=mode, padding=((2, 1),) * rank, stride=2)
    for mode in PAD_MODES:
        yield case(f"wide-mode-{mode}", 1, sizes=(3,), pad_mode=mode, padding=((8, 11),))
        yield case(f"same-mode-{mode}", 2, pad_mode=mode, padding="same", dilation=2)
        yield case(f"full-mode-{mode}", 2, pad_mode=mode, padding="full")
        yield case(f"one-pixel-mode-{mode}", 1, sizes=(1,), pad_mode=mode, padding=2)
        yield case(f"crop-mode-{mode}", 2, pad_mode=mode, padding=((-1, 2), (2, -1)))
    yield case("unbatched-full-layout", 2, batch=None, layout="NCHW,HWIO->NHWC", bias=True)
    yield case("kernel-as-large-as-the-input", 2, kernel=SIZES[2])
    yield case("one-channel-in-and-out", 2, channels=1, outputs=1)
    yield case("same-even-kernel-dilation", 1, sizes=(6,), kernel=(2,), padding="same", dilation=3)
    yield case("stride-past-the-kernel", 2, kernel=(1, 2), stride=(4, 3), padding=1)


def pointwise_cases():
    """Kernels of one element, the home of "pointwise"."""
    one = {"kernel": (1, 1), "channels": 3, "outputs": 4}
    yield case("1x1-stride", 2, **one, stride=(2, 3))
    yield case("1x1-padded", 2, **one, padding=((1, 0), (0, 2)), bias=True)
    yield case("1x1-cropped", 2, **one, padding=((-1, 0), (0, -2)))
    yield case("1x1-edge", 2, **one, padding=1, pad_mode="edge")
    yield case("1x1-same-stride", 2, **one, padding="same", stride=2)
    yield case("1x1-dilation", 2, **one, dilation=3)
    yield case("1x1-channels-first", 2, **one, layout="NCHW", bias=True)
    yield case("1x1-unbatched", 2, **one, batch=None)
    yield case("1x1-groups", 2, kernel=(1, 1), channels=4, outputs=4, groups=2)


def depthwise_cases():
    """One input channel per group, the home of "depthwise"."""
    for multiplier in (1, 2, 3):
        each = {"channels": 3, "groups": 3, "outputs": 3 * multiplier}
        yield case(f"depthwise-{multiplier}", 2, **each, padding="same", bias=True)
        yield case(f"depthwise-{multiplier}-stride", 2, **each, stride=2, padding=1)
        yield case(f"depthwise-{multiplier}-dilation", 1, **each, dilation=2, padding="same_lower")
        yield case(f"depthwise-{multiplier}-channels-first", 2, **each, layout="NCHW", bias=True)
        yield case(f"depthwise-{multiplier}-3d", 3, **each, batch=None)
        yield case(f"depthwise-{multiplier}-wrap", 2, **each, padding=2, pad_mode="wrap")
    yield case("depthwise-one-channel-many-outputs", 2, channels=1, outputs=4)


def mixed_cases(count=60):
    """Cases that mix all options, drawn once and for all from a seeded generator."""
    draw = random.Random(2)
    for number in range(count):
        rank = draw.choice((1, 2, 2, 3))
        kernel = tuple(draw.randint(1, 3) for _ in range(rank))
        dilation = tuple(draw.randint(1, 2) for _ in range(rank))
        padding = draw.choice(
            [
                "same",
                "same_lower",
                "full",
                draw.randint(1, 2),
                tuple((draw.randint(-1, 2), draw.randint(0, 2)) for _ in range(rank)),
            ]
        )
        sizes = tuple(d * (k - 1) + 1 + draw.randint(1, 3) for k, d in zip(kernel, dilation, strict=True))
        groups = draw.choice((1, 1, 2, 3))
        wide = draw.choice((1, 1, 2))
        yield ConvCase(
            f"mixed-{number}",
            sizes=sizes,
            kernel=kernel,
            channels=groups * wide,
            outputs=groups * draw.randint(1, 2),
            batch=draw.choice((None, 1, 2)),
            bias=draw.random() < 0.5,
            options={
                "stride": tuple(draw.randint(1, 3) for _ in range(rank)),
                "padding": padding,
                "pad_mode": draw.choice(PAD_MODES),
                "dilation": dilation,
                "groups": groups,
                "layout": draw.choice(["channels_last", "channels_first", FULL_LAYOUTS[rank][0]]),
            },
        )


def few_tap_cases():
    """A few taps side by side, the home of "winograd": alone, beside others, and with outputs left over."""
    for sizes, kernel in (
        ((9,), (3,)),
        ((13, 11), (3, 3)),
        ((10, 10), (3, 3)),  # whole tiles of both 2 and 4 outputs
        ((7, 9), (5, 3)),
        ((9, 7), (3, 1)),
        ((6, 7, 8), (3, 3, 3)),
        ((5, 4, 6), (3, 2, 3)),
        ((3, 5, 4, 3), (1, 3, 2, 3)),
        ((12, 13), (2, 2)),
        ((9, 10), (4, 4)),
        ((9, 8), (5, 5)),
        ((4, 7, 6), (2, 5, 5)),
    ):
        name = f"few-taps-{sizes}-{kernel}"
        yield case(name, len(sizes), sizes=sizes, kernel=kernel, channels=5, outputs=4, bias=True)
        yield case(f"{name}-same", len(sizes), sizes=sizes, kernel=kernel, padding="same", layout="NCHW")
    for kernel, stride in (((7, 7), (2, 2)), ((11, 12), (4, 4)), ((6, 3), (2, 1)), ((3, 10), (1, 3))):
        name = f"few-taps-{kernel}-{stride}"
        each = {"sizes": (23, 26), "kernel": kernel, "stride": stride, "channels": 3, "outputs": 4}
        yield case(name, 2, **each, bias=True)
        yield case(f"{name}-padded", 2, **each, padding=((2, 1), (3, 2)), layout="NCHW")
    yield case(
        "few-taps-strided-wrap", 2, sizes=(12, 13), kernel=(5, 5), stride=2, padding=2, pad_mode="wrap"
    )
    yield case("few-taps-strided-crop", 2, sizes=(17, 18), kernel=(5, 5), stride=2, padding=-1, batch=None)
    for option in ("stride", "dilation"):
        for axis in (0, 1):
            steps = (2, 1) if axis == 0 else (1, 2)
            yield case(f"few-taps-{option}-{axis}", 2, sizes=(9, 8), kernel=(3, 3), **{option: steps})
    yield case("few-taps-wrap", 2, sizes=(6, 7), kernel=(3, 3), padding=2, pad_mode="wrap", batch=None)


def long_cases():
    """Long kernels, the home of "banded" and of "fft"."""
    for channels, outputs in ((1, 1), (1, 6), (3, 2), (6, 3)):
        each = {"channels": channels, "outputs": outputs}
        yield case(f"long-{channels}-{outputs}", 2, sizes=(14, 17), kernel=(6, 7), **each)
        yield case(f"long-{channels}-{outputs}-line", 1, sizes=(70,), kernel=(12,), **each, padding="same")
    yield case(
        "long-groups", 2, sizes=(17, 16), kernel=(5, 4), groups=3, channels=3, outputs=6, stride=(2, 1)
    )
    yield case("long-dilation", 2, sizes=(12, 16), kernel=(4, 5), channels=1, outputs=2, dilation=(2, 3))
    yield case("long-volume", 3, sizes=(5, 6, 7), kernel=(3, 4, 5), channels=2, outputs=2, batch=1)


def grey_cases():
    """Images of one channel, the home of "spectral"."""
    for i, (kernel, options) in enumerate(
        (
            ((5, 6), {}),
            ((6, 3), {"padding": "same", "layout": "NCHW"}),
            ((2, 7), {"padding": ((5, 0), (1, 9)), "batch": None}),
            ((4, 4), {"padding": "full", "stride": (3, 2)}),
            ((5, 3), {"padding": 2, "dilation": (2, 3)}),
            ((4, 5), {"padding": 3, "pad_mode": "reflect"}),
            ((3, 2), {"padding": ((-2, 1), (0, -3)), "stride": (1, 2), "bias": True}),
        )
    ):
        yield case(f"grey-{i}", 2, sizes=(19, 23), kernel=kernel, channels=1, outputs=1, **options)
    for kernel in ((1, 4, 3), (3, 4, 1)):
        for padding in (0, 1):
            name = f"grey-volume-{kernel}-{padding}"
            yield case(name, 3, sizes=(5, 9, 6), kernel=kernel, channels=1, outputs=1, padding=padding)


GRID = [
    *single_options(),
    *pointwise_cases(),
    *depthwise_cases(),
    *few_tap_cases(),
    *long_cases(),
    *grey_cases(),
    *mixed_cases(),
]


def why_not(algorithm, case):
    """The words of the refusal of a case that an algorithm cannot do, or None."""
    options = {name: case.options.get(name, 1) for name in ("stride", "dilation", "groups")}
    return refusal(algorithm, case.kernel, case.channels, case.outputs, **options, batch=case.batch)


def able(algorithm, case):
    """Whether an algorithm can do a case, by its definition."""
    return why_not(algorithm, case) is None


DOABLE = [(c, a) for c in GRID for a in ALGORITHMS if able(a, c)]
REFUSED = [(c, a) for c in GRID for a in ALGORITHMS if not able(a, c)]


def test_names_of_cases_are_unique():
    assert len({c.name for c in GRID}) == len(GRID)


def test_the_grid_names_every_algorithm():
    general = [name for name in xconv._algorithms.ALGORITHMS if name not in FACTORED]
    assert [*general, "auto"] == ALGORITHMS
    for algorithm in ALGORITHMS:
        assert sum(a == algorithm for _, a in DOABLE) > 10


@thinned("case, algorithm", DOABLE, every=43)
def test_algorithm_agrees_with_the_reference(backend, case, algorithm):
    """Winograd's and the Fourier transform round more than a sum does, and are within the same limit."""
    with lacking(backend, algorithm):
        assert_close(*run_conv(backend, xconv.conv, case, algorithm=algorithm))


@thinned("case, algorithm", REFUSED[::5], every=20)
def test_algorithm_refuses_with_its_own_reason(backend, case, algorithm):
    x, w, b = case.given(*case.arrays())
    reason = why_not(algorithm, case)
    if algorithm == "fft" and not hasattr(backend.xp, "fft"):
        reason = "has no Fourier transforms here"
    with pytest.raises(ValueError, match=f"algorithm must .*{reason}.*algorithm='{algorithm}'"):
        backend.call(xconv.conv, x, w, b, **case.options, algorithm=algorithm)


def test_unknown_algorithm_is_refused_with_the_names(backend):
    case = GRID[0]
    names = "'auto', 'pointwise', 'direct', 'im2col', 'kn2row', 'banded', 'separable', 'depthwise', "
    names += "'winograd', 'spectral', 'fft'"
    with pytest.raises(ValueError, match=f"algorithm must be one of {names}; got"):
        backend.call(xconv.conv, *case.given(*case.arrays()), algorithm="winnograd")


# ------------------------------------------------------------------------------------------------------ dtypes

# A case that each algorithm can do; "auto" is free.
HOME = {
    "pointwise": case("dtype-pointwise", 2, kernel=(1, 1), channels=3, outputs=2),
    "direct": case("dtype-direct", 2),
    "im2col": case("dtype-im2col", 2, groups=2, channels=4, outputs=4),
    "kn2row": case("dtype-kn2row", 2, sizes=(5, 6), kernel=(3, 2), channels=3, outputs=2, padding=1),
    "banded": case("dtype-banded", 2, sizes=(5, 12), channels=2, outputs=2),
    "depthwise": case("dtype-depthwise", 1, groups=2, channels=2, outputs=4, padding=1),
    "winograd": case("dtype-winograd", 2, sizes=(7, 6), kernel=(3, 3), channels=3, outputs=2),
    "spectral": case("dtype-spectral", 2, sizes=(7, 12), kernel=(4, 5), channels=1, outputs=1),
    "fft": case("dtype-fft", 2, sizes=(7, 12), kernel=(4, 5), channels=3, outputs=2),
    "auto": case("dtype-auto", 2, padding=1),
}
FLOATING = ["float16", "float32", "float64", "complex64", "complex128"]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def of(home, x_dtype, w_dtype=None, **changes):
    """A home case with other types."""
    return dataclasses.replace(home, dtype=x_dtype, kernel_dtype=w_dtype, **changes)


def require(backend, *dtypes):
    for dtype in dtypes:
        if not backend.has(dtype):
            pytest.skip(f"{backend.name} has no {dtype}")


@thinned("dtype, algorithm", itertools.product(FLOATING, ALGORITHMS), every=3)
def test_floating_dtypes_are_kept(backend, dtype, algorithm):
    require(backend, dtype)
    case = of(HOME[algorithm], dtype, bias=True)
    if algorithm == "spectral" and dtype.startswith("complex"):
        with pytest.raises(ValueError, match="its matrices are of real floats"):
            run_conv(backend, xconv.conv, case, algorithm=algorithm)
        return
    with lacking(backend, algorithm):
        actual, expected = run_conv(backend, xconv.conv, case, algorithm=algorithm)
        assert actual.dtype == dtype
        assert_close(actual, expected)


@pytest.mark.parametrize("dtype", ["int8", "int64"])  # computed in floats, and as they are
@pytest.mark.parametrize("algorithm", ["winograd", "spectral", "fft"])
def test_integers_are_refused_by_what_rounds(backend, dtype, algorithm):
    case = of(HOME[algorithm], dtype)
    reason = r"only direct sums are allowed \(integers, or precision='strict'\)"
    if algorithm == "fft" and not hasattr(backend.xp, "fft"):
        reason = "has no Fourier transforms here"
    with pytest.raises(ValueError, match=f"algorithm must .*{reason}; got algorithm='{algorithm}'"):
        run_conv(backend, xconv.conv, case, algorithm=algorithm)


@thinned("dtype, algorithm", itertools.product(INTEGERS, EXACT), every=4)
def test_integers_are_exact_and_never_wrap(backend, dtype, algorithm):
    require(backend, dtype)
    result = sum_dtype(backend, dtype)
    case = of(HOME[algorithm], dtype, bias=True)
    actual, expected = run_conv(backend, xconv.conv, case, result_dtype=result, algorithm=algorithm)
    assert_same(actual, expected)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_at_the_end_of_their_range(backend, dtype):
    """The largest products that the result can hold, where a float32 or float64 sum would be off by one."""
    require(backend, dtype)
    result = sum_dtype(backend, dtype)
    limits, bits = np.iinfo(dtype), np.iinfo(result).bits
    largest = min(int(limits.max), 2 ** (bits // 2 - 3) - 1)
    x = np.full((1, 9, 1), largest, dtype)
    w = np.full((9, 1, 2), largest, dtype)
    w[0, 0, 1] -= 1
    expected = np.array([[[9 * largest**2, 9 * largest**2 - largest]]], result)
    assert_same(backend.call(xconv.conv, x, w), expected)


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype"), [("uint8", "int8"), ("int8", "int16"), ("uint8", "int32"), ("int16", "int64")]
)
def test_integers_of_two_types(backend, x_dtype, w_dtype):
    require(backend, x_dtype, w_dtype)
    result = sum_dtype(backend, x_dtype, w_dtype)
    case = of(HOME["direct"], x_dtype, w_dtype)
    assert_same(*run_conv(backend, xconv.conv, case, result_dtype=result))


@thinned(
    "x_dtype, w_dtype, result",
    [
        ("uint8", "float32", "float32"),
        ("int64", "float32", "float32"),
        ("uint8", "float16", "float16"),
        ("int8", "float64", "float64"),
        ("float32", "int16", "float32"),
        ("uint8", "complex64", "complex64"),
        ("float32", "float64", "float64"),
        ("float16", "float32", "float32"),
        ("float32", "complex64", "complex64"),
        ("complex64", "float32", "complex64"),
        ("float64", "complex64", "complex128"),
    ],
    every=3,
)
def test_mixed_dtypes(backend, x_dtype, w_dtype, result):
    """An integer array beside a floating one takes the floating type; two floating ones their common type."""
    require(backend, x_dtype, w_dtype, result)
    case = of(HOME["direct"], x_dtype, w_dtype)
    actual, expected = run_conv(backend, xconv.conv, case, result_dtype=result, make=small_integers)
    assert actual.dtype == result
    assert_close(actual, expected)


@thinned(
    "given, asked",
    [
        ("float32", "float64"),
        ("float16", "float32"),
        ("float64", "float32"),
        ("float32", "complex64"),
        ("int8", "float32"),
        ("int8", "int32"),
        ("int8", "int64"),
        ("uint8", "float64"),
    ],
    every=3,
)
def test_dtype_option_is_the_type_of_the_result(backend, given, asked):
    require(backend, given, asked)
    case = of(HOME["direct"], given)
    actual, expected = run_conv(
        backend, xconv.conv, case, result_dtype=asked, dtype=getattr(backend.xp, asked)
    )
    assert actual.dtype == asked
    assert_close(actual, expected)


ALONG_A_LINE = [name for name in ALGORITHMS if name != "spectral"]  # which needs an image, of real numbers


@pytest.mark.parametrize("algorithm", ALONG_A_LINE)
def test_float16_accumulates_in_float32(backend, algorithm):
    require(backend, "float16")
    values = {"rounds": [2048, 1, 1], "overflows": [60000, 32000, -60000]}
    x = np.array(list(values.values()), "float16")
    if algorithm == "pointwise":
        x, w = x.reshape(2, 1, 3), np.ones((1, 3, 1), "float16")
    else:
        x, w = x.reshape(2, 3, 1), np.ones((3, 1, 1), "float16")
    with lacking(backend, algorithm):
        actual = backend.call(xconv.conv, x, w, algorithm=algorithm)
        assert_same(actual, np.array([2050, 32000], "float16").reshape(2, 1, 1))


@thinned(
    "mode, x_dtype, w_dtype, result",
    [
        (mode, *dtypes)
        for mode in PAD_MODES
        for dtypes in (
            ("uint8", "float32", "float32"),
            ("int8", "int8", None),
            ("float16", "float16", "float16"),
            ("float32", "complex64", "complex64"),
        )
    ],
    every=5,
)
def test_padding_has_the_values_of_the_input_in_every_dtype(backend, mode, x_dtype, w_dtype, result):
    require(backend, x_dtype, w_dtype)
    result = sum_dtype(backend, x_dtype) if result is None else np.dtype(result)
    home = case("dtype-padded", 2, kernel=(2, 2), padding=((2, 1), (0, 3)), pad_mode=mode)
    padded = of(home, x_dtype, w_dtype)
    actual, expected = run_conv(backend, xconv.conv, padded, result_dtype=result, make=small_integers)
    assert_same(actual, expected)


@thinned("algorithm", ALONG_A_LINE, every=3)
def test_complex_numbers_are_not_conjugated(backend, algorithm):
    require(backend, "complex64")
    taps, channels = (1, 3) if algorithm == "pointwise" else (3, 1)
    x = np.array([1j, 2, 3j], "complex64").reshape(1, taps, channels)
    w = np.array([1j, 1j, 2j], "complex64").reshape(taps, channels, 1)
    with lacking(backend, algorithm):
        actual = backend.call(xconv.conv, x, w, algorithm=algorithm)
        assert_close(actual, np.full((1, 1, 1), -7 + 2j, "complex64"))


# -------------------------------------------------------------------------------------------------- activation


def sigmoid(y):
    return 1 / (1 + np.exp(-y))


ACTIVATIONS = {
    "relu": lambda y: np.maximum(y, 0),
    "relu6": lambda y: np.clip(y, 0, 6),
    "leaky_relu": lambda y: np.where(y > 0, y, 0.01 * y),
    "elu": lambda y: np.where(y > 0, y, np.expm1(y)),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "silu": lambda y: y * sigmoid(y),
    "hard_swish": lambda y: y * np.clip(y / 6 + 0.5, 0, 1),
}


@thinned("name", ACTIVATIONS, every=3)
def test_activation_by_name(backend, name):
    case = of(HOME["auto"], "float32", bias=True)
    assert_close(*run_conv(backend, xconv.conv, case, activation=name, meant=ACTIVATIONS[name]))


@thinned("algorithm", ALGORITHMS, every=3)
def test_activation_by_callable(backend, algorithm):
    def twice_the_square(y):
        return 2 * y * y

    case = of(HOME[algorithm], "float32", bias=True)
    options = {"activation": twice_the_square, "algorithm": algorithm}
    with lacking(backend, algorithm):
        assert_close(*run_conv(backend, xconv.conv, case, meant=twice_the_square, **options))


def test_activation_may_be_one_of_xconv(backend):
    case = of(HOME["auto"], "float32")
    assert_close(*run_conv(backend, xconv.conv, case, activation=xconv.relu, meant=ACTIVATIONS["relu"]))


# --------------------------------------------------------------------------------------------------- workspace

LARGE = [
    case("tiles-plain", 2, sizes=(12, 10), kernel=(3, 3), channels=3, outputs=4, batch=3),
    case("tiles-pointwise", 2, sizes=(12, 10), kernel=(1, 1), channels=3, outputs=4, batch=3, stride=2),
    case(
        "tiles-depthwise",
        2,
        sizes=(12, 10),
        kernel=(3, 3),
        channels=3,
        groups=3,
        outputs=6,
        batch=3,
        padding=1,
    ),
    case(
        "tiles-1d", 1, sizes=(90,), kernel=(5,), channels=3, outputs=4, dilation=2, padding="same", bias=True
    ),
    case(
        "tiles-3d", 3, sizes=(6, 7, 5), kernel=(2, 3, 2), stride=(1, 2, 1), padding=((1, 0), (-1, 2), (2, 1))
    ),
    case("tiles-unbatched", 2, sizes=(12, 10), kernel=(3, 3), batch=None, layout="NCHW", padding="full"),
    *(
        case(
            f"tiles-{mode}",
            2,
            sizes=(9, 8),
            kernel=(3, 3),
            padding=((4, 2), (1, 3)),
            pad_mode=mode,
            stride=(1, 2),
        )
        for mode in PAD_MODES
    ),
]
TILED = [(c, a, workspace) for workspace in (6000, 1024, 1) for c in LARGE for a in ALGORITHMS if able(a, c)]


@thinned("case, algorithm, workspace", TILED, every=len(TILED) // 2 + 1)
def test_tiles_join_without_seams(backend, case, algorithm, workspace):
    """However small the workspace is, the result is the same."""
    with xconv.config(workspace=workspace), lacking(backend, algorithm):
        assert_close(*run_conv(backend, xconv.conv, case, algorithm=algorithm))


# ---------------------------------------------------------------------------------------------- names and calls


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_with_its_rank_in_the_name(backend, rank):
    named = getattr(xconv, f"conv{rank}d")
    assert_close(*run_conv(backend, named, case(f"named-{rank}d", rank, padding=1, stride=2, bias=True)))


@pytest.mark.parametrize(("rank", "other"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_conv_with_its_rank_in_the_name_refuses_other_ranks(backend, rank, other):
    wrong = case("wrong-rank", other)
    with pytest.raises(ValueError, match="w must "):
        backend.call(getattr(xconv, f"conv{rank}d"), *wrong.given(*wrong.arrays()))


def test_arrays_are_positional_only_and_options_keyword_only(backend):
    x, w, b = (backend.asarray(a) for a in (numbers((1, 3, 1)), numbers((2, 1, 1)), numbers((1,))))
    with pytest.raises(TypeError):
        xconv.conv(x=x, w=w)
    with pytest.raises(TypeError):
        xconv.conv(x, w, b, 2)


@thinned("layout, algorithm", itertools.product(["NHWC", "NCHW", "NCHW,HWIO->NHWC"], ALGORITHMS), every=4)
def test_empty_batch_keeps_its_shape(backend, layout, algorithm):
    home = HOME[algorithm] if algorithm != "depthwise" else case("empty", 2, groups=2, outputs=4, padding=1)
    empty = of(home, "float32", batch=0, options=home.options | {"layout": layout})
    if algorithm in ("banded", "spectral", "fft"):
        with pytest.raises(ValueError, match=r"there is nothing to compute|has no Fourier transforms here"):
            run_conv(backend, xconv.conv, empty, algorithm=algorithm)
        return
    actual, expected = run_conv(backend, xconv.conv, empty, algorithm=algorithm)
    assert 0 in expected.shape
    assert_same(actual, expected)


def test_every_pad_mode_and_every_layout_is_in_the_grid():
    options = [c.options for c in GRID]
    assert {o.get("pad_mode", "constant") for o in options} == set(PAD_MODES)
    layouts = {o.get("layout", "NHWC") for o in options}
    assert layouts >= {*SYNONYMS, *itertools.chain(*NAMED_LAYOUTS.values(), *FULL_LAYOUTS.values())}
