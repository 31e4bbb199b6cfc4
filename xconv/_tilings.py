"""What Winograd's algorithm reads and writes: overlapping tiles cut from a block, and side by side again."""

from __future__ import annotations

from collections.abc import Sequence

from xconv._geometry import Axis
from xconv._movers import block, windows
from xconv._namespace import Array, Namespace, laid_out, packed


def folded(x: Array, strides: Sequence[int], xp: Namespace, first: int = 1) -> Array:
    """Steps of the strides, where they are longer than one, behind all axes from the ``first`` on: (N, *n / s, *s, C).

    A view where the library has one. The sizes are multiples of the strides.
    """
    before, after = x.shape[:first], x.shape[first + len(strides) :]
    split = [
        size
        for n, s in zip(x.shape[first:], strides, strict=False)
        for size in ((n // s, s) if s > 1 else (n,))
    ]
    x = xp.reshape(x, (*before, *split, *after))
    places, steps, place = [], [], first
    for s in strides:
        places.append(place)
        steps += [place + 1] if s > 1 else []
        place += 1 + (s > 1)
    return xp.permute_dims(x, (*range(first), *places, *steps, *range(place, x.ndim)))


def tiled(x: Array, axes: Sequence[Axis | None], m: int, xp: Namespace) -> Array:
    """Tiles that m windows of neighbours read, m + r - 1 of r taps, along the axes given, of a padded block (N, *n, C).

    What is missing at the end is zeros. The result is (points, N, *n, C): the elements of a tile, in raster order, come
    first, and an axis given is as long as there are tiles.
    """
    given = [i for i, axis in enumerate(axes) if axis is not None]
    tiles = [1 if a is None else -(-a.output // m) for a in axes]
    read = max(0 if a is None else a.window for a in axes) + m - 1  # the same along all
    short = tuple(0 if a is None else (t - 1) * m + read - a.size for a, t in zip(axes, tiles, strict=True))
    if any(short):
        ends = [Axis(n, 1, high=high) for n, high in zip(x.shape[1:-1], short, strict=True)]
        x = block(x, ends, x.dtype, 0, xp, "ragged block")
    steps = [Axis(n, 1) if a is None else Axis(n, read, m) for n, a in zip(x.shape[1:-1], axes, strict=True)]
    view = windows(x, steps, xp)  # (N, *n, *window, C)
    rank = len(axes)
    order = (
        *(1 + rank + i for i in given),
        *range(rank + 1),
        *(1 + rank + i for i in range(rank) if axes[i] is None),
    )
    view = xp.permute_dims(view, (*order, 2 * rank + 1))
    return xp.reshape(
        view, (read ** len(given), *view.shape[len(given) : len(given) + rank + 1], x.shape[-1])
    )


def untiled(
    y: Array, axes: Sequence[int], m: int, outputs: tuple[int, ...], out: Array | None, xp: Namespace
) -> Array:
    """Tiles of m, (results, N, *tiles, O) along ``axes``, put side by side and cropped: (N, *outputs, O)."""
    given, (_, batch, *tiles, channels) = len(axes), y.shape
    y = xp.reshape(y, (*(m,) * given, *y.shape[1:]))
    order, whole = [given], tuple(n * m if i in axes else n for i, n in enumerate(tiles))
    for i in range(len(outputs)):
        order += [given + 1 + i, axes.index(i)] if i in axes else [given + 1 + i]
    y = xp.permute_dims(y, (*order, given + len(outputs) + 1))
    if whole == outputs:
        return laid_out(y, (batch, *whole, channels), out, xp)
    y = packed(y, (batch, *whole, channels), "whole tiles" if out is not None else None, xp)
    return y[(slice(None), *map(slice, outputs), slice(None))]
