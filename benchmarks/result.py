"""What was measured of one layer at one batch size, and how it is kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines import BOUND, FAST, FAST_BOUND, PLAIN
from peers import PEERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One layer at one batch size: what every engine took, in milliseconds, and what else was seen of xconv."""

    net: str
    layer: str
    kind: str
    batch: int
    times: int  # how often the network has this layer
    output: list[int]  # shape of the result
    gflop: float  # billions of additions and multiplications
    algorithm: str  # of the plain call; and of the bound one, if it takes another
    error: float  # the largest distance from a peer, relative
    ms: dict[str, float]  # by engine: xconv, xconv bound, xconv[fast], torch NHWC, …
    least: dict[str, float] = field(default_factory=dict)  # of ms, the shortest call instead of the median
    memory: dict[str, int] = field(default_factory=dict)  # bytes beyond the result, of xconv's engines
    same_bits: bool | None = None  # with one thread and with two
    thread_gain: float | None = None  # time with one thread over time with two
    window: list[int] = field(default_factory=list)  # size of the kernel
    stride: int = 1
    channels: int = 0  # that come in, or that go out where they are fewer
    fast_algorithm: str = ""  # what follows is of the calls with compiled movers
    fast_same_bits: bool | None = None
    fast_thread_gain: float | None = None

    @property
    def peers(self) -> dict[str, float]:
        """Milliseconds of every peer, in the faster of its memory formats."""
        best = {}
        for peer in PEERS:
            found = [ms for engine, ms in self.ms.items() if engine == peer or engine.startswith(peer + " ")]
            if found:
                best[peer] = min(found)
        return best

    @property
    def fastest(self) -> str:
        """The peer to beat."""
        return min(self.peers, key=self.peers.__getitem__)

    @property
    def plain_ratio(self) -> float:
        """The fastest peer's time over that of a plain call: above 1, xconv is faster."""
        return self.peers[self.fastest] / self.ms[PLAIN]

    @property
    def bound_ratio(self) -> float:
        """The same with the weights bound by a plan; for layers that have nothing to bind, `plain_ratio`."""
        return self.peers[self.fastest] / self.ms.get(BOUND, self.ms[PLAIN])

    @property
    def has_fast(self) -> bool:
        """Whether compiled movers were measured too; where not, there are no ratios of them."""
        return FAST in self.ms

    @property
    def fast_ratio(self) -> float:
        """`plain_ratio` with compiled movers."""
        return self.peers[self.fastest] / self.ms[FAST]

    @property
    def fast_bound_ratio(self) -> float:
        """`bound_ratio` with compiled movers."""
        return self.peers[self.fastest] / self.ms.get(FAST_BOUND, self.ms[FAST])

    @property
    def case(self) -> str:
        """How a summary names it."""
        return f"{self.net} {self.layer} x{self.batch}"


def save(results: Sequence[Result], machine: dict[str, Any], path: Path, growth: Sequence[Any] = ()) -> None:
    """Write everything as JSON, in one step: a program that is stopped leaves the old file or the new one."""
    table = {"machine": machine, "results": [asdict(r) for r in results]}
    if growth:
        table["growth"] = [asdict(g) for g in growth]
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def read(path: Path) -> tuple[list[Result], dict[str, Any]]:
    """What `save` has written, without the growth."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return [Result(**line) for line in table["results"]], table["machine"]
