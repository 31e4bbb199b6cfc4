"""Gradients of the activations, by themselves and inside of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from xconv._activations import relu
from xconv._gradients._rule import Call, Forward, Rule, one
from xconv._namespace import Array, inspect


class Through(NamedTuple):
    """The way back through an activation that a layer applies."""

    from_result: bool  # whether `pull` is given the activation's result, rather than what it was applied to
    pull: Callable[[Array, Array], Array]  # (result or argument, cotangent) -> gradient


def through(activation: Any) -> Through | None:
    """The way back through what ``activation=`` stands for; None where there is none."""
    if activation is None:
        return None
    return Through(True, _relu)


def _relu(y: Array, dy: Array) -> Array:
    xp, _ = inspect(y=y, dy=dy)
    return xp.where(y <= 0, xp.zeros_like(dy), dy)


def _forward(call: Call) -> Forward:
    y = call.run()
    return one(y, lambda dy: {"x": _relu(y, dy)})


RULES: dict[Callable[..., Any], Rule] = {relu: Rule(("x",), _forward)}
