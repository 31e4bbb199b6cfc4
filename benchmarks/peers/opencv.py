"""OpenCV: max-pools as ``dilate``, of which the pixels at the strides are kept; global average pools as ``reduce``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import cv2
import numpy as np
from layers import Layer

from peers import Contender

CHANNELS = 128  # as many as an image of OpenCV 5 can have


class OpenCV:
    """It works image by image, with threads inside."""

    def __init__(self, threads: int) -> None:
        cv2.setNumThreads(threads)

    def about(self) -> str:
        """Version and threads."""
        return f"{cv2.__version__}, {cv2.getNumThreads()} threads"

    def supports(self, layer: Layer) -> bool:
        """Pools of images."""
        return layer.kind == "pool" and layer.rank == 2

    def scope(self) -> AbstractContextManager[object]:
        """There is no mode to set."""
        return nullcontext()

    def contenders(self, layer: Layer, arrays: list[np.ndarray]) -> dict[str, Contender]:
        """One, channels last."""
        (x,) = arrays
        call = _average if layer.op == "global_avg_pool" else _maximum
        return {"": Contender(lambda: call(layer, x), np.asarray)}


def _average(layer: Layer, x: np.ndarray) -> np.ndarray:
    pixels = x.reshape(x.shape[0], -1, x.shape[-1])
    return np.concatenate([cv2.reduce(image, 0, cv2.REDUCE_AVG) for image in pixels])


def _maximum(layer: Layer, x: np.ndarray) -> np.ndarray:
    k, p, s = layer.kernel, layer.padding, layer.stride
    window = np.ones((k, k), np.uint8)
    result = np.empty((x.shape[0], *layer.output_shape), x.dtype)
    rows, columns = (slice(0, (size - 1) * s + 1, s) for size in layer.outputs)
    for image, out in zip(x, result, strict=True):
        for c in range(0, x.shape[-1], CHANNELS):
            part = np.ascontiguousarray(image[..., c : c + CHANNELS])
            # Place i is the window that starts at i - p; what is outside is never the largest.
            out[..., c : c + CHANNELS] = cv2.dilate(part, window, anchor=(p, p))[rows, columns]
    return result
