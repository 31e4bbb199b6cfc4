"""What the results are asked to reach, and the layers that miss it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from report import mean
from result import Result
from timing import geometric_mean

NAMED = ("resnet50", "vgg16", "alexnet", "unet")  # whole; and the stem of ViT-B/16
MEBIBYTE = 2**20
MEMORY = 64 * MEBIBYTE  # beyond the result
GAIN = 1.7  # with two threads instead of one, where a call takes longer than this:
LONG = 5.0  # milliseconds
WIDE = 64  # channels of a layer that Winograd's algorithm is for
SHOWN = 12  # layers that are named one by one; a longer list is cut


@dataclass(frozen=True, slots=True)
class Target:
    """A set of layers, and what the ratios to the fastest peer must be: their geometric mean, and each of them."""

    title: str
    kinds: tuple[str, ...]
    ratio: str
    mean: float
    floor: float | None = None
    named: bool = False
    wide: bool = False  # only 3x3 layers of stride 1 with 64 channels or more, going in and coming out

    def has(self, r: Result) -> bool:
        """Whether a result counts."""
        if self.ratio in FAST_RATIOS and not r.has_fast:
            return False
        if self.named and r.net not in NAMED and (r.net, r.layer) != ("vit_b_16", "stem"):
            return False
        if self.wide and not (r.window == [3, 3] and r.stride == 1 and r.channels >= WIDE):
            return False
        return r.kind in self.kinds


FAST_RATIOS = ("fast_ratio", "fast_bound_ratio")
DENSE = ("conv", "dense")
TARGETS = (
    Target("dense layers of the named networks, bound", DENSE, "bound_ratio", 1.0, 0.6, named=True),
    Target("dense layers of the named networks, plain", DENSE, "plain_ratio", 0.85, named=True),
    Target("dense layers of every network, bound", DENSE, "bound_ratio", 1.0, 0.6),
    Target("dense layers of every network, plain", DENSE, "plain_ratio", 0.85),
    Target("depthwise layers", ("depthwise",), "bound_ratio", 0.25, 0.25),
    Target("pools", ("pool",), "bound_ratio", 0.25, 0.25),
    Target("[fast] dense, named networks, bound", DENSE, "fast_bound_ratio", 1.5, 0.8, named=True),
    Target("[fast] dense, every network, bound", DENSE, "fast_bound_ratio", 1.5, 0.8),
    Target("[fast] 3x3, stride 1, 64 channels, bound", ("conv",), "fast_bound_ratio", 2.0, 2.0, wide=True),
    Target("[fast] depthwise layers", ("depthwise",), "fast_bound_ratio", 0.8, 0.8),
    Target("[fast] pools", ("pool",), "fast_bound_ratio", 0.8, 0.8),
)


def verdicts(results: Sequence[Result]) -> str:
    """A line for each target that the results say something about, and below it the layers that miss its floor."""
    batches = sorted({r.batch for r in results})
    lines = [
        f"{'geometric mean to the fastest peer':<44}"
        + "".join(f"{f'batch {b}':>10}" for b in batches)
        + f"{'all':>8}{'asked':>8}"
    ]
    for target in TARGETS:
        members = [r for r in results if target.has(r)]
        if not members:
            continue
        cells = [[r for r in members if r.batch == batch] for batch in batches]
        means = "".join(f"{f'{mean(c, target.ratio):.2f}' if c else '-':>10}" for c in cells)
        whole = mean(members, target.ratio)
        word = "reached" if whole >= target.mean else "missed"
        lines.append(f"{target.title:<44}{means}{whole:>8.2f}{target.mean:>8.2f}  {word}")
        if target.floor is not None:
            low = {r.case: getattr(r, target.ratio) for r in members}
            low = {case: ratio for case, ratio in low.items() if ratio < target.floor}
            lines.append(f"    below {target.floor:.2f}: {_listed(low, len(members))}")
    lines.append(_memory(results))
    for fast in ("", "fast_"):
        lines += [_bits(results, fast), _threads(results, fast)]
    return "\n".join(filter(None, lines))


def _listed(low: dict[str, float], count: int) -> str:
    """How many of ``count``, and the lowest first."""
    if not low:
        return f"none of {count}"
    ordered = sorted(low, key=low.__getitem__)
    names = ", ".join(f"{case} {low[case]:.2f}" for case in ordered[:SHOWN])
    rest = f", and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return f"{len(ordered)} of {count}: {names}{rest}"


def _title(fast: str) -> str:
    return "[fast] " if fast else ""


def _memory(results: Sequence[Result]) -> str:
    peaks = [(size, f"{r.case}, {engine}") for r in results for engine, size in r.memory.items()]
    if not peaks:
        return ""
    most, case = max(peaks)
    over = sum(size > MEMORY for size, _ in peaks)
    word = "reached" if not over else f"missed by {over} of {len(peaks)} calls"
    return (
        f"memory beyond the result: at most {most / MEBIBYTE:.1f} MiB ({case});"
        f" asked {MEMORY // MEBIBYTE} MiB: {word}"
    )


def _bits(results: Sequence[Result], fast: str) -> str:
    bits = {r.case: getattr(r, fast + "same_bits") for r in results}
    known = {case: same for case, same in bits.items() if same is not None}
    if not known:
        return ""
    other = [case for case, same in known.items() if not same]
    named = f"; not on {', '.join(other[:SHOWN])}" if other else ""
    return (
        f"{_title(fast)}one thread and two give identical bits on {len(known) - len(other)} of {len(known)} cases"
        f"{named}"
    )


def _threads(results: Sequence[Result], fast: str) -> str:
    measured = {r.case: getattr(r, fast + "thread_gain") for r in results}
    gains = {case: gain for case, gain in measured.items() if gain is not None}
    if not gains:
        return ""
    least = min(gains, key=gains.__getitem__)
    low = {case: gain for case, gain in gains.items() if gain < GAIN}
    return (
        f"{_title(fast)}two threads instead of one, {len(gains)} cases over {LONG:g} ms: "
        f"{gains[least]:.2f}x at least ({least}), geometric mean {geometric_mean(gains.values()):.2f}x; asked {GAIN}x\n"
        f"    below {GAIN}: {_listed(low, len(gains))}"
    )
