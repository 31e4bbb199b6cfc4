"""Results as text and as a picture. ``python benchmarks/report.py RESULTS.json PICTURE.png`` draws an earlier run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timing import geometric_mean

COLOURS = {"conv": "tab:blue", "grouped conv": "tab:orange", "pool": "tab:green", "dense": "tab:purple"}
HEAD = f"{'layer':<22} {'output':<18} {'xconv ms':>9} {'torch ms':>9} {'ratio':>6} {'GFLOP/s':>8}  algorithm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One layer at one batch size: what every engine took, in milliseconds."""

    net: str
    layer: str
    kind: str
    batch: int
    times: int  # how often the network has this layer
    output: list[int]  # shape of the result
    gflop: float  # billions of additions and multiplications
    algorithm: str
    error: float  # relative, against torch
    ms: dict[str, float]

    @property
    def torch_ms(self) -> float:
        """The faster of torch's memory formats."""
        return min(ms for engine, ms in self.ms.items() if engine.startswith("torch"))

    @property
    def ratio(self) -> float:
        """Above 1, xconv is faster."""
        return self.torch_ms / self.ms["xconv"]


def row(r: Result) -> str:
    """One line of a table, under `HEAD`."""
    speed = f"{r.gflop / r.ms['xconv'] * 1e3:.1f}" if r.gflop else "-"
    output = "x".join(map(str, r.output))
    return (
        f"{r.layer:<22} {output:<18} {r.ms['xconv']:>9.3f} {r.torch_ms:>9.3f} {r.ratio:>6.2f} {speed:>8}"
        f"  {r.algorithm}"
    )


def footer(results: Sequence[Result]) -> str:
    """Below the table of one network and one batch size."""
    worst = min(results, key=lambda r: r.ratio)
    kinds = [kind for kind in COLOURS if any(r.kind == kind for r in results)]
    parts = [f"{kind} {geometric_mean(r.ratio for r in results if r.kind == kind):.2f}" for kind in kinds]
    whole = sum(r.times * r.ms["xconv"] for r in results)
    torch = sum(r.times * r.torch_ms for r in results)
    return (
        f"geometric mean {geometric_mean(r.ratio for r in results):.2f} over {len(results)} layers"
        f" ({', '.join(parts)}); lowest {worst.ratio:.2f} ({worst.layer})\n"
        f"all these layers, repeats counted: xconv {whole:.1f} ms, torch {torch:.1f} ms"
    )


def summary(results: Sequence[Result]) -> str:
    """Geometric means over everything: a line for each network and each kind of layer, a column for each batch."""
    batches = sorted({r.batch for r in results})
    groups = {net: [r for r in results if r.net == net] for net in dict.fromkeys(r.net for r in results)}
    groups |= {f"every {kind}": [r for r in results if r.kind == kind] for kind in COLOURS}
    groups["everything"] = list(results)
    lines = [f"{'geometric mean of':<22} {'layers':>6}" + "".join(f"{f'batch {b}':>10}" for b in batches)]
    for name, members in groups.items():
        cells = [[r.ratio for r in members if r.batch == batch] for batch in batches]
        if members:
            means = "".join(f"{geometric_mean(cell):>10.2f}" if cell else f"{'-':>10}" for cell in cells)
            lines.append(f"{name:<22} {max(map(len, cells)):>6}{means}")
    if len(batches) > 1:
        lines.append(f"all batch sizes together: {geometric_mean(r.ratio for r in results):.2f}")
    return "\n".join(lines)


def machine_text(machine: dict[str, Any]) -> str:
    """What it ran on, two columns."""
    return "\n".join(f"{key:<8} {value}" for key, value in machine.items())


def plot(results: Sequence[Result], machine: dict[str, Any], path: Path) -> None:
    """Bars of the ratios from 1 to the left or right: a row for each layer, a column for each batch size."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import LogLocator

    batches = sorted({r.batch for r in results})
    rows: dict[tuple[str, str], int] = {}  # (net, layer) -> y; a free row above each network holds its name
    headings: dict[str, int] = {}
    for r in results:
        if r.net not in headings:
            headings[r.net] = len(rows) + len(headings)
        if (r.net, r.layer) not in rows:
            rows[r.net, r.layer] = len(rows) + len(headings)
    height = 0.16 * (len(rows) + len(headings)) + 1.8
    figure = Figure(figsize=(3 + 3 * len(batches), height), layout="constrained")
    columns = figure.subplots(1, len(batches), squeeze=False)[0]
    for axes, batch in zip(columns, batches, strict=True):
        chosen = [r for r in results if r.batch == batch]
        places = [rows[r.net, r.layer] for r in chosen]
        colours = [COLOURS[r.kind] for r in chosen]
        axes.barh(places, [r.ratio - 1 for r in chosen], left=1, height=0.8, color=colours)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
        reach = 1.15 * max(2, *(max(r.ratio, 1 / r.ratio) for r in results))
        axes.set_xlim(1 / reach, reach)
        axes.set_ylim(len(rows) + len(headings) - 0.4, -0.6)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.set_title(f"batch {batch}: {geometric_mean(r.ratio for r in chosen):.2f}", fontsize=9)
        axes.set_xlabel("torch time / xconv time", fontsize=8)
        labels = {y: layer for (_, layer), y in rows.items()} | {y: net for net, y in headings.items()}
        axes.set_yticks(
            list(labels), list(labels.values()) if axes is columns[0] else [""] * len(labels), fontsize=7
        )
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=7)
        for label in axes.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() in headings else "normal")
    present = [kind for kind in COLOURS if any(r.kind == kind for r in results)]
    figure.legend(
        handles=[Patch(color=COLOURS[kind], label=kind) for kind in present],
        loc="outside upper center",
        ncols=len(present),
        fontsize=8,
        title=f"right of 1: xconv is faster than torch\n{machine['cpu']}, commit {machine['commit']}",
        title_fontsize=8,
    )
    figure.savefig(path, dpi=150)


def save(results: Sequence[Result], machine: dict[str, Any], path: Path) -> None:
    """Write everything as JSON."""
    table = {"machine": machine, "results": [asdict(r) for r in results]}
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[list[Result], dict[str, Any]]:
    """What `save` has written."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return [Result(**line) for line in table["results"]], table["machine"]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    plot(*read(Path(sys.argv[1])), Path(sys.argv[2]))
