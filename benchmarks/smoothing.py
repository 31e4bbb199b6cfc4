"""Filters by window beside SciPy's and OpenCV's: a Gaussian of a volume, medians of an image, xconv on NumPy alone.

``python benchmarks/smoothing.py``. All results of a row are compared before any call is timed: medians must be equal,
sums 1e-6 (float32) or 1e-12 close, relative to the largest. ``--json PATH`` writes every figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from engines import PLAIN, threads_for_xconv
from machine import describe
from timing import Pace, compare

import xconv
from xconv._machine import cores

PACE = Pace(slow=0.5)
CLOSE = {"float32": 1e-6, "float64": 1e-12, "uint8": 0.0}
SCIPY, OPENCV = "scipy.ndimage", "OpenCV"

Calls = Mapping[str, Callable[[], np.ndarray]]


@dataclass(frozen=True, slots=True)
class Row:
    """One filter of one array: milliseconds of every library, and bytes that xconv needs beyond its result."""

    filter: str
    shape: tuple[int, ...]
    dtype: str
    ms: dict[str, float]
    beyond: int
    asked: float  # times as fast as SciPy

    @property
    def ratios(self) -> dict[str, float]:
        """The time of every other library over xconv's."""
        return {name: ms / self.ms[PLAIN] for name, ms in self.ms.items() if name != PLAIN}


def gaussian(shape: tuple[int, ...], dtype: str) -> Calls:
    """Sigma 3 along every axis, 25 elements."""
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    scipy = import_module("scipy.ndimage")
    return {PLAIN: partial(xconv.gaussian_filter, x, 3), SCIPY: partial(scipy.gaussian_filter, x, 3)}


def median(shape: tuple[int, ...], dtype: str) -> Calls:
    """Of 5 x 5; beyond the border, where OpenCV knows one continuation only, stands the border."""
    x = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    scipy, cv2 = import_module("scipy.ndimage"), import_module("cv2")
    calls: dict[str, Callable[[], np.ndarray]] = {
        PLAIN: partial(xconv.median_filter, x, 5, pad_mode="edge"),
        SCIPY: partial(scipy.median_filter, x, 5, mode="nearest"),
    }
    return calls if dtype == "float64" else calls | {OPENCV: partial(cv2.medianBlur, x, 5)}


CASES: tuple[
    tuple[str, Callable[[tuple[int, ...], str], Calls], tuple[int, ...], tuple[str, ...], float], ...
] = (
    ("gaussian_filter, sigma 3", gaussian, (512, 512, 64), ("float32", "float64"), 2.0),
    ("median_filter, 5x5", median, (1024, 1024), ("uint8", "float32", "float64"), 1.0),
)


def check(calls: Calls, dtype: str) -> None:
    """Stop if two results differ by more than they may."""
    expected = calls[PLAIN]()
    for name, call in calls.items():
        error = np.max(np.abs(call().astype("float64") - expected)) / np.max(np.abs(expected))
        if not error <= CLOSE[dtype]:
            sys.exit(f"{name} and {PLAIN} are {error:.1e} apart, more than {CLOSE[dtype]:.0e}")


def beyond_its_result(call: Callable[[], np.ndarray]) -> int:
    """Bytes at the peak of a call, those of its result left out; in a thread that has kept no memory from before."""
    found = []

    def measured() -> None:
        tracemalloc.start()
        try:
            result = call()
            found.append(tracemalloc.get_traced_memory()[1] - result.nbytes)
        finally:
            tracemalloc.stop()

    thread = Thread(target=copy_context().run, args=(measured,))
    thread.start()
    thread.join()
    return int(found[0])


def measure(cases: Iterable[Any] = CASES, pace: Pace = PACE) -> Iterator[Row]:
    """A row for every filter and dtype."""
    for name, make, shape, dtypes, asked in cases:
        for dtype in dtypes:
            calls = make(shape, dtype)
            check(calls, dtype)
            beyond = beyond_its_result(calls[PLAIN])
            ms = {library: 1e3 * seconds for library, seconds in compare(calls, pace).items()}
            yield Row(name, shape, dtype, ms, beyond, asked)


def line(row: Row) -> str:
    """A row of the table."""
    cells = "".join(
        f" {row.ms[name]:>14.4g}" if name in row.ms else f" {'-':>14}" for name in (PLAIN, SCIPY, OPENCV)
    )
    ratios = "".join(
        f" {row.ratios[name]:>7.2f}x" if name in row.ms else f" {'-':>8}" for name in (SCIPY, OPENCV)
    )
    word = "reached" if row.ratios[SCIPY] >= row.asked else "missed"
    shape = "x".join(map(str, row.shape))
    return (
        f"{row.filter:<25} {shape:<11} {row.dtype:<8}{cells}{ratios} {row.beyond / 2**20:>7.1f} MiB"
        f"  asked {row.asked:g}x SciPy: {word}"
    )


def main(threads: int | None = None, path: Path | None = None) -> int:
    """Time the table, print it, and write it where that is asked for."""
    count = threads or cores()
    cv2 = import_module("cv2")
    cv2.setNumThreads(count)
    libraries = {name: import_module(name).__version__ for name in ("scipy", "cv2")}
    about = describe(count, {}, import_module("threadpoolctl")) | libraries
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    names = "".join(f" {name:>14}" for name in (PLAIN, SCIPY, OPENCV))
    print(f"\n{'milliseconds':<46}{names}    SciPy   OpenCV  memory beyond the result")
    rows = []
    with ExitStack() as stack:
        stack.enter_context(threads_for_xconv(count))
        stack.enter_context(xconv.config(fast=False))
        for row in measure():
            rows.append(row)
            print(line(row), flush=True)
    if path:
        table = [asdict(row) | {"ratios": row.ratios} for row in rows]
        path.write_text(json.dumps({"about": about, "smoothing": table}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, metavar="N", help="for every library (default: all cores)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to a file")
    options = parser.parse_args()
    sys.exit(main(options.threads, options.json))
