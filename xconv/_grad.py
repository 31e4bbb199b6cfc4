"""Gradients: every public operation with its way back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from xconv._dtypes import dtype_kind
from xconv._errors import door, refuse, refuse_type
from xconv._gradients import RULES
from xconv._gradients._rule import Call, Forward, Rule
from xconv._namespace import Array, inspect

Pullback = Callable[[Any], tuple[Array | None, ...]]


@door
def vjp(
    function: Callable[..., Any],
    /,
    *arrays: Any,
    wrt: str | Sequence[str] | None = None,
    **options: Any,
) -> tuple[Any, Pullback]:
    """Call an operation, and get beside its result the function that carries a gradient back through it.

    ``pullback(dy)`` is the vector-Jacobian product: where a loss L depends on ``y``, and ``dy`` is dL/dy, it gives
    dL/da for every array argument a.

    Parameters
    ----------
    function : callable
        A public operation of xconv.
    *arrays : arrays, and whatever else ``function`` takes by position
        Its arguments; those that are differentiated hold floating or complex numbers.
    wrt : str or sequence of str, optional
        Names of the arguments to differentiate by, as the operation's description has them. By default all arrays that
        were given. What is not named costs nothing.
    **options
        Those of ``function``.

    Returns
    -------
    y : array, or what ``function`` gives
        Its result.
    pullback : callable
        ``pullback(dy)`` with ``dy`` in the shape and dtype of ``y`` gives a tuple: one gradient for each array argument
        in the order they were given (a ``residual`` last), in its shape and dtype; None for those not named in ``wrt``
        or given as None, and for the kernels of a separable filter. Of a pool with indices, ``dy`` belongs to the
        values; of an operation with two results it is a pair. It may be called any number of times.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.

    Notes
    -----
    With complex numbers a gradient is dL/d(real part) + i dL/d(imaginary part), so that a step against it makes a real
    loss smaller, as in PyTorch; JAX gives its conjugate. At ties the gradient of a maximum goes to the first of
    equals; where a function has a kink, it is the slope of the side that is constant, or else that of negative
    numbers. The derivations are in docs/gradients.md.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> y, pullback = xconv.vjp(xconv.max_pool, np.array([[[1.0], [1.0], [0.0], [2.0]]]), 2)
    >>> (dx,) = pullback(np.ones_like(y))
    >>> dx.ravel()
    array([1., 0., 0., 1.])
    """
    rule = RULES.get(function) if callable(function) and isinstance(function, Hashable) else None
    if rule is None:
        refuse_type("function", function, "be a public operation of xconv")
    positional = [(name, a) for name, a in zip(rule.arrays, arrays, strict=False) if name]
    named = [(name, options[name]) for name in rule.keywords if name in options]
    given = {
        name: a
        for name, a in (*positional, *named)
        if a is not None and not (name in rule.several and isinstance(a, list | tuple))
    }
    xp, _ = inspect(**given)
    wanted = _wanted(rule, given, wrt)
    for name in sorted(wanted):
        if dtype_kind(xp, given[name].dtype) not in ("float", "complex"):
            refuse_type(name, given[name], "be floating to be differentiated; leave it out of wrt")
    forward = rule.forward(Call(function, arrays, options, wanted))
    return forward.result, _pullback(forward, [name for name, _ in (*positional, *named)], given)


def _wanted(rule: Rule, given: dict[str, Array], wrt: Any) -> frozenset[str]:
    free = [name for name in given if name not in rule.fixed]
    if wrt is None:
        return frozenset(free)
    names = (wrt,) if isinstance(wrt, str) else wrt
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        refuse_type("wrt", wrt, "be the name of an argument, or several")
    if not names or any(name not in free for name in names):
        refuse("wrt", wrt, f"name arrays that were given and have a gradient: {', '.join(map(repr, free))}")
    return frozenset(names)


def _pullback(forward: Forward, order: list[str], given: dict[str, Array]) -> Pullback:
    pair = len(forward.outputs) > 1

    @door
    def pullback(dy: Any, /) -> tuple[Array | None, ...]:
        """The gradient by every array argument, from the gradient by the result."""
        if pair and (not isinstance(dy, list | tuple) or len(dy) != len(forward.outputs)):
            refuse_type("dy", dy, f"be {len(forward.outputs)} arrays, one for each result")
        cotangents = tuple(dy) if pair else (dy,)
        for y, cotangent in zip(forward.outputs, cotangents, strict=True):
            inspect(y=y, dy=cotangent)
            if tuple(cotangent.shape) != tuple(y.shape):
                refuse("dy", list(cotangent.shape), f"have the shape of the result, {list(y.shape)}")
            if cotangent.dtype != y.dtype:
                refuse_type("dy", cotangent, f"have the dtype of the result, {y.dtype}")
        found = forward.pull(*cotangents)
        return tuple(_fitted(found[name], given[name]) if name in found else None for name in order)

    return pullback


def _fitted(gradient: Array, argument: Array) -> Array:
    """A gradient in the dtype of its argument: what is real has a real gradient."""
    xp, _ = inspect(gradient=gradient)
    if dtype_kind(xp, gradient.dtype) == "complex" and dtype_kind(xp, argument.dtype) != "complex":
        gradient = xp.real(gradient)
    if tuple(gradient.shape) != tuple(argument.shape):
        message = f"a gradient of shape {gradient.shape} for an argument of shape {argument.shape}"
        raise AssertionError(message)
    return gradient if gradient.dtype == argument.dtype else xp.astype(gradient, argument.dtype)
