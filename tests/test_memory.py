"""Beyond its result no call needs more memory than the workspace: measured, on NumPy, where memory can be traced."""

import tracemalloc

import numpy as np
import pytest

import xconv
from cases import numbers

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
    "pointwise": lambda: xconv.conv(X, W[:1, :1], padding=1, algorithm="pointwise"),
    "pointwise-stride": lambda: xconv.conv(X, W[:1, :1], stride=(1, 2), algorithm="pointwise"),
    "depthwise": lambda: xconv.depthwise_conv(X, W[..., :1], padding=1, algorithm="depthwise"),
    "depthwise-times-2": lambda: xconv.depthwise_conv(X, W[..., :2], algorithm="depthwise"),
    "auto": lambda: xconv.conv(X, W),
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


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_needs_its_result_and_the_workspace(name):
    call = CALLS[name]
    with xconv.config(workspace=WORKSPACE):
        call()  # the plan is made here, and kept
        tracemalloc.start()
        try:
            result = call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    results = sum(r.nbytes for r in (result if isinstance(result, tuple) else (result,)))
    assert results > WORKSPACE / 4  # so that there is something to cut
    assert peak <= results + WORKSPACE + OWN_OBJECTS
