"""Beyond its result no call needs more memory than the workspace: measured, on NumPy, where memory can be traced."""

import tomllib
import tracemalloc

import numpy as np
import pytest

import xconv
from cases import numbers
from descriptions import ROOT
from xconv import _extents, _plan

WORKSPACE = 256 * 1024
OWN_OBJECTS = 16 * 1024  # of Python, beside the arrays

X = numbers((2, 64, 64, 8))
W = numbers((5, 5, 8, 8))
HALF_X, HALF_W = X.astype("float16"), W.astype("float16")
WHOLE_X, WHOLE_W = numbers(X.shape, "int16"), numbers(W.shape, "int16")

CALLS = {
    "direct": lambda: xconv.conv(X, W, padding="same", algorithm="direct"),
    "direct-groups": lambda: xconv.conv(X, W[:, :, :4], groups=2, algorithm="direct"),
    "im2col": lambda: xconv.conv(X, W, padding="same", algorithm="im2col"),
    "im2col-groups": lambda: xconv.conv(X, W[:, :, :4], groups=2, algorithm="im2col"),
    "kn2row": lambda: xconv.conv(X, W[..., :3], padding="same", algorithm="kn2row"),
    "kn2row-phases": lambda: xconv.conv_transpose(X, W[:, :, :3], stride=2, algorithm="kn2row"),
    "pointwise": lambda: xconv.conv(X, W[:1, :1], padding=1, algorithm="pointwise"),
    "pointwise-stride": lambda: xconv.conv(X, W[:1, :1], stride=(1, 2), algorithm="pointwise"),
    "depthwise": lambda: xconv.depthwise_conv(X, W[..., :1], padding=1, algorithm="depthwise"),
    "depthwise-times-2": lambda: xconv.depthwise_conv(X, W[..., :2], algorithm="depthwise"),
    "banded": lambda: xconv.conv(X, W, padding="same", algorithm="banded"),
    "banded-rows": lambda: xconv.depthwise_conv(X, W[..., :1], padding=1, algorithm="banded"),
    "spectral": lambda: xconv.convolve(
        X.reshape(16, 64, 64), W[..., 0, 0], pad_mode="wrap", method="spectral"
    ),
    "winograd": lambda: xconv.conv(X, W[:3, :3], padding="same", algorithm="winograd"),
    "winograd-ragged": lambda: xconv.conv(X, W[:, :3], padding=((1, 1), (0, 1)), algorithm="winograd"),
    "auto": lambda: xconv.conv(X, W),
    "residual": lambda: xconv.conv(X, W, padding="same", residual=X, activation="silu"),
    "residual-of-integers": lambda: xconv.conv(WHOLE_X, WHOLE_W, padding="same", residual=WHOLE_X),
    "wrap": lambda: xconv.conv(X, W, padding=2, pad_mode="wrap"),
    "bias-and-activation": lambda: xconv.conv(X, W, W[0, 0, 0], activation="silu"),
    "channels-first": lambda: xconv.conv(
        np.moveaxis(X, -1, 1), np.moveaxis(W, (-1, -2), (0, 1)), layout="NCHW"
    ),
    "float16": lambda: xconv.conv(HALF_X, HALF_W),
    "integers": lambda: xconv.conv(WHOLE_X, WHOLE_W),
    "conv_transpose": lambda: xconv.conv_transpose(X, W, stride=2),
    "conv_general": lambda: xconv.conv_general(X, W, input_dilation=2, padding=3),
    "separable_conv": lambda: xconv.separable_conv(X, W[..., :1], W[:1, :1]),
    "unfold": lambda: xconv.unfold(X, 3, padding=1),
    "fold": lambda: xconv.fold(X, (65, 65), 2),
    "max_pool": lambda: xconv.max_pool(X, 3, stride=1, padding=1),
    "max_pool-indices": lambda: xconv.max_pool(X, 3, stride=1, padding=1, return_indices=True),
    "avg_pool": lambda: xconv.avg_pool(X, 3, stride=1, padding=1),
    "lp_pool": lambda: xconv.lp_pool(X, 3, stride=1, p=3),
    "reduce_window": lambda: xconv.reduce_window(X, "sum", 5),
}


def beyond_its_result(call):
    """Bytes that a call needs beyond its result at its peak, and those of the result."""
    call()  # the plan is made here, and kept
    tracemalloc.start()
    try:
        result = call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    results = sum(r.nbytes for r in (result if isinstance(result, tuple) else (result,)))
    return peak - results, results


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_needs_its_result_and_the_workspace(name):
    if name == "depthwise" and np.__version__.startswith("2.0."):
        pytest.skip("NumPy 2.0 takes some KiB more for the buffers of an einsum")
    with xconv.config(workspace=WORKSPACE):
        beyond, results = beyond_its_result(CALLS[name])
    assert results > WORKSPACE / 4  # so that there is something to cut
    assert beyond <= WORKSPACE + OWN_OBJECTS


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("threads", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["im2col", "winograd", "banded", "max_pool", "residual", "conv_transpose"])
def test_so_does_a_call_that_is_shared_out(monkeypatch, name, threads):
    """The tiles that are in work at once share the workspace, whatever the number of threads."""
    for module, attribute, value in (
        (_plan, "cores", lambda: 8),
        (_plan, "CPU", _plan.CPU._replace(start=0.0, call=0.0)),
        (_plan, "FAST", _plan.FAST._replace(start=0.0, call=0.0)),
        (_extents, "GRAIN", 1e-5),
        (_extents, "WORTH", 0.0),
    ):
        monkeypatch.setattr(module, attribute, value)
    _plan.forget_plans()
    try:
        with xconv.config(workspace=WORKSPACE, cache=2**16, threads=threads):
            beyond, _ = beyond_its_result(CALLS[name])
    finally:
        _plan.forget_plans()
    assert beyond <= WORKSPACE + OWN_OBJECTS * threads


PLANS = {
    "im2col": (W, {}),
    "winograd": (W[:3, :3], {"algorithm": "winograd"}),
    "banded": (W, {"algorithm": "banded"}),
    "residual": (W, {"residual": X, "activation": "relu"}),
}


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", PLANS)
def test_so_does_a_planned_call(name):
    w, options = PLANS[name]
    with xconv.config(workspace=WORKSPACE):
        layer = xconv.plan(xconv.conv, X.shape, w, padding="same", **options)
        beyond, _ = beyond_its_result(lambda: layer(X))
    assert beyond <= WORKSPACE + OWN_OBJECTS


@pytest.mark.backends("numpy", "fast")
def test_so_do_fourier_transforms_where_their_kernel_and_a_block_fit():
    x = numbers((4, 150, 150, 8))
    with xconv.config(workspace=2**22):
        beyond, _ = beyond_its_result(lambda: xconv.conv(x, W, padding="same", algorithm="fft"))
        layer = xconv.plan(xconv.conv, x.shape, W, padding="same", algorithm="fft")
        planned, _ = beyond_its_result(lambda: layer(x))
    assert beyond <= 2**22 + OWN_OBJECTS
    assert planned <= 2**22 + OWN_OBJECTS


@pytest.mark.backends("numpy", "fast")
def test_an_algorithm_that_exceeds_the_workspace_is_not_chosen():
    x, w = numbers((1, 128, 128, 4)), numbers((31, 31, 4, 8))
    assert xconv.explain(xconv.conv, x, w).algorithm == "fft"
    with xconv.config(workspace=2**16):
        bids = xconv.explain(xconv.conv, x, w).plan.candidates
    fits = [bid.cost.workspace + bid.cost.bound <= 2**16 for bid in bids]
    assert fits == sorted(fits, reverse=True)
    assert "fft" not in [bid.algorithm for bid, fit in zip(bids, fits, strict=True) if fit]
    assert bids[0].algorithm != "fft"


def layers():
    """Those of the named networks that need most, by name: all that naive im2col would make larger than 64 MiB."""
    networks = tomllib.loads((ROOT / "benchmarks" / "cases.toml").read_text(encoding="utf-8"))
    for name in HEAVY:
        network, layer = name.split("/")
        yield name, next(line for line in networks[network]["layers"] if line["name"] == layer)


HEAVY = (
    "vgg16/conv1_2",
    "vgg16/conv2_2",
    "vgg16/conv5_1",
    "vgg16/pool1",
    "unet/dec1.conv1",
    "unet/upconv1",
    "monai_unet/up1",
    "monai_unet/up1.conv",
    "monai_unet/down1.conv2",
    "wav2vec2/conv0",
    "wav2vec2/position",
)
HEAVY_LAYERS = dict(layers())


@pytest.mark.backends("numpy", "fast")
@pytest.mark.parametrize("name", HEAVY_LAYERS)
def test_by_default_no_layer_needs_more_than_64_mib(name):
    layer = HEAVY_LAYERS[name]
    x = np.ones((1, *layer["shape"]), "float32")
    window = (layer["kernel"],) * (x.ndim - 2)
    options = {key: layer[key] for key in ("stride", "padding", "output_padding") if key in layer}
    op = layer.get("op", "conv")
    if op == "max_pool":
        calls = [lambda: xconv.max_pool(x, window, **options)]
    else:
        inputs, outputs = x.shape[-1] // layer.get("groups", 1), layer["channels"]
        ends = (outputs, inputs) if op == "conv_transpose" else (inputs, outputs)
        w, b = np.ones((*window, *ends), "float32"), np.ones(outputs, "float32")
        if op == "conv":
            options |= {"groups": layer.get("groups", 1), "activation": "relu"}
        function = getattr(xconv, op)
        planned = xconv.plan(function, x.shape, w, b, **options)
        calls = [lambda: function(x, w, b, **options), lambda: planned(x)]
    for call in calls:
        beyond, _ = beyond_its_result(call)
        assert beyond <= 64 * 2**20 + OWN_OBJECTS
