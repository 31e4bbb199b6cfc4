"""SciPy: max-pools, as ``scipy.ndimage.maximum_filter`` of every pixel, of which those at the strides are kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import scipy
from layers import Layer
from scipy import ndimage

from peers import Contender


class SciPy:
    """It has one thread, whatever the others have."""

    def __init__(self, threads: int) -> None:
        pass

    def about(self) -> str:
        """Version and threads."""
        return f"{scipy.__version__}, 1 thread"

    def supports(self, layer: Layer) -> bool:
        """Nothing but max-pools: it has no batches and no channels."""
        return layer.op == "max_pool"

    def scope(self) -> AbstractContextManager[object]:
        """There is no mode to set."""
        return nullcontext()

    def contenders(self, layer: Layer, arrays: list[np.ndarray]) -> dict[str, Contender]:
        """One, channels last."""
        (x,) = arrays
        k, p = layer.kernel, layer.padding
        window = (1, *[k] * layer.rank, 1)
        # maximum_filter looks at i - k // 2 - origin … i + k - 1 - k // 2 - origin; the first window starts at -p.
        origin = (0, *[-(k // 2)] * layer.rank, 0)
        # Place i of the filter is the window that starts at i, so padding shifts to the front of the input.
        padded = np.pad(x, [(0, 0), *[(p, p)] * layer.rank, (0, 0)], constant_values=-np.inf) if p else x
        places = tuple(
            slice(0, (size - 1) * layer.stride + 1, layer.stride) for size in layer.output_shape[:-1]
        )

        def call() -> np.ndarray:
            filtered = ndimage.maximum_filter(padded, window, mode="constant", cval=-np.inf, origin=origin)
            return np.ascontiguousarray(filtered[:, *places])

        return {"": Contender(call, np.asarray)}
