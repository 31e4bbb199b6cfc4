"""Errors a user can act on: the argument, the value, the rule, and the whole call they wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Refusal(Exception):
    """A user's mistake found below the outer door, which turns it into ``error`` with the call added."""

    def __init__(self, error: type[Exception], message: str) -> None:
        super().__init__(message)
        self.error = error


def refuse(argument: str, value: object, rule: str) -> NoReturn:
    """Raise: the value of ``argument`` breaks ``rule``."""
    raise Refusal(ValueError, f"{argument} must {rule}; got {argument}={_short(value)}")


def refuse_type(argument: str, value: object, rule: str) -> NoReturn:
    """Raise: what was given as ``argument`` is of the wrong kind."""
    raise Refusal(TypeError, f"{argument} must {rule}; got {argument}={_short(value)}")


@contextmanager
def calling(**names: str) -> Iterator[None]:
    """Inside, what the house below calls by one name is refused by the name that the caller knows it by."""
    try:
        yield
    except Refusal as refusal:
        text = str(refusal)
        for inner, outer in names.items():
            text = text.replace(f"{inner} must ", f"{outer} must ", 1).replace(
                f"got {inner}=", f"got {outer}=", 1
            )
        raise Refusal(refusal.error, text) from None


def door(function: Callable[P, R]) -> Callable[P, R]:
    """Make ``function`` an outer door: a refusal below leaves it as ValueError or TypeError, with the call."""

    @wraps(function)
    def entry(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except Refusal as refusal:
            call = f"{function.__name__}({_arguments(function, args, options)})"
            error = refusal.error(f"{refusal}\n  in {call}")
        raise error

    return entry


def _arguments(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> str:
    parameters = signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    names += [""] * (len(args) - len(names))
    parts = [
        f"{names[i]}: {_short(a)}".removeprefix(": ")
        if isinstance(getattr(a, "shape", None), tuple)
        else _short(a)
        for i, a in enumerate(args)
    ]
    while parts and parts[-1] == "None":
        parts.pop()
    return ", ".join(parts + [f"{name}={_short(value)}" for name, value in options.items()])


def _short(value: object) -> str:
    if callable(value):  # which a dtype is, too
        return str(getattr(value, "__name__", value))
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        return f"{str(dtype).rpartition('.')[2]}{list(shape)}"
    if isinstance(value, list | tuple) and any(hasattr(item, "dtype") for item in value):
        return f"({', '.join(map(_short, value))})"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
