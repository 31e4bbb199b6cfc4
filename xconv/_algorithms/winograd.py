"""Fewer multiplications for kernels of 2 to 5 taps, by Winograd's F(m, r): y = At ((G w Gt) * (Bt x B)) A.

The input is cut into overlapping tiles of n = m + r - 1 along the last one or two axes that have r taps. Each tile is
transformed, multiplied element by element with the transformed kernel (over the channels: one matmul for each element),
summed over the taps of all other axes, and transformed back to m outputs an axis. Both transforms are matmuls, one for
each axis. See Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308.
"""

from __future__ import annotations

from itertools import product
from math import prod

from xconv._algorithms._cost import VECTOR, Cost, matmul_bytes
from xconv._algorithms._filtering import matrix, transformed
from xconv._finish import PLAIN, Finish
from xconv._geometry import ConvProblem
from xconv._machine import cores
from xconv._movers import finished, one_axis_taps, tiled, untiled, written
from xconv._namespace import Array, Namespace, Traits, added, compiled, empty_like, packed
from xconv._products import matmul
from xconv._scratch import spare

_SMALL_KERNEL = (
    2**20
)  # bytes of a tap; of larger ones fewer points are taken, whose kernel is the shorter to stream
_TAPS = (3, 4, 2, 5)  # those that save most multiplications with six points come first
_MANY, _FEW = 6, 4  # points along an axis
_BLOCK = 96  # tiles that compiled code has in work on each thread, at most
_ROOM = 2**25  # bytes for all of those, at most
_BINDING = 2**18  # bytes of traffic that take as long as beginning to transform a kernel


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Two to five taps, without stride or dilation, along one axis at least."""
    if problem.direct:
        return "only direct sums are allowed (integers, or precision='strict')"
    if problem.kind == "integer":
        return "it divides, which integers cannot"
    if problem.groups > 1:
        return f"there are {problem.groups} groups, not one"
    if not _transformed(problem):
        return "no axis has 2 to 5 taps, stride 1 and dilation 1"
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """The transforms cost about as much for each channel as 20 channels do in the products."""
    axes, n = _transformed(problem), _points(problem)
    m = n + 1 - _window(problem, axes)
    points, results = n ** len(axes), m ** len(axes)
    inputs, outputs, size = problem.channels_in, problem.channels_out, problem.itemsize
    tiles = prod(-(-problem.axes[i].output // m) for i in axes)
    rest = [a for i, a in enumerate(problem.axes) if i not in axes]
    read = tiles * problem.batch * prod(a.size for a in rest)  # tiles of the input, and of the output
    made = tiles * problem.batch * prod(a.output for a in rest)
    taps = prod(a.window for a in rest)
    bound = points * taps * inputs * outputs * size
    if is_compiled(problem):
        lanes = VECTOR // size  # numbers that compiled code transforms and adds up at once
        filled_in, filled = (-(-count // lanes) * lanes for count in (inputs, outputs))
        products = 2 * points * taps * made * inputs * filled
        moved = size * points * (2 * read * filled_in + 2 * made * filled)
        kept = size * points * (read * inputs + made * outputs)
        if taps == 1:  # many tiles are done by and by
            kept = min(kept, size * points * (inputs + outputs) * _BLOCK * cores(), _ROOM)
        binding = 3 * bound + _BINDING
        return Cost(products, moved + 2 * bound, 5, kept, bind_bytes=binding, bound=bound, step=m)
    half = m * n if len(axes) == 2 else 0  # results between the two axes of a tile, for each of its points
    flops = 2 * points * (len(axes) * n * read * inputs + taps * made * inputs * outputs)
    flops += 2 * made * outputs * n * (half + results)
    moved = size * (
        (2 + 2 * len(axes)) * points * read * inputs
        + (3 * (taps - 1) + 2) * points * made * outputs
        + (2 * half + 3 * results) * made * outputs
    ) + matmul_bytes(made, inputs, outputs, size, points * taps)
    ragged = any(problem.axes[i].size != -(-problem.axes[i].output // m) * m + n - m for i in axes)
    padded = read * (m**2 * len(axes)) * inputs * size if ragged else 0
    products = points * made * outputs
    kept = 2 * points * read * inputs + products + results * made * outputs
    kept += max(points * read * inputs, half * made * outputs) if half else 0
    if taps > 1:
        kept += products + points * made * inputs
    return Cost(
        flops,
        moved + 2 * padded,
        10 + points * taps,
        size * kept + padded,
        2 * bound // size * 3 * len(axes),
        3 * bound,
        bound,
        m,
    )


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """(taps of the other axes, points, C, O); packed (points, taps C O) for compiled code."""
    axes, points = _transformed(problem), _points(problem)
    if is_compiled(problem):
        return compiled().winograd_kernel(w, points)
    window = _window(problem, axes)
    others = [i for i in range(len(problem.axes)) if i not in axes]
    w = xp.permute_dims(w, (*others, *axes, len(problem.axes), len(problem.axes) + 1))
    w = xp.reshape(
        w, (prod(w.shape[: len(others)]), window ** len(axes), problem.channels_in * problem.channels_out)
    )
    taps = w.shape[0]
    w = xp.permute_dims(w, (1, 0, 2)) if taps > 1 else xp.reshape(w, (w.shape[1], taps, w.shape[2]))
    w = transformed(matrix(1, points, window, w.dtype, w), w, len(axes), xp)
    w = xp.reshape(w, (w.shape[0], taps, problem.channels_in, problem.channels_out))
    return xp.permute_dims(w, (1, 0, 2, 3)) if taps > 1 else xp.reshape(w, (1, w.shape[0], *w.shape[2:]))


def run(
    x: Array,
    w: Array,
    problem: ConvProblem,
    xp: Namespace,
    out: Array | None = None,
    last: Finish = PLAIN,
) -> Array:
    """Tiles of the input, (points, tiles, C) @ (points, C, O), tiles of the output; a kernel kept may be in blocks."""
    if is_compiled(problem):
        y = (
            empty_like(x, (problem.batch, *problem.outputs, problem.channels_out), x.dtype)
            if out is None
            else out
        )
        return compiled().winograd(
            x, w, problem.axes, round(w.shape[0] ** 0.5), problem.channels_out, y, last
        )
    x, problem = written(x, problem, xp)
    axes = _transformed(problem)
    points, window = w.shape[1], _window(problem, axes)
    n = round(points ** (1 / len(axes)))
    m = n + 1 - window
    x = tiled(x, [a if i in axes else None for i, a in enumerate(problem.axes)], m, xp)  # (points, N, *n, C)
    shape = x.shape[1:]
    x = transformed(matrix(0, n, window, x.dtype, x), x, len(axes), xp, purpose="input")
    x = xp.reshape(x, (points, *shape))
    y = None
    others = [a for i, a in enumerate(problem.axes) if i not in axes]
    for i, taps in enumerate(product(*map(one_axis_taps, others))):
        slices = iter(taps)
        cut = tuple(slice(None) if j in axes else next(slices) for j in range(len(problem.axes)))
        part = x[(slice(None), slice(None), *cut, ...)]
        shape = part.shape[:-1]
        part = packed(part, (points, prod(shape[1:]), problem.channels_in), "part", xp)
        purpose = "products" if y is None else "term"
        size = (points, part.shape[1], problem.channels_out)
        target = spare(purpose, size, part.dtype, part)
        term = matmul(part, w[i, ...], xp, target, blocked=problem.channels_out if w.ndim == 5 else 0)
        y = term if y is None else added(y, term, xp)
    if last.bias is not None and not problem.fast:
        one = sum(n**i for i in range(len(axes)))  # that of 1, or (1, 1), in all outputs as it is
        y[one, ...] += last.bias
    kept = "output" if out is not None else None
    y = transformed(matrix(2, n, window, y.dtype, y), y, len(axes), xp, purpose=kept)
    y = xp.reshape(y, (m ** len(axes), *shape[1:], problem.channels_out))  # (results, N, *tiles, O)
    y = untiled(y, axes, m, problem.outputs, out, xp)
    return finished(y, last) if problem.fast else y


def _transformed(problem: ConvProblem) -> tuple[int, ...]:
    """The last two axes, or the only one, with the same few taps side by side; two of them rather than one."""
    found = [
        tuple(i for i, a in enumerate(problem.axes) if (a.window, a.stride, a.dilation) == (taps, 1, 1))[-2:]
        for taps in _TAPS
    ]
    return max(found, key=len)


def _window(problem: ConvProblem, axes: tuple[int, ...]) -> int:
    """Taps along these axes; a single output of an input with holes may have no such axis."""
    return problem.axes[axes[0]].window if axes else 1


def is_compiled(problem: ConvProblem) -> bool:
    """Over the last two axes, with at most one before them."""
    spatial = len(problem.axes)
    return problem.fast and spatial < 4 and _transformed(problem) == (spatial - 2, spatial - 1)


def _points(problem: ConvProblem) -> int:
    """Of a tile along an axis, by what is the same for all tiles of a problem."""
    tap = problem.channels_in * problem.channels_out * problem.itemsize
    few = tap > _SMALL_KERNEL and _window(problem, _transformed(problem)) < _FEW
    return _FEW if few else _MANY
