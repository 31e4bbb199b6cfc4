"""The second question: stacks of images, each filtered by one kernel, with everything that can do it."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import asked
import numpy as np
from answers import Calls, measure
from engines import BOUND, PLAIN
from timing import Pace

import xconv

STACKS = ((100, 50, 11), (1000, 50, 11), (100, 5, 11), (100, 500, 11), (100, 50, 5), (100, 50, 31))  # S, N, K
LIMITED = (1000, 50, 11)  # the stack whose memory counts
GIBIBYTE = 2**30


def question_b(
    pace: Pace,
    stacks: Iterable[tuple[int, int, int]] = STACKS,
    others: Sequence[str] = ("OpenCV", "torch"),
) -> list[str]:
    """A stack of images filtered by one kernel: which of the many functions?"""
    methods = asked.scipy_filters()
    scipy = list(methods)
    methods |= {"OpenCV": asked.opencv_filter} if "OpenCV" in others else {}
    methods |= {"torch": asked.torch_filter} if "torch" in others else {}
    columns = [*methods, PLAIN, BOUND]
    ratios = ["best SciPy"] + (["OpenCV"] if "OpenCV" in others else [])
    lines = [
        "b. N images SxS filtered by one KxK kernel, float64: ms, and times as fast as xconv's faster call",
        f"  {'S, N, K':<14}"
        + "".join(f" {name:>11}" for name in columns)
        + "".join(f" {name:>10}/xconv" for name in ratios),
    ]
    asked_for = {"best SciPy": 3.0, "OpenCV": 1.0}
    missed: dict[str, list[str]] = {name: [] for name in ratios}
    peak = None
    for stack in stacks:
        seconds, memory = filtered(stack, methods, pace)
        ours = min(seconds[name] for name in (PLAIN, BOUND) if name in seconds)
        best = {"best SciPy": min(seconds[name] for name in scipy), "OpenCV": seconds.get("OpenCV", 0.0)}
        cells = "".join(f" {1e3 * seconds[n]:>11.4g}" if n in seconds else f" {'-':>11}" for n in columns)
        marks = ""
        for name in ratios:
            ratio = best[name] / ours
            marks += f" {ratio:>15.2f}x"
            if ratio < asked_for[name]:
                missed[name].append(f"{stack} {ratio:.2f}x")
        lines.append(f"  {', '.join(map(str, stack)):<14}{cells}{marks}")
        if stack == LIMITED:
            peak = memory
    for name, low in missed.items():
        lines.append(
            f"  asked {asked_for[name]:g}x {name}: {'missed by ' + ', '.join(low) if low else 'reached'}"
        )
    if peak is not None:
        word = "reached" if peak < GIBIBYTE else "missed"
        lines.append(f"  {LIMITED}: {peak / GIBIBYTE:.2f} GiB with the result; asked under 1 GiB: {word}")
    if any(_needs(stack) > _room() for stack in stacks) and "torch" in others:
        lines.append(
            "  torch -: it makes a copy of every window at once, which this machine has no memory for"
        )
    return lines


def _needs(stack: tuple[int, int, int]) -> int:
    """Bytes of a copy of every window, which is how torch goes about float64."""
    size, images, k = stack
    return 8 * images * size**2 * k**2


def _room() -> float:
    """Bytes that one call may ask for: half of the machine's memory, where the system says how much that is."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    except (AttributeError, ValueError, OSError):
        return 8 * GIBIBYTE


def filtered(
    stack: tuple[int, int, int], methods: Mapping[str, asked.Filter], pace: Pace, dtype: str = "float64"
) -> tuple[dict[str, float], int]:
    """Seconds of each method on one stack, and xconv's memory at its peak."""
    size, images, k = stack
    rng = np.random.default_rng(0)
    x, kernel = rng.random((images, size, size)).astype(dtype), rng.random((k, k)).astype(dtype)
    answers: Calls = {
        name: partial(method, x, kernel)
        for name, method in methods.items()
        if name != "torch" or _needs(stack) <= _room()
    }
    answers[PLAIN] = lambda: xconv.convolve(x, kernel, mode="same")
    answers[BOUND] = partial(xconv.plan(xconv.convolve, x, kernel, mode="same"), x)
    seconds = measure(answers, pace)
    tracemalloc.start()
    try:
        answers[PLAIN]()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
