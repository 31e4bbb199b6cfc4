"""What an algorithm asks of the machine."""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """Work and memory of one problem done by one algorithm."""

    flops: int  # multiplications and additions inside matmuls
    bytes: int  # memory traffic outside of them
    calls: int  # array operations, and matrix products inside a batched one
    workspace: int  # bytes beyond input and result
