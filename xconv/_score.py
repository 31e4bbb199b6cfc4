"""What NumPy does for a call, written down while it is done, to be done again with other arrays of the same shapes.

Between two operations of NumPy stands Python, which makes views and works out shapes. One thread at a time can do that,
and one that has waited for its turn wakes up late. A score has none of it: whoever plays it goes from one operation
straight to the next.

Arrays are written down as places in memory: those of the caller as so many bytes behind where an array begins, all
others as themselves, since they are only there for the score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from threading import local
from typing import Any, NamedTuple

import numpy as np

Plain = np.ndarray[Any, Any]


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
        address = _address(array)
        for number, (first, last) in enumerate(self.ends):
            if first <= address < last:
                part = Part(number, address - first, array.shape, array.strides, array.dtype)
                self.seats += 1
                return _Seat(self.parts.setdefault(part, len(self.parts)))
        if any(first <= address < last for first, last in self.own):
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


class _Here(local):
    score: Score | None = None


_here = _Here()


@contextmanager
def writing(score: Score) -> Iterator[None]:
    """Inside, what this thread does with `Written` arrays is written down as well as done."""
    before, _here.score = _here.score, score
    try:
        yield
    finally:
        _here.score = before


def _score() -> Score:
    if _here.score is None:
        raise Unwritten
    return _here.score


def again() -> None:
    """What this thread has made on the way, if it writes a score, is done with."""
    if _here.score is not None:
        _here.score.made = 0


def kindred(y: Plain, like: Any) -> Any:
    """Memory that is kept, or that never changes, as an array of the kind of another one."""
    if type(like) is not Written:
        return y
    _score().keep(y)
    return y.view(Written)


def fresh(y: Plain, like: Any, fill: complex | None = None) -> Any:
    """A new array as one of the kind of another one."""
    if type(like) is not Written:
        return y
    y = _score().room(y).view(Written)
    if fill is not None:
        y[...] = fill
    return y


class Written(np.ndarray[Any, Any]):
    """An array of NumPy with which nothing is done that is not written down: what cannot be is refused."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        """Anything that NumPy does element by element, products of matrices, and reductions."""
        if method not in ("__call__", "reduce"):
            raise Unwritten
        function = ufunc if method == "__call__" else ufunc.reduce
        given, named = _plain(inputs), _plain(options)
        if out:
            named["out"] = _plain(out)[0] if len(out) == 1 else _plain(out)
            function(*given, **named)
            _score().write(function, *given, **named)
            return out[0] if len(out) == 1 else out
        y = function(*given, **named)
        if not isinstance(y, np.ndarray):
            raise Unwritten
        return _made(y, function, given, named)

    def __array_function__(self, function: Any, types: Any, given: Any, options: Any) -> Any:
        """The other functions of NumPy: a view is a view, and new arrays are made once more."""
        if function is np.clip:  # it is made of one that works element by element
            return super().__array_function__(function, types, given, options)
        plain, named = _plain(given), _plain(options)
        y = function(*plain, **named)
        if function in _ASKING:
            return y
        if named.get("out") is not None:
            _score().write(function, *plain, **named)
            return options["out"]
        if function is np.reshape:
            return _reshaped(plain[0], y)
        sources = [*_arrays(plain), *_arrays(named)]
        if function not in _SEEING and isinstance(y, np.ndarray) and _is_view(y, sources):
            raise Unwritten  # of all that it might be, it may be an array that has been written to
        return _seen(y, sources, function, plain, named)

    def __getitem__(self, key: Any) -> Any:
        """A view."""
        own, key = _plain(self), _plain(key)
        return _seen(own[key], [own], np.ndarray.__getitem__, (own, key), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        """A copy to a view."""
        own, value = _plain(self), _plain(value)
        place = own[_plain(key)]
        if not isinstance(place, np.ndarray) or (place.size and not np.may_share_memory(place, own)):
            raise Unwritten
        place[...] = value
        _score().write(np.ndarray.__setitem__, place, ..., value)

    def reshape(self, *shape: Any, **options: Any) -> Any:
        """A view, or a copy where there is none."""
        own = _plain(self)
        return _reshaped(own, own.reshape(*shape, **options))

    def copy(self, order: Any = "C") -> Any:
        """A copy."""
        own = _plain(self)
        return _seen(own.copy(order), [own], np.ndarray.copy, (own, order), {})

    def astype(self, dtype: Any, **options: Any) -> Any:  # type: ignore[override]
        """A copy, or the same."""
        own = _plain(self)
        return _seen(own.astype(dtype, **options), [own], np.ndarray.astype, (own, dtype), options)


def _refused(self: Any, *given: Any, **options: Any) -> Any:
    raise Unwritten


# Views, and what is made of functions that are written down. Everything else that an array can do by itself is refused.
_VIEWS = (
    "transpose",
    "swapaxes",
    "squeeze",
    "view",
    "setflags",
    "sum",
    "prod",
    "max",
    "min",
    "any",
    "all",
    "mean",
    "clip",
)
_CONTENT = ("__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__", "__iter__")
for _name in (*_CONTENT, *(name for name in vars(np.ndarray) if not name.startswith("_"))):
    if callable(getattr(np.ndarray, _name)) and _name not in _VIEWS and _name not in vars(Written):
        setattr(Written, _name, _refused)

_SEEING = (np.transpose, np.moveaxis, np.swapaxes, np.expand_dims, np.squeeze, np.broadcast_to, np.flip)
_ASKING = (np.may_share_memory, np.shape, np.ndim, np.size, np.result_type, np.can_cast)
_INTO = (
    np.concatenate,
    np.stack,
    np.einsum,
    np.fft.fft,
    np.fft.ifft,
    np.fft.rfft,
    np.fft.irfft,
    np.fft.ihfft,
)


def _plain(value: Any) -> Any:
    """Arrays as they are, also within others."""
    if isinstance(value, Written):
        return value.view(np.ndarray)
    if isinstance(value, tuple | list):
        return type(value)([_plain(part) for part in value])
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, dict) else value


def _arrays(value: Any) -> Iterator[Plain]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))


def _seen(y: Any, sources: list[Plain], make: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What a function gave: a view of its sources, or an array that it makes again each time."""
    if not isinstance(y, np.ndarray):
        raise Unwritten
    return y.view(Written) if not y.size or _is_view(y, sources) else _made(y, make, given, named)


def _is_view(y: Plain, sources: list[Plain]) -> bool:
    return any(np.may_share_memory(y, source) for source in sources)


def _made(y: Plain, make: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """A new array."""
    score = _score()
    y = score.room(y)
    if make in _INTO or isinstance(make, np.ufunc) or isinstance(getattr(make, "__self__", None), np.ufunc):
        score.write(make, *given, **named, out=y)
    else:
        score.write(_again, y, make, given, named)
    return y.view(Written)


def _again(y: Plain, make: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    y[...] = make(*given, **named)


def _reshaped(own: Plain, y: Plain) -> Any:
    if y.size and not np.may_share_memory(y, own):
        y = _score().room(y)
        _score().write(np.ndarray.__setitem__, y.reshape(own.shape), ..., own)
    return y.view(Written)


def _memory(array: Plain) -> Plain:
    """The array that an array is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _address(array: Plain) -> int:
    return int(array.__array_interface__["data"][0])


def _ends(array: Plain) -> tuple[int, int]:
    return _address(array), _address(array) + array.nbytes


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
    byte = 0 if array is whole else _address(array) - _address(whole)
    return byte, whole.nbytes, array.shape, array.strides, array.dtype


def are_apart(arrays: Sequence[Plain]) -> bool:
    """Whether no two of these arrays, which have no gaps, share memory."""
    ends = sorted(_ends(array) for array in arrays if array.size)
    return all(first[1] <= second[0] for first, second in pairwise(ends))
