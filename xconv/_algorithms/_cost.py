"""What an algorithm asks of the machine."""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """Work and memory of one problem done by one algorithm."""

    flops: int  # multiplications and additions inside matmuls
    bytes: int  # memory traffic, that of a matmul's operands and result included
    calls: int  # array operations, and matrix products inside a batched one
    workspace: int  # bytes beyond input and result
    bind_flops: int = 0  # the same of making the kernel ready, once
    bind_bytes: int = 0
    bound: int = 0  # bytes of the kernel made ready, where it is not the kernel itself
    step: int = 1  # a tile had better have a multiple of so many outputs along every axis


def matmul_bytes(rows: int, inner: int, columns: int, itemsize: int, count: int = 1) -> int:
    """Traffic of ``count`` products (rows, inner) @ (inner, columns): both operands are packed, the result written."""
    return count * (2 * inner * (rows + columns) + rows * columns) * itemsize
