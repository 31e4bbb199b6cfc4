"""What NumPy did for a call, written down, to be done again with other arrays of the same shapes.

Between two operations of NumPy stands Python, which makes views and works out shapes. One thread at a time can do that,
and one that has waited for its turn wakes up late. A score has none of it: whoever plays it goes from one operation
straight to the next.

Arrays are written down as places in memory: those of the caller as so many bytes behind where an array begins, all
others as themselves, since they are only there for the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from xconv._address import Plain, address


class Unwritten(Exception):
    """What was done cannot be written down."""


class Step(NamedTuple):
    """A function of NumPy, and what it is given."""

    function: Callable[..., Any]
    given: tuple[Any, ...]
    named: dict[str, Any]


class Part(NamedTuple):
    """Where a view begins in one of the caller's arrays, and all else that makes it."""

    number: int  # of the array
    byte: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any


class _Seat(NamedTuple):
    """Stands in a step for the view of this number."""

    number: int


class Score:
    """Steps, one after the other, that begin with ``arrays``: those that others take the place of.

    What is made on the way stands in ``memory``, to be used by one tile after the other. It may not be more than so
    many bytes in all. A score that is not ``kept`` has no steps: it shows how much memory one has that is.
    """

    def __init__(self, arrays: Sequence[Plain], memory: list[Plain], most: int, *, kept: bool = True) -> None:
        self.ends = [_ends(array) for array in arrays]
        self.memory, self.most, self.kept = memory, most, kept
        self.made = 0  # of that memory, since `again`
        self.parts: dict[Part, int] = {}
        self.own: dict[tuple[int, int], Plain] = {}  # all that the score needs, by where it begins and ends
        self.steps: list[tuple[Step, bool]] = []  # and whether there are seats in it
        self.seats = 0

    def write(self, function: Callable[..., Any], *given: Any, **named: Any) -> None:
        """One step more."""
        if not self.kept:
            return
        before = self.seats
        step = Step(function, *self._seated((given, named)))
        self.steps.append((step, self.seats > before))

    def keep(self, array: Plain) -> None:
        """An array that is there for the score alone, or never changes."""
        if not self.kept:
            return
        memory = _memory(array)
        self.own[_ends(memory)] = memory
        if sum(last - first for first, last in self.own) > self.most:
            raise Unwritten

    def room(self, like: Plain) -> Plain:
        """A copy of what has been made on the way, which nobody needs after the next `again`."""
        if not like.flags.c_contiguous:
            self.keep(like)
            return like
        if self.made == len(self.memory):
            self.memory.append(np.empty(0, np.uint8))
        if len(self.memory[self.made]) < like.nbytes:
            self.memory[self.made] = np.empty(like.nbytes, np.uint8)
        found = self.memory[self.made]
        self.keep(found)
        self.made += 1
        place = found[: like.nbytes].view(like.dtype).reshape(like.shape)
        place[...] = like
        return place

    def _seated(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self._seat(value)
        if isinstance(value, tuple | list):
            return type(value)(map(self._seated, value))
        if isinstance(value, dict):
            return {name: self._seated(part) for name, part in value.items()}
        return value

    def _seat(self, array: Plain) -> Any:
        if not array.size:
            return np.empty(array.shape, array.dtype)
        begin = address(array)
        for number, (first, last) in enumerate(self.ends):
            if first <= begin < last:
                part = Part(number, begin - first, array.shape, array.strides, array.dtype)
                self.seats += 1
                return _Seat(self.parts.setdefault(part, len(self.parts)))
        if any(first <= begin < last for first, last in self.own):
            return array
        raise Unwritten  # nobody has told of that array: it may be another one next time

    def played(self, arrays: Sequence[Plain]) -> list[Step]:
        """The steps with these arrays, which have no gaps, in the places of the first ones."""
        views = [
            np.ndarray(shape, dtype, arrays[number], byte, strides)
            for number, byte, shape, strides, dtype in self.parts
        ]
        return [
            Step(step.function, *_filled((step.given, step.named), views)) if seats else step
            for step, seats in self.steps
        ]


def _filled(value: Any, views: list[Plain]) -> Any:
    if type(value) is _Seat:
        return views[value.number]
    if type(value) is tuple:
        return tuple([_filled(part, views) for part in value])
    if type(value) is dict:
        return {name: _filled(part, views) for name, part in value.items()} if value else value
    return [_filled(part, views) for part in value] if type(value) is list else value


def play(steps: list[Step]) -> None:
    """One after the other."""
    for function, given, named in steps:
        function(*given, **named)


def _memory(array: Plain) -> Plain:
    """The array that an array is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _ends(array: Plain) -> tuple[int, int]:
    return address(array), address(array) + array.nbytes


def without_gaps(array: Plain) -> Plain | None:
    """The array, or one that it is a view of, whose elements stand in raster order without gaps; None if none do."""
    found: Any = array
    while isinstance(found, np.ndarray):
        if found.flags.c_contiguous:
            return found
        found = found.base
    return None


def place_of(array: Plain, whole: Plain) -> tuple[Any, ...]:
    """All that a score takes for granted of an array that lies in a whole one."""
    byte = 0 if array is whole else address(array) - address(whole)
    return byte, whole.nbytes, array.shape, array.strides, array.dtype


def are_apart(arrays: Sequence[Plain]) -> bool:
    """Whether no two of these arrays, which have no gaps, share memory."""
    ends = sorted(_ends(array) for array in arrays if array.size)
    return all(first[1] <= second[0] for first, second in pairwise(ends))
