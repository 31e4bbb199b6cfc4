"""What every question needs: answers that are checked, timed side by side, and set against what is asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from engines import BOUND, PLAIN
from timing import Pace, compare

TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # relative, in norm
ONCE = 10.0  # seconds; what takes longer is run once

Call = Callable[[], Any]
Calls = dict[str, Call]


def faster(seconds: Mapping[str, float], rival: str, asked_for: float) -> str:
    """Whether each of xconv's calls is so many times as fast as ``rival``."""
    ratios = {name: seconds[rival] / seconds[name] for name in (PLAIN, BOUND) if name in seconds}
    parts = [
        f"{name} {ratio:.3g}x, {'reached' if ratio >= asked_for else 'missed'}"
        for name, ratio in ratios.items()
    ]
    return f"  asked {asked_for:g}x as fast as {rival}: {'; '.join(parts)}"


def cheaper(seconds: Mapping[str, float], unit: str, count: float) -> str:
    """Whether each of xconv's calls costs less than so many of ``unit``."""
    costs = {name: seconds[name] / seconds[unit] for name in (PLAIN, BOUND) if name in seconds}
    parts = [
        f"{name} {cost:.3g} of them, {'reached' if cost < count else 'missed'}"
        for name, cost in costs.items()
    ]
    return f"  asked less than {count:g} of {unit}: {'; '.join(parts)}"


def check(calls: Mapping[str, Call]) -> dict[str, float]:
    """Stop if two results differ. Seconds of the calls that took longer than `ONCE`: they need not run again."""
    first, expected, long = "", np.zeros(0), {}
    for name, call in calls.items():
        start = time.perf_counter()
        actual = np.asarray(call())
        seconds = time.perf_counter() - start
        if not first:
            first, expected = name, actual
        elif actual.shape != expected.shape:
            sys.exit(f"{name} gives {actual.shape} and {first} gives {expected.shape}")
        elif not (error := np.linalg.norm(actual - expected) / np.linalg.norm(expected)) <= (
            limit := TOLERANCE[expected.dtype.name]
        ):
            sys.exit(f"{name} and {first} are {error:.1e} apart, more than {limit:.0e}")
        if seconds > ONCE:
            long[name] = seconds
    return long


def measure(answers: Calls, pace: Pace, others: Calls | None = None) -> dict[str, float]:
    """Seconds of each call: of answers, which must be equal, and of other calls to compare with."""
    long = check(answers)
    every = {**answers, **(others or {})}
    short = {name: call for name, call in every.items() if name not in long}
    seconds = long | compare(short, pace)
    return {name: seconds[name] for name in every}


def table(seconds: Mapping[str, float]) -> list[str]:
    """A line for each method: milliseconds, and how many times faster xconv is."""
    ours = [name for name in (PLAIN, BOUND) if name in seconds]
    lines = [f"  {'':<34} {'ms':>10}" + "".join(f" {f'over {name}':>17}" for name in ours)]
    for name, s in seconds.items():
        ratios = "".join(f" {s / seconds[one]:>16.3g}x" for one in ours)
        lines.append(f"  {name:<34} {1e3 * s:>10.4g}{ratios}")
    return lines
