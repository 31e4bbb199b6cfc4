"""JAX: one jitted function for each layer, the weights as arguments, channels last and channels first."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from layers import Layer

from peers import Contender, channels_first, channels_last

AXES = {1: "W", 2: "HW", 3: "DHW"}


class Jax:
    """``jax.jit`` on the CPU; a call counts until its result is ready.

    XLA's CPU client makes its threads once, as many as the environment variable NPROC says or else the machine has;
    there is no way to change it later. So NPROC is set here, before JAX is imported.
    """

    def __init__(self, threads: int) -> None:
        self._threads = "its own number of"
        if "jax" not in sys.modules:
            os.environ["NPROC"] = str(threads)
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
            self._threads = f"{threads} (NPROC, set before the import)"
        import jax

        self._jax = jax

    def about(self) -> str:
        """Version and threads."""
        return f"{self._jax.__version__}, {self._threads} threads"

    def supports(self, layer: Layer) -> bool:
        """It has them all."""
        return True

    def scope(self) -> AbstractContextManager[object]:
        """There is no mode to set."""
        return nullcontext()

    def contenders(self, layer: Layer, arrays: list[np.ndarray]) -> dict[str, Contender]:
        """One for each order of the axes; they are compiled here."""
        self._jax.clear_caches()  # programs of earlier layers
        if layer.op == "dense":
            return {"": self._contender(lambda x, w, b: x @ w + b, arrays, np.asarray)}
        return {
            "NHWC": self._contender(partial(self._function, layer, last=True), arrays, np.asarray),
            "NCHW": self._contender(
                partial(self._function, layer, last=False),
                channels_first(layer, arrays),
                partial(channels_last, layer),
            ),
        }

    def _contender(self, function: Any, arrays: list[np.ndarray], numpy: Any) -> Contender:
        operands = [self._jax.device_put(array) for array in arrays]
        compiled = self._jax.jit(function).lower(*operands).compile()
        return Contender(lambda: compiled(*operands).block_until_ready(), numpy)

    def _function(self, layer: Layer, x: Any, *parameters: Any, last: bool) -> Any:
        lax = self._jax.lax
        spatial = tuple(range(1, x.ndim - 1)) if last else tuple(range(2, x.ndim))
        if layer.op == "global_avg_pool":
            return x.mean(axis=spatial)
        pads = [(layer.padding, layer.padding)] * layer.rank
        if layer.op == "max_pool":
            window, stride, widths = [1] * x.ndim, [1] * x.ndim, [(0, 0)] * x.ndim
            for axis in spatial:
                window[axis], stride[axis], widths[axis] = layer.kernel, layer.stride, pads[0]
            return lax.reduce_window(x, -np.inf, lax.max, window, stride, widths)
        w, b = parameters
        axes = AXES[layer.rank]
        data, kernel = (f"N{axes}C", f"{axes}IO") if last else (f"NC{axes}", f"OI{axes}")
        strides, dilation = [layer.stride] * layer.rank, [1] * layer.rank
        if layer.op == "conv_transpose":  # the kernel turned round, over an input with gaps
            kernel = f"{axes}OI" if last else f"IO{axes}"
            w = self._jax.numpy.flip(w, tuple(range(layer.rank)) if last else tuple(range(2, w.ndim)))
            low = layer.kernel - 1 - layer.padding
            pads = [(low, low + layer.output_padding)] * layer.rank
            strides, dilation = dilation, strides
        y = lax.conv_general_dilated(
            *(x, w, strides, pads),
            lhs_dilation=dilation,
            dimension_numbers=(data, kernel, data),
            feature_group_count=layer.groups,
        )
        return y + (b if last else b.reshape(-1, *[1] * layer.rank))
