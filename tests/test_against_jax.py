"""The same questions to jax.lax, over options drawn from a seeded generator. On the JAX backend only."""

import random

import numpy as np
import pytest

import xconv
from cases import numbers
from compare import assert_close, assert_same

pytestmark = pytest.mark.backends("jax")
ROUNDS = range(5)


@pytest.fixture(params=ROUNDS, ids=lambda n: f"round{n}")
def draw(request):
    """A generator of options, another one in every round."""
    return random.Random(2000 + request.param)


@pytest.fixture
def lax():
    from jax import lax

    return lax


def ints(draw, rank, low, high):
    return tuple(draw.randint(low, high) for _ in range(rank))


LAYOUTS = {
    1: ["NWC,WIO->NWC", "NCW,OIW->NCW", "CWN,IWO->WNC"],
    2: ["NHWC,HWIO->NHWC", "NCHW,OIHW->NCHW", "NCHW,HWIO->NHWC", "HWNC,HWOI->CHWN"],
    3: ["NDHWC,DHWIO->NDHWC", "NCDHW,OIDHW->NCDHW"],
}


def shape_of(layout, sizes, **channels):
    """The shape of an array whose axes a layout names."""
    spatial = iter(sizes)
    return tuple(channels[letter] if letter in channels else next(spatial) for letter in layout)


def pads_of(draw, reaches):
    """Pads of either sign that leave room for a window: an input of five elements under each reach."""
    lows = [draw.randint(-2, 3) for _ in reaches]
    return tuple(
        (low, max(draw.randint(-2, 3), reach - 5 - low)) for low, reach in zip(lows, reaches, strict=True)
    )


def test_conv_general(backend, lax, draw):
    rank, groups = draw.choice([1, 2, 2, 3]), draw.choice([1, 2])
    layout = draw.choice(LAYOUTS[rank])
    data, kernel, result = layout.replace("->", ",").split(",")
    window, dilation, holes = ints(draw, rank, 1, 3), ints(draw, rank, 1, 2), ints(draw, rank, 1, 3)
    pads = pads_of(draw, [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)])
    x = numbers(shape_of(data, (5,) * rank, N=2, C=2 * groups))
    w = numbers(shape_of(kernel, window, I=2, O=3 * groups), seed=1)
    stride = ints(draw, rank, 1, 3)
    expected = lax.conv_general_dilated(
        x,
        w,
        stride,
        pads,
        lhs_dilation=holes,
        rhs_dilation=dilation,
        dimension_numbers=(data, kernel, result),
        feature_group_count=groups,
        precision="highest",
    )
    options = {"stride": stride, "padding": pads, "dilation": dilation, "input_dilation": holes}
    actual = backend.call(xconv.conv_general, x, w, groups=groups, layout=layout, **options)
    assert_close(actual, np.asarray(expected))


@pytest.mark.parametrize(
    ("padding", "theirs"), [("same", "SAME"), ("same_lower", "SAME_LOWER"), ("valid", "VALID")]
)
def test_conv_with_named_padding(backend, lax, draw, padding, theirs):
    rank = draw.choice([1, 2])
    window, stride, dilation = ints(draw, rank, 1, 3), ints(draw, rank, 1, 3), ints(draw, rank, 1, 2)
    x, w = numbers((2, *ints(draw, rank, 5, 7), 2)), numbers((*window, 2, 3), seed=1)
    numbers_of = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}[rank]
    expected = lax.conv_general_dilated(
        x, w, stride, theirs, rhs_dilation=dilation, dimension_numbers=numbers_of, precision="highest"
    )
    actual = backend.call(xconv.conv, x, w, stride=stride, padding=padding, dilation=dilation)
    assert_close(actual, np.asarray(expected))


def test_conv_transpose_with_padding_same(backend, lax, draw):
    """JAX takes the kernel of the transposed convolution as xconv does with transpose_kernel=True."""
    rank = draw.choice([1, 2])
    stride = ints(draw, rank, 1, 3)
    window = tuple(s + draw.randint(0, 2) for s in stride)
    x, w = numbers((2, *ints(draw, rank, 2, 4), 2)), numbers((*window, 3, 2), seed=1)
    numbers_of = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}[rank]
    expected = lax.conv_transpose(
        x, w, stride, "SAME", dimension_numbers=numbers_of, transpose_kernel=True, precision="highest"
    )
    actual = backend.call(xconv.conv_transpose, x, w, stride=stride, padding="same")
    assert_close(actual, np.asarray(expected))


def test_unfold(backend, lax, draw):
    window, dilation, stride = ints(draw, 2, 1, 3), ints(draw, 2, 1, 2), ints(draw, 2, 1, 3)
    pads = tuple((draw.randint(0, 2), draw.randint(0, 2)) for _ in range(2))
    x = numbers((2, 6, 5, 3))
    expected = lax.conv_general_dilated_patches(
        x, window, stride, pads, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    actual = backend.call(xconv.unfold, x, window, stride=stride, padding=pads, dilation=dilation)
    assert_close(actual, np.asarray(expected))


@pytest.mark.parametrize("reduction", ["max", "min", "sum", "prod"])
def test_reduce_window(backend, lax, draw, reduction):
    rank = draw.choice([1, 2, 3])
    window, dilation, holes = ints(draw, rank, 1, 3), ints(draw, rank, 1, 2), ints(draw, rank, 1, 2)
    pads = tuple((draw.randint(0, 3), draw.randint(0, 3)) for _ in range(rank))
    stride, x = ints(draw, rank, 1, 3), numbers((2, *[5] * rank, 2))
    start, combine = {
        "max": (-np.inf, lax.max),
        "min": (np.inf, lax.min),
        "sum": (0.0, lax.add),
        "prod": (1.0, lax.mul),
    }[reduction]
    expected = lax.reduce_window(
        x,
        np.float32(start),
        combine,
        (1, *window, 1),
        (1, *stride, 1),
        ((0, 0), *pads, (0, 0)),
        base_dilation=(1, *holes, 1),
        window_dilation=(1, *dilation, 1),
    )
    options = {"stride": stride, "padding": pads, "dilation": dilation, "input_dilation": holes}
    actual = backend.call(xconv.reduce_window, x, reduction, window, **options)
    (assert_same if reduction in ("max", "min") else assert_close)(actual, np.asarray(expected))
