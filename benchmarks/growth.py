"""Whether time grows in step with the work: sixteen times the pixels, by batch and by size, must cost sixteen times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engines import operands, xconv_calls
from layers import Layer, Net
from timing import Pace, compare

TIMES = 16
SIDE = 4  # so many times the size along each of two axes
LIMIT = 1.15  # cost of a pixel, against that of the layer as it is
LAYERS = (
    ("resnet50", "conv1"),
    ("resnet50", "layer1.0.conv2"),
    ("resnet50", "layer1.0.conv3"),
    ("resnet50", "layer2.0.conv2"),
    ("resnet50", "layer3.1.conv2"),
    ("resnet50", "maxpool"),
    ("alexnet", "conv2"),
    ("mobilenet_v2", "block5.depth"),
    ("unet", "upconv2"),
)
HEAD = f"{'growth of':<30} {'ms':>9} {'batch x16':>10} {'size 4x4':>10}   cost of a pixel, against one image as it is"


@dataclass(frozen=True, slots=True)
class Growth:
    """One layer: milliseconds as it is, and how the cost of a pixel changes with sixteen times as many."""

    net: str
    layer: str
    ms: float
    batch: float
    size: float

    @property
    def reached(self) -> bool:
        """Whether neither is above the limit."""
        return max(self.batch, self.size) <= LIMIT


def larger(layer: Layer) -> Layer:
    """The same layer on an image four times as wide and as high."""
    *sizes, channels = layer.shape
    return replace(layer, shape=(*(SIDE * size for size in sizes), channels))


def pixels(layer: Layer, batch: int) -> int:
    """Places of the result."""
    rows, columns = layer.outputs
    return batch * rows * columns


def measure(layer: Layer, pace: Pace) -> Growth:
    """The layer, sixteen of it, and a larger one, side by side, the weights bound."""
    cases = {"as it is": (layer, 1), "batch": (layer, TIMES), "size": (larger(layer), 1)}
    calls = {name: list(xconv_calls(one, operands(one, n)).values())[-1] for name, (one, n) in cases.items()}
    seconds = compare(calls, pace)
    base, batch, size = (seconds[name] / pixels(*cases[name]) for name in cases)
    return Growth(layer.net, layer.name, 1e3 * seconds["as it is"], batch / base, size / base)


def run(nets: dict[str, Net], pace: Pace) -> Iterator[Growth]:
    """Measure a handful of layers, printing a line each."""
    print(f"\n{HEAD}\n{'-' * len(HEAD)}")
    found = []
    for net, name in LAYERS:
        (layer,) = (layer for layer in nets[net].layers if layer.name == name)
        g = measure(layer, pace)
        found.append(g)
        word = "reached" if g.reached else f"above {LIMIT}"
        print(f"{f'{net} {name}':<30} {g.ms:>9.3f} {g.batch:>10.2f} {g.size:>10.2f}   {word}", flush=True)
        yield g
    print(f"\nat most {LIMIT} on {sum(g.reached for g in found)} of {len(found)} layers")
