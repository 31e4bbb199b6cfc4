"""Settings of the current context."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, NamedTuple

from xconv._errors import door, refuse, refuse_type


class Settings(NamedTuple):
    """What holds for the calls of one context; None is the default."""

    threads: int | None = None
    workspace: int | None = None
    cache: int | None = None
    precision: str = "default"
    fast: bool = True


DEFAULTS = Settings()
_settings: ContextVar[Settings] = ContextVar("xconv_settings", default=DEFAULTS)


def settings() -> Settings:
    """What holds here."""
    return _settings.get()


class config:
    """Settings for the calls made inside a ``with`` block, in this thread or task only.

    Blocks nest; what an inner one does not set stays as it is outside. Results have the same bits for any number of
    threads.

    Parameters
    ----------
    threads : int
        Threads that a call on NumPy arrays may use, its caller's included. The default is one for each core that the
        process may use.
    workspace : int
        Bytes a call may use beyond its result: it is cut into tiles that fit. It gets twice what one output pixel
        with its channels needs where that is more, and an algorithm that is named what its kernel and its smallest
        tile need. The default is 64 MiB on a CPU, and 256 MiB on an accelerator or
        where arrays cannot be assigned to (JAX).
    precision : {"default", "strict"}
        ``"strict"`` allows only algorithms that sum the products as they are, which Winograd's and the Fourier
        transform do not.
    cache : int
        Bytes of the cache that tiles are cut to fit. The default is the size of one core's second-level cache.
    fast : bool
        Whether compiled code may be used on NumPy arrays, where numba is installed (``pip install xconv[fast]``). The
        default is True; results differ by rounding only.

    Examples
    --------
    >>> import numpy as np, xconv
    >>> x, w = np.ones((1, 64, 64, 8)), np.ones((3, 3, 8, 8))
    >>> with xconv.config(threads=1, workspace=2**20):
    ...     y = xconv.conv(x, w)
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        workspace: int | None = None,
        precision: str | None = None,
        cache: int | None = None,
        fast: bool | None = None,
    ) -> None:
        given = {
            "threads": threads,
            "workspace": workspace,
            "precision": precision,
            "cache": cache,
            "fast": fast,
        }
        self._given: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        _check(**self._given)
        self._tokens: list[Token[Settings]] = []

    def __enter__(self) -> config:
        self._tokens.append(_settings.set(_settings.get()._replace(**self._given)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _settings.reset(self._tokens.pop())

    def __repr__(self) -> str:
        return f"config({', '.join(f'{name}={value!r}' for name, value in self._given.items())})"


def _config(**given: Any) -> None:
    for name, rule in (("threads", "threads"), ("workspace", "bytes"), ("cache", "bytes")):
        value = given.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int):
            refuse_type(name, value, f"be an int, a number of {rule}")
        if value < 1:
            refuse(name, value, f"be a positive number of {rule}")
    if given.get("precision", "default") not in ("default", "strict"):
        refuse("precision", given["precision"], "be 'default' or 'strict'")
    if not isinstance(given.get("fast", True), bool):
        refuse_type("fast", given["fast"], "be True or False")


_config.__name__ = "config"
_check = door(_config)
