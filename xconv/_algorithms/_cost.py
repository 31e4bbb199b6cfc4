"""What an algorithm asks of the machine."""

from __future__ import annotations

from typing import NamedTuple

from xconv._blocks import small_products
from xconv._geometry import ConvProblem

VECTOR = 64  # bytes that compiled code adds up at once
BEGIN = 100  # bytes of traffic that take as long as beginning and ending its sums for a pixel
PACKED = 1.15  # times as long do products take that BLAS does instead, with a call for each block


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
    shared: bool = True  # whether large products are shared out among the threads, where tiles are not


def blas_flops(problem: ConvProblem) -> int:
    """Multiplications and additions of the direct sum by BLAS, in what compiled code would have done meanwhile."""
    return int(PACKED * problem.flops) if problem.fast else problem.flops


def matmul_bytes(
    rows: int, inner: int, columns: int, itemsize: int, count: int = 1, *, packed: bool = False
) -> int:
    """Traffic of ``count`` products (rows, inner) @ (inner, columns): operands read, the result written.

    Where they are not cut into blocks, or ``packed`` anyway, operands are written once more.
    """
    passes = 1 if small_products() and not packed else 2
    return count * (passes * inner * (rows + columns) + rows * columns) * itemsize
