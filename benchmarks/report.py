"""Results as text: a table for each network and batch size, and means over the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engines import BOUND, FAST, FAST_BOUND, OURS, PLAIN
from peers import PEERS
from result import Result
from timing import geometric_mean

KINDS = ("conv", "dense", "grouped conv", "depthwise", "pool")
SHORT = {"ONNX Runtime": "ORT"}  # what heads its column


def engines_of(*, fast: bool) -> dict[str, tuple[str, str]]:
    """Of each column of xconv: its engine, and the ratio that belongs to it."""
    columns = {"xconv": (PLAIN, "plain_ratio"), "bound": (BOUND, "bound_ratio")}
    if fast:
        columns |= {"[fast]": (FAST, "fast_ratio"), "[f]bound": (FAST_BOUND, "fast_bound_ratio")}
    return columns


def head(peers: Sequence[str], *, fast: bool = False) -> str:
    """The line above the rows."""
    ours = "".join(f" {title:>9}" for title in engines_of(fast=fast))
    others = "".join(f" {SHORT.get(peer, peer):>9}" for peer in peers)
    ratios = "".join(
        f" {title.replace('xconv', 'plain'):>{_width(title)}}" for title in engines_of(fast=fast)
    )
    algorithms = "algorithm, of [fast]" if fast else "algorithm"
    return f"{'layer':<22} {'output':<15}{ours}{others} {ratios} {'GFLOP/s':>8}  {algorithms}"


def row(r: Result, peers: Sequence[str], *, fast: bool = False) -> str:
    """One line of a table, under `head`: milliseconds, a star at the fastest peer, and the ratios to it."""
    output = "x".join(map(str, r.output))
    ours = ratios = ""
    for title, (engine, ratio) in engines_of(fast=fast).items():
        known = engine in r.ms
        ours += f" {r.ms[engine]:>9.3f}" if known else f" {'-':>9}"
        ratios += f" {getattr(r, ratio):>{_width(title)}.2f}" if known else f" {'-':>{_width(title)}}"
    others = "".join(
        f" {r.peers[peer]:>8.3f}{'*' if peer == r.fastest else ' '}" if peer in r.peers else f" {'-':>8} "
        for peer in peers
    )
    speed = (
        f"{r.gflop / min(r.ms[engine] for engine in OURS if engine in r.ms) * 1e3:.1f}" if r.gflop else "-"
    )
    algorithms = r.algorithm + (f", {r.fast_algorithm}" if fast and r.fast_algorithm != r.algorithm else "")
    return f"{r.layer:<22} {output:<15}{ours}{others} {ratios} {speed:>8}  {algorithms}"


def _width(title: str) -> int:
    """Of a column of ratios."""
    return max(6, len(title))


def kinds_of(results: Iterable[Result]) -> list[str]:
    """The kinds that occur, in the usual order."""
    present = {r.kind for r in results}
    return [kind for kind in KINDS if kind in present]


def mean(results: Iterable[Result], ratio: str = "bound_ratio") -> float:
    """Geometric mean of ``plain_ratio``, ``bound_ratio``, ``fast_ratio`` or ``fast_bound_ratio``."""
    return geometric_mean(getattr(r, ratio) for r in results)


def has_fast(results: Iterable[Result]) -> bool:
    """Whether compiled movers were measured in all of them."""
    return all(r.has_fast for r in results)


def ways(results: Iterable[Result]) -> dict[str, tuple[str, str]]:
    """The ratios of plain and of bound calls: on NumPy alone, and with compiled movers where they were measured."""
    found = {"plain / bound": ("plain_ratio", "bound_ratio")}
    if has_fast(results):
        found["[fast] plain / bound"] = ("fast_ratio", "fast_bound_ratio")
    return found


def pair(results: Sequence[Result], ratios: tuple[str, str]) -> str:
    """Two geometric means."""
    return " / ".join(f"{mean(results, ratio):.2f}" for ratio in ratios)


def footer(results: Sequence[Result]) -> str:
    """Below the table of one network and one batch size."""
    lines = []
    for title, ratios in ways(results).items():
        worst = min(results, key=lambda r, ratio=ratios[1]: getattr(r, ratio))
        parts = [
            f"{kind} {pair([r for r in results if r.kind == kind], ratios)}" for kind in kinds_of(results)
        ]
        lines.append(
            f"geometric mean, {title}: {pair(results, ratios)} over {len(results)} layers ({', '.join(parts)}); "
            f"lowest {getattr(worst, ratios[1]):.2f} ({worst.layer})"
        )
    sums = []
    for title, (engine, _) in engines_of(fast=has_fast(results)).items():
        plain = FAST if engine in (FAST, FAST_BOUND) else PLAIN
        sums.append(f"{title} {sum(r.times * r.ms.get(engine, r.ms[plain]) for r in results):.1f} ms")
    for peer in PEERS:
        if all(peer in r.peers for r in results):  # the sum of a peer that lacks a layer says nothing
            sums.append(f"{peer} {sum(r.times * r.peers[peer] for r in results):.1f} ms")
    lines.append(f"all these layers, repeats counted: {', '.join(sums)}")
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """Geometric means over everything: a line for each network and each kind of layer, a column for each batch."""
    return "\n\n".join(_summary(results, title, ratios) for title, ratios in ways(results).items())


def _summary(results: Sequence[Result], title: str, ratios: tuple[str, str]) -> str:
    batches = sorted({r.batch for r in results})
    groups = {net: [r for r in results if r.net == net] for net in dict.fromkeys(r.net for r in results)}
    groups |= {f"every {kind}": [r for r in results if r.kind == kind] for kind in kinds_of(results)}
    groups["everything"] = list(results)
    together = [*batches, None] if len(batches) > 1 else batches
    titles = ["all batches" if batch is None else f"batch {batch}" for batch in together]
    lines = [f"{title:<22} {'layers':>6}" + "".join(f"{text:>14}" for text in titles)]
    for name, members in groups.items():
        cells = ""
        for batch in together:
            cell = [r for r in members if batch in (None, r.batch)]
            cells += f"{pair(cell, ratios) if cell else '-':>14}"
        lines.append(f"{name:<22} {len({(r.net, r.layer) for r in members}):>6}{cells}")
    return "\n".join(lines)


def machine_text(machine: dict[str, Any]) -> str:
    """What it ran on, two columns."""
    width = max(map(len, machine))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in machine.items())
