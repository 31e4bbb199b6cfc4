"""Results as text: a table for each network and batch size, and means over the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engines import BOUND, PLAIN
from peers import PEERS
from result import Result
from timing import geometric_mean

KINDS = ("conv", "dense", "grouped conv", "depthwise", "pool")
SHORT = {"ONNX Runtime": "ORT"}  # what heads its column


def head(peers: Sequence[str]) -> str:
    """The line above the rows."""
    columns = "".join(f" {SHORT.get(peer, peer):>9}" for peer in peers)
    return (
        f"{'layer':<22} {'output':<15} {'xconv':>9} {'bound':>9}{columns}  {'plain':>6} {'bound':>6} {'GFLOP/s':>8}"
        "  algorithm"
    )


def row(r: Result, peers: Sequence[str]) -> str:
    """One line of a table, under `head`: milliseconds, a star at the fastest peer, and the ratios to it."""
    output = "x".join(map(str, r.output))
    best = r.ms.get(BOUND, r.ms[PLAIN])
    columns = "".join(
        f" {r.peers[peer]:>8.3f}{'*' if peer == r.fastest else ' '}" if peer in r.peers else f" {'-':>8} "
        for peer in peers
    )
    bound = f"{r.ms[BOUND]:.3f}" if BOUND in r.ms else "-"
    bound_ratio = f"{r.bound_ratio:.2f}" if BOUND in r.ms else "-"
    speed = f"{r.gflop / best * 1e3:.1f}" if r.gflop else "-"
    return (
        f"{r.layer:<22} {output:<15} {r.ms[PLAIN]:>9.3f} {bound:>9}{columns}  {r.plain_ratio:>6.2f} {bound_ratio:>6}"
        f" {speed:>8}  {r.algorithm}"
    )


def kinds_of(results: Iterable[Result]) -> list[str]:
    """The kinds that occur, in the usual order."""
    present = {r.kind for r in results}
    return [kind for kind in KINDS if kind in present]


def mean(results: Iterable[Result], ratio: str = "bound_ratio") -> float:
    """Geometric mean of ``plain_ratio`` or ``bound_ratio``."""
    return geometric_mean(getattr(r, ratio) for r in results)


def footer(results: Sequence[Result]) -> str:
    """Below the table of one network and one batch size."""
    worst = min(results, key=lambda r: r.bound_ratio)
    parts = []
    for kind in kinds_of(results):
        members = [r for r in results if r.kind == kind]
        parts.append(f"{kind} {mean(members, 'plain_ratio'):.2f} / {mean(members):.2f}")
    plain = sum(r.times * r.ms[PLAIN] for r in results)
    bound = sum(r.times * r.ms.get(BOUND, r.ms[PLAIN]) for r in results)
    others = []
    for peer in PEERS:
        if all(peer in r.peers for r in results):  # the sum of a peer that lacks a layer says nothing
            others.append(f", {peer} {sum(r.times * r.peers[peer] for r in results):.1f} ms")
    return (
        f"geometric mean, plain / bound: {mean(results, 'plain_ratio'):.2f} / {mean(results):.2f} over {len(results)}"
        f" layers ({', '.join(parts)}); lowest {worst.bound_ratio:.2f} ({worst.layer})\n"
        f"all these layers, repeats counted: xconv {plain:.1f} ms, bound {bound:.1f} ms{''.join(others)}"
    )


def summary(results: Sequence[Result]) -> str:
    """Geometric means over everything: a line for each network and each kind of layer, a column for each batch."""
    batches = sorted({r.batch for r in results})
    groups = {net: [r for r in results if r.net == net] for net in dict.fromkeys(r.net for r in results)}
    groups |= {f"every {kind}": [r for r in results if r.kind == kind] for kind in kinds_of(results)}
    groups["everything"] = list(results)
    together = [*batches, None] if len(batches) > 1 else batches
    titles = ["all batches" if batch is None else f"batch {batch}" for batch in together]
    lines = [f"{'plain / bound':<22} {'layers':>6}" + "".join(f"{title:>14}" for title in titles)]
    for name, members in groups.items():
        cells = ""
        for batch in together:
            cell = [r for r in members if batch in (None, r.batch)]
            text = f"{mean(cell, 'plain_ratio'):.2f} / {mean(cell):.2f}" if cell else "-"
            cells += f"{text:>14}"
        lines.append(f"{name:<22} {len({(r.net, r.layer) for r in members}):>6}{cells}")
    return "\n".join(lines)


def machine_text(machine: dict[str, Any]) -> str:
    """What it ran on, two columns."""
    width = max(map(len, machine))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in machine.items())
