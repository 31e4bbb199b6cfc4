"""Padding of any array by any of NumPy's modes."""

from __future__ import annotations

from collections.abc import Sequence

from xconv._args import checked_pad_mode, frozen, numeric_pads
from xconv._borders import runs
from xconv._dtypes import check_value
from xconv._errors import door, refuse
from xconv._movers import continued
from xconv._namespace import Array, copied, inspect


@door
def pad(
    x: Array,
    widths: int | Sequence[int] | Sequence[Sequence[int]],
    /,
    *,
    mode: str = "constant",
    value: complex = 0,
) -> Array:
    """Put elements around an array, or take some away.

    Parameters
    ----------
    x : array of any shape
        Of any dtype.
    widths : int, int per axis, or (low, high) per axis
        Elements put before and after every axis of ``x``; negative numbers crop.
    mode : {"constant", "edge", "reflect", "symmetric", "wrap"}
        What they hold, by NumPy's names: ``value``; the border; a mirror image without or with the border repeated; the
        other end. Widths may exceed the array, which then goes on and on. (``scipy.ndimage`` calls ``"symmetric"``
        reflect, ``"reflect"`` mirror and ``"edge"`` nearest.)
    value : number
        For ``mode="constant"``.

    Returns
    -------
    array
        Sizes ``low + n + high``, in the dtype of ``x``.

    Raises
    ------
    ValueError, TypeError
        Before anything is computed, with the argument, its value, the rule, and the call.
    """
    xp, _ = inspect(x=x)
    mode = checked_pad_mode(mode, "mode")
    pairs = numeric_pads(frozen(widths), x.ndim, "widths")
    check_value(xp, value, x.dtype)
    if mode != "constant" and value:
        refuse("value", value, f"be left out with mode='{mode}'")
    for axis, ((low, high), n) in enumerate(zip(pairs, x.shape, strict=True)):
        if n + low + high < 0:
            refuse("widths", widths, f"crop no more than the {n} elements of axis {axis}")
        if mode != "constant" and not n and low + high:
            refuse("widths", widths, f"be zero for axis {axis}, which has no element to repeat")
    for axis, ((low, high), n) in enumerate(zip(pairs, x.shape, strict=True)):
        x = continued(x, axis, runs(-low, n + high, n, mode), value, xp)
    return x if any(low > 0 or high > 0 for low, high in pairs) else copied(x, xp)  # never the caller's own
