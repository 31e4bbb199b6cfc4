"""Results as a picture. ``python benchmarks/plot.py RESULTS.json PICTURE.png`` draws an earlier run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines import BOUND
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator
from report import has_fast, kinds_of, mean
from result import Result, read
from timing import geometric_mean

COLOURS = {
    "conv": "tab:blue",
    "dense": "tab:purple",
    "grouped conv": "tab:brown",
    "depthwise": "tab:orange",
    "pool": "tab:green",
}
ROW = 0.17  # inches
TALL_ROW = 0.23  # where the batch sizes lie below each other, as much of a row apart as:
APART = 0.28
WIDTH = 5.6  # of a column of networks
MARGIN = 1.5  # above and below, with the legend
TALLEST = 40  # rows in one column before a further one is opened, of three at most
SIZES = (9, 24, 48)  # of the dots, smallest batch first
LETTERS = {
    "torch": "T",
    "ONNX Runtime": "X",
    "JAX": "J",
    "SciPy": "S",
    "OpenCV": "V",
}  # none as round as a dot


def draw(results: Sequence[Result], machine: dict[str, Any], path: Path) -> None:
    """A row of dots for each layer: right of 1, xconv is faster than the fastest peer.

    Hollow dots are plain calls and full ones have the weights bound. Where compiled movers were measured all have them
    bound: hollow dots are NumPy alone, full ones the compiled movers, and every peer is a letter.
    """
    layers = {net: list(dict.fromkeys(r.layer for r in results if r.net == net)) for net in _nets(results)}
    columns = arrange({net: len(names) for net, names in layers.items()})
    tallest = max(sum(len(layers[net]) + 2 for net in column) for column in columns)
    hollow, full = _shown(results)
    row = TALL_ROW if has_fast(results) else ROW
    figure = Figure(figsize=(WIDTH * len(columns), row * tallest + MARGIN), layout="constrained")
    ratios = [getattr(r, ratio) for r in results for ratio in (hollow, full)]
    reach = (min(0.5, *ratios) / 1.25, max(2.0, *ratios) * 1.25)
    grids = figure.add_gridspec(1, len(columns))
    for place, column in enumerate(columns):
        heights = [len(layers[net]) + 0.6 for net in column]
        free = tallest - sum(len(layers[net]) + 2 for net in column)
        if free > 0:  # the networks of a shorter column stay as high as the others
            heights.append(free)
        grid = grids[place].subgridspec(len(heights), 1, height_ratios=heights)
        for number, net in enumerate(column):
            members = [r for r in results if r.net == net]
            axes = figure.add_subplot(grid[number])
            _panel(axes, members, layers[net], reach)
            if has_fast(results):
                _letters(axes, members, layers[net], reach[0])
    _legend(figure, results, machine)
    figure.savefig(path, dpi=130)


def _nets(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(r.net for r in results))


def arrange(rows: dict[str, int]) -> list[list[str]]:
    """The networks in columns of about the same height: the tallest first, each where there is most room."""
    heights = {net: count + 2 for net, count in rows.items()}
    order = list(rows)
    columns: list[list[str]] = [[] for _ in range(min(3, len(rows), -(-sum(heights.values()) // TALLEST)))]
    for net in sorted(order, key=heights.__getitem__, reverse=True):
        min(columns, key=lambda column: sum(heights[n] for n in column)).append(net)
    return sorted(
        (sorted(column, key=order.index) for column in columns), key=lambda column: order.index(column[0])
    )


def _shown(results: Sequence[Result]) -> tuple[str, str]:
    """The ratios of hollow and of full dots."""
    return ("bound_ratio", "fast_bound_ratio") if has_fast(results) else ("plain_ratio", "bound_ratio")


def _letters(axes: Axes, results: Sequence[Result], layers: list[str], least: float) -> None:
    """A letter for each peer, at its mean over the batches; one that is too slow for the picture has none."""
    for place, layer in enumerate(layers):
        members = [r for r in results if r.layer == layer]
        for peer, letter in LETTERS.items():
            found = [r.peers[r.fastest] / r.peers[peer] for r in members if peer in r.peers]
            if found and (ratio := geometric_mean(found)) > least:
                axes.text(
                    ratio,
                    place,
                    letter,
                    fontsize=6.5,
                    color="0.2",
                    ha="center",
                    va="center_baseline",
                    zorder=4,
                )


def _size(results: Sequence[Result], batch: int) -> int:
    """Of a dot: by the place of its batch size among all of them."""
    batches = sorted({r.batch for r in results})
    return SIZES[min(batches.index(batch), len(SIZES) - 1)] if len(batches) > 1 else SIZES[1]


def _panel(axes: Axes, results: Sequence[Result], layers: list[str], reach: tuple[float, float]) -> None:
    hollow, full = _shown(results)
    places = {layer: place for place, layer in enumerate(layers)}
    for place in range(0, len(layers), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0)
    batches = sorted({r.batch for r in results})
    for r in results:
        y, size, colour = places[r.layer], _size(results, r.batch), COLOURS[r.kind]
        if has_fast(results):
            y += APART * (batches.index(r.batch) - (len(batches) - 1) / 2)
        ends = (getattr(r, hollow), getattr(r, full))
        if has_fast(results) or BOUND in r.ms:
            axes.plot(ends, (y, y), color=colour, alpha=0.4, linewidth=0.8, zorder=2)
            axes.scatter(ends[0], y, s=size, facecolors="none", edgecolors=colour, linewidths=0.7, zorder=3)
        axes.scatter(ends[1], y, s=size, color=colour, alpha=0.75, linewidths=0, zorder=2)
    axes.axvline(1, color="black", linewidth=1, zorder=1)
    axes.set_xscale("log", base=2)
    axes.set_xlim(*reach)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=16))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
    axes.grid(axis="x", alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.tick_params(axis="x", labelsize=6.5, length=2, pad=1.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    means = f"{mean(results):.2f}"
    if has_fast(results):
        means = f"NumPy alone {means}, [fast] {mean(results, full):.2f}"
    elif any(BOUND in r.ms for r in results):
        means = f"plain {mean(results, hollow):.2f}, bound {means}"
    axes.set_title(f"{results[0].net}: {means}", fontsize=8.5, fontweight="bold", loc="left", pad=3)


def _legend(figure: Figure, results: Sequence[Result], machine: dict[str, Any]) -> None:
    handles: list[Any] = [Patch(color=COLOURS[kind], label=kind) for kind in kinds_of(results)]
    batches = sorted({r.batch for r in results})
    for batch in batches:
        size = _size(results, batch) ** 0.5
        handles.append(
            Line2D([], [], linestyle="", marker="o", markersize=size, color="0.4", label=f"batch {batch}")
        )
    marks = {"linestyle": "", "marker": "o", "markersize": SIZES[1] ** 0.5, "markeredgecolor": "0.4"}
    fast = has_fast(results)
    if fast or any(BOUND in r.ms for r in results):
        full, hollow = (
            ("xconv[fast]", "xconv, NumPy alone") if fast else ("weights bound by a plan", "plain call")
        )
        handles.append(Line2D([], [], markerfacecolor="0.4", label=full, **marks))
        handles.append(Line2D([], [], markerfacecolor="none", label=hollow, **marks))
    threads = machine["threads"].partition(" ")[0]
    peers = ", ".join(
        f"{LETTERS[peer]} {peer}" if fast else peer
        for peer in dict.fromkeys(peer for r in results for peer in r.peers)
    )
    if fast:
        peers += " (means over the batches); weights bound by a plan"
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles) if len(_nets(results)) > 2 else 4,
        fontsize=8,
        frameon=False,
        title=f"time of the fastest peer / time of xconv: right of 1, xconv is faster\npeers: {peers}\n"
        f"{machine['cpu']}; {threads} threads for every engine; commit {machine['commit']}",
        title_fontsize=9,
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    draw(*read(Path(sys.argv[1])), Path(sys.argv[2]))
