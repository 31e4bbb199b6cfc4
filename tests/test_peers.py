"""benchmarks/peers: every library that is compared does what the layer says, channels last or first."""

import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import onnx.reference
import pytest

from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import engines
import layers
import measuring
import peers
from peers import onnx_runtime

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


def test_every_way_of_xconv_agrees():
    for layer in TINY.values():
        plain, *others = engines.xconv_calls(layer, engines.operands(layer, batch=2)).values()
        assert len(others) == (layer.op in ("conv", "conv_transpose"))
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


def test_an_engine_can_be_left_out():
    class Peer:
        def supports(self, layer):
            return True

        def contenders(self, layer, arrays):
            return {"NCHW": 1, "NHWC": 2}

    assert peers.contenders({"p": Peer()}, None, []) == {"p NCHW": 1, "p NHWC": 2}
    assert peers.contenders({"p": Peer()}, None, [], without={"p NCHW"}) == {"p NHWC": 2}
