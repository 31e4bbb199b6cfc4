"""cases.toml as objects: the layers, and what follows from their integers."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from math import prod
from pathlib import Path

CASES = Path(__file__).with_name("cases.toml")
OPS = ("conv", "conv_transpose", "max_pool", "global_avg_pool", "dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One distinct layer of a network, as a line of cases.toml says it."""

    net: str
    name: str
    shape: tuple[int, ...]
    op: str = "conv"
    kernel: int = 1
    channels: int = 0  # where there are no weights: as many as come in
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    groups: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise ValueError(
                f"{self.net} {self.name}: op must be one of {', '.join(OPS)}; got op={self.op!r}"
            )

    @property
    def kind(self) -> str:
        """What it is compared with: layers of one kind are bound by the same thing."""
        if self.op not in ("conv", "conv_transpose"):
            return "dense" if self.op == "dense" else "pool"
        if self.groups == 1:
            return "conv"
        return "depthwise" if self.groups == self.shape[-1] else "grouped conv"

    @property
    def rank(self) -> int:
        """Spatial axes; of a dense layer, the axes of rows."""
        return len(self.shape) - 1

    @property
    def outputs(self) -> tuple[int, ...]:
        """Spatial sizes of the result; the rows of a dense layer."""
        spatial = self.shape[:-1]
        if self.op == "dense":
            return spatial
        if self.op == "global_avg_pool":
            return ()
        if self.op == "conv_transpose":
            tail = self.kernel - 2 * self.padding + self.output_padding
            return tuple((n - 1) * self.stride + tail for n in spatial)
        return tuple((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in spatial)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Result of one sample, channels last."""
        return (*self.outputs, self.channels or self.shape[-1])

    @property
    def weight_shape(self) -> tuple[int, ...] | None:
        """(*kernel, I / groups, O), (*kernel, O / groups, I) of a transposed convolution, (I, O) of a dense layer."""
        inputs, window = self.shape[-1], (self.kernel,) * self.rank
        if self.op == "dense":
            return (inputs, self.channels)
        if self.op == "conv":
            return (*window, inputs // self.groups, self.channels)
        if self.op == "conv_transpose":
            return (*window, self.channels // self.groups, inputs)
        return None

    @property
    def macs(self) -> int:
        """Multiply-adds for one sample; none in a pool."""
        if self.weight_shape is None:
            return 0
        places = self.shape[:-1] if self.op == "conv_transpose" else self.outputs
        return prod(places) * prod(self.weight_shape)


@dataclass(frozen=True, slots=True)
class Net:
    """A published network: the distinct layers of it."""

    name: str
    title: str
    input: tuple[int, ...]
    layers: tuple[Layer, ...]


def load(path: Path = CASES) -> tuple[list[int], dict[str, Net]]:
    """The batch sizes, and the networks by name."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    batches = table.pop("batches")
    nets = {}
    for name, net in table.items():
        lines = net.pop("layers")
        layers = tuple(Layer(net=name, **{**line, "shape": tuple(line["shape"])}) for line in lines)
        nets[name] = Net(name, input=tuple(net.pop("input")), layers=layers, **net)
    return batches, nets
