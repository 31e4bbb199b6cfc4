"""The gradient of a 3x3 convolution by its kernel with a quarter of the products: Winograd's F(4, 3), transposed.

Of a tile, y = At [(G w Gt) * (Bt x B)] A (see `xconv._algorithms.winograd`), so

    <dy, y> = <A dy At, (G w Gt) * (Bt x B)> = <w, Gt [(A dy At) * (Bt x B)] G>

and the factor of w is the gradient. Both transforms of the input and the last one are the same matrices; summed over
tiles, the products are one matmul for each of the 36 points, and Gt [...] G is done once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial, reduce
from itertools import accumulate
from math import prod
from operator import add
from typing import Any, NamedTuple

from xconv._algorithms._filtering import matrix, transformed
from xconv._config import Settings
from xconv._extents import fitted
from xconv._geometry import Axis, ConvProblem, Tile, cut, edges, materialised, padded_pixels
from xconv._machine import cores
from xconv._movers import total_by_channel
from xconv._namespace import Array, DType, Namespace, Traits, empty_like
from xconv._plan import SHARE, plan_cache, tile_budget, workspace_of
from xconv._products import matmul
from xconv._scratch import scratch, spare
from xconv._threads import run_all
from xconv._tiles import read_block, read_results
from xconv._tilings import tiled

M, READ, TAPS = 4, 6, 3  # outputs of a tile along one axis, what they read, and through which taps
POINTS = READ**2
AT_ONCE = 3  # points that a thread takes at a time
PIECES = 8  # tiles, at least, so that no thread waits for another

# What a step takes in multiplications of the direct sum, as measured in float32: one here; the transforms, for each
# channel of a pixel; and what is summed, for each number of it, to be added to and transformed back.
MULTIPLICATION, TRANSFORM, SUM = 1.4, 200, 50


class Points(NamedTuple):
    """Transformed tiles: of the input (points, T, I), and of the gradient (points, T, O)."""

    inputs: Array
    outputs: Array


def suits(problem: ConvProblem, settings: Settings, traits: Traits) -> bool:
    """Whether it can be done, and takes less time than the direct sum."""
    inputs, outputs = problem.channels_in, problem.channels_out
    if problem.kind != "float" or problem.direct or settings.precision == "strict" or problem.groups > 1:
        return False
    if len(problem.axes) != 2 or any(
        (a.window, a.stride, a.dilation, a.input_dilation) != (3, 1, 1, 1) for a in problem.axes
    ):
        return False
    if POINTS * inputs * outputs * problem.itemsize > 0.75 * workspace_of(traits, settings):
        return False  # what is left is for tiles
    pairs, tiles = inputs * outputs, _tiles(problem)
    products = (MULTIPLICATION * tiles + SUM) * POINTS * pairs
    return (
        products + TRANSFORM * M**2 * tiles * (inputs + outputs) < 0.9 * problem.taps * problem.pixels * pairs
    )


def fewer_products(
    x: Array,
    dy: Array,
    problem: ConvProblem,
    dtype: DType,
    settings: Settings,
    xp: Namespace,
    traits: Traits,
    fill: complex = 0,
    *,
    bias: bool = False,
) -> tuple[Array, Array | None]:
    """What `xconv._weights.weight_gradient` gives for arrays of NumPy: (3, 3, I, O), and (O,) if that is wanted.

    The order of the sums follows from the problem, the cache and the workspace, never from the number of threads.
    """
    inputs, outputs = problem.channels_in, problem.channels_out
    bounds, most = _cut_up(problem, settings, traits)
    threads = min(settings.threads or cores(), SHARE)
    sums = empty_like(dy, (POINTS, inputs, outputs), dtype)
    totals: list[Array] = []
    for number, group in enumerate(_groups(cut(problem, bounds), most)):
        ends = [0, *accumulate(_tiles(tile.problem) for tile in group)]
        points = Points(*(empty_like(dy, (POINTS, ends[-1], count), dtype) for count in (inputs, outputs)))
        found: list[Any] = [None] * len(group)
        work = (
            partial(_transform, x, dy, problem, tile, start, points, xp, fill, found, i if bias else None)
            for i, (tile, start) in enumerate(zip(group, ends, strict=False))
        )
        run_all(work, threads, scratch)
        totals += found
        few = (slice(start, start + AT_ONCE) for start in range(0, POINTS, AT_ONCE))
        run_all(
            (partial(_multiply, points, sums, part, xp, more=number > 0) for part in few), threads, scratch
        )
        del points  # before there are others
    back = xp.permute_dims(matrix(1, READ, TAPS, dtype, dy), (1, 0))  # (taps, points)
    dw = xp.reshape(transformed(back, sums, 2, xp), (3, 3, inputs, outputs))
    return dw, reduce(add, totals) if bias else None


@plan_cache
def _cut_up(
    problem: ConvProblem, settings: Settings, traits: Traits
) -> tuple[tuple[tuple[int, ...], ...], int]:
    """Where the foreman cuts, and how many of Winograd's tiles are transformed before their products are summed."""
    inputs, outputs, size = problem.channels_in, problem.channels_out, problem.itemsize
    room = workspace_of(traits, settings) - POINTS * inputs * outputs * size
    most = min(tile_budget(traits, settings), room // (2 * SHARE), _needed(problem) // PIECES)
    extents = fitted(problem, _needed, most, M)
    bounds = tuple(map(edges, (problem.batch, *problem.outputs), extents, (1, M, M)))
    return bounds, room // 2 // (POINTS * (inputs + outputs) * size)


def _tiles(problem: Any) -> int:
    """Winograd's tiles, in the whole batch."""
    return int(problem.batch * prod(-(-n // M) for n in problem.outputs))


def _needed(tile: ConvProblem) -> int:
    """Bytes that the foreman's tile needs: the block, and Winograd's tiles before they are transformed."""
    inputs, outputs = tile.channels_in, tile.channels_out
    cut_up = _tiles(tile) * (POINTS * inputs + M**2 * outputs)
    return tile.itemsize * (cut_up + 2 * padded_pixels(tile) * inputs + tile.pixels * outputs)


def _groups(tiles: Iterable[Tile], most: int) -> Iterator[list[Tile]]:
    """As many of the foreman's tiles at a time as have at most so many of Winograd's."""
    group: list[Tile] = []
    count = 0
    for tile in tiles:
        here = _tiles(tile.problem)
        if group and count + here > most:
            yield group
            group, count = [], 0
        group.append(tile)
        count += here
    yield group


def _transform(
    x: Array,
    dy: Array,
    problem: ConvProblem,
    tile: Tile,
    start: int,
    points: Points,
    xp: Namespace,
    fill: complex,
    totals: list[Any],
    number: int | None,
) -> None:
    """One of the foreman's tiles: (points, T, I) and (points, T, O) from ``start`` on, and the sum of its gradients."""
    dtype = points.inputs.dtype
    g = read_results(dy, tile, dtype, xp)
    block = read_block(x, problem, tile, dtype, xp, fill)
    along = [Axis(n, 1) for n in tile.problem.outputs]
    spread = xp.permute_dims(matrix(2, READ, TAPS, dtype, g), (1, 0))  # (points, results)
    cut_up = tiled(block, materialised(tile.problem).axes, M, xp)
    _put(matrix(0, READ, TAPS, dtype, g), cut_up, points.inputs, start, xp)
    _put(spread, tiled(g, along, M, xp), points.outputs, start, xp)
    if number is not None:
        totals[number] = total_by_channel(g, xp)


def _put(matrix: Array, x: Array, target: Array, start: int, xp: Namespace) -> None:
    """Tiles transformed, where they belong in (points, T, C)."""
    count, channels = prod(x.shape[1:-1]), x.shape[-1]
    rows = target.reshape(target.shape[0], -1)[:, start * channels : (start + count) * channels]
    transformed(matrix, x, 2, xp, out=rows)


def _multiply(points: Points, sums: Array, part: slice, xp: Namespace, *, more: bool) -> None:
    """(I, T) @ (T, O) for some of the points."""
    for total, a, b in zip(sums[part], points.inputs[part], points.outputs[part], strict=True):
        product = spare("product", total.shape, total.dtype, total) if more else total
        product = matmul(xp.permute_dims(a, (1, 0)), b, xp, product)
        if more:
            total += product
