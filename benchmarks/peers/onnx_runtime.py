"""ONNX Runtime: a model of one node for each layer, the weights inside, as a network would have them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from layers import Layer
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from peers import Contender, channels_first, channels_last

NODES = {
    "conv": "Conv",
    "conv_transpose": "ConvTranspose",
    "max_pool": "MaxPool",
    "global_avg_pool": "GlobalAveragePool",
    "dense": "Gemm",
}


class OnnxRuntime:
    """``InferenceSession`` on the CPU; its threads keep spinning, as they do by default."""

    def __init__(self, threads: int) -> None:
        import onnxruntime  # not above: the models are also tested without it

        self._library = onnxruntime
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3

    def about(self) -> str:
        """Version and threads."""
        return f"{self._library.__version__}, {self._options.intra_op_num_threads} threads"

    def supports(self, layer: Layer) -> bool:
        """It has them all."""
        return True

    def scope(self) -> AbstractContextManager[object]:
        """There is no mode to set."""
        return nullcontext()

    def contenders(self, layer: Layer, arrays: list[np.ndarray]) -> dict[str, Contender]:
        """One: ONNX is channels first."""
        x, *parameters = model_operands(layer, arrays)
        session = self._library.InferenceSession(
            one_node(layer, x.shape, parameters).SerializeToString(),
            self._options,
            providers=["CPUExecutionProvider"],
        )
        return {"": Contender(partial(session.run, None, {"x": x}), partial(_numpy, layer, arrays[0].shape))}


def model_operands(layer: Layer, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The operands channels first; a dense layer's rows as one matrix, which is what Gemm takes."""
    x, *parameters = channels_first(layer, arrays)
    return [x.reshape(-1, x.shape[-1]) if layer.op == "dense" else x, *parameters]


def one_node(layer: Layer, shape: tuple[int, ...], parameters: list[np.ndarray]) -> ModelProto:
    """The layer as a model: input ``x``, output ``y``, weights ``w`` and ``b`` as initializers."""
    names = ["w", "b"][: len(parameters)]
    output = (shape[0], layer.channels) if layer.op == "dense" else _output(layer, shape[0])
    node = helper.make_node(NODES[layer.op], ["x", *names], ["y"], **_attributes(layer))
    graph = helper.make_graph(
        [node],
        layer.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, name) for name, array in zip(names, parameters, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model


def _output(layer: Layer, batch: int) -> tuple[int, ...]:
    spatial = layer.outputs or (1,) * layer.rank  # a global pool keeps its axes
    return (batch, layer.output_shape[-1], *spatial)


def _attributes(layer: Layer) -> dict[str, Any]:
    if layer.op in ("dense", "global_avg_pool"):
        return {}
    attributes: dict[str, Any] = {
        "kernel_shape": [layer.kernel] * layer.rank,
        "strides": [layer.stride] * layer.rank,
        "pads": [layer.padding] * (2 * layer.rank),
    }
    if layer.op != "max_pool":
        attributes["group"] = layer.groups
    if layer.op == "conv_transpose":
        attributes["output_padding"] = [layer.output_padding] * layer.rank
    return attributes


def _numpy(layer: Layer, shape: tuple[int, ...], outputs: list[Any]) -> np.ndarray:
    (y,) = outputs
    return y.reshape(*shape[:-1], -1) if layer.op == "dense" else channels_last(layer, y)
