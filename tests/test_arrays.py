"""Arrays as they come: read-only, strided, reversed, transposed, empty; and images of a batch that stay apart."""

import numpy as np
import pytest

import xconv
from cases import default_integer, numbers, pytest_generate_tests, thinned  # noqa: F401
from compare import assert_close, assert_same
from xconv._namespace import same_memory

pytestmark = pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning"
)  # NumPy's, for products with inf

X = numbers((3, 6, 5, 4), seed=1)
W = numbers((3, 2, 4, 5), seed=2)
INDICES = np.random.default_rng(3).integers(0, 6 * 5, (3, 6, 5, 4))

# One call of every door that takes data with two spatial axes: a function of the data alone.
DOORS = {
    "conv": lambda x: xconv.conv(x, like(x, W), stride=2, padding="same"),
    "conv-direct": lambda x: xconv.conv(x, like(x, W), padding=1, algorithm="direct"),
    "conv-im2col": lambda x: xconv.conv(x, like(x, W), algorithm="im2col"),
    "conv-im2col-groups": lambda x: xconv.conv(x, like(x, W[:, :, :2, :4]), groups=2, algorithm="im2col"),
    "conv-pointwise": lambda x: xconv.conv(x, like(x, W[:1, :1]), algorithm="pointwise"),
    "conv-wrap": lambda x: xconv.conv(x, like(x, W), padding=2, pad_mode="wrap"),
    "conv-relu": lambda x: xconv.conv(x, like(x, W), activation="relu"),
    "depthwise_conv": lambda x: xconv.depthwise_conv(x, like(x, W[..., :2]), algorithm="depthwise"),
    "separable_conv": lambda x: xconv.separable_conv(x, like(x, W[..., :1]), like(x, W[:1, :1])),
    "conv_transpose": lambda x: xconv.conv_transpose(x, like(x, np.swapaxes(W, 2, 3)), stride=2),
    "conv_general": lambda x: xconv.conv_general(x, like(x, W), input_dilation=2, padding=((-1, 2), (3, 0))),
    "unfold": lambda x: xconv.unfold(x, (3, 2), padding=1),
    "fold": lambda x: xconv.fold(x, (7, 6), 2),
    "max_pool": lambda x: xconv.max_pool(x, 2),
    "max_pool-indices": lambda x: xconv.max_pool(x, 3, stride=2, padding=1, return_indices=True),
    "avg_pool": lambda x: xconv.avg_pool(x, 3, stride=2, padding=1, ceil_mode=True),
    "lp_pool": lambda x: xconv.lp_pool(x, 2, p=3),
    "adaptive_max_pool": lambda x: xconv.adaptive_max_pool(x, (4, 3), return_indices=True),
    "adaptive_avg_pool": lambda x: xconv.adaptive_avg_pool(x, (4, 3)),
    "global_max_pool": xconv.global_max_pool,
    "global_avg_pool": xconv.global_avg_pool,
    "global_lp_pool": xconv.global_lp_pool,
    "reduce_window": lambda x: xconv.reduce_window(x, "sum", 2, input_dilation=2),
    "max_unpool": lambda x: xconv.max_unpool(x, like(x, INDICES), 1),
    "dense": lambda x: xconv.dense(x, like(x, W[0, 0])),
    "batch_norm": lambda x: xconv.batch_norm(x, like(x, W[0, 0, :, 0]), like(x, abs(W[0, 1, :, 0]))),
    "pad": lambda x: xconv.pad(x, ((0, 0), (1, 2), (3, 0), (0, 0)), mode="symmetric"),
    "silu": xconv.silu,
}

LIKE = {}


def like(x, array):
    """A NumPy array that is a constant of the call, for as long as `use` runs, on the library of `x`."""
    backend = LIKE["backend"]
    if array is INDICES:
        array = array[: x.shape[0]].astype(default_integer(backend))
    return backend.asarray(np.ascontiguousarray(array))


@pytest.fixture
def use(backend):
    """Calls a door on arrays of the backend and gives NumPy arrays in a tuple."""
    LIKE["backend"] = backend

    def run(name, x):
        result = DOORS[name](x)
        return tuple(backend.numpy(r) for r in (result if isinstance(result, tuple) else (result,)))

    yield run
    LIKE.clear()


# ---------------------------------------------------------------------------------------------------- memory


def strange_arrays(backend):
    """Pairs of a name and an array of the backend that equals X but does not lie in memory as X does."""
    xp, array = backend.xp, backend.asarray
    wide = np.repeat(X, 2, axis=-1)
    yield "every second channel", array(wide)[..., ::2]
    tall = np.zeros((3, 8, 9, 4), "float32")
    tall[:, 1:7, 2:7] = X
    yield "a part of an image", array(tall)[:, 1:7, 2:7, :]
    yield "channels first", xp.permute_dims(array(np.ascontiguousarray(np.moveaxis(X, -1, 1))), (0, 2, 3, 1))
    yield "fortran order", xp.permute_dims(array(np.ascontiguousarray(X.T)), (3, 2, 1, 0))
    yield "flipped", xp.flip(array(np.ascontiguousarray(X[:, ::-1, ::-1])), axis=(1, 2))
    if backend.name != "torch":  # which has no negative strides, so that its flip is a copy
        yield "negative strides", array(np.ascontiguousarray(X[::-1, :, ::-1, ::-1]))[::-1, :, ::-1, ::-1]
    rows = np.ascontiguousarray(X[:, :1])
    yield "one row many times", xp.broadcast_to(array(rows), X.shape)


@thinned("door", DOORS, every=4)
def test_results_do_not_depend_on_how_an_array_lies_in_memory(backend, use, door):
    for name, strange in strange_arrays(backend):
        plain = (
            X if name != "one row many times" else np.ascontiguousarray(np.broadcast_to(X[:, :1], X.shape))
        )
        before = backend.numpy(strange).copy()
        assert_same(before, plain)
        for one, other in zip(use(door, strange), use(door, backend.asarray(plain)), strict=True):
            assert_close(one, other)
        assert_same(backend.numpy(strange), before)  # and the call has left it alone


@pytest.mark.backends("numpy", "fast")
@thinned("door", DOORS, every=4)
def test_read_only_arrays_are_read_and_results_are_writeable(backend, use, door):
    x = X.copy()
    x.flags.writeable = False
    for result in use(door, x):
        result += result
        assert not np.shares_memory(result, x)


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize(
    "function", ["pad", "conv", "dense", "unfold", "max_pool", "avg_pool", "reduce_window"]
)
def test_a_call_that_does_nothing_gives_a_copy(function):
    """A result never shares memory with its input, so that writing into it is safe."""
    one = np.ones((1, 1), "float32")
    x = np.ones((1, 4, 1), "float32")
    result = {
        "pad": lambda: xconv.pad(x, ((0, 0), (0, 0), (0, 0))),
        "conv": lambda: xconv.conv(x, one[None]),
        "dense": lambda: xconv.dense(x, one),
        "unfold": lambda: xconv.unfold(x, 1),
        "max_pool": lambda: xconv.max_pool(x, 1),
        "avg_pool": lambda: xconv.avg_pool(x, 1),
        "reduce_window": lambda: xconv.reduce_window(x, "sum", 1),
    }[function]()
    assert result is not x
    assert not np.shares_memory(result, x)


def test_kernels_and_biases_may_lie_strangely_too(backend):
    xp = backend.xp
    x, b = backend.asarray(X), numbers((5,), seed=4)
    strange_w = xp.permute_dims(backend.asarray(np.ascontiguousarray(W.T)), (3, 2, 1, 0))
    strange_b = backend.asarray(np.repeat(b, 3))[::3]
    plain = backend.numpy(xconv.conv(x, backend.asarray(W), backend.asarray(b)))
    assert_close(backend.numpy(xconv.conv(x, strange_w, strange_b)), plain)


@pytest.mark.backends("numpy", "fast")
def test_a_part_of_one_image_is_the_same_memory_whatever_the_stride_of_the_batch():
    whole = np.zeros((1, 8, 3))
    part = whole[:, 2:6]
    again = part.reshape(4, 3).reshape(1, 4, 3)  # another stride of the batch
    assert again.strides != part.strides
    assert same_memory(part, again)
    assert not same_memory(part, whole[:, 1:5])
    assert not same_memory(whole[:, ::2], whole[:, :4])


def test_byte_order_and_alignment_of_numpy_arrays():
    swapped = X.astype(">f4")
    raw = np.zeros(X.nbytes + 1, "uint8")
    unaligned = raw[1:].view("float32").reshape(X.shape)
    unaligned[...] = X
    assert not unaligned.flags.aligned
    plain = xconv.conv(X, W, padding=1)
    for strange in (swapped, unaligned):
        assert_close(xconv.conv(strange, W, padding=1), plain)


# ------------------------------------------------------------------------------------------------- empty batches


@thinned("door", DOORS, every=4)
def test_an_empty_batch_gives_an_empty_batch(backend, use, door):
    for empty, full in zip(use(door, backend.asarray(X[:0])), use(door, backend.asarray(X)), strict=True):
        assert empty.shape == (0, *full.shape[1:])
        assert empty.dtype == full.dtype


# -------------------------------------------------------------------------------------- images that stay apart


@thinned("door", DOORS, every=4)
def test_one_image_of_a_batch_never_touches_another(backend, use, door):
    """NaN and inf in the second image leave the first and the third bit by bit as they were."""
    spoilt = X.copy()
    spoilt[1, 2:4] = np.nan
    spoilt[1, 0, 0] = np.inf
    clean = use(door, backend.asarray(X))
    for one, other in zip(use(door, backend.asarray(spoilt)), clean, strict=True):
        assert_same(one[::2], other[::2])


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "auto"])
def test_one_group_never_touches_another(backend, algorithm):
    spoilt = X.copy()
    spoilt[..., 1] = np.nan
    w = W[:, :, :2, :4]
    clean = backend.call(xconv.conv, X, w, groups=2, algorithm=algorithm)
    result = backend.call(xconv.conv, spoilt, w, groups=2, algorithm=algorithm)
    assert np.isnan(result[..., :2]).all()
    assert_close(result[..., 2:], clean[..., 2:])


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
def test_one_nan_touches_the_windows_that_hold_it_and_no_other(backend, algorithm):
    spoilt = X.copy()
    spoilt[1, 3, 2, 0] = np.nan
    spoilt[2, 0, 0, 1] = np.inf
    clean = backend.call(xconv.conv, X, W, algorithm=algorithm)
    result = backend.call(xconv.conv, spoilt, W, algorithm=algorithm)
    meant = clean.copy()
    meant[1, 1:4, 1:3] = np.nan
    meant[2, 0, 0] = np.sign(W[0, 0, 1]) * np.inf
    assert_close(result, meant)
