"""Calls that come again: their scores, and the memory that these share.

A call is done as ever the first time. The second time shows how much memory its tiles need at most, the third time it
is written down, and from then on it is played. The scores of all calls share the memory of their lanes, so one of them
is played at a time; a call that comes meanwhile is done as ever.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from xconv import _scratch
from xconv._score import Score, Unwritten, are_apart, place_of, play, without_gaps
from xconv._threads import run_all
from xconv._written import Written, writing

Plain = np.ndarray[Any, Any]
Work = Callable[[int, Any], None]

MANY = 256  # calls that are remembered
LEAST = 2**23  # bytes, without which nothing is written down
SEEN, SIZED = "seen", "sized"  # of a call that was there once, and twice,
REFUSED = "refused"  # and of one that cannot be written down


def repeated(key: Hashable, values: Any, lanes: int, workspace: int | None, work: Work) -> bool:
    """Whether ``work(lane, values)`` has been done for every lane, by writing or playing its score.

    The arrays among the ``values``, nested in tuples and dictionaries, are all that may change from call to call while
    the key stays the same. The lanes have a thread each.
    """
    most = 2 * _scratch.KEEP if workspace is None else min(workspace // 2, 2 * _scratch.KEEP)
    arrays = list(_arrays(values))
    wholes = [whole for array in arrays if (whole := without_gaps(array)) is not None]
    if most < LEAST or len(wholes) < len(arrays):
        return False
    places = tuple(place_of(array, whole) for array, whole in zip(arrays, wholes, strict=True))
    return _stage.done((key, _form(values), places), values, wholes, lanes, most, work)


class _Stage:
    """The scores of calls, and the memory of their lanes."""

    def __init__(self) -> None:
        self.taken = Lock()
        self.calls: OrderedDict[Hashable, list[Score] | str] = OrderedDict()
        self.lanes: list[tuple[_scratch.Arrays, list[Plain]]] = []  # for each purpose, and for what is made

    def done(
        self, call: Hashable, values: Any, wholes: list[Plain], lanes: int, most: int, work: Work
    ) -> bool:
        if not self.taken.acquire(blocking=False):
            return False
        try:
            found = self.calls.get(call)
            if found is None:
                self.shrink(most // 2)  # a call of another kind needs memory as well
                self.remember(call, SEEN)
            elif found in (SEEN, SIZED) and are_apart(wholes):
                return self.write(call, values, wholes, lanes, most, work, kept=found is SIZED)
            elif isinstance(found, list):
                self.calls.move_to_end(call)
                run_all((partial(play, score.played(wholes)) for score in found), lanes, nullcontext)
                return True
            return False
        finally:
            self.taken.release()

    def remember(self, call: Hashable, what: list[Score] | str) -> None:
        self.calls[call] = what
        self.calls.move_to_end(call)
        while len(self.calls) > MANY:
            self.calls.popitem(last=False)

    def write(
        self,
        call: Hashable,
        values: Any,
        wholes: list[Plain],
        lanes: int,
        most: int,
        work: Work,
        *,
        kept: bool,
    ) -> bool:
        """Scores that are kept, or only have their lanes' memory made as large as it has to be."""
        self.lanes += [({}, []) for _ in range(lanes - len(self.lanes))]
        scores = [Score(wholes, self.lanes[lane][1], most // lanes, kept=kept) for lane in range(lanes)]
        try:
            run_all((partial(self.lane, *one, values, work) for one in enumerate(scores)), lanes, nullcontext)
            done = True
        except Unwritten:
            done = False
        self.remember(call, REFUSED if not done else scores if kept else SIZED)
        self.shrink(most)
        return done

    def lane(self, lane: int, score: Score, values: Any, work: Work) -> None:
        with writing(score), _scratch.lent(self.lanes[lane][0]):
            work(lane, _written(values))

    def shrink(self, most: int) -> None:
        """Forget scores that hold more memory than that in all; those to come share what is largest now."""
        if (
            _bytes(score for found in self.calls.values() if isinstance(found, list) for score in found)
            > most
        ):
            self.calls = OrderedDict((call, what) for call, what in self.calls.items() if what is REFUSED)
        if sum(piece.nbytes for kept, made in self.lanes for piece in (*kept.values(), *made)) > most:
            self.lanes = []


def _bytes(scores: Iterable[Score]) -> int:
    own = {ends: memory for score in scores for ends, memory in score.own.items()}
    return sum(memory.nbytes for memory in own.values())


def _arrays(value: Any) -> Iterator[Plain]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _arrays(part)


def _form(value: Any) -> Hashable:
    """All but the arrays."""
    if isinstance(value, np.ndarray):
        return ...
    if isinstance(value, dict):
        return tuple((name, _form(part)) for name, part in value.items())
    return tuple(map(_form, value)) if isinstance(value, tuple) else value


def _written(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.view(Written)
    if isinstance(value, dict):
        return {name: _written(part) for name, part in value.items()}
    if isinstance(value, tuple):
        parts = [_written(part) for part in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)
    return value


_stage = _Stage()


def _reset() -> None:
    """In a child process, where nobody gives back what was taken before the fork."""
    global _stage
    _stage = _Stage()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
