"""Kernels as their algorithms want them, made now or kept by a plan."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import reduce
from threading import Lock
from typing import Any, NamedTuple

from xconv._algorithms import ALGORITHMS, FACTORED, FINISHING, PIECEWISE, Algorithm, kept
from xconv._config import settings
from xconv._geometry import ConvProblem, materialised
from xconv._namespace import Array, DType, Namespace, NumPyArray, is_traced
from xconv._phases import Phase, phases
from xconv._plan import Plan, times_forgotten

KERNELS = 8  # that are kept
_keeping = Lock()


class Kernel(NamedTuple):
    """A kernel as an algorithm wants it; of an input with holes, one for each phase, by its first taps."""

    room: Algorithm
    weights: Any
    finishes: bool = False  # whether its run takes what is to be done last,
    biases: bool = False  # or of that a bias,
    pieces: bool = False  # or is told what to do with each piece of the result


Kernels = dict[Any, Kernel]  # by algorithm and problem
Call = Callable[[Array], Any]  # that only lacks its input


class Kept(NamedTuple):
    """What a plan keeps."""

    kernels: Kernels
    calls: dict[Any, Call]  # by `_kind` of an input of NumPy

    def call(self, x: Array) -> Call | None:
        """The call for an input like this one, if there has been one."""
        return self.calls.get(_kind(x)) if type(x) is NumPyArray else None

    def keep(self, x: Array, call: Call) -> None:
        """Have it for the next input like this one."""
        if type(x) is NumPyArray:
            with _keeping:
                while len(self.calls) >= KERNELS:
                    self.calls.pop(next(iter(self.calls)))
                self.calls[_kind(x)] = call


def _kind(x: Array) -> Any:
    """All that the way to a result depends on, beside what a plan holds."""
    return x.shape, x.dtype, settings(), times_forgotten()


in_use: ContextVar[Kept | None] = ContextVar("xconv_kept", default=None)  # by the call that a plan makes


def bound_kernel(plan: Plan, w: Any, dtype: DType, kernels: Kernels | None, xp: Namespace) -> Kernel:
    """The kernel made ready for a plan: now, or found among those made before."""
    problem: Any = plan.problem
    room = ALGORITHMS[plan.algorithm]
    key = (plan.algorithm, plan.core, dtype)  # which says as well whether compiled code does it
    if kernels is not None and is_traced(w):
        kernels = None  # what is made of it is of this call only
    if kernels is not None and (found := kernels.get(key)) is not None:
        return found
    if problem.separable:
        w = tuple(None if k is None else xp.astype(k, dtype, copy=False) for k in w)
        w = w if plan.algorithm in FACTORED else multiplied(w, problem, xp)
    else:
        if problem.beside > 1:  # (*k, I, phases, O)
            w = xp.reshape(w, (*w.shape[:-2], -1))
        if w.dtype != dtype:
            w = xp.astype(w, dtype)

    def made(w: Any, core: ConvProblem) -> Any:
        weights = room.bind(w, core, xp)
        return weights if kernels is None else kept(plan.algorithm, weights, core, problem.pixels)

    if problem.holes:
        weights: Any = {
            first_taps(phase): made(_of_phase(w, phase), materialised(phase.problem))
            for phase in phases(problem).values()
        }
    else:
        weights = made(w, plan.core)
    finishes = problem.fast and plan.algorithm in FINISHING
    pieces = plan.algorithm in PIECEWISE and not (problem.fast or problem.holes) and plan.traits.threads
    kernel = Kernel(room, weights, finishes, plan.biases, pieces)
    if kernels is not None and not is_traced(kernel.weights):
        with _keeping:
            while len(kernels) >= KERNELS:
                kernels.pop(next(iter(kernels)))
            kernels[key] = kernel
    return kernel


def multiplied(factors: tuple[Array | None, ...], problem: ConvProblem, xp: Namespace) -> Array:
    """The kernel (*k, 1, 1) whose factors (k,) stand along the axes of a problem, or None."""
    rank = len(factors)
    shaped = [
        xp.reshape(k, (*(1,) * i, -1, *(1,) * (rank - 1 - i))) for i, k in enumerate(factors) if k is not None
    ]
    return xp.reshape(reduce(xp.multiply, shaped), (*problem.window, 1, 1))


def _of_phase(w: Any, phase: Phase) -> Any:
    """The taps that a phase meets, of a kernel or of its factors."""
    if not isinstance(w, tuple):
        return w[(*phase.kernel, ...)]
    return tuple(None if k is None else k[part] for k, part in zip(w, phase.kernel, strict=True))


def first_taps(phase: Phase) -> tuple[int, ...]:
    """Where the part of the kernel begins that a phase meets: phases that begin alike meet the same."""
    return tuple(part.start for part in phase.kernel)
