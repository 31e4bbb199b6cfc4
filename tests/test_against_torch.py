"""The same questions to torch.nn.functional, over options drawn from a seeded generator. On the torch backend only."""

import random

import numpy as np
import pytest

import xconv
from cases import numbers, small_integers
from compare import assert_close, assert_same

pytestmark = pytest.mark.backends("torch")
ROUNDS = range(25)
RANKS = {1: "1d", 2: "2d", 3: "3d"}


@pytest.fixture(params=ROUNDS, ids=lambda n: f"round{n}")
def draw(request):
    """A generator of options, another one in every round."""
    return random.Random(1000 + request.param)


@pytest.fixture
def functional():
    import torch

    return torch.nn.functional


def tensor(array):
    import torch

    return None if array is None else torch.from_numpy(np.array(array))


def ints(draw, rank, low, high):
    return tuple(draw.randint(low, high) for _ in range(rank))


def data(draw, rank, channels, sizes, unbatched=True):
    """An array in channels-first layout, now and then without a batch."""
    batch = draw.choice([None, 1, 2]) if unbatched else draw.choice([1, 2])
    shape = (channels, *sizes) if batch is None else (batch, channels, *sizes)
    return numbers(shape, seed=draw.randint(0, 99))


def test_conv(backend, functional, draw):
    rank, groups = draw.choice([1, 2, 3]), draw.choice([1, 2, 3])
    inputs, outputs = groups * draw.randint(1, 2), groups * draw.randint(1, 2)
    kernel, dilation = ints(draw, rank, 1, 3), ints(draw, rank, 1, 2)
    sizes = tuple(d * (k - 1) + draw.randint(1, 3) for k, d in zip(kernel, dilation, strict=True))
    options = {
        "stride": ints(draw, rank, 1, 3),
        "padding": ints(draw, rank, 0, 2),
        "dilation": dilation,
        "groups": groups,
    }
    x, w = data(draw, rank, inputs, sizes), numbers((outputs, inputs // groups, *kernel), seed=1)
    b = draw.choice([None, numbers((outputs,), seed=2)])
    expected = getattr(functional, f"conv{RANKS[rank]}")(tensor(x), tensor(w), tensor(b), **options)
    assert_close(backend.call(xconv.conv, x, w, b, layout="NCHW", **options), expected.numpy())


def test_conv_with_padding_same(backend, functional, draw):
    """For a stride of 1, all that torch knows; also of even kernels and dilated ones."""
    rank = draw.choice([1, 2, 3])
    kernel, dilation = ints(draw, rank, 1, 4), ints(draw, rank, 1, 2)
    x, w = data(draw, rank, 2, ints(draw, rank, 3, 5)), numbers((3, 2, *kernel), seed=1)
    expected = getattr(functional, f"conv{RANKS[rank]}")(
        tensor(x), tensor(w), padding="same", dilation=dilation
    )
    actual = backend.call(xconv.conv, x, w, padding="same", dilation=dilation, layout="NCHW")
    assert_close(actual, expected.numpy())


@pytest.mark.parametrize(
    ("mode", "theirs"),
    [("edge", "replicate"), ("reflect", "reflect"), ("wrap", "circular"), ("constant", "constant")],
)
def test_conv_with_a_padding_mode(backend, functional, draw, mode, theirs):
    rank = draw.choice([1, 2, 3])
    sizes, pads = ints(draw, rank, 4, 5), [(draw.randint(0, 3), draw.randint(0, 3)) for _ in range(rank)]
    x, w = data(draw, rank, 2, sizes, unbatched=False), numbers((3, 2, *[2] * rank), seed=1)
    last_axis_first = [n for pair in reversed(pads) for n in pair]
    padded = functional.pad(tensor(x), last_axis_first, mode=theirs)
    expected = getattr(functional, f"conv{RANKS[rank]}")(padded, tensor(w), stride=2)
    actual = backend.call(xconv.conv, x, w, stride=2, padding=tuple(pads), pad_mode=mode, layout="NCHW")
    assert_close(actual, expected.numpy())
    both = ((0, 0), (0, 0), *pads)
    assert_same(backend.call(xconv.pad, x, both, mode=mode), padded.numpy())


def test_conv_transpose(backend, functional, draw):
    rank, groups = draw.choice([1, 2, 3]), draw.choice([1, 2, 3])
    inputs, outputs = groups * draw.randint(1, 2), groups * draw.randint(1, 2)
    stride, dilation = ints(draw, rank, 1, 3), ints(draw, rank, 1, 2)
    kernel, sizes = ints(draw, rank, 2, 3), ints(draw, rank, 2, 4)
    options = {
        "stride": stride,
        "padding": ints(draw, rank, 0, 1),
        "output_padding": tuple(draw.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)),
        "dilation": dilation,
        "groups": groups,
    }
    x, w = data(draw, rank, inputs, sizes), numbers((inputs, outputs // groups, *kernel), seed=1)
    b = draw.choice([None, numbers((outputs,), seed=2)])
    expected = getattr(functional, f"conv_transpose{RANKS[rank]}")(
        tensor(x), tensor(w), tensor(b), **options
    ).numpy()
    assert_close(backend.call(xconv.conv_transpose, x, w, b, layout="NCHW", **options), expected)
    del options["output_padding"]
    options["output_shape"] = expected.shape[-rank:]
    assert_close(backend.call(xconv.conv_transpose, x, w, b, layout="NCHW", **options), expected)


def pool_options(draw, rank):
    """A window and options that torch allows: padding of at most half the window."""
    window, dilation = ints(draw, rank, 1, 4), ints(draw, rank, 1, 2)
    return (
        window,
        {
            "stride": ints(draw, rank, 1, 3),
            "padding": tuple(draw.randint(0, k // 2) for k in window),
            "ceil_mode": draw.random() < 0.5,
        },
        dilation,
    )


@pytest.mark.parametrize("ties", [False, True])
def test_max_pool(backend, functional, draw, ties):
    rank = draw.choice([1, 2, 3])
    window, options, dilation = pool_options(draw, rank)
    sizes = tuple(d * (k - 1) + draw.randint(1, 4) for k, d in zip(window, dilation, strict=True))
    x = data(draw, rank, 2, sizes)
    x = small_integers(x.shape) if ties else x
    options["dilation"] = dilation
    values, indices = getattr(functional, f"max_pool{RANKS[rank]}")(
        tensor(x), window, return_indices=True, **options
    )
    actual = backend.call(xconv.max_pool, x, window, return_indices=True, layout="NCHW", **options)
    assert_same(actual[0], values.numpy())
    assert_same(actual[1], indices.numpy())


def test_avg_pool(backend, functional, draw):
    rank = draw.choice([1, 2, 3])
    window, options, _ = pool_options(draw, rank)
    x = data(draw, rank, 2, tuple(k + draw.randint(0, 4) for k in window))
    include = draw.random() < 0.5
    expected = getattr(functional, f"avg_pool{RANKS[rank]}")(
        tensor(x), window, count_include_pad=include, **options
    ).numpy()
    given = {"count_include_pad": include, "layout": "NCHW", **options}
    assert_close(backend.call(xconv.avg_pool, x, window, **given), expected)
    if rank > 1:
        divisor = draw.randint(1, 5)
        expected = getattr(functional, f"avg_pool{RANKS[rank]}")(
            tensor(x), window, divisor_override=divisor, **options
        )
        actual = backend.call(xconv.avg_pool, x, window, divisor=divisor, layout="NCHW", **options)
        assert_close(actual, expected.numpy())


def test_lp_pool_of_positive_numbers(backend, functional, draw):
    """Where torch's omission of absolute values, and its count of the overhang, are without effect."""
    rank, p = draw.choice([1, 2, 3]), draw.choice([1, 2, 3, 2.5])
    window, stride = ints(draw, rank, 1, 3), ints(draw, rank, 1, 3)
    x = np.abs(data(draw, rank, 2, tuple(k + draw.randint(0, 4) for k in window)))
    expected = getattr(functional, f"lp_pool{RANKS[rank]}")(
        tensor(x), p, *((window, stride) if rank > 1 else (*window, *stride))
    )
    actual = backend.call(xconv.lp_pool, x, window, p=p, stride=stride, layout="NCHW")
    assert_close(actual, expected.numpy())


def test_adaptive_pools(backend, functional, draw):
    rank = draw.choice([1, 2, 3])
    outputs = ints(draw, rank, 1, 5)
    x = data(draw, rank, 2, ints(draw, rank, 1, 7))
    expected = getattr(functional, f"adaptive_avg_pool{RANKS[rank]}")(tensor(x), outputs)
    assert_close(backend.call(xconv.adaptive_avg_pool, x, outputs, layout="NCHW"), expected.numpy())
    expected = getattr(functional, f"adaptive_max_pool{RANKS[rank]}")(tensor(x), outputs, return_indices=True)
    actual = backend.call(xconv.adaptive_max_pool, x, outputs, return_indices=True, layout="NCHW")
    assert_same(actual[0], expected[0].numpy())
    assert_same(actual[1], expected[1].numpy())


def test_unfold_and_fold(backend, functional, draw):
    """Torch does two axes, and lists all windows in one axis."""
    window, dilation = ints(draw, 2, 1, 3), ints(draw, 2, 1, 2)
    options = {"stride": ints(draw, 2, 1, 3), "padding": ints(draw, 2, 0, 2), "dilation": dilation}
    sizes = tuple(d * (k - 1) + draw.randint(1, 4) for k, d in zip(window, dilation, strict=True))
    x = data(draw, 2, 2, sizes)
    expected = functional.unfold(tensor(x), window, **options)
    actual = backend.call(xconv.unfold, x, window, layout="NCHW", **options)
    assert_same(actual.reshape(expected.shape), expected.numpy())
    expected = functional.fold(expected, sizes, window, **options)
    assert_close(backend.call(xconv.fold, actual, sizes, window, layout="NCHW", **options), expected.numpy())


def test_max_unpool(backend, functional, draw):
    rank = draw.choice([1, 2, 3])
    window, stride = ints(draw, rank, 1, 3), ints(draw, rank, 2, 3)
    padding = tuple(draw.randint(0, k // 2) for k in window)
    x = data(draw, rank, 2, tuple(k + draw.randint(1, 4) for k in window))
    options = {"stride": stride, "padding": padding}
    values, indices = getattr(functional, f"max_pool{RANKS[rank]}")(
        tensor(x), window, return_indices=True, **options
    )
    sizes = x.shape[-rank:]
    expected = getattr(functional, f"max_unpool{RANKS[rank]}")(
        values, indices, window, output_size=list(sizes), **options
    )
    arrays = values.numpy(), indices.numpy(), window
    actual = backend.call(xconv.max_unpool, *arrays, output_size=sizes, layout="NCHW", **options)
    assert_same(actual, expected.numpy())


def test_batch_norm(backend, functional, draw):
    rank, channels = draw.choice([0, 1, 2, 3]), draw.randint(1, 4)
    x = data(draw, rank, channels, ints(draw, rank, 1, 4), unbatched=False)
    mean, gamma, beta = (numbers((channels,), seed=s) for s in (1, 2, 3))
    variance, eps = np.abs(numbers((channels,), seed=4)), draw.choice([1e-5, 1e-3])
    parameters = mean, variance, *draw.choice([(None, None), (gamma, None), (None, beta), (gamma, beta)])
    expected = functional.batch_norm(tensor(x), *map(tensor, parameters), eps=eps)
    actual = backend.call(xconv.batch_norm, x, *parameters, eps=eps, layout="NCHW")
    assert_close(actual, expected.numpy())


def test_dense_and_bilinear(backend, functional, draw):
    lead = ints(draw, draw.randint(0, 2), 1, 3)
    i, j, o = ints(draw, 3, 1, 4)
    x, y, w, v = numbers((*lead, i)), numbers((*lead, j), seed=1), numbers((i, o)), numbers((o, i, j))
    b = draw.choice([None, numbers((o,), seed=2)])
    expected = functional.linear(tensor(x), tensor(w.T), tensor(b))
    assert_close(backend.call(xconv.dense, x, w, b), expected.numpy())
    expected = functional.bilinear(tensor(x), tensor(y), tensor(v), tensor(b))
    assert_close(backend.call(xconv.bilinear, x, y, v, b), expected.numpy())


# Each beside its name here: the name there, and the same parameters in the words of both.
ACTIVATIONS = [
    ("relu", {}, "relu", {}),
    ("relu6", {}, "relu6", {}),
    ("leaky_relu", {}, "leaky_relu", {}),
    ("leaky_relu", {"slope": 0.3}, "leaky_relu", {"negative_slope": 0.3}),
    ("elu", {}, "elu", {}),
    ("elu", {"alpha": 0.4}, "elu", {"alpha": 0.4}),
    ("selu", {}, "selu", {}),
    ("sigmoid", {}, "sigmoid", {}),
    ("hard_sigmoid", {}, "hardsigmoid", {}),
    ("tanh", {}, "tanh", {}),
    ("silu", {}, "silu", {}),
    ("hard_swish", {}, "hardswish", {}),
    ("mish", {}, "mish", {}),
    ("gelu", {}, "gelu", {}),
    ("gelu", {"approximate": "tanh"}, "gelu", {"approximate": "tanh"}),
    ("softplus", {}, "softplus", {}),
    ("softmax", {}, "softmax", {"dim": -1}),
    ("softmax", {"axis": 0}, "softmax", {"dim": 0}),
    ("log_softmax", {}, "log_softmax", {"dim": -1}),
    ("log_softmax", {"axis": 1}, "log_softmax", {"dim": 1}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("name", "ours", "theirs", "named"), ACTIVATIONS, ids=lambda item: str(item))
def test_activations(backend, functional, name, ours, theirs, named, dtype):
    """Also far out, where exponentials overflow, and at the corners of the piecewise ones."""
    corners = [-100, -80, -20, -6, -3, -1, -0.0, 0.0, 1e-4, 1, 3, 6, 20, 80, 100]
    x = np.concatenate([np.array(corners), 4 * numbers((33,), "float64")]).astype(dtype).reshape(6, 8)
    expected = getattr(functional, theirs)(tensor(x), **named).numpy()
    assert_close(backend.call(getattr(xconv, name), x, **ours), expected)


def test_prelu(backend, functional):
    x, slope = numbers((2, 3, 4)), numbers((4,), seed=1)
    expected = functional.prelu(tensor(np.moveaxis(x, -1, 1)), tensor(slope))
    assert_close(np.moveaxis(backend.call(xconv.prelu, x, slope), -1, 1), expected.numpy())
