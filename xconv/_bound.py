"""Calls that are planned once, with their weights made ready, and made many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xconv._errors import door
from xconv._explain import Explanation, planned
from xconv._kernels import Kept, in_use
from xconv._namespace import Array


class BoundCall:
    """A function with everything bound but its input; `plan` makes it. ``str()`` is the explanation of its plan.

    Attributes
    ----------
    explanation : Explanation
        What is computed for the input that it was planned for, and how.
    """

    def __init__(
        self, function: Callable[..., Any], x: Any, others: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self._function = function
        self._others = others
        self._options = options
        self._kept = Kept({}, {})
        token = in_use.set(self._kept)
        try:
            self.explanation = Explanation(function.__name__, planned(function, (x, *others), options))
        finally:
            in_use.reset(token)

    @property
    def algorithm(self) -> str:
        """The algorithm for the input that it was planned for."""
        return self.explanation.algorithm

    def __call__(self, x: Array, /, *, residual: Array | None = None) -> Any:
        """The result for ``x``, which may have another shape than the one that was planned for.

        A ``residual`` is added to this result, where the function knows of any.
        """
        if residual is None and (again := self._kept.call(x)) is not None:
            return again(x)
        options = self._options if residual is None else {**self._options, "residual": residual}
        token = in_use.set(self._kept)
        try:
            return self._function(x, *self._others, **options)
        finally:
            in_use.reset(token)

    def __str__(self) -> str:
        return f"{self.explanation}\n  weights bound"

    __repr__ = __str__


@door
def plan(function: Callable[..., Any], x: Any, /, *others: Any, **options: Any) -> BoundCall:
    """Plan a call and bind its weights: what can be computed from them alone is computed now, and kept.

    Calling the result with an input gives what ``function`` would give, and needs no more memory than that result and
    the workspace. Where kernels are transformed (Winograd, Fourier) this is faster, and such algorithms are chosen more
    often. Settings of `config` count when the call is made; what is bound for one of them is made anew for another.

    Parameters
    ----------
    function : callable
        A convolution, a transposed convolution, a filter, a pool over windows, `unfold`, `fold` or `dense`.
    x : array, or shape
        The input that is expected; of a shape, in the dtype of the weights. Other shapes can be given later; for the
        last eight, what has been made ready is kept.
    *others, **options
        Weights, bias and options of ``function``. They must not be changed afterwards.

    Returns
    -------
    BoundCall
        Call it with an input; printed, it explains itself.

    Raises
    ------
    ValueError, TypeError
        As the function itself would; and if it is not one that is planned.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> x, w = np.ones((1, 8, 8, 4), "float32"), np.ones((1, 1, 4, 6), "float32")
    >>> layer = xconv.plan(xconv.conv, x.shape, w, stride=2)
    >>> layer(x).shape
    (1, 4, 4, 6)
    """
    return BoundCall(function, x, others, options)
