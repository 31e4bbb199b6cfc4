"""Settings of the current context."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

from xconv._errors import door, refuse, refuse_type

_workspace: ContextVar[int | None] = ContextVar("xconv_workspace", default=None)


class config:
    """Settings for the calls made inside a ``with`` block, in this thread or task only.

    Parameters
    ----------
    workspace : int
        Bytes a call may use beyond its result: it is cut into tiles that fit. It gets twice what one output pixel
        with its channels needs where that is more. The default is 16 MiB on a CPU, and 256 MiB on an accelerator or
        where arrays cannot be assigned to (JAX).

    Examples
    --------
    >>> import numpy as np, xconv
    >>> x, w = np.ones((1, 64, 64, 8)), np.ones((3, 3, 8, 8))
    >>> with xconv.config(workspace=2**20):
    ...     y = xconv.conv(x, w)
    """

    def __init__(self, *, workspace: int) -> None:
        _check(workspace=workspace)
        self._value = workspace
        self._tokens: list[Token[int | None]] = []

    def __enter__(self) -> config:
        self._tokens.append(_workspace.set(self._value))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _workspace.reset(self._tokens.pop())

    def __repr__(self) -> str:
        return f"config(workspace={self._value})"


def _config(*, workspace: int) -> None:
    if isinstance(workspace, bool) or not isinstance(workspace, int):
        refuse_type("workspace", workspace, "be an int, a number of bytes")
    if workspace < 1:
        refuse("workspace", workspace, "be a positive number of bytes")


_config.__name__ = "config"
_check = door(_config)


def workspace_setting() -> int | None:
    """Bytes allowed beyond the result, or None for the device's default."""
    return _workspace.get()
