"""The 1d, 2d and 3d names: the general function with the number of spatial axes fixed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from xconv._errors import door, refuse

P = ParamSpec("P")
R = TypeVar("R")


def fixed_rank(function: Callable[P, R], spatial: int) -> Callable[P, R]:
    """A convolution whose kernel has ``spatial`` spatial axes."""

    def check(x: Any, w: Any, *rest: Any) -> tuple[Any, ...]:
        shape = getattr(w, "shape", None)
        if shape is not None and len(shape) != spatial + 2:
            refuse("w", list(shape), f"have {spatial + 2} axes: {spatial} spatial, input and output channels")
        return (x, w, *rest)

    return _named(function, spatial, check, f"with ``w`` of rank {spatial + 2}")


def fixed_rank_pool(function: Callable[P, R], spatial: int) -> Callable[P, R]:
    """A pool whose window has ``spatial`` axes."""

    def check(x: Any, window: Any, *rest: Any) -> tuple[Any, ...]:
        if isinstance(window, list | tuple) and len(window) != spatial:
            refuse("window", window, f"have one int for each of the {spatial} spatial axes")
        return (x, window if isinstance(window, list | tuple) else (window,) * spatial, *rest)

    return _named(function, spatial, check, f"over {spatial} spatial axes, so that ``x`` may be unbatched")


def _named(
    function: Callable[P, R], spatial: int, check: Callable[..., tuple[Any, ...]], sentence: str
) -> Callable[P, R]:
    general = function.__wrapped__  # type: ignore[attr-defined]

    @wraps(function)
    def entry(*args: P.args, **options: P.kwargs) -> R:
        result: R = general(*(check(*args) if len(args) > 1 else args), **options)
        return result

    entry.__name__ = entry.__qualname__ = f"{function.__name__}{spatial}d"
    entry.__doc__ = f"`{function.__name__}` {sentence}."
    return door(entry)
