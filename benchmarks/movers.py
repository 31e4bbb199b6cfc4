"""Mover by mover: how fast the compiled code of ``xconv[fast]`` moves memory, against a plain copy.

``python benchmarks/movers.py`` prints a table. A mover's speed is the bytes that it reads, each once, and those that it
writes, by the median time of a call, on one thread; beside it stands `numpy.copyto` of as many bytes, read and written,
timed in turns with it. Each is done twice: with arrays that fit the core's own cache together, as a tile's do, and with
32 MiB. Movers that also compute (transforms, depthwise, pooling) are held to the same measure.

A second table has the seconds of the first call of every function in a new process: when it is compiled, and when it is
found on disk. ``--json PATH`` writes all of it to a file, ``--only WORD`` does the movers with the word in their name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import isqrt, prod
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from timing import Pace, compare

from xconv._bridges.numba import copies, direct, lanes, tiles, winograd
from xconv._bridges.numba.gathering import gathered, maps
from xconv._finish import Finish
from xconv._geometry import Axis
from xconv._machine import cache_bytes
from xconv._scratch import scratch

LARGE = 32 * 2**20
PACE = Pace(rest=0.01, warmups=2, seconds=0.05, samples=1000, rounds=5)

Array = Any
Make = Callable[
    [int], tuple[Callable[[], object], int]
]  # of a side of the image: the call, the bytes it moves


@dataclass(frozen=True, slots=True)
class Row:
    """One mover on arrays of one size."""

    mover: str
    size: str
    bytes: int
    seconds: float
    copy_seconds: float

    @property
    def ratio(self) -> float:
        """Its speed over that of a copy."""
        return self.copy_seconds / self.seconds


def image(side: int, channels: int, dtype: str = "float32") -> Array:
    """Numbers (1, side, side, channels), all written, so that every page of them is there."""
    shape = (1, side, side, channels)
    return (np.arange(prod(shape)) % 251).astype(dtype).reshape(shape)


def square(side: int, window: int, stride: int = 1) -> tuple[Axis, Axis]:
    """Two axes of windows, padded so that about as many come out as go in."""
    return (Axis(side, window, stride, 1, 1, window // 2, window // 2),) * 2


def filled(axes: tuple[Axis, ...], channels: int) -> Array:
    return np.ones((1, *(axis.output for axis in axes), channels), np.float32)


def padding(channels: int, *, dtype: str = "float32", first: bool = False) -> Make:
    def make(side: int) -> tuple[Callable[[], object], int]:
        x, table = image(side, channels, dtype), (maps(side, -1, side + 1),) * 2
        if first:
            x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 1)), 1, -1)
        y = np.ones((1, side + 2, side + 2, channels), np.float32)
        return lambda: gathered(x, table, 0.0, y), x.nbytes + y.nbytes

    return make


def windows(channels: int, window: int, stride: int) -> Make:
    def make(side: int) -> tuple[Callable[[], object], int]:
        x, axes = image(side, channels), square(side, window, stride)
        y = filled(axes, window**2 * channels)
        return lambda: copies.columns(x, axes, y), x.nbytes + y.nbytes

    return make


def transform(end: str, m: int, channels: int = 64) -> Make:
    """One of the two transforms alone, called as `winograd` has just called it: its scratch memory is still there."""

    def make(side: int) -> tuple[Callable[[], object], int]:
        x, axes = image(side, channels), square(side, 3)
        y, w = filled(axes, channels), np.ones(((m + 2) ** 2, channels * channels), np.float32)
        work = {"in": tiles.READING[m + 2], "out": tiles.WRITING[m + 2, m]}[end]
        shared, seen = winograd.shared, []

        def noted(*arguments: Any) -> None:
            if arguments[0] is work:
                seen.append(arguments)
            shared(*arguments)

        with mock.patch.multiple(winograd, shared=noted, MANY=0):  # one after the other, whatever there are
            winograd.winograd(x[..., None, :], w, axes, m + 2, channels, y, Finish())
        (arguments,) = seen
        points = (m + 2) ** 2 * (-(-side // m)) ** 2 * channels * x.itemsize
        keep = (x, y, w)
        return lambda: shared(*arguments) if keep else None, x.nbytes + points

    return make


def depthwise(side: int) -> tuple[Callable[[], object], int]:
    x, axes = image(side, 64), square(side, 3)
    y, w = filled(axes, 64), np.ones((9, 64), np.float32)
    return lambda: lanes.depthwise(x, w, axes, y, Finish()), x.nbytes + y.nbytes


def largest(side: int) -> tuple[Callable[[], object], int]:
    x, axes = image(side, 64), square(side, 3, 2)
    y = filled(axes, 64)
    return lambda: lanes.running(x, axes, "max", y), x.nbytes + y.nbytes


def direct_sums(side: int) -> tuple[Callable[[], object], int]:
    x, axes, w = image(side, 64), (Axis(side, 3),) * 2, np.ones((1, 9 * 64, 64), np.float32)
    y = filled(axes, 64)
    return lambda: direct.convolved(x, w, axes, 64, y), x.nbytes + y.nbytes


def in_blocks(side: int) -> tuple[Callable[[], object], int]:
    x, axes, w = image(side, 64), square(side, 3), np.ones((16, 64 * 64), np.float32)
    y = filled(axes, 64)

    def call() -> None:
        with mock.patch.object(winograd, "MANY", x.size * 64):
            winograd.winograd(x[..., None, :], w, axes, 4, 64, y, Finish())

    return call, x.nbytes + y.nbytes


def finishing(channels: int, *, residual: bool = False) -> Make:
    def make(side: int) -> tuple[Callable[[], object], int]:
        y, more = image(side, channels), image(side, channels) if residual else None
        finish = Finish(np.ones(channels, np.float32), more, 0.0, 6.0)
        return lambda: copies.finished(y, finish), 2 * y.nbytes + (y.nbytes if residual else 0)

    return make


MOVERS: dict[str, Make] = {
    "gathered, padded, 64 channels last": padding(64),
    "gathered, padded, 64 channels first": padding(64, first=True),
    "gathered, padded, 3 channels last": padding(3),
    "gathered, padded, 3 channels first": padding(3, first=True),
    "gathered, padded, uint8, 3 channels last": padding(3, dtype="uint8"),
    "columns 3x3, 3 channels": windows(3, 3, 1),
    "columns 7x7/2, 3 channels": windows(3, 7, 2),
    "columns 3x3, 64 channels": windows(64, 3, 1),
    "winograd F(2) in": transform("in", 2),
    "winograd F(2) out": transform("out", 2),
    "winograd F(4) in": transform("in", 4),
    "winograd F(4) out": transform("out", 4),
    "winograd F(6) in": transform("in", 6),
    "winograd F(6) out": transform("out", 6),
    "depthwise 3x3, 64 channels": depthwise,
    "running max 3x3/2, 64 channels": largest,
    "finished, bias and bounds, 64 channels": finishing(64),
    "finished, with a residual, 64 channels": finishing(64, residual=True),
    "finished, bias and bounds, 3 channels": finishing(3),
}
# Not movers, but compiled as well.
OTHERS: dict[str, Make] = {"direct 3x3, 64 channels": direct_sums, "winograd, 64 channels": in_blocks}
# Functions that are compiled one by one, by a mover that calls them.
COMPILED = {
    "gathered": "gathered, padded, 64 channels last",
    "gathered, from uint8": "gathered, padded, uint8, 3 channels last",
    "columns": "columns 3x3, 3 channels",
    "finished": "finished, bias and bounds, 64 channels",
    "depthwise": "depthwise 3x3, 64 channels",
    "running": "running max 3x3/2, 64 channels",
    "direct": "direct 3x3, 64 channels",
    "winograd, few tiles": "winograd F(2) in",
    "winograd, many tiles": "winograd, 64 channels",
}


def side_for(make: Make, size: int) -> int:
    """How wide an image is with which a mover moves about so many bytes."""
    probe = 32
    return max(isqrt(size * probe**2 // make(probe)[1]), 4)


def measure(only: str) -> Iterator[Row]:
    """Every mover, small and large."""
    for name, make in MOVERS.items():
        if only not in name:
            continue
        for size, count in (("cache", (cache_bytes(2) or 2**20) // 2), ("32 MiB", LARGE)):
            with scratch():  # as in a tile: one thread, memory that is used again
                call, moved = make(side_for(make, count))
                source, target = np.ones(moved // 2, np.uint8), np.ones(moved // 2, np.uint8)
                seconds = compare({"mover": call, "copy": lambda s=source, t=target: np.copyto(t, s)}, PACE)
            yield Row(name, size, moved, seconds["mover"], seconds["copy"])


def first_calls() -> dict[str, float]:
    """Seconds of the first call of every function in this process, after what numba does for itself."""
    from numba import njit

    start = time.perf_counter()
    njit(lambda number: number + 1)(1)
    seconds = {"(numba, for any function)": time.perf_counter() - start}
    for name, mover in COMPILED.items():
        start = time.perf_counter()
        with scratch():
            (MOVERS | OTHERS)[mover](8)[0]()
        seconds[name] = time.perf_counter() - start
    return seconds


def starts() -> dict[str, dict[str, float]]:
    """The first calls of two new processes, of which the second finds on disk what the first has compiled."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        for name in ("compiled", "from disk"):
            command = [sys.executable, __file__, "--first-calls"]
            made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            found[name] = json.loads(made.stdout)
    return found


def main() -> None:
    """Print the tables, and write them where that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to a file")
    parser.add_argument("--only", default="", metavar="WORD", help="only movers with the word in their name")
    parser.add_argument("--first-calls", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_calls:
        print(json.dumps(first_calls()))
        return
    print(f"{'mover':42}{'arrays':>8}{'MiB':>8}{'µs':>10}{'GB/s':>8}{'copy GB/s':>11}{'ratio':>7}")
    rows = []
    for row in measure(options.only):
        rows.append(row)
        speed, copy = (row.bytes / seconds / 1e9 for seconds in (row.seconds, row.copy_seconds))
        print(
            f"{row.mover:42}{row.size:>8}{row.bytes / 2**20:8.2f}{row.seconds * 1e6:10.1f}"
            f"{speed:8.1f}{copy:11.1f}{row.ratio:7.2f}",
            flush=True,
        )
    calls = {} if options.only else starts()
    if calls:
        print(f"\n{'first call of':42}{'compiled, s':>14}{'from disk, s':>14}")
        for name, seconds in calls["compiled"].items():
            print(f"{name:42}{seconds:14.2f}{calls['from disk'][name]:14.3f}")
    if options.json:
        record = {"movers": [{**asdict(row), "ratio": row.ratio} for row in rows], "first calls": calls}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
