"""Calls that should give the same, timed against each other: in bursts, by turns, with the slow ones dropped early."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

from xconv._errors import Refusal
from xconv._namespace import Array, Namespace

ROUNDS = 3
BURST = 0.1  # seconds of calls one after the other, before others have their turn
LEAST, MOST = 3, 1000  # calls in a burst
DOUBTFUL = 10.0  # times the best estimate: such a call is made once, and must be quick to be measured at all
SLOW = 2.0  # times the best time: such a call is not measured any further

Call = Callable[[], Array]
clock = perf_counter


def race(
    calls: Mapping[str, Call],
    estimates: Mapping[str, float],
    judge: Callable[[str, Array], None],
    say: Callable[[str], None],
) -> dict[str, float]:
    """Seconds of each call: the median over all its bursts, or of a hopeless one the time of its first call.

    ``judge(name, y)`` sees the first result of each, ``say`` what is being done.
    """
    seconds = {}
    for name, call in calls.items():
        say(f"{name}, first call")
        start = clock()
        y = call()
        wait(y)
        seconds[name] = clock() - start
        judge(name, y)
    best = min(estimates.values())
    likely = [name for name in calls if estimates[name] <= DOUBTFUL * best]
    quick = min(seconds[name] for name in likely)
    running = [name for name in calls if name in likely or seconds[name] <= SLOW * quick]
    times: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(1, ROUNDS + 1):
        for name in running:
            say(f"{name}, round {turn} of {ROUNDS}")
            times[name] += _burst(calls[name])
            seconds[name] = median(times[name])
        quick = min(seconds[name] for name in running)
        running = [name for name in running if seconds[name] <= SLOW * quick]
    return seconds


def wait(y: Array) -> None:
    """Until the array is computed: a number that has been brought home is."""
    complex(y[(0,) * y.ndim])


def _burst(call: Call) -> list[float]:
    """Seconds of calls one after the other, once threads are awake and caches are full."""
    begin = clock()
    for _ in range(2):
        wait(call())
        if clock() - begin > BURST:
            break
    times: list[float] = []
    begin = now = clock()
    while len(times) < LEAST or (now - begin < BURST and len(times) < MOST):
        start = clock()
        wait(call())
        now = clock()
        times.append(now - start)
    return times


@dataclass
class Judge:
    """Compares all results with the first: what is wrong must not win.

    ``scale`` is how large a sum of the products can well be: rounding errors grow with it, not with the result.
    """

    xp: Namespace
    scale: float
    first: list[tuple[str, Array, float]] = field(default_factory=list)

    def __call__(self, name: str, y: Array) -> None:
        if not self.first:
            self.first.append((name, y, self._allowed(y)))
        other, reference, allowed = self.first[0]
        same = y.dtype == reference.dtype and y.shape == reference.shape
        if same and allowed:
            same = largest(y - reference, self.xp) <= allowed  # which NaN is not
        elif same:
            same = bool(self.xp.all(y == reference))
        if not same:
            raise AssertionError(
                f"{name} and {other} give different results: a fault of xconv, please report it"
            )

    def _allowed(self, y: Array) -> float:
        """How far two results may be apart; integers must be equal."""
        if self.xp.isdtype(y.dtype, "integral"):
            return 0.0
        size = largest(y, self.xp)
        if not size < float("inf"):
            raise Refusal(
                ValueError, "the result must be finite, so that those of all algorithms can be compared"
            )
        eps = float(self.xp.finfo(y.dtype).eps)
        return (
            eps * (1000 if eps < 1e-6 else 4) * (size + self.scale)
        )  # 16-bit floats are summed in larger ones


def largest(array: Array, xp: Namespace) -> float:
    """The largest magnitude in an array."""
    return float(xp.max(xp.abs(array)))


class Line:
    """One line on the error stream, written over again and again; not on a terminal, one line after the other."""

    def __init__(self, head: str, *, wanted: bool | None) -> None:
        self.terminal = sys.stderr.isatty()
        self.wanted = self.terminal if wanted is None else wanted
        self.head, self.width = head, 0

    def show(self, text: str) -> None:
        """Say this now."""
        text = self.head + text
        if self.wanted and self.terminal:
            sys.stderr.write("\r" + text.ljust(self.width))
            sys.stderr.flush()
            self.width = len(text)
        elif self.wanted:
            sys.stderr.write(text + "\n")

    def clear(self) -> None:
        """Leave an empty line."""
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
