"""The mover of separable filters: a block filtered along one axis after the other, by matrix products.

Along one axis, B neighbouring outputs are B + k - 1 neighbouring inputs times a band matrix that holds the kernel,
moved on by one from column to column. That is more arithmetic than the sum itself, 2 (B + k - 1) for 2 k, and much
less time: a matrix product reads its operands once. Short kernels are summed tap by tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from xconv._namespace import Array, Namespace, NumPyArray, combined, constant, empty_like, overlapping, packed
from xconv._products import product_into
from xconv._scratch import spare

Kernel = tuple[float, ...]
SHORT = 4  # taps: up to there, a sum of them is as fast
WIDTH = 32  # outputs in a band, at least


def along_lines(
    x: Array, kernels: Sequence[Kernel | None], outputs: Sequence[int], xp: Namespace, purpose: str
) -> Array:
    """Correlate a padded block (N, *n, C) with a kernel for every axis of space, or none: (N, *out, C).

    ``None`` takes the elements in the middle, as a kernel would that is one there and zero elsewhere. The result may
    stand in spare memory for ``purpose``.
    """
    for axis, (kernel, count) in enumerate(zip(kernels, outputs, strict=True), 1):
        if kernel is None and x.shape[axis] != count:
            start = (x.shape[axis] - count) // 2
            x = x[(*(slice(None),) * axis, slice(start, start + count), ...)]
    order = sorted(
        (axis for axis, kernel in enumerate(kernels, 1) if kernel is not None),
        key=lambda axis: (
            outputs[axis - 1] / max(x.shape[axis], 1)
        ),  # what makes the block smaller comes first
    )
    for turn, axis in enumerate(order):
        kernel = kernels[axis - 1]
        assert kernel is not None
        x = _along(x, axis, kernel, outputs[axis - 1], xp, f"{purpose} {turn % 2}")
    return x


def _along(x: Array, axis: int, kernel: Kernel, count: int, xp: Namespace, purpose: str) -> Array:
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    lines = packed(x, (prod(shape[:axis]), x.shape[axis], prod(shape[axis + 1 :])), "packed", xp)  # (P, n, Q)
    if len(kernel) <= SHORT:
        return xp.reshape(_summed(lines, kernel, count, xp), shape)
    flat = (lines.shape[0], count, lines.shape[2])
    target = spare(purpose, flat, x.dtype, x)
    if target is None and isinstance(x, NumPyArray):
        target = empty_like(x, flat, x.dtype)
    width = max(WIDTH, len(kernel) - 1)
    width = -(-count // -(-count // width))  # as even as possible
    parts, start = [], 0
    for bands, wide in ((count // width, width), (1, count % width)):
        if not bands or not wide:
            continue
        length = bands * wide
        piece = lines[:, start : start + length + len(kernel) - 1, :]
        out = None if target is None else target[:, start : start + length, :]
        parts.append(_banded(piece, kernel, bands, out, xp))
        start += length
    if target is None:
        target = parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)
    return xp.reshape(target, shape)


def _banded(lines: Array, kernel: Kernel, bands: int, out: Array | None, xp: Namespace) -> Array:
    """The products of several bands of one width, all of them one operation where the library has views: (P, n', Q)."""
    before, size, behind = lines.shape
    count = size - len(kernel) + 1
    width = count // bands
    reach = width + len(kernel) - 1
    view = overlapping(lines, bands, reach, width, xp)  # (P, bands, B + k - 1, Q)
    if behind == 1:
        # y (bands, P, B) = lines (bands, P, B + k - 1) @ band (B + k - 1, B)
        matrix = constant(_band(kernel, width), lines.dtype, lines)
        place = None if out is None else xp.permute_dims(xp.reshape(out, (before, bands, width)), (1, 0, 2))
        y = product_into(xp.permute_dims(view[..., 0], (1, 0, 2)), matrix, xp, place)
        y = xp.permute_dims(y, (1, 0, 2))
    else:
        # y (P, bands, B, Q) = band (B, B + k - 1) @ lines (P, bands, B + k - 1, Q)
        matrix = constant(_turned_band(kernel, width), lines.dtype, lines)
        place = None if out is None else xp.reshape(out, (before, bands, width, behind))
        y = product_into(matrix, view, xp, place)
    return out if out is not None else xp.reshape(y, (before, count, behind))


def _summed(lines: Array, kernel: Kernel, count: int, xp: Namespace) -> Array:
    y = lines[:, :count, :] * kernel[0]
    for tap, weight in enumerate(kernel[1:], 1):
        part = lines[:, tap : tap + count, :]
        if abs(weight) == 1:
            y = combined(xp.add if weight > 0 else xp.subtract, y, part, y)
        elif weight:
            y += part * weight
    return y


@lru_cache(maxsize=64)
def _band(kernel: Kernel, width: int) -> tuple[Kernel, ...]:
    """Row i, column j holds tap i - j: (width + k - 1, width)."""
    taps = len(kernel)
    return tuple(
        tuple(kernel[i - j] if 0 <= i - j < taps else 0.0 for j in range(width))
        for i in range(width + taps - 1)
    )


@lru_cache(maxsize=64)
def _turned_band(kernel: Kernel, width: int) -> tuple[Kernel, ...]:
    return tuple(zip(*_band(kernel, width), strict=True))
