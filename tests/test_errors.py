"""Bad input: every mistake is answered by the argument, its value, the rule and the caller's whole call."""

import re
import threading

import numpy as np
import pytest

import xconv

X = np.zeros((1, 8, 8, 4), "float32")
W = np.zeros((3, 3, 4, 6), "float32")
B = np.zeros(6, "float32")
IN_CONV = "\n  in conv(x: float32[1, 8, 8, 4], w: float32[3, 3, 4, 6]"
PADDING = (
    "padding must be 'valid', 'same', 'same_lower', 'full' or 'causal', an int, an int per axis, or a (low, high) pair "
    "per axis"
)

# The whole text, for one call with one mistake each.
CONV = {
    "stride-zero": ({"stride": 0}, "stride must be positive; got stride=0" + IN_CONV + ", stride=0)"),
    "stride-negative": (
        {"stride": (1, -2)},
        "stride must be positive; got stride=(1, -2)" + IN_CONV + ", stride=(1, -2))",
    ),
    "stride-too-many": (
        {"stride": [1, 1, 1]},
        "stride must have one int for each of the 2 spatial axes; got stride=(1, 1, 1)"
        + IN_CONV
        + ", stride=[1, 1, 1])",
    ),
    "dilation-zero": (
        {"dilation": 0},
        "dilation must be positive; got dilation=0" + IN_CONV + ", dilation=0)",
    ),
    "groups-do-not-divide": (
        {"groups": 3},
        "groups must divide the 4 channels of x; got groups=3" + IN_CONV + ", groups=3)",
    ),
    "groups-against-kernel": (
        {"groups": 2},
        "w must have 2 input channels, the 4 of x divided by groups=2; got w=[3, 3, 4, 6]"
        + IN_CONV
        + ", groups=2)",
    ),
    "groups-zero": ({"groups": 0}, "groups must be positive; got groups=0" + IN_CONV + ", groups=0)"),
    "padding-name": (
        {"padding": "sam"},
        PADDING + "; got padding='sam'" + IN_CONV + ", padding='sam')",
    ),
    "padding-one-pair-for-two-axes": (
        {"padding": ((1, 2),)},
        PADDING + " (2 axes); got padding=((1, 2),)" + IN_CONV + ", padding=((1, 2),))",
    ),
    "padding-ragged": (
        {"padding": [(1, 2), (3, 4, 5)]},
        PADDING + " (2 axes); got padding=((1, 2), (3, 4, 5))" + IN_CONV + ", padding=[(1, 2), (3, 4, 5)])",
    ),
    "crops-too-much": (
        {"padding": -3},
        "w must fit into the padded input: along spatial axis 0 it reaches over 3 elements and the padded input has 2; "
        "got w=[3, 3, 4, 6]" + IN_CONV + ", padding=-3)",
    ),
    "dilation-too-large": (
        {"dilation": (1, 4)},
        "w must fit into the padded input: along spatial axis 1 it reaches over 9 elements and the padded input has 8; "
        "got w=[3, 3, 4, 6]" + IN_CONV + ", dilation=(1, 4))",
    ),
    "pad-mode": (
        {"pad_mode": "mirrored"},
        "pad_mode must be one of 'constant', 'edge', 'reflect', 'symmetric', 'wrap'; got pad_mode='mirrored'"
        + IN_CONV
        + ", pad_mode='mirrored')",
    ),
    "pad-mode-of-another-library": (
        {"pad_mode": "replicate"},
        "pad_mode must be one of NumPy's names; 'replicate' is called 'edge' here; got pad_mode='replicate'"
        + IN_CONV
        + ", pad_mode='replicate')",
    ),
    "layout": (
        {"layout": "NHCW"},
        "layout must be 'NHWC', 'NCHW', 'channels_last' or 'channels_first' for 2 spatial axes, or name all three like "
        "'NCHW,HWIO->NHWC'; got layout='NHCW'" + IN_CONV + ", layout='NHCW')",
    ),
    "layout-repeats": (
        {"layout": "NHHC,HWIO->NHWC"},
        "layout must name every axis once in 'NHHC'; got layout='NHHC,HWIO->NHWC'"
        + IN_CONV
        + ", layout='NHHC,HWIO->NHWC')",
    ),
    "activation": (
        {"activation": "rectify"},
        "activation must be a function of one array or one of relu, relu6, leaky_relu, elu, selu, sigmoid, "
        "hard_sigmoid, tanh, silu, hard_swish, mish, gelu, softplus; got activation='rectify'"
        + IN_CONV
        + ", activation='rectify')",
    ),
    "algorithm": (
        {"algorithm": "fastest"},
        "algorithm must be one of 'auto', 'pointwise', 'direct', 'im2col', 'kn2row', 'banded', 'separable', "
        "'depthwise', 'winograd', 'spectral', 'fft'; "
        "got algorithm='fastest'" + IN_CONV + ", algorithm='fastest')",
    ),
    "algorithm-that-cannot": (
        {"algorithm": "depthwise"},
        "algorithm must be able to do this problem, but each group has 4 input channels, not one; got "
        "algorithm='depthwise'" + IN_CONV + ", algorithm='depthwise')",
    ),
}


@pytest.mark.parametrize("name", CONV)
def test_the_whole_text_for_an_option_of_conv(name):
    options, text = CONV[name]
    with pytest.raises(ValueError, match="must") as caught:
        xconv.conv(X, W, **options)
    assert str(caught.value) == text


TYPES = {
    "stride-float": {"stride": 1.5},
    "stride-bool": {"stride": True},
    "stride-array": {"stride": np.array([1.0, 2.0])},
    "padding-float": {"padding": 0.5},
    "padding-float-inside": {"padding": (1, (0.5, 1))},
    "dilation-none": {"dilation": None},
    "groups-float": {"groups": 2.0},
    "layout-int": {"layout": 3},
    "activation-int": {"activation": 3},
    "dtype-too-narrow": {"dtype": np.dtype("int32")},
    "stride-dict": {"stride": {}},
    "stride-float-inside": {"stride": (1, 2.0)},
}


@pytest.mark.parametrize("name", TYPES)
def test_an_option_of_the_wrong_kind(name):
    (option,) = TYPES[name]
    with pytest.raises(TypeError, match=rf"^{option} must ") as caught:
        xconv.conv(X, W, **TYPES[name])
    assert f"{IN_CONV}, {option}=" in str(caught.value)


def named(error, argument, call):
    """``call`` fails with ``error`` that names the argument, the rule and the call."""
    with pytest.raises(error, match=rf"^{argument} must .*; got {argument}\b") as caught:
        call()
    assert re.search(r"\n  in \w+\(", str(caught.value))
    return str(caught.value)


ARRAYS = {
    "x-rank": ("x", ValueError, lambda: xconv.conv(X[0, 0], W)),
    "x-rank-too-high": ("x", ValueError, lambda: xconv.conv(X[None], W)),
    "w-rank": ("w", ValueError, lambda: xconv.conv(X, W[0, 0])),
    "w-channels": ("w", ValueError, lambda: xconv.conv(X, W[:, :, :3])),
    "w-empty": ("w", ValueError, lambda: xconv.conv(X, W[:0])),
    "w-no-outputs": ("w", ValueError, lambda: xconv.conv(X, W[..., :0])),
    "x-no-channels": ("x", ValueError, lambda: xconv.conv(X[..., :0], W[:, :, :0])),
    "x-empty-with-pad-mode": ("x", ValueError, lambda: xconv.conv(X[:, :0], W, padding=3, pad_mode="wrap")),
    "kernel-larger-than-image": ("w", ValueError, lambda: xconv.conv(X[:, :2], W)),
    "b-shape": ("b", ValueError, lambda: xconv.conv(X, W, B[:5])),
    "b-rank": ("b", ValueError, lambda: xconv.conv(X, W, B[None])),
    "b-complex": ("b", TypeError, lambda: xconv.conv(X, W, B.astype("complex64"))),
    "b-bool": ("b", TypeError, lambda: xconv.conv(X, W, B.astype(bool))),
    "b-floating-for-integers": ("b", TypeError, lambda: xconv.conv(X.astype(int), W.astype(int), B)),
    "activation-of-integers": (
        "activation",
        ValueError,
        lambda: xconv.conv(X.astype(int), W.astype(int), activation="sigmoid"),
    ),
    "activation-of-complex": ("activation", ValueError, lambda: xconv.conv(X + 0j, W, activation="relu")),
    "depthwise-dense-kernel": (
        "w",
        ValueError,
        lambda: xconv.depthwise_conv(np.ones((1, 3, 8, 8)), np.ones((5, 3, 3, 3)), layout="NCHW"),
    ),
    "dtype-string": ("dtype", TypeError, lambda: xconv.conv(X, W, dtype="float32")),
    "x-bool": ("x", TypeError, lambda: xconv.conv(X.astype(bool), W)),
    "w-bool": ("w", TypeError, lambda: xconv.conv(X, W.astype(bool))),
    "x-list": ("x", TypeError, lambda: xconv.conv([[1.0, 2.0], [3.0]], W)),
    "w-scalar": ("w", TypeError, lambda: xconv.conv(X, np.float32(3))),
    "w-none": ("w", TypeError, lambda: xconv.conv(X, None)),
    "x-masked": ("x", TypeError, lambda: xconv.conv(np.ma.masked_array(X), W)),
    "x-objects": ("arrays", TypeError, lambda: xconv.conv(X.astype(object), W)),
    "conv1d-kernel": ("w", ValueError, lambda: xconv.conv1d(X, W)),
    "conv3d-kernel": ("w", ValueError, lambda: xconv.conv3d(X, W)),
    "uint64-with-int64": ("w", TypeError, lambda: xconv.conv(X.astype("uint64"), W.astype("int64"))),
    "depthwise": ("w", ValueError, lambda: xconv.depthwise_conv(X, W[:, :, :3])),
    "pointwise-of-separable": ("pointwise", ValueError, lambda: xconv.separable_conv(X, W[..., :1], W)),
    "pointwise-channels": (
        "pointwise",
        ValueError,
        lambda: xconv.separable_conv(X, W[..., :1], W[:1, :1, :3]),
    ),
    "transposed-channels": ("w", ValueError, lambda: xconv.conv_transpose(X, W)),
    "transposed-output-padding": (
        "output_padding",
        ValueError,
        lambda: xconv.conv_transpose(X, np.moveaxis(W, -1, -2), stride=2, output_padding=2),
    ),
    "transposed-output-shape-and-padding": (
        "output_padding",
        ValueError,
        lambda: xconv.conv_transpose(X[..., :4], W[:, :, :, :4], stride=2, output_padding=1, output_shape=17),
    ),
    "transposed-output-shape-out-of-reach": (
        "output_shape",
        ValueError,
        lambda: xconv.conv_transpose(X, W[..., :4], stride=2, padding=1, output_shape=20),
    ),
    "transposed-crops-everything": (
        "padding",
        ValueError,
        lambda: xconv.conv_transpose(X[:, :1, :1], W[..., :4], padding=2),
    ),
    "window-zero": ("window", ValueError, lambda: xconv.max_pool(X, 0)),
    "window-too-large": ("window", ValueError, lambda: xconv.max_pool(X, 9)),
    "window-true": ("window", TypeError, lambda: xconv.max_pool(X, True)),
    "window-float": ("window", TypeError, lambda: xconv.max_pool(X, 2.0)),
    "window-in-the-padding": ("padding", ValueError, lambda: xconv.avg_pool(X, 2, padding=2)),
    "pool-complex": ("x", TypeError, lambda: xconv.max_pool(X.astype("complex64"), 2)),
    "pool-bool": ("x", TypeError, lambda: xconv.avg_pool(X.astype(bool), 2)),
    "pool-nan": ("nan", ValueError, lambda: xconv.max_pool(X, 2, nan="ignore")),
    "pool-ceil": ("ceil_mode", TypeError, lambda: xconv.max_pool(X, 2, ceil_mode=1)),
    "pool-divisor": ("divisor", ValueError, lambda: xconv.avg_pool(X, 2, divisor=0)),
    "pool-divisor-and-count": (
        "count_include_pad",
        ValueError,
        lambda: xconv.avg_pool(X, 2, divisor=4, count_include_pad=True),
    ),
    "pool-layout-with-kernel": ("layout", ValueError, lambda: xconv.max_pool(X, 2, layout="NHWC,HWIO->NHWC")),
    "pool2d-window": ("window", ValueError, lambda: xconv.max_pool2d(X, (2, 2, 2))),
    "lp-integers": ("x", TypeError, lambda: xconv.lp_pool(X.astype("int32"), 2)),
    "lp-order": ("p", ValueError, lambda: xconv.lp_pool(X, 2, p=0)),
    "reduction": ("reduction", ValueError, lambda: xconv.reduce_window(X, "median", 2)),
    "adaptive-size": ("output_size", ValueError, lambda: xconv.adaptive_avg_pool(X, 0)),
    "global-empty": ("x", ValueError, lambda: xconv.global_max_pool(X[:, :0])),
    "unpool-indices": ("indices", TypeError, lambda: xconv.max_unpool(X, X, 2)),
    "unpool-shape": ("indices", ValueError, lambda: xconv.max_unpool(X, X[:, :4].astype(int), 2)),
    "fold-size": ("columns", ValueError, lambda: xconv.fold(X, 8, 2)),
    "fold-features": ("columns", ValueError, lambda: xconv.fold(X, 10, 3)),
    "dense-features": ("w", ValueError, lambda: xconv.dense(X, W[0, 0, :3])),
    "dense-rank": ("w", ValueError, lambda: xconv.dense(X, W)),
    "bilinear-leading": (
        "x2",
        ValueError,
        lambda: xconv.bilinear(X, X[:, :4], np.zeros((2, 4, 4), "float32")),
    ),
    "bilinear-features": ("x1", ValueError, lambda: xconv.bilinear(X, X, np.zeros((2, 3, 4), "float32"))),
    "pad-mode": ("mode", ValueError, lambda: xconv.pad(X, 1, mode="circular")),
    "pad-widths": ("widths", ValueError, lambda: xconv.pad(X, (1, 2))),
    "pad-crop": ("widths", ValueError, lambda: xconv.pad(X, -3)),
    "pad-value": ("value", ValueError, lambda: xconv.pad(X, 1, mode="edge", value=1)),
    "pad-value-type": ("value", TypeError, lambda: xconv.pad(X.astype(int), 1, value=0.5)),
    "norm-mean": ("mean", ValueError, lambda: xconv.batch_norm(X, B, B)),
    "norm-eps": ("eps", ValueError, lambda: xconv.batch_norm(X, B[:4], B[:4], eps=-1)),
    "fold-norm-channels": ("w", ValueError, lambda: xconv.fold_batch_norm(W, None, B[:5], B[:5])),
    "slope": ("slope", TypeError, lambda: xconv.leaky_relu(X, slope="0.1")),
    "prelu-slope": ("slope", ValueError, lambda: xconv.prelu(X, B)),
    "gelu": ("approximate", ValueError, lambda: xconv.gelu(X, approximate="erf")),
    "softmax-axis": ("axis", ValueError, lambda: xconv.softmax(X, axis=4)),
    "sigmoid-integers": ("x", TypeError, lambda: xconv.sigmoid(X.astype(int))),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_mistake_is_named(name):
    argument, error, call = ARRAYS[name]
    if argument == "arrays":
        with pytest.raises(
            error, match=r"^arrays must hold numbers of the array API standard; got dtype object"
        ):
            call()
    else:
        named(error, argument, call)


@pytest.mark.backends("strict")
def test_arrays_of_two_libraries_are_refused(backend):
    x, w = backend.asarray(X), np.array(W)
    text = named(TypeError, "w", lambda: xconv.conv(x, w))
    assert text.startswith("w must come from the same array library as x, array_api_strict; got w from numpy")
    named(TypeError, "indices", lambda: xconv.max_unpool(x, np.zeros(X.shape, int), 2))


@pytest.mark.backends("strict")
def test_arrays_on_two_devices_are_refused(backend):
    import array_api_strict

    x = backend.asarray(X)
    w = array_api_strict.asarray(W, device=array_api_strict.Device("device1"))
    text = named(ValueError, "w", lambda: xconv.conv(x, w))
    assert text.startswith("w must be on the same device as x, ")


@pytest.mark.backends("dask")
def test_unknown_chunks_are_refused(backend):
    x = backend.asarray(X)
    unknown = x[x[:, 0, 0, 0] >= 0]  # its length is known only once it is computed
    named(ValueError, "x", lambda: xconv.conv(unknown, backend.asarray(W)))


def test_what_is_equal_to_an_int_is_still_no_int():
    """Problems are looked up by their options, and True == 1 == 1.0."""
    xconv.conv(X, W, stride=1)
    xconv.max_pool(X, (2, 2))
    for wrong in (True, 1.0, (1, True), (1.0, 1)):
        named(TypeError, "stride", lambda wrong=wrong: xconv.conv(X, W, stride=wrong))
    named(TypeError, "window", lambda: xconv.max_pool(X, (2.0, 2)))
    assert xconv.conv(X, W, stride=np.int64(1)).shape == (1, 6, 6, 6)
    assert xconv.conv(X, W, stride=np.array([1, 2])).shape == (1, 6, 3, 6)


def test_the_call_is_shown_with_types_and_functions_in_it():
    with pytest.raises(ValueError, match="stride must") as caught:
        xconv.conv(X, W, stride=0, dtype=np.float32, activation=np.tanh)
    assert str(caught.value).endswith(f"{IN_CONV}, stride=0, dtype=float32, activation=tanh)")
    with pytest.raises(ValueError, match="workspace must") as caught:
        xconv.config(workspace=0)
    assert (
        str(caught.value)
        == "workspace must be a positive number of bytes; got workspace=0\n  in config(workspace=0)"
    )
    with pytest.raises(ValueError, match="function must") as caught:
        xconv.explain(xconv.relu, X, 3)
    assert str(caught.value).endswith("\n  in explain(relu, float32[1, 8, 8, 4], 3)")


def test_nothing_is_computed_and_nothing_changed_by_a_refusal():
    calls = []
    x, w = X + 1, W + 1
    with pytest.raises(ValueError, match="b must"):
        xconv.conv(x, w, B[:5], activation=lambda y: calls.append(y) or y)
    assert not calls
    assert np.array_equal(x, X + 1)
    assert np.array_equal(w, W + 1)


def test_an_error_inside_an_activation_is_passed_on_as_it_is():
    def broken(y):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        xconv.conv(X, W, activation=broken)


def test_calls_from_many_threads_do_not_meet():
    """Plans are shared, settings are not."""
    x, w = np.ones((2, 32, 32, 4), "float32"), np.ones((3, 3, 4, 6), "float32")
    expected = xconv.conv(x, w, padding=1)
    wrong = []

    def work(workspace):
        for _ in range(20):
            with xconv.config(workspace=workspace):
                if not np.array_equal(xconv.conv(x, w, padding=1), expected):
                    wrong.append(workspace)

    threads = [threading.Thread(target=work, args=(2**n,)) for n in (12, 14, 16, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
