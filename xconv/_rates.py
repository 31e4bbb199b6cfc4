"""How fast machines are: the one table that turns bytes, flops and calls into estimated seconds.

Ratios rank the algorithms; the seconds themselves decide how small a tile may be. ``python benchmarks/calibrate.py``
measures and fits the figures.
"""

from __future__ import annotations

from typing import NamedTuple


class Rates(NamedTuple):
    """What one thread does in a second, and what has a price of its own."""

    flops: float  # multiplications and additions of float32 in a matmul
    near: float  # bytes moved within the cache of a core
    far: float  # bytes moved beyond it
    call: float  # seconds of one array operation
    start: float  # seconds until the threads are at work
    shared: float  # what each further core adds to the speed of one large matmul


# NumPy 2.4 with OpenBLAS 0.3.31 on two cores of servers with AVX-512. CPU's products, in blocks, are of 2026-11-26, and
# its bytes, calls and start of threads of 2026-11-30, as they are when a call is played; FAST is of 2026-11-30.
# ACCELERATOR is a guess.
CPU = Rates(flops=105e9, near=46e9, far=29e9, call=1e-6, start=200e-6, shared=1.0)
FAST = Rates(flops=100e9, near=43e9, far=47e9, call=2.1e-6, start=130e-6, shared=0.5)  # with compiled movers
ACCELERATOR = Rates(flops=30e12, near=2e12, far=2e12, call=5e-6, start=0.0, shared=1.0)

SLOWDOWN = {"float": 1.0, "complex": 4.0, "integer": 40.0}  # of a matmul, against floats of the same size
GRAIN = 4e-3  # seconds of work that are worth a tile of their own, where every core has one already
FINE = 1e-3  # the same while there are cores without one
WORTH = 300e-6  # seconds of work that are worth another thread at all
