"""Time the layers of cases.toml with xconv on NumPy arrays and with torch, in one process.

``nox -s bench`` times ResNet-50 with one image; ``nox -s bench -- --all`` everything. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from engines import operands, relative_error, torch_calls, xconv_call
from layers import Layer, load
from report import HEAD, Result, footer, machine_text, plot, row, save, summary
from timing import Pace, compare

import xconv

QUICK = "resnet50"
LIMIT = 1e-5  # relative error, in norm, that two ways of summing in float32 may differ by
PACE = Pace()


def need(module: str) -> Any:
    """Import what only the benchmarks use, or say how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        sys.exit(
            f"the benchmarks need {module} ({error}): `nox -s bench` brings it, as does "
            "`pip install --group bench`, of pyproject.toml"
        )


def measure(torch: Any, layer: Layer, batch: int) -> Result:
    """Check one layer, then time it."""
    arrays = operands(layer, batch)
    call, algorithm = xconv_call(layer, arrays)
    others = torch_calls(torch, layer, arrays)
    with torch.inference_mode():
        actual = call()
        error = relative_error(layer, actual, next(iter(others.values()))())
        if not error <= LIMIT:  # NaN is not
            sys.exit(f"{layer.net} {layer.name}, batch {batch}: {error:.1e} off torch, more than {LIMIT:.0e}")
        output = list(actual.shape)
        del actual
        seconds = compare({"xconv": call, **others}, PACE)
    return Result(
        net=layer.net,
        layer=layer.name,
        kind=layer.kind,
        batch=batch,
        times=layer.times,
        output=output,
        gflop=2e-9 * batch * layer.macs,
        algorithm=algorithm,
        error=error,
        ms={engine: 1e3 * s for engine, s in seconds.items()},
    )


def machine(torch: Any, threadpoolctl: Any) -> dict[str, Any]:
    """What it runs on, for the head of the report."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (names := re.findall(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE)):
        cpu = names[0]
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    blas = {f"{p['internal_api']} {p['version']} ({p.get('architecture', '?')})" for p in pools}
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    load = f", load {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else ""
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "threads": f"{torch.get_num_threads()} for every engine{load}",
        "blas": ", ".join(sorted(blas)) or "none that threadpoolctl knows",
        "python": f"{platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}",
        "xconv": xconv.__version__,
        "commit": commit,
    }


def note(text: str) -> None:
    """Progress on stderr: one line that changes on a terminal, or a line each elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def run(torch: Any, chosen: list[tuple[str, int, Layer]]) -> Iterator[Result]:
    """Measure the chosen (title, batch, layer), printing a table for each network and batch size."""
    done = 0
    for (title, batch), group in groupby(chosen, key=lambda item: item[:2]):
        print(f"\n{title}, batch {batch}\n\n{HEAD}\n{'-' * len(HEAD)}")
        results = []
        for _, _, layer in group:
            note(f"[{done + 1:>3}/{len(chosen)}] {layer.net} {layer.name}, batch {batch}")
            results.append(measure(torch, layer, batch))
            done += 1
            note("")
            print(row(results[-1]), flush=True)
            yield results[-1]
        print(f"\n{footer(results)}", flush=True)


def command_line(arguments: list[str] | None) -> tuple[argparse.Namespace, list[tuple[str, int, Layer]]]:
    """The options, and the (title, batch, layer) that they choose."""
    batches, nets = load()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help=f"every network, and batch sizes {batches}")
    parser.add_argument(
        "--net", action="append", choices=nets, help=f"this one; can be repeated (default: {QUICK})"
    )
    parser.add_argument("--layer", default="", metavar="TEXT", help="only layers with TEXT in their name")
    parser.add_argument("--batch", metavar="N,N", help="batch sizes (default: 1)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="for every engine (default: what torch takes)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw the ratios, as PNG")
    options = parser.parse_args(arguments)
    if options.batch:
        batches = [int(size) if size.isdecimal() else 0 for size in options.batch.split(",")]
    elif not options.all:
        batches = [1]
    if min(batches) < 1 or (options.threads is not None and options.threads < 1):
        parser.error("--batch and --threads must be positive whole numbers")
    for path in filter(None, (options.json, options.plot)):
        if not path.resolve().parent.is_dir():
            parser.error(f"there is no folder for {path}")
    names = options.net or (nets if options.all else [QUICK])
    chosen = [
        (nets[name].title, batch, layer)
        for name in dict.fromkeys(names)
        for batch in dict.fromkeys(batches)
        for layer in nets[name].layers
        if options.layer in layer.name
    ]
    if not chosen:
        parser.error(f"no layer of {', '.join(names)} has {options.layer!r} in its name")
    return options, chosen


def main(arguments: list[str] | None = None) -> int:
    """Time what the command line asks for, and report."""
    options, chosen = command_line(arguments)
    torch, threadpoolctl = need("torch"), need("threadpoolctl")
    if options.plot:
        need("matplotlib")  # found missing now rather than after the timing
    torch.set_num_threads(options.threads or torch.get_num_threads())
    results: list[Result] = []
    with threadpoolctl.threadpool_limits(torch.get_num_threads(), user_api="blas"):
        about = machine(torch, threadpoolctl)
        print(machine_text(about))
        try:
            for result in run(torch, chosen):
                results.append(result)
        finally:  # a run that is stopped leaves what it has
            if options.json:
                save(results, about, options.json)
    print(f"\n{summary(results)}")
    if options.plot:
        plot(results, about, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
