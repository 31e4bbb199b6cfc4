"""What is done to a result while it is in hand."""

from __future__ import annotations

from typing import Any, NamedTuple


class Finish(NamedTuple):
    """A bias (O,) and a residual (N, *out, O) to add, then bounds to stay within; NaN stays NaN."""

    bias: Any | None = None
    residual: Any | None = None
    low: float = float("-inf")
    high: float = float("inf")


PLAIN = Finish()
