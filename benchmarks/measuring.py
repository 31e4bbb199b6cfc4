"""One case measured: every engine checked against xconv and timed, and what else there is to see of xconv."""

from __future__ import annotations

import sys
from collections.abc import Collection
from contextlib import ExitStack
from math import sqrt
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from engines import OURS, PLAIN, algorithms_of, makers, operands, xconv_calls
from layers import Layer
from peers import Peer, contenders
from probes import memory_beyond_result, same_bits, thread_gain
from result import Result
from targets import LONG
from timing import Pace, sample

LIMIT = 1e-5  # relative error, in norm, that two ways of summing in float32 may differ by
HOPELESS = 10  # an engine so many times slower than the fastest peer is left out at larger batch sizes
PACE = Pace()
LESS_OFTEN = Pace(rounds=1)  # for what is measured beside the comparison


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """How far a result is from another, in norm; infinite if it has another shape."""
    if actual.shape != expected.shape:
        return float("inf")
    apart = size = 0.0
    for one, other in zip(
        actual, expected, strict=True
    ):  # sample by sample: large batches leave no room for more
        difference = np.ravel(one - other)
        apart += float(difference @ difference)
        size += float(np.vdot(other, other))
    return sqrt(apart / size)


def hopeless(results: Collection[Result], layer: Layer) -> set[str]:
    """The engines that were far behind on this layer with fewer samples in a batch, even in their shortest call."""
    found: set[str] = set()
    for r in results:
        if (r.net, r.layer) == (layer.net, layer.name):
            peers = {name: ms for name, ms in r.least.items() if name not in OURS}
            found |= {name for name, ms in peers.items() if ms > HOPELESS * min(peers.values())}
    return found


def measure(
    peers: dict[str, Peer],
    layer: Layer,
    batch: int,
    without: Collection[str] = (),
    extras: bool = True,
    fast: bool = False,
) -> Result:
    """Check one layer, then time it, then see what else there is to see; with `fast`, of compiled movers as well."""
    arrays = operands(layer, batch)
    ways = (False, True) if fast else (False,)
    calls = {name: call for way in ways for name, call in xconv_calls(layer, arrays, fast=way).items()}
    rivals = contenders(peers, layer, arrays, without)
    with ExitStack() as stack:
        for peer in peers.values():
            stack.enter_context(peer.scope())
        expected = calls[PLAIN]()
        output, errors, once = list(expected.shape), {}, {}
        for name, rival in rivals.items():
            start = perf_counter()
            actual = rival.call()
            once[name] = perf_counter() - start
            errors[name] = relative_error(rival.numpy(actual), expected)
            del actual
        for name, call in calls.items():
            if name != PLAIN:
                errors[name] = relative_error(call(), expected)
        del expected
        for name, error in errors.items():
            if not error <= LIMIT:  # NaN is not
                sys.exit(
                    f"{layer.net} {layer.name}, batch {batch}: xconv and {name} are {error:.1e} apart, "
                    f"more than {LIMIT:.0e}"
                )
        limit = max(PACE.slow, HOPELESS * min(once.values()))
        samples = {name: [s] for name, s in once.items() if s > limit}  # more precision would change nothing
        going = {name: rival.call for name, rival in rivals.items() if name not in samples}
        samples |= sample(calls | going, PACE, list(going))
        ms, least = (
            {name: 1e3 * pick(samples[name]) for name in (*calls, *rivals)} for pick in (median, min)
        )
    del rivals, rival, going  # their copies of the operands
    seen: dict[str, Any] = {}
    if extras:
        seen["memory"] = {name: memory_beyond_result(call) for name, call in calls.items()}
        for way in ways:
            made = makers(layer, arrays, fast=way)
            seen["fast_same_bits" if way else "same_bits"] = same_bits(made.values())
            *_, best = made  # the bound one, where there is one
            if ms[best] > LONG:
                seen["fast_thread_gain" if way else "thread_gain"] = thread_gain(calls[best], LESS_OFTEN)
    if fast:
        seen["fast_algorithm"] = algorithms_of(layer, arrays, fast=True)
    return Result(
        net=layer.net,
        layer=layer.name,
        kind=layer.kind,
        batch=batch,
        times=layer.times,
        output=output,
        gflop=2e-9 * batch * layer.macs,
        window=[layer.kernel] * layer.rank,
        stride=layer.stride,
        channels=min(layer.shape[-1], layer.channels or layer.shape[-1]),
        algorithm=algorithms_of(layer, arrays),
        error=max(errors.values()),
        ms=ms,
        least=least,
        **seen,
    )
