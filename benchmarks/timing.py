"""How engines are timed side by side in one process, and how ratios are summed up.

The threads of an engine keep spinning for tens of milliseconds after a call, and take the cores from whoever comes
next. So engines are not called in turn one by one but in bursts, with a rest before each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import exp, fsum, log
from statistics import median


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of rest before a burst, calls that do not count, seconds that do, and how often it goes round."""

    rest: float = 0.06
    warmups: int = 2
    seconds: float = 0.3
    rounds: int = 3


def burst(
    call: Callable[[], object],
    pace: Pace,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[float]:
    """Seconds of each call of one burst; at least one call counts, however long it takes."""
    sleep(pace.rest)
    for _ in range(pace.warmups):
        call()
    samples: list[float] = []
    end = clock() + pace.seconds
    while not samples or clock() < end:
        start = clock()
        call()
        samples.append(clock() - start)
    return samples


def compare(
    engines: Mapping[str, Callable[[], object]],
    pace: Pace,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, float]:
    """Median seconds of a call of every engine, over all rounds."""
    samples: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(pace.rounds):
        for name, call in engines.items():
            samples[name] += burst(call, pace, clock, sleep)
    return {name: median(seconds) for name, seconds in samples.items()}


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean for ratios: twice as fast here and half as fast there is level."""
    logarithms = [log(ratio) for ratio in ratios]
    if not logarithms:
        raise ValueError("ratios must hold at least one number; got none")
    return exp(fsum(logarithms) / len(logarithms))
