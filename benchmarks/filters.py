"""Stacks of images, each filtered by one kernel, in float32 and float64: xconv on NumPy alone, SciPy and OpenCV.

``python benchmarks/filters.py``, or ``nox -s bench -- --filters``. N images of SxS and a kernel of KxK, zeros around
them, the size kept. All results are compared before any is timed; ``--json PATH`` writes every figure.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import asked
from engines import BOUND, PLAIN
from machine import describe
from questions import same_threads
from stacks import GIBIBYTE, LIMITED, STACKS, filtered
from timing import Pace, geometric_mean

PACE = Pace(samples=200)
DTYPES = ("float32", "float64")
ASKED = {"SciPy": 3.0, "OpenCV": 1.0}  # times as fast


@dataclass(frozen=True, slots=True)
class Row:
    """One stack: milliseconds of every method, and xconv's memory at its peak, the result with it."""

    stack: tuple[int, int, int]  # S, N, K
    dtype: str
    ms: dict[str, float]
    bytes: int

    def ratio(self, rival: str) -> float:
        """Time of the rival, for SciPy of its fastest function, over that of xconv's plain call."""
        others = (
            [self.ms[rival]] if rival in self.ms else [ms for name, ms in self.ms.items() if _is_scipy(name)]
        )
        return min(others) / self.ms[PLAIN]


def _is_scipy(name: str) -> bool:
    return name not in (PLAIN, BOUND, "OpenCV")


def measure(
    stacks: Iterable[tuple[int, int, int]], dtypes: Sequence[str], pace: Pace, *, opencv: bool = True
) -> Iterator[Row]:
    """A row for every stack and dtype."""
    methods = asked.scipy_filters() | ({"OpenCV": asked.opencv_filter} if opencv else {})
    for stack in stacks:
        for dtype in dtypes:
            seconds, peak = filtered(stack, methods, pace, dtype)
            yield Row(stack, dtype, {name: 1e3 * s for name, s in seconds.items()}, peak)


def head(names: Iterable[str]) -> str:
    """The first line of the table."""
    columns = "".join(f" {name:>11}" for name in names)
    return f"{'S, N, K':<14} {'dtype':<8}{columns}" + "".join(f" {name:>8}" for name in ASKED)


def line(row: Row) -> str:
    """A row of the table: milliseconds, and how many times as fast as the others xconv's plain call is."""
    cells = "".join(f" {ms:>11.4g}" for ms in row.ms.values())
    ratios = "".join(f" {row.ratio(rival):>7.2f}x" for rival in ASKED if rival == "SciPy" or rival in row.ms)
    return f"{', '.join(map(str, row.stack)):<14} {row.dtype:<8}{cells}{ratios}"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What is asked, and where it is missed."""
    lines = []
    for rival, least in ASKED.items():
        found = [(row, row.ratio(rival)) for row in rows if rival == "SciPy" or rival in row.ms]
        low = [f"{row.stack} {row.dtype} {ratio:.2f}x" for row, ratio in found if ratio < least]
        if found:
            mean = geometric_mean(ratio for _, ratio in found)
            word = f"missed by {', '.join(low)}" if low else "reached"
            lines.append(
                f"asked {least:g}x as fast as {rival}, in every row: {word}; geometric mean {mean:.2f}x"
            )
    peaks = [row.bytes for row in rows if row.stack == LIMITED]
    if peaks:
        word = "reached" if max(peaks) < GIBIBYTE else "missed"
        lines.append(f"{LIMITED}: {max(peaks) / GIBIBYTE:.2f} GiB with the result; asked under 1 GiB: {word}")
    return lines


def save(rows: Sequence[Row], about: dict[str, Any], path: Path) -> None:
    """Every figure, and what they were measured on."""
    table = [
        asdict(row)
        | {"ratios": {rival: row.ratio(rival) for rival in ASKED if rival == "SciPy" or rival in row.ms}}
        for row in rows
    ]
    path.write_text(json.dumps({"about": about, "filters": table}, indent=1) + "\n", encoding="utf-8")


def main(threads: int | None = None, path: Path | None = None) -> int:
    """Time the table, print it, and write it where that is asked for."""
    rows: list[Row] = []
    with same_threads(threads) as count:
        libraries = {name: import_module(name).__version__ for name in ("scipy", "cv2")}
        about = describe(count, {}, import_module("threadpoolctl")) | libraries
        print("\n".join(f"{key}: {value}" for key, value in about.items()))
        for row in measure(STACKS, DTYPES, PACE):
            if not rows:
                print(f"\nmilliseconds, and times as fast\n{head(row.ms)}")
            rows.append(row)
            print(line(row), flush=True)
            if path:
                save(rows, about, path)
    print("\n".join(verdicts(rows)))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="for every library (default: what torch takes)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to a file")
    options = parser.parse_args()
    sys.exit(main(options.threads, options.json))
