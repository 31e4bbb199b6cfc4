"""Algorithms measured instead of estimated: the fastest for one problem on this machine, and remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

from xconv._bound import plan
from xconv._config import settings
from xconv._conv import conv, conv1d, conv2d, conv3d, conv_general, depthwise_conv
from xconv._errors import door, refuse, refuse_type
from xconv._explain import planned
from xconv._geometry import ConvProblem
from xconv._namespace import Array, Traits, inspect
from xconv._plan import forget_plans, plan_conv
from xconv._race import Call, Judge, Line, largest, race, wait
from xconv._remembered import remember
from xconv._transposed import conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d

_TUNED: tuple[Callable[..., Array], ...] = (
    *(conv, conv1d, conv2d, conv3d, conv_general, depthwise_conv),
    *(conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d),
)


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured of one algorithm, in milliseconds."""

    algorithm: str
    call: float
    planned: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """What `tune` found. ``str()`` is the text.

    Attributes
    ----------
    ranking : tuple of Timing
        Milliseconds of each algorithm, ``call`` for a call of the function and ``planned`` for one of a plan. The
        fastest to call comes first.
    default, default_planned : str
        What the planner would have taken by its estimate.
    """

    function: str
    default: str
    default_planned: str
    ranking: tuple[Timing, ...]

    @property
    def algorithm(self) -> str:
        """The fastest for a call of the function."""
        return self.ranking[0].algorithm

    @property
    def algorithm_planned(self) -> str:
        """The fastest for a call of a plan, which has the kernel bound."""
        return min(self.ranking, key=lambda timing: timing.planned).algorithm

    @property
    def speedup(self) -> float:
        """Time of the default over that of the fastest, for a call of the function."""
        return self._of(self.default).call / self.ranking[0].call

    @property
    def speedup_planned(self) -> float:
        """Time of the default over that of the fastest, for a call of a plan."""
        return self._of(self.default_planned).planned / self._of(self.algorithm_planned).planned

    def _of(self, algorithm: str) -> Timing:
        return next(timing for timing in self.ranking if timing.algorithm == algorithm)

    def __str__(self) -> str:
        width = max(len("algorithm"), *(len(timing.algorithm) for timing in self.ranking))
        lines = [f"{self.function}: {self.algorithm}, and with a plan {self.algorithm_planned}"]
        lines.append(f"  {'algorithm':<{width}}  {'call':>10}  {'':>7}  {'with plan':>10}")
        one, two = self._of(self.default).call, self._of(self.default_planned).planned
        for t in self.ranking:
            times = (
                f"{t.call:>7.3f} ms  {one / t.call:>6.2f}x  {t.planned:>7.3f} ms  {two / t.planned:>6.2f}x"
            )
            lines.append(f"  {t.algorithm:<{width}}  {times}")
        lines.append(
            f"  1.00x is what the estimate chose: {self.default}, and with a plan {self.default_planned}"
        )
        return "\n".join(lines)

    __repr__ = __str__


@door
def tune(
    function: Callable[..., Any],
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    progress: bool | None = None,
    **options: Any,
) -> Tuning:
    """Measure every algorithm that can do a call, and remember the fastest for calls like it.

    From then on ``algorithm="auto"`` takes it for the same problem: the same shapes, dtypes and options, on the same
    machine, in this process and in later ones. Calls of ``plan(...)`` are measured and remembered separately.

    Parameters
    ----------
    function : callable
        A convolution or a transposed convolution, but not `separable_conv`, which is two.
    x : array (N, *spatial, C), or as ``layout`` says
        Input. Its values are not looked at, but they have to be there: no chunked array, and no traced one.
    w : array (*kernel, C / groups, O), or as ``layout`` says
        Kernel.
    b : array (O,), optional
        Bias.
    progress : bool, optional
        Whether to say on the error stream what is being measured. The default is to do so on a terminal only.
    **options
        Those of the function, without ``algorithm``.

    Returns
    -------
    Tuning
        Prints as a table; ``.algorithm`` and ``.algorithm_planned`` are the fastest, ``.speedup`` and
        ``.speedup_planned`` say how much they gain over the planner's estimate.

    Raises
    ------
    ValueError, TypeError
        As the function itself would; if it has no choice of algorithm; if there is nothing to measure.

    Notes
    -----
    The memory is a file in the user's cache folder; `show_config` says where. It is never needed: a file that is lost
    or damaged only means that the planner estimates again.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> x, w = np.ones((1, 9, 9, 5), "float32"), np.ones((2, 2, 5, 3), "float32")
    >>> tuning = xconv.tune(xconv.conv, x, w)
    >>> xconv.explain(xconv.conv, x, w).algorithm == tuning.algorithm
    True
    """
    if function not in _TUNED:
        refuse("function", function, f"be one of {', '.join(f.__name__ for f in _TUNED)}")
    if "algorithm" in options:
        refuse("algorithm", options["algorithm"], "be left out, as it is what is looked for")
    arrays = (x, w) if b is None else (x, w, b)
    if isinstance(x, tuple | list):
        refuse_type("x", x, "be an array, not a shape: real calls are measured")
    found = planned(function, arrays, options)
    problem, traits = found.problem, found.traits
    assert isinstance(problem, ConvProblem)
    if traits.chunked:
        refuse_type("x", x, "be in memory as a whole: tune for one of its chunks, with its halo, instead")
    if not problem.flops or 0 in x.shape:
        refuse("x", x, "give a result that takes some work")
    _check_values(x)
    xp, _ = inspect(x=x, w=w)
    terms = problem.taps * (problem.channels_in // problem.groups)
    judge = Judge(xp, sqrt(terms) * largest(x, xp) * largest(w, xp))
    (default, call), (default_planned, with_plan) = (
        _measured(function, arrays, options, problem, traits, judge, progress=progress, bound=bound)
        for bound in (False, True)
    )
    for times, bound in ((call, False), (with_plan, True)):
        winner = min(times, key=times.__getitem__)
        remember(problem, traits, bound=bound, algorithm=winner, seconds=times[winner])
    forget_plans()
    names = sorted(call, key=call.__getitem__)
    ranking = tuple(Timing(name, 1e3 * call[name], 1e3 * with_plan[name]) for name in names)
    return Tuning(function.__name__, default, default_planned, ranking)


def _measured(
    function: Callable[..., Array],
    arrays: tuple[Array, ...],
    options: dict[str, Any],
    problem: ConvProblem,
    traits: Traits,
    judge: Judge,
    *,
    progress: bool | None,
    bound: bool,
) -> tuple[str, dict[str, float]]:
    """The algorithm that the estimate prefers, and seconds of a call for each."""
    candidates = plan_conv(problem, traits, settings(), "auto", bound=bound).candidates
    estimates = {bid.algorithm: bid.seconds for bid in sorted(candidates, key=lambda bid: bid.seconds)}
    calls: dict[str, Call] = {}
    for name in estimates:
        chosen = {**options, "algorithm": name}
        calls[name] = (
            partial(plan(function, *arrays, **chosen), arrays[0])
            if bound
            else partial(function, *arrays, **chosen)
        )
    line = Line(f"tune {function.__name__}{', with a plan' if bound else ''}: ", wanted=progress)
    try:
        return next(iter(estimates)), race(calls, estimates, judge, line.show)
    finally:
        line.clear()


def _check_values(x: Array) -> None:
    try:
        wait(x)
    except (TypeError, ValueError, RuntimeError):
        refuse_type("x", x, "hold values: what is being traced cannot be measured")
