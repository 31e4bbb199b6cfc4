"""How near layers are to what their work takes at the machine's own speed: what is missed, and what cannot be reached.

``python benchmarks/limits.py FILE`` reads what ``run.py --json FILE`` has written *on this machine*. It
measures how fast all cores multiply matrices and copy within their caches, counts for every convolution the
additions and multiplications and the bytes of the algorithm that is chosen, as the planner does, and prints
the table of targets twice more: as if nothing took time but the products, at that speed, and as if nothing
did but products and bytes. Waking threads, Python, and all that does not run side by side come on top. Other
layers, which are no matrix products or which the planner has no choice for, stay as they were measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import NamedTuple

import numpy as np
from engines import BOUND, FAST, FAST_BOUND, PLAIN, operands, public_call
from layers import Layer, load
from result import Result, read
from targets import verdicts
from threadpoolctl import threadpool_limits

import xconv

SIDE = 2048  # of the matrices that are multiplied
COPIED = 2**15  # numbers, which fit the cache of any core
SECONDS = 0.5
WAYS = {PLAIN: (False, False), BOUND: (False, True), FAST: (True, False), FAST_BOUND: (True, True)}


class Speed(NamedTuple):
    """What all cores do together in a second, at best."""

    flops: float  # additions and multiplications of float32 in a product
    bytes: float  # read, or written, within their caches


class Work(NamedTuple):
    """What is counted of a call."""

    flops: int
    bytes: int

    def milliseconds(self, speed: Speed, *, moved: bool) -> float:
        """At this speed, with the bytes or without."""
        return 1e3 * (self.flops / speed.flops + (self.bytes / speed.bytes if moved else 0.0))


def best(call: Callable[[], object]) -> float:
    """Seconds of the quickest of many calls."""
    call()
    least, end = float("inf"), perf_counter() + SECONDS
    while perf_counter() < end:
        start = perf_counter()
        call()
        least = min(least, perf_counter() - start)
    return least


def measured(threads: int) -> Speed:
    """The speed of this machine's cores."""
    a, b, c = np.ones((3, SIDE, SIDE), np.float32)
    with threadpool_limits(threads, user_api="blas"):
        flops = 2 * SIDE**3 / best(lambda: np.matmul(a, b, out=c))
    rates: list[float] = []

    def copy() -> None:
        x, y = np.ones((2, COPIED), np.float32)
        rates.append(2 * x.nbytes / best(lambda: np.copyto(y, x)))

    copying = [Thread(target=copy) for _ in range(threads)]
    for thread in copying:
        thread.start()
    for thread in copying:
        thread.join()
    return Speed(flops, sum(rates))


def work_of(layer: Layer, batch: int, *, fast: bool, bound: bool) -> Work:
    """What the planner counts of a convolution, or the sums as they are, if that is less."""
    function, arguments, options = public_call(layer, operands(layer, batch))
    with xconv.config(fast=fast):
        if bound:
            plan = xconv.plan(function, *arguments, **options).explanation.plan
        else:
            plan = xconv.explain(function, *arguments, **options).plan
    bid = next(bid for bid in plan.candidates if bid.algorithm == plan.algorithm)
    return Work(min(bid.cost.flops, 2 * batch * layer.macs), bid.cost.bytes)


def at_the_limit(results: Sequence[Result], speed: Speed, *, moved: bool) -> Iterator[Result]:
    """The results, with the time of xconv's calls replaced by that of their counted work."""
    _, nets = load()
    layers = {(net.name, layer.name): layer for net in nets.values() for layer in net.layers}
    for r in results:
        ms, layer = dict(r.ms), layers[r.net, r.layer]
        for name, (fast, bound) in WAYS.items() if layer.kind == "conv" else ():
            if name in ms:
                ms[name] = work_of(layer, r.batch, fast=fast, bound=bound).milliseconds(speed, moved=moved)
        yield replace(
            r, ms=ms, memory={}, same_bits=None, thread_gain=None, fast_same_bits=None, fast_thread_gain=None
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    results, machine = read(parser.parse_args().file)
    speed = measured(int(machine["threads"].split()[0]))
    print(
        f"all cores: {speed.flops / 1e9:.0f} GFLOP/s, {speed.bytes / 1e9:.0f} GB/s read and written in their caches"
    )
    print(f"\nmeasured\n{verdicts(results)}")
    for moved, title in ((False, "products alone"), (True, "products and bytes")):
        print(f"\n{title}, at that speed\n{verdicts(list(at_the_limit(results, speed, moved=moved)))}")


if __name__ == "__main__":
    main()
