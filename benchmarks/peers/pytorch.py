"""torch, in inference mode, channels first and channels last."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from layers import Layer

from peers import Contender, channels_first, channels_last

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}  # there is no channels-last format for one axis


class Torch:
    """``torch.nn.functional`` on the CPU."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def about(self) -> str:
        """Version and threads."""
        return f"{torch.__version__}, {torch.get_num_threads()} threads"

    def supports(self, layer: Layer) -> bool:
        """It has them all."""
        return True

    def scope(self) -> AbstractContextManager[object]:
        """No gradients, no versions."""
        return torch.inference_mode()

    def contenders(self, layer: Layer, arrays: list[np.ndarray]) -> dict[str, Contender]:
        """One for every memory format that it has for this rank."""
        numpy = partial(channels_last, layer)
        functional = torch.nn.functional
        if layer.op == "dense":
            x, w, b = map(torch.from_numpy, arrays)
            return {"": Contender(partial(functional.linear, x, w.T.contiguous(), b), numpy)}
        function, options = _function(functional, layer)
        tensors = [torch.from_numpy(array) for array in channels_first(layer, arrays)]
        formats = {"NCHW": torch.contiguous_format}
        if layer.rank in LAYOUTS:
            formats["NHWC"] = LAYOUTS[layer.rank]
        found = {}
        for name, layout in formats.items():
            placed = [t.contiguous(memory_format=layout) if t.ndim > 1 else t for t in tensors]
            found[name] = Contender(partial(function, *placed, **options), numpy)
        return found


def _function(functional: Any, layer: Layer) -> tuple[Any, dict[str, Any]]:
    rank = layer.rank
    if layer.op == "global_avg_pool":
        return getattr(functional, f"adaptive_avg_pool{rank}d"), {"output_size": 1}
    options = {"stride": layer.stride, "padding": layer.padding}
    if layer.op == "max_pool":
        return getattr(functional, f"max_pool{rank}d"), options | {"kernel_size": layer.kernel}
    options["groups"] = layer.groups
    if layer.op == "conv_transpose":
        options["output_padding"] = layer.output_padding
    return getattr(functional, f"{layer.op}{rank}d"), options  # conv2d, conv_transpose2d
