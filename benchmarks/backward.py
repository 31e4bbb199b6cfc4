"""Forward and backward: the layers of networks through `xconv.vjp` on NumPy, beside torch's autograd.

``python benchmarks/backward.py`` prints a table of ResNet-50 and VGG-16 at batch 8: one call and one pullback, to
the input, the weights and the bias, in float32. The engines take turns in bursts, as `timing` explains, with as many
threads each. torch does each layer in both memory formats, of which the faster counts. ``beyond`` is what xconv needs
at its peak beyond its results, in MiB. ``--fast`` adds compiled movers, ``--json PATH`` writes all of it to a file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from engines import compiled, operands, public_call
from layers import Layer, load
from machine import describe
from peers import channels_last, open_peer
from questions import same_threads
from timing import Pace, geometric_mean, sample

import xconv

NETS = ("resnet50", "vgg16")
PACE = Pace(warmups=1, seconds=0.1, samples=20, slow=5.0, behind=1.5)
PLAIN, FAST = "xconv", "xconv[fast]"


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: median milliseconds by engine, and memory."""

    net: str
    layer: str
    op: str
    milliseconds: dict[str, float]
    beyond: float  # MiB

    def ratio(self, engine: str, without: str = "-") -> float:
        """How many times as fast as torch in its faster format, or without one of them."""
        theirs = min(
            ms
            for name, ms in self.milliseconds.items()
            if name.startswith("torch") and not name.endswith(without)
        )
        return theirs / self.milliseconds[engine]


def ours(layer: Layer, arrays: list[np.ndarray]) -> tuple[Callable[[], Any], Any]:
    """Forward and backward as one call that gives the result and all gradients; and what the gradient starts from."""
    function, args, options = public_call(layer, arrays)
    dy = np.random.default_rng(1).standard_normal(function(*args, **options).shape, dtype=np.float32)

    def call() -> tuple[Any, ...]:
        y, pullback = xconv.vjp(function, *args, **options)
        return (y, *pullback(dy))

    return call, dy


def theirs(peer: Any, layer: Layer, arrays: list[np.ndarray], dy: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The same by torch's autograd, in every memory format."""
    import torch

    found = {}
    for name, contender in peer.contenders(layer, arrays).items():
        function = contender.call
        tensors = [tensor.detach().requires_grad_() for tensor in function.args]
        start = torch.from_numpy(dy if layer.op == "dense" else np.moveaxis(dy, -1, 1).copy())
        if layer.op == "global_avg_pool":
            start = start.reshape(*start.shape, 1, 1)
        elif name == "NHWC":
            start = start.contiguous(memory_format=torch.channels_last)

        def call(function: Any = function, tensors: Any = tensors, start: Any = start) -> tuple[Any, ...]:
            y = function.func(*tensors, **function.keywords)
            return (y, *torch.autograd.grad(y, tensors, start))

        found[f"torch {name}".strip()] = call
    return found


def check(layer: Layer, mine: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """The same result and the same gradient by the input, so that both are timed at the same work."""
    y, dx = (tensor.detach().numpy() for tensor in other[:2])
    wanted = channels_last(layer, y), dx if layer.op == "dense" else np.moveaxis(dx, 1, -1)
    for a, expected in zip(mine, wanted, strict=False):
        if np.linalg.norm(a - expected) > 1e-4 * np.linalg.norm(expected):
            raise AssertionError(f"{layer.net} {layer.name}: another result than torch's")


def beyond(call: Callable[[], tuple[Any, ...]]) -> float:
    """MiB at the peak of a call beyond its results."""
    call()
    tracemalloc.start()
    results = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (peak - sum(array.nbytes for array in results)) / 2**20


def measure(layer: Layer, batch: int, peer: Any, *, fast: bool) -> Row:
    """One layer in all ways."""
    arrays = operands(layer, batch)
    mine, dy = ours(layer, arrays)
    engines = {PLAIN: compiled(mine, fast=False)}
    if fast:
        engines[FAST] = compiled(mine, fast=True)
    rivals = theirs(peer, layer, arrays, dy)
    for call in engines.values():
        for other in rivals.values():
            check(layer, call(), other())
    seconds = sample({**engines, **rivals}, PACE, rivals)
    medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
    return Row(layer.net, layer.name, layer.op, medians, beyond(engines[PLAIN]))


def run(
    threads: int | None = None, path: Path | None = None, *, fast: bool, batch: int = 8, only: str = ""
) -> int:
    """Print the table as it grows, and write it to a file where that is asked for."""
    import torch

    with same_threads(threads) as count, torch.inference_mode(mode=False), torch.enable_grad():
        return _run(count, path, fast=fast, batch=batch, only=only)


def _run(threads: int, path: Path | None, *, fast: bool, batch: int, only: str) -> int:
    _, nets = load()
    peer = open_peer("torch", threads)
    about = describe(threads, {"torch": peer}, threadpoolctl)
    print("\n".join(f"{name:8} {value}" for name, value in about.items()))
    rows: list[Row] = []
    with xconv.config(threads=threads):
        for layer in (layer for net in NETS for layer in nets[net].layers if only in f"{net} {layer.name}"):
            rows.append(row := measure(layer, batch, peer, fast=fast))
            times = "  ".join(f"{name} {ms:.2f}" for name, ms in row.milliseconds.items())
            ratios = " ".join(f"{row.ratio(e):.2f}" for e in (PLAIN, FAST) if e in row.milliseconds)
            print(f"{layer.net:9} {layer.name:24} {ratios:10} beyond {row.beyond:5.1f}   {times}", flush=True)
    means = {
        f"{engine}, to {theirs}": geometric_mean(row.ratio(engine, without) for row in rows)
        for engine in (PLAIN, FAST)
        for theirs, without in (("torch's faster format", "-"), ("torch channels first, its default", "NHWC"))
        if rows and engine in rows[0].milliseconds
    }
    for engine, mean in means.items():
        print(f"{engine}: {mean:.2f} times as fast, geometric mean of {len(rows)} layers")
    if path:
        record = {"about": about, "batch": batch, "rows": [asdict(r) for r in rows], "means": means}
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layer", default="", help="layers with this in the name of network and layer")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, metavar="N", help="for every engine")
    parser.add_argument("--fast", action="store_true", help="compiled movers too")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to a file")
    options = parser.parse_args()
    return run(options.threads, options.json, fast=options.fast, batch=options.batch, only=options.layer)


if __name__ == "__main__":
    sys.exit(main())
