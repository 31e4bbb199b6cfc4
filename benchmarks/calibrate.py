"""Fit the planner's rates to this machine, and measure its regret: chosen algorithm's time over the best one's.

``python benchmarks/calibrate.py --json timings.json`` times the algorithms that could do each layer of cases.toml,
plain and with weights bound. Then it fits the figures of ``xconv/_rates.py`` and prints them, with the regret before
and after. ``--from timings.json`` fits again without timing. ``--fast`` does all this with compiled movers, and fits
``FAST`` rather than ``CPU``.
"""

from __future__ import annotations

import argparse
import json
import sys
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from engines import need_compiled_movers, operands, public_call
from layers import load
from run import note
from scipy.optimize import minimize
from timing import Pace, burst

import xconv
from xconv import _plan
from xconv._config import settings
from xconv._namespace import NUMPY

HOPELESS = 6  # times the best estimate
PACE = Pace(rest=0.01, warmups=4, seconds=0.06, rounds=2)
FITTED = ("flops", "near", "far", "call", "start", "shared")


def timings(batches: list[int], nets: list[str], most: float) -> list[dict[str, Any]]:
    """Seconds of every algorithm for every convolution that is estimated at ``most`` seconds at the utmost."""
    _, known = load()
    layers = [
        (b, layer)
        for name in nets
        for layer in known[name].layers
        if layer.kind.endswith("conv")
        for b in batches
    ]
    found: list[dict[str, Any]] = []
    for i, (batch, layer) in enumerate(layers):
        note(f"[{i + 1:>3}/{len(layers)}] {layer.net} {layer.name}, batch {batch}")
        function, arguments, options = public_call(layer, operands(layer, batch))
        for bound in (False, True):
            plan = _plan_of(function, arguments, options, bound=bound)
            best = plan.candidates[0].seconds
            if best > most:
                continue
            bids = [bid.algorithm for bid in plan.candidates if bid.seconds <= HOPELESS * best]
            calls = {
                name: _call(function, arguments, {**options, "algorithm": name}, bound=bound) for name in bids
            }
            samples: dict[str, list[float]] = {name: [] for name in bids}
            for _ in range(PACE.rounds):
                for name, call in calls.items():
                    samples[name] += burst(call, PACE)
            found.append(
                {
                    "net": layer.net,
                    "layer": layer.name,
                    "batch": batch,
                    "bound": bound,
                    "seconds": {name: median(times) for name, times in samples.items()},
                }
            )
    note("")
    return found


def _plan_of(function: Any, arguments: list[Any], options: dict[str, Any], *, bound: bool) -> Any:
    if bound:
        return xconv.plan(function, *arguments, **options).explanation.plan
    return xconv.explain(function, *arguments, **options).plan


def _call(function: Any, arguments: list[Any], options: dict[str, Any], *, bound: bool) -> Any:
    if bound:
        layer = xconv.plan(function, *arguments, **options)
        return lambda: layer(arguments[0])
    return lambda: function(*arguments, **options)


def problems(found: list[dict[str, Any]]) -> list[tuple[Any, bool, dict[str, float]]]:
    """The closed problem of every timing."""
    _, nets = load()
    by_name = {(name, layer.name): layer for name, net in nets.items() for layer in net.layers}
    result = []
    for line in found:
        layer = by_name[line["net"], line["layer"]]
        function, arguments, options = public_call(layer, operands(layer, line["batch"]))
        plan = _plan_of(function, arguments, options, bound=False)
        result.append((plan.problem, line["bound"], line["seconds"]))
    return result


def entry() -> str:
    """The table of ``xconv/_rates.py`` that is fitted here."""
    return "FAST" if settings().fast else "CPU"


def estimates(rates: Any, cases: list[tuple[Any, bool, dict[str, float]]]) -> list[dict[str, float]]:
    """What the planner would estimate with these rates."""
    setattr(_plan, entry(), rates)
    here = settings()
    return [
        {name: _plan._bid(name, problem, NUMPY, here, bound=bound).seconds for name in seconds}
        for problem, bound, seconds in cases
    ]


def regrets(guesses: list[dict[str, float]], cases: list[tuple[Any, bool, dict[str, float]]]) -> list[float]:
    """Chosen algorithm's time over the best one's, for every case."""
    chosen = [min(guess, key=guess.__getitem__) for guess in guesses]
    return [
        seconds[name] / min(seconds.values()) for name, (_, _, seconds) in zip(chosen, cases, strict=True)
    ]


def fit(cases: list[tuple[Any, bool, dict[str, float]]], steps: int) -> Any:
    """Rates that make the logarithms of estimates and times agree, and the right algorithm win."""
    start = getattr(_plan, entry())

    def loss(shifts: Any) -> float:
        rates = start._replace(**{n: getattr(start, n) * 2**s for n, s in zip(FITTED, shifts, strict=True)})
        guesses = estimates(rates, cases)
        errors = [
            log(guess[name] / seconds[name]) ** 2
            for guess, (_, _, seconds) in zip(guesses, cases, strict=True)
            for name in seconds
        ]
        lost = [log(regret) for regret in regrets(guesses, cases)]
        return sum(errors) / len(errors) + 3 * sum(lost) / len(lost)

    origin = [0.0] * len(FITTED)
    simplex = [origin, *([0.5 * (i == j) for i in range(len(FITTED))] for j in range(len(FITTED)))]
    best = minimize(loss, origin, method="Nelder-Mead", options={"maxfev": steps, "initial_simplex": simplex})
    fitted = {n: float(f"{getattr(start, n) * 2**s:.2g}") for n, s in zip(FITTED, best.x, strict=True)}
    rates = start._replace(**fitted)
    setattr(_plan, entry(), start)
    return rates


def report(title: str, rates: Any, found: list[dict[str, Any]], cases: Any) -> None:
    """Regret and error of the estimates, and the worst cases."""
    guesses = estimates(rates, cases)
    lost = regrets(guesses, cases)
    off = [guess[n] / s for guess, (_, _, sec) in zip(guesses, cases, strict=True) for n, s in sec.items()]
    print(f"\n{title}: {entry()} = {rates}")
    print(
        f"  regret: median {median(lost):.3f}, worst {max(lost):.2f}; above 1.3 in {sum(r > 1.3 for r in lost)}"
    )
    print(
        f"  estimate over time: median {median(off):.2f}, within a factor 2: {sum(0.5 < o < 2 for o in off)}/{len(off)}"
    )
    for regret, line, guess in sorted(zip(lost, found, guesses, strict=True), key=lambda x: -x[0])[:15]:
        if regret > 1.05:
            seconds = ", ".join(
                f"{n} {1e3 * s:.2f} (estimate {1e3 * guess[n]:.2f})" for n, s in line["seconds"].items()
            )
            bound = "bound" if line["bound"] else "plain"
            print(
                f"  {regret:.2f}  {line['net']} {line['layer']} batch {line['batch']} {bound}: {seconds} ms"
            )


def main() -> int:
    """Time, or read timings; fit; report."""
    _, nets = load()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--net", action="append", choices=nets, help="this one; can be repeated (default: all)"
    )
    parser.add_argument("--batch", type=int, action="append", help="can be repeated (default: 1)")
    parser.add_argument(
        "--most", type=float, default=0.05, help="seconds of the longest estimate that is timed"
    )
    parser.add_argument("--steps", type=int, default=150, help="evaluations of the fit")
    parser.add_argument("--fast", action="store_true", help="with compiled movers, which need numba")
    parser.add_argument("--json", type=Path, help="where the timings are kept")
    parser.add_argument("--from", dest="source", type=Path, help="timings kept before")
    options = parser.parse_args()
    if options.fast:
        need_compiled_movers()
    with xconv.config(fast=options.fast):
        return calibrate(options, list(nets))


def calibrate(options: argparse.Namespace, nets: list[str]) -> int:
    """What the command line asks for, with the settings that hold here."""
    if options.source:
        found = json.loads(options.source.read_text())
    else:
        found = timings(options.batch or [1], options.net or nets, options.most)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    cases = problems(found)
    now = getattr(_plan, entry())
    report("now", now, found, cases)
    if options.steps:
        report("fitted", fit(cases, options.steps), found, cases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
