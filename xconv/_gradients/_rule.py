"""What a rule is: the call it follows, and the way back from what the call gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from xconv._namespace import Array

Gradients = Mapping[str, Array]  # by the name of the argument, of those that are wanted


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a public operation, as the caller wrote it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    wanted: frozenset[str]  # names of the arrays whose gradient is asked for

    def arg(self, position: int) -> Any:
        """A positional argument, None where it was left out."""
        return self.args[position] if position < len(self.args) else None

    def run(self) -> Any:
        """What the call gives."""
        return self.function(*self.args, **self.options)


class Forward(NamedTuple):
    """What a call gave, and the way back from it."""

    result: Any
    pull: Callable[..., Gradients]  # from one cotangent for each of the outputs, in their shapes and dtypes
    outputs: tuple[Array, ...]  # the parts of the result that have a cotangent


class Rule(NamedTuple):
    """How one operation is differentiated.

    A gradient may be of a wider dtype than its argument; it is brought into the argument's own at the end.
    """

    arrays: tuple[str | None, ...]  # the positional arguments: names of arrays, None for what is no array
    forward: Callable[[Call], Forward]
    fixed: tuple[str, ...] = ()  # arrays that have no gradient
    keywords: tuple[str, ...] = ()  # arrays among the options; their gradients come last
    several: tuple[str, ...] = ()  # arguments that may be a tuple of arrays instead, which has no gradient


def one(y: Array, pull: Callable[[Array], Gradients]) -> Forward:
    """The usual case: a call that gives one array."""
    return Forward(y, pull, (y,))
