"""benchmarks/peers: every library that is compared does what the layer says, channels last or first."""

import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import onnx.reference
import pytest

import xconv
from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import engines
import layers
import measuring
import network
import peers
from peers import onnx_runtime

LAZY_STEP = 2

_, NETS = layers.load()


def tiny(layer):
    """The same layer on few pixels with few channels."""
    *sizes, inputs = layer.shape
    shape = [min(size, layer.kernel + 8) for size in sizes]
    if layer.op == "dense":
        return replace(layer, shape=(*[min(size, 3) for size in sizes], 7), channels=5)
    if layer.kind == "pool":
        return replace(layer, shape=(*shape, 3))
    if layer.kind == "depthwise":
        return replace(layer, shape=(*shape, 4), channels=4, groups=4)
    if layer.kind == "grouped conv":
        return replace(layer, shape=(*shape, 4), channels=6, groups=2)
    return replace(layer, shape=(*shape, min(inputs, 3)), channels=min(layer.channels, 5))


# One layer of every sort.
TINY = {}
for candidate in (tiny(layer) for net in NETS.values() for layer in net.layers):
    sort = (candidate.kernel, candidate.stride, candidate.padding, candidate.output_padding)
    TINY.setdefault((candidate.kind, candidate.op, len(candidate.shape), *sort), candidate)
every_sort = pytest.mark.parametrize("layer", TINY.values(), ids=lambda layer: f"{layer.net}-{layer.name}")
LARGE = layers.Layer(net="n", name="channels", op="max_pool", shape=(5, 6, 300), kernel=2, stride=2)


def compare_with(name, layer, formats):
    """Check every way in which a peer does a layer, and that the check can fail."""
    peer = peers.open_peer(name, threads=1)
    arrays = engines.operands(layer, batch=2)
    found = peers.contenders({name: peer}, layer, arrays)
    assert list(found) == ([f"{name} {layout}".strip() for layout in formats] if peer.supports(layer) else [])
    expected = engines.plain_call(layer, arrays)()
    assert expected.shape == (2, *layer.output_shape)
    with peer.scope():
        for contender in found.values():
            actual = contender.numpy(contender.call())
            assert measuring.relative_error(actual, expected) <= measuring.LIMIT
            assert measuring.relative_error(actual * np.float32(1.001), expected) > measuring.LIMIT
            assert measuring.relative_error(actual[:1], expected) == float("inf")
    return found


@pytest.mark.backends("numpy", "fast")  # compiled movers are there in the latter
@every_sort
def test_every_way_of_xconv_agrees(layer):
    arrays = engines.operands(layer, batch=2)
    plain, *others = engines.xconv_calls(layer, arrays).values()
    assert len(others) == (layer.op in ("conv", "conv_transpose", "dense"))
    others += engines.xconv_calls(layer, arrays, fast=True).values()
    for other in others:
        assert measuring.relative_error(other(), plain()) <= measuring.LIMIT


@pytest.mark.backends("torch")
@every_sort
def test_torch_agrees(layer):
    one = layer.op == "dense"
    compare_with("torch", layer, [""] if one else ["NCHW", "NHWC"] if layer.rank in (2, 3) else ["NCHW"])


@pytest.mark.backends("jax")
@every_sort
def test_jax_agrees(layer):
    compare_with("JAX", layer, [""] if layer.op == "dense" else ["NHWC", "NCHW"])


@pytest.mark.backends("jax")  # which brings SciPy
@every_sort
def test_scipy_agrees(layer):
    assert bool(compare_with("SciPy", layer, [""])) == (layer.op == "max_pool")


@every_sort
def test_the_models_of_onnx_agree(layer):
    arrays = engines.operands(layer, batch=2)
    x, *parameters = onnx_runtime.model_operands(layer, arrays)
    model = onnx_runtime.one_node(layer, x.shape, parameters)
    (y,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})
    actual = y.reshape(*arrays[0].shape[:-1], -1) if layer.op == "dense" else peers.channels_last(layer, y)
    assert measuring.relative_error(actual, engines.plain_call(layer, arrays)()) <= measuring.LIMIT
    declared = model.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in declared] == list(y.shape)


if find_spec(
    "onnxruntime"
):  # in no session of the tests; every run of the benchmarks compares the results too

    @every_sort
    def test_onnx_runtime_agrees(layer):
        compare_with("ONNX Runtime", layer, [""])


if find_spec("cv2"):

    @pytest.mark.parametrize("layer", [*TINY.values(), LARGE], ids=lambda layer: f"{layer.net}-{layer.name}")
    def test_opencv_agrees(layer):
        found = compare_with("OpenCV", layer, [""])
        assert bool(found) == (layer.kind == "pool" and layer.rank == 2)


def small_network():
    """Layers as the demo has them, channels first: two convolutions and a transposed one."""
    rng = np.random.default_rng(0)
    activated = {"activation": partial(xconv.leaky_relu, slope=network.SLOPE)}
    kinds = [
        ((4, 3, 3, 3), xconv.conv, activated),
        ((5, 4, 3, 3), xconv.conv, {"activation": None}),
        ((5, 3, 4, 4), xconv.conv_transpose, {"stride": 2, "padding": 3}),
    ]
    return [
        SimpleNamespace(
            w=rng.standard_normal(shape, dtype=np.float32),
            b=rng.standard_normal(shape[0], dtype=np.float32) if function is xconv.conv else None,
            function=function,
            options=options,
        )
        for shape, function, options in kinds
    ], rng.standard_normal((1, 3, 12, 10), dtype=np.float32)


@pytest.mark.backends("torch")
def test_a_whole_network_is_the_same_in_torch():
    """And every layer counts, with its bias and its activation."""
    import torch

    layers, x = small_network()
    expected = network.by_xconv(layers, x)
    assert expected.shape == (1, 3, 12, 8)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        actual = network.by_torch(torch, layers, x, memory_format)().numpy()
        assert measuring.relative_error(actual, expected) <= measuring.LIMIT
    for name, other in (("options", {"activation": None}), ("b", np.zeros(4, np.float32))):
        changed = [SimpleNamespace(**vars(layers[0]) | {name: other}), *layers[1:]]
        assert measuring.relative_error(network.by_xconv(changed, x), expected) > measuring.LIMIT


@pytest.mark.backends("numpy", "fast")
def test_a_whole_network_is_the_same_by_every_call():
    layers, x = small_network()
    expected = network.by_xconv(layers, x)
    for fast, names in ((False, ["xconv", "xconv bound"]), (True, ["xconv[fast]", "xconv[fast] bound"])):
        calls = network.xconv_calls(layers, x, fast=fast)
        assert list(calls) == names
        for call in calls.values():
            assert measuring.relative_error(call(), expected) <= measuring.LIMIT


def test_a_whole_network_is_compared_with_the_faster_format():
    lines = network.table({"xconv": 0.5, "torch NCHW": 2, "torch NHWC": 1}).splitlines()[1:]
    assert [line.split() for line in lines] == [
        ["xconv", "500.00", "2.00x"],
        ["torch", "NCHW", "2000.00", "0.50x"],
        ["torch", "NHWC", "1000.00", "1.00x"],
    ]


def test_an_engine_can_be_left_out():
    class Peer:
        def supports(self, layer):
            return True

        def contenders(self, layer, arrays):
            return {"NCHW": 1, "NHWC": 2}

    assert peers.contenders({"p": Peer()}, None, []) == {"p NCHW": 1, "p NHWC": 2}
    assert peers.contenders({"p": Peer()}, None, [], without={"p NCHW"}) == {"p NHWC": 2}
