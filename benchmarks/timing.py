"""How engines are timed side by side in one process, and how ratios are summed up.

The threads of an engine keep spinning for tens of milliseconds after a call, and take the cores from whoever comes
next. So engines are not called in turn one by one but in bursts, with a rest before each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from math import exp, fsum, log
from statistics import median


@dataclass(frozen=True, slots=True)
class Pace:
    """How a burst goes, how often it goes round, and who may leave after the first round.

    A burst rests for `rest` seconds, makes `warmups` calls that do not count, and then counts calls for `seconds`,
    or until it has `samples`; a call longer than that warms up once. There are `rounds` rounds. An engine whose call
    takes longer than `slow` seconds goes one round; so does a rival that is `behind` times slower than the fastest.
    """

    rest: float = 0.06
    warmups: int = 2
    seconds: float = 0.15
    samples: int = 40
    rounds: int = 3
    slow: float = 1.0
    behind: float = 1.3


def burst(
    call: Callable[[], object],
    pace: Pace,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[float]:
    """Seconds of each call of one burst; at least one call counts, however long it takes."""
    sleep(pace.rest)
    for _ in range(pace.warmups):
        start = clock()
        call()
        if clock() - start > pace.seconds:
            break
    samples: list[float] = []
    end = clock() + pace.seconds
    while not samples or (clock() < end and len(samples) < pace.samples):
        start = clock()
        call()
        samples.append(clock() - start)
    return samples


def sample(
    engines: Mapping[str, Callable[[], object]],
    pace: Pace,
    rivals: Collection[str] = (),
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, list[float]]:
    """Seconds of the calls of every engine, over all rounds. Of `rivals`, only the fastest one matters.

    Who may leave is decided by the shortest calls: a disturbed round does not send a fast engine home.
    """
    samples: dict[str, list[float]] = {name: [] for name in engines}
    going = list(engines)
    for number in range(pace.rounds):
        for name in going:
            samples[name] += burst(engines[name], pace, clock, sleep)
        if number == 0:
            least = {name: min(samples[name]) for name in going}
            limit = pace.behind * min((least[name] for name in rivals), default=0.0)
            going = [
                name
                for name in going
                if least[name] <= pace.slow and not (name in rivals and least[name] > limit)
            ]
    return samples


def compare(
    engines: Mapping[str, Callable[[], object]],
    pace: Pace,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, float]:
    """Median seconds of a call of every engine, none of them rivals."""
    return {name: median(seconds) for name, seconds in sample(engines, pace, (), clock, sleep).items()}


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean for ratios: twice as fast here and half as fast there is level."""
    logarithms = [log(ratio) for ratio in ratios]
    if not logarithms:
        raise ValueError("ratios must hold at least one number; got none")
    return exp(fsum(logarithms) / len(logarithms))
