"""One layer as a call of xconv and as calls of torch, on the same numbers, and how far their results are apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from layers import Layer

import xconv


def operands(layer: Layer, batch: int) -> list[np.ndarray]:
    """Input, and weights and bias where it has any: float32, channels last."""
    rng = np.random.default_rng(0)
    shapes = [(batch, *layer.shape)]
    if layer.weight_shape is not None:
        shapes += [layer.weight_shape, (layer.channels,)]
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def xconv_call(layer: Layer, arrays: list[Any]) -> tuple[Callable[[], np.ndarray], str]:
    """The layer as one call of xconv, and the algorithm that this call takes."""
    function = getattr(xconv, layer.op)
    if layer.op in ("dense", "global_avg_pool"):
        return partial(function, *arrays), "-"  # no plan is made for these
    options = {"stride": layer.stride, "padding": layer.padding}
    if layer.op == "max_pool":
        arrays = [*arrays, layer.kernel]
    else:
        options["groups"] = layer.groups
    if layer.op == "conv_transpose":
        options["output_padding"] = layer.output_padding
    return partial(function, *arrays, **options), xconv.explain(function, *arrays, **options).algorithm


def torch_calls(torch: Any, layer: Layer, arrays: list[np.ndarray]) -> dict[str, Callable[[], Any]]:
    """The layer as calls of torch: one for every memory format that it has for this rank."""
    x, *parameters = (torch.from_numpy(array) for array in arrays)
    rank, functional = len(layer.shape) - 1, torch.nn.functional
    if layer.op == "dense":
        w, b = parameters
        return {"torch": partial(functional.linear, x, w.T.contiguous(), b)}
    options = {"stride": layer.stride, "padding": layer.padding}
    if layer.op == "global_avg_pool":
        options = {"output_size": 1}
        function = getattr(functional, f"adaptive_avg_pool{rank}d")
    elif layer.op == "max_pool":
        options["kernel_size"] = layer.kernel
        function = getattr(functional, f"max_pool{rank}d")
    else:
        options["groups"] = layer.groups
        function = getattr(functional, f"conv{rank}d")
    if layer.op == "conv_transpose":
        options["output_padding"] = layer.output_padding
        function = getattr(functional, f"conv_transpose{rank}d")
    x = torch.movedim(x, -1, 1)
    # (*kernel, I, O) -> (O, I, *kernel), and of a transposed convolution (*kernel, O, I) -> (I, O, *kernel)
    weights = [w.permute(rank + 1, rank, *range(rank)) for w in parameters[:1]]
    formats = {"NCHW": torch.contiguous_format}
    if rank in (2, 3):  # torch has no channels-last format for one axis
        formats["NHWC"] = torch.channels_last if rank == 2 else torch.channels_last_3d
    calls: dict[str, Callable[[], Any]] = {}
    for name, layout in formats.items():
        tensors = [tensor.contiguous(memory_format=layout) for tensor in (x, *weights)]
        calls[f"torch {name}"] = partial(function, *tensors, *parameters[1:], **options)
    return calls


def relative_error(layer: Layer, actual: np.ndarray, tensor: Any) -> float:
    """How far a result is from torch's, in norm; infinite if it has another shape."""
    expected = tensor.numpy() if layer.op == "dense" else np.moveaxis(tensor.numpy(), 1, -1)
    if layer.op == "global_avg_pool":
        expected = expected.reshape(expected.shape[0], -1)
    if actual.shape != expected.shape:
        return float("inf")
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
