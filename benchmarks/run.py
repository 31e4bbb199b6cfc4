"""Time the layers of cases.toml with xconv on NumPy arrays and with other libraries, in one process.

``nox -s bench`` times ResNet-50 with one image; ``nox -s bench -- --all`` everything. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import growth
import machine
from engines import need_compiled_movers, threads_for_xconv
from layers import Layer, load
from measuring import PACE, hopeless, measure
from peers import PEERS, Peer, open_peer
from report import footer, head, machine_text, row, summary
from result import Result, read, save
from targets import verdicts

QUICK = "resnet50"

Case = tuple[str, int, Layer]  # title of the network, batch size, layer


def need(module: str) -> Any:
    """Import what only the benchmarks use, or say how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        sys.exit(
            f"the benchmarks need {module} ({error}): `nox -s bench` brings it, as does "
            "`pip install --group bench`, of pyproject.toml"
        )


def open_peers(names: Collection[str], threads: int | None) -> tuple[dict[str, Peer], int]:
    """The peers, each with the same number of threads, and that number: by default, what torch takes."""
    if threads is None:
        threads = need("torch").get_num_threads()
    peers = {}
    for name in names:
        try:
            peers[name] = open_peer(name, threads)
        except ImportError as error:
            need(error.name or name)
            raise
    return peers, threads


def note(text: str) -> None:
    """Progress on stderr: one line that changes on a terminal, or a line each elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def run(
    peers: dict[str, Peer],
    chosen: list[Case],
    earlier: Collection[Result] = (),
    extras: bool = True,
    fast: bool = False,
) -> Iterator[Result]:
    """Measure the chosen cases, or take them from an earlier run, printing a table for each network and batch."""
    known = {(r.net, r.layer, r.batch): r for r in earlier}
    everything: list[Result] = []
    for (title, batch), group in groupby(chosen, key=lambda case: case[:2]):
        layers = [layer for _, _, layer in group]
        columns = [name for name, peer in peers.items() if any(map(peer.supports, layers))]
        heading = head(columns, fast=fast)
        print(f"\n{title}, batch {batch}\n\n{heading}\n{'-' * len(heading)}")
        results: list[Result] = []
        for layer in layers:
            note(f"[{len(everything) + 1:>3}/{len(chosen)}] {layer.net} {layer.name}, batch {batch}")
            result = known.get((layer.net, layer.name, batch))
            if result is None:
                smaller = [r for r in everything if r.batch < batch]
                result = measure(peers, layer, batch, hopeless(smaller, layer), extras, fast)
            results.append(result)
            everything.append(result)
            note("")
            print(row(result, columns, fast=fast), flush=True)
            yield result
        print(f"\n{footer(results)}", flush=True)


def command_line(arguments: list[str] | None) -> tuple[argparse.Namespace, list[Case]]:
    """The options, and the (title, batch, layer) that they choose."""
    batches, nets = load()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--all", action="store_true", help=f"every network, batch sizes {batches}, and the growth")
    add("--net", action="append", choices=nets, help=f"this one; can be repeated (default: {QUICK})")
    add("--layer", default="", metavar="TEXT", help="only layers with TEXT in their name")
    add("--batch", metavar="N,N", help="batch sizes (default: 1)")
    add("--fast", action="store_true", help="compiled movers as well, which need numba: xconv[fast]")
    add("--threads", type=int, metavar="N", help="for every engine (default: what torch takes)")
    add("--peers", metavar="NAME,NAME", help=f"compare with these only, of {', '.join(PEERS)}")
    add("--no-extras", action="store_true", help="time only: no memory, no bits, no gain of a second thread")
    add("--growth", action="store_true", help="instead: whether time grows in step with the pixels")
    add("--questions", action="store_true", help="instead: the four questions, as questions.py")
    add("--gradients", action="store_true", help="instead: forward and backward beside torch's autograd")
    add("--filters", action="store_true", help="instead: the filter table, as filters.py")
    add("--network", action="store_true", help="instead: the network of the demo as a whole, as network.py")
    add("--json", type=Path, metavar="PATH", help="write the results, after every layer")
    add("--resume", action="store_true", help="go on with what is in the file of --json")
    add("--plot", type=Path, metavar="PATH", help="draw the ratios, as PNG")
    options = parser.parse_args(arguments)
    if options.batch:
        batches = [int(size) if size.isdecimal() else 0 for size in options.batch.split(",")]
    elif not options.all:
        batches = [1]
    if min(batches) < 1 or (options.threads is not None and options.threads < 1):
        parser.error("--batch and --threads must be positive whole numbers")
    options.peers = options.peers.split(",") if options.peers else list(PEERS)
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"--peers must be of {', '.join(PEERS)}; got {', '.join(unknown)}")
    if options.resume and not options.json:
        parser.error("--resume needs --json, the file to go on with")
    for path in filter(None, (options.json, options.plot)):
        if not path.resolve().parent.is_dir():
            parser.error(f"there is no folder for {path}")
    names = options.net or (nets if options.all else [QUICK])
    chosen = [
        (nets[name].title, batch, layer)
        for name in dict.fromkeys(names)
        for batch in dict.fromkeys(sorted(batches))
        for layer in nets[name].layers
        if options.layer in layer.name
    ]
    if not chosen:
        parser.error(f"no layer of {', '.join(names)} has {options.layer!r} in its name")
    return options, chosen


def to_resume(path: Path, about: dict[str, str]) -> list[Result]:
    """The results of a run that was stopped, if it was of the same code on the same machine."""
    if not path.exists():
        return []
    results, before = read(path)
    for key in ("cpu", "threads", "commit", "numba", *PEERS):
        was, now = (text.get(key, "none").partition(",")[0] for text in (before, about))
        if was != now:
            sys.exit(f"{path} is of another run: {key} was {was}, is {now}; start afresh without --resume")
    print(f"\nresumed: {len(results)} results of {path}")
    return results


def main(arguments: list[str] | None = None) -> int:
    """Time what the command line asks for, and report."""
    options, chosen = command_line(arguments)
    threadpoolctl = need("threadpoolctl")
    numba = need_compiled_movers() if options.fast else ""
    draw = need("plot").draw if options.plot else None  # found missing now rather than after the timing
    if options.questions:
        return need("questions").main(options.threads)
    if options.gradients:
        return need("backward").run(options.threads, options.json, fast=options.fast)
    if options.filters:
        return need("filters").main(options.threads, options.json)
    if options.network:
        return need("network").main(options.threads, fast=options.fast)
    peers, threads = open_peers(options.peers, options.threads)
    results: list[Result] = []
    growths: list[growth.Growth] = []
    with threadpoolctl.threadpool_limits(threads, user_api="blas"), threads_for_xconv(threads):
        about = machine.describe(threads, peers, threadpoolctl)
        if numba:
            about["numba"] = numba
        print(machine_text(about))
        earlier = to_resume(options.json, about) if options.resume else []
        kept = {r.case: r for r in earlier}
        if not options.growth:
            for result in run(peers, chosen, earlier, not options.no_extras, options.fast):
                results.append(result)
                kept[result.case] = result
                if options.json:  # a run that is stopped leaves what it has
                    save(list(kept.values()), about, options.json)
        if options.growth or options.all:
            growths.extend(growth.run(load()[1], PACE))
    if options.json:
        save(list(kept.values()), about, options.json, growths)
    if results:
        print(f"\n{summary(results)}\n\n{verdicts(results)}")
    if draw and results:
        draw(results, about, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
