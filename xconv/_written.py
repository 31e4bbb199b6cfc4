"""Arrays of NumPy with which nothing is done that is not written down in a score, or refused.

A thread that writes one does its work with these in place of the caller's arrays; all that it makes of them is such
an array again. Outside of that they are what any array of NumPy is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

import numpy as np

from xconv._address import Plain
from xconv._score import Score, Unwritten


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
