"""The libraries that xconv is compared with: one module each, imported when the library is wanted.

A peer is made with the number of threads that it may use. It says what it is, which layers it has, and gives each of
its ways of doing a layer as a `Contender`. Adding a peer is one module and one line in `PEERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from layers import Layer

# Name of the peer -> module of this folder and class in it. torch comes first: it says how many threads are usual.
PEERS = {
    "torch": ("peers.pytorch", "Torch"),
    "ONNX Runtime": ("peers.onnx_runtime", "OnnxRuntime"),
    "JAX": ("peers.jax_jit", "Jax"),
    "SciPy": ("peers.scipy_ndimage", "SciPy"),
    "OpenCV": ("peers.opencv", "OpenCV"),
}


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing a layer: a call, and how its result becomes xconv's, channels last."""

    call: Callable[[], Any]
    numpy: Callable[[Any], np.ndarray]


class Peer(Protocol):
    """What a class named in `PEERS` has."""

    def __init__(self, threads: int) -> None: ...

    def about(self) -> str:
        """Version, and how it was given its threads."""

    def supports(self, layer: Layer) -> bool:
        """Whether it has such a layer; if not, it is absent from the row."""

    def contenders(self, layer: Layer, arrays: list[np.ndarray]) -> dict[str, Contender]:
        """Its ways of doing the layer, by memory format: the fastest counts. The key is empty if it has only one."""

    def scope(self) -> AbstractContextManager[object]:
        """The mode in which it is timed."""


def open_peer(name: str, threads: int) -> Peer:
    """Import one peer; ImportError if it is not installed."""
    module, kind = PEERS[name]
    return getattr(import_module(module), kind)(threads)


def contenders(
    peers: dict[str, Peer], layer: Layer, arrays: list[np.ndarray], without: Iterable[str] = ()
) -> dict[str, Contender]:
    """Every way in which a peer does a layer, by name of the peer and memory format: ``torch NHWC``."""
    found = {}
    for name, peer in peers.items():
        if peer.supports(layer):
            for layout, contender in peer.contenders(layer, arrays).items():
                found[f"{name} {layout}".strip()] = contender
    return {name: contender for name, contender in found.items() if name not in set(without)}


def channels_last(layer: Layer, result: Any) -> np.ndarray:
    """A channels-first result of a peer as xconv would give it."""
    array = np.asarray(result)
    if layer.op == "global_avg_pool":
        return array.reshape(array.shape[0], -1)
    return array if layer.op == "dense" else np.moveaxis(array, 1, -1)


def channels_first(layer: Layer, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The operands as torch and ONNX have them, contiguous.

    The kernel (*k, I, O) becomes (O, I, *k), and that of a transposed convolution, (*k, O, I), becomes (I, O, *k).
    """
    if layer.op == "dense":
        return arrays
    x, *parameters = arrays
    moved = [np.moveaxis(x, -1, 1)]
    if parameters:
        moved.append(np.moveaxis(parameters[0], (-1, -2), (0, 1)))
    return [np.ascontiguousarray(array) for array in (*moved, *parameters[1:])]
