"""The workshops. Each knows how to refuse, to estimate, and to run one way of computing a convolution.

All see a problem whose padding and holes have been written out, with x (N, *n, C) and w (*k, C / groups, O)
already in the dtype of the products. They are pure, and run in several threads at once. Of a problem that compiled
movers do, ``problem.fast``, the padding is not written out yet.
"""

from __future__ import annotations

from typing import Protocol

from xconv._algorithms import (
    banded,
    depthwise,
    direct,
    fft,
    im2col,
    kn2row,
    pointwise,
    separable,
    spectral,
    winograd,
)
from xconv._algorithms._cost import Cost
from xconv._blocks import FEW, FEWEST, SHORT, in_blocks
from xconv._geometry import ConvProblem, Problem, WindowProblem
from xconv._namespace import Array, Namespace, Traits, compiled
from xconv._products import is_middling


class Algorithm(Protocol):
    """What every workshop exports."""

    def why_not(self, problem: ConvProblem, traits: Traits) -> str | None:
        """The reason this algorithm cannot do the problem, or None."""

    def cost(self, problem: ConvProblem, traits: Traits) -> Cost:
        """What the problem would cost."""

    def bind(self, w: Array, problem: ConvProblem, xp: Namespace) -> Array:
        """The kernel as `run` wants it: made once, for every tile of the problem."""

    def run(self, x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None = None) -> Array:
        """The convolution with a bound kernel, (N, *out, O); ``out`` may be filled and returned."""


FINISHING = (
    "direct",
    "depthwise",
    "winograd",
)  # whose compiled forms take a last argument: bias, residual, bounds
PIECEWISE = ("pointwise",)  # whose `run` gives every piece of the result of one product to who asks for it
FACTORED = ("separable",)  # whose `bind` takes the kernels of a separable problem as they are given


BLOCKED = ("pointwise", "im2col", "winograd")  # whose kernels are right operands of products


def reads_borders(algorithm: str, problem: Problem) -> bool:
    """Whether an algorithm takes what lies beyond the border for zeros, so that these need not be written out."""
    if isinstance(problem, WindowProblem) or algorithm != "spectral":
        return False
    return problem.pad_mode == "constant" and not problem.holes and spectral.reads_borders(problem)


def kept(algorithm: str, weights: Array, problem: ConvProblem, pixels: int) -> Array:
    """What a plan keeps of a kernel made ready: packed for compiled code, or in blocks, if a product takes it so.

    The problem is that of one sample; the call has so many pixels in all.
    """
    if algorithm == "direct" and problem.fast:
        return compiled().packed_rows(weights)
    if algorithm not in BLOCKED or (algorithm == "winograd" and winograd.is_compiled(problem)):
        return weights
    if algorithm == "winograd" or FEWEST <= pixels <= FEW:
        return in_blocks(weights)
    inner = problem.taps * problem.channels_in // problem.groups
    outputs = problem.channels_out // problem.groups
    whole = pixels < FEWEST or inner > SHORT or is_middling((pixels, inner), outputs, weights)
    return weights if whole else in_blocks(weights)


def compiled_movers(algorithm: str, problem: Problem) -> tuple[str, ...]:
    """The names of the compiled movers that take part, where there are any."""
    if not problem.fast:
        return ()
    if isinstance(problem, WindowProblem):
        return ("gathered", "running")
    own = {"direct": "convolved", "depthwise": "depthwise", "im2col": "columns"}.get(algorithm)
    if algorithm == "winograd" and winograd.is_compiled(problem):
        own = "winograd"
    return ("gathered",) if own is None else ("gathered", own)


ALGORITHMS: dict[str, Algorithm] = {
    module.__name__.rpartition(".")[2]: module
    for module in (pointwise, direct, im2col, kn2row, banded, separable, depthwise, winograd, spectral, fft)
}
