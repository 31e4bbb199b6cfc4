"""Plans made visible: which algorithm, why not the others, how it is tiled, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from xconv._adaptive import adaptive_avg_pool, adaptive_max_pool
from xconv._algorithms import compiled_movers
from xconv._conv import conv, conv1d, conv2d, conv3d, conv_general, depthwise_conv
from xconv._dense import dense
from xconv._engine import Planned, only_plan
from xconv._errors import door, refuse
from xconv._filter import convolve, correlate
from xconv._geometry import ConvProblem
from xconv._namespace import Array, unfilled
from xconv._patches import fold, unfold
from xconv._phases import phases
from xconv._plan import Candidate, Plan
from xconv._pool import (
    avg_pool,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    lp_pool,
    max_pool,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from xconv._products import LARGE
from xconv._separable import separable_conv
from xconv._transposed import conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d
from xconv._windows import reduce_window

PLANNED: tuple[Callable[..., Any], ...] = (
    *(conv, conv1d, conv2d, conv3d, conv_general, depthwise_conv, separable_conv),
    *(conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d, unfold, fold),
    *(max_pool, max_pool1d, max_pool2d, max_pool3d, avg_pool, avg_pool1d, avg_pool2d, avg_pool3d),
    *(lp_pool, adaptive_max_pool, adaptive_avg_pool, reduce_window, convolve, correlate, dense),
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be computed by one call, and how. ``str()`` is the text.

    Attributes
    ----------
    algorithm : str
        The algorithm that would run.
    plan : Plan
        Everything the planner decided: problem, tiles, ranking, refusals.
    """

    call: str
    plan: Plan

    @property
    def algorithm(self) -> str:
        """The algorithm that would run."""
        return self.plan.algorithm

    def __str__(self) -> str:
        return "\n".join(_lines(self.call, self.plan))

    __repr__ = __str__


@door
def explain(function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Explanation:
    """Plan a call without running it.

    Parameters
    ----------
    function : callable
        A convolution, a transposed convolution, a filter, a pool over windows, `unfold`, `fold` or `dense`.
    *arguments, **options
        What it would be called with. The first may be a shape instead of an array; its dtype is then that of the next.

    Returns
    -------
    Explanation
        Prints as text; ``.algorithm`` is the name of the algorithm.

    Raises
    ------
    ValueError, TypeError
        As the function itself would; and if it is not one that is planned.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> x, w = np.ones((1, 8, 8, 4), "float32"), np.ones((1, 1, 4, 6), "float32")
    >>> xconv.explain(xconv.conv, x, w).algorithm
    'pointwise'
    """
    return Explanation(function.__name__, planned(function, arguments, options))


def planned(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Plan:
    """The plan of one call, which is not run."""
    if function not in PLANNED:
        refuse("function", function, f"be one of {', '.join(f.__name__ for f in PLANNED)}")
    x, *others = arguments or (None,)
    if isinstance(x, tuple | list):
        x = stand_in(x, others)
    try:
        with only_plan():
            function(x, *others, **options)
    except Planned as found:
        return found.plan
    raise AssertionError(f"{function.__name__} was not planned")


def stand_in(shape: Sequence[Any], others: Sequence[Any]) -> Array:
    """An array that has a shape and no memory to speak of, of the library and dtype of the first array beside it."""
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        refuse("x", shape, "be an array, or a shape: integers that are not negative")
    flat = [part for other in others for part in (other if isinstance(other, tuple | list) else (other,))]
    like = next((other for other in flat if hasattr(other, "dtype")), None)
    if like is None:
        refuse("x", shape, "be an array where no other argument is one")
    return unfilled(tuple(shape), like)


def _lines(name: str, plan: Plan) -> list[str]:
    problem = plan.problem
    sizes = tuple(axis.size for axis in problem.axes)
    window = tuple(axis.window for axis in problem.axes)
    if isinstance(problem, ConvProblem):
        x = (problem.batch, *sizes, problem.channels_in)
        w = (*window, problem.channels_in // problem.groups, problem.channels_out)
        y = (problem.batch, *problem.outputs, problem.channels_out)
        flops = sum(phase.problem.flops for phase in phases(problem).values())
        lines = [
            f"{name}: x {x}, w {w} -> {y}, channels last",
            f"  {flops / 1e6:,.2f} MFLOP in {problem.kind}{problem.itemsize * 8}, groups {problem.groups}",
        ]
    else:
        lines = [
            f"{name}: x {(problem.batch, *sizes, problem.channels)}, window {window} -> "
            f"{(problem.batch, *problem.outputs, problem.channels)}, channels last"
        ]
    for i, a in enumerate(problem.axes):
        lines.append(
            f"  axis {i}: {a.size} + pads ({a.low}, {a.high}), stride {a.stride}, dilation {a.dilation}, "
            f"input dilation {a.input_dilation} -> {a.output}"
        )
    if isinstance(problem, ConvProblem) and problem.beside > 1:
        lines.append(
            f"  of which {problem.beside} neighbours on the last axis stand side by side in the channels"
        )
    lines.append(f"  on {plan.traits.namespace} arrays, workspace {_size(plan.workspace)}")
    if movers := compiled_movers(plan.algorithm, problem):
        lines.append(f"  compiled: {', '.join(movers)}")
    if plan.traits.chunked:
        lines.append(
            "  each chunk, with its halo, is planned again when it is computed; as one piece it would be:"
        )
    if plan.candidates:
        lines.append(
            f"  {'algorithm':<12} {'estimate':>10}   {'tiles':>5}   {'tile':<20} {'memory':>9}   {'threads':<7}   moved"
        )
    for bid in plan.candidates:
        mark = ">" if bid.algorithm == plan.algorithm else " "
        tile = " x ".join(map(str, bid.extents))
        lines.append(
            f"{mark} {bid.algorithm:<12} {bid.seconds * 1e3:>7.3f} ms   {bid.tiles:>5}   {tile:<20} "
            f"{_size(bid.cost.workspace):>9}   {_threads(bid, plan):<7}   {_size(bid.cost.bytes)}"
        )
    if plan.remembered:
        lines.append(f"  tune() found {plan.algorithm} to be the fastest here")
    lines.extend(f"  {algorithm} cannot: {reason}" for algorithm, reason in plan.refusals)
    if not plan.candidates:
        lines.append(f"  tiles: {plan.tiles} of {' x '.join(map(str, plan.extents))} (batch x outputs)")
    return lines


def _threads(bid: Candidate, plan: Plan) -> str:
    """What is shared out among threads of our own: tiles, large matrix products inside of them, or nothing."""
    if bid.threaded:
        return "tiles"
    return "product" if plan.traits.threads and bid.cost.flops > 2 * LARGE * bid.tiles else "-"


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.1f} GiB"
