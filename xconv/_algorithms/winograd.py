"""Fewer multiplications for kernels of 2 to 5 taps, by Winograd's F(m, r): y = At ((G w Gt) * (Bt x B)) A.

The input is cut into overlapping tiles of n = m + r - 1 along the last one or two axes that have r taps. Each tile is
transformed, multiplied element by element with the transformed kernel (over the channels: one matmul for each element),
summed over the taps of all other axes, and transformed back to m outputs an axis. Both transforms are matmuls, one for
each axis. See Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308.

A stride s is folded away: s neighbours become channels of one, and a kernel of k taps one of k / s, rounded up.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import isqrt, prod
from typing import NamedTuple

from xconv._algorithms._cost import BEGIN, VECTOR, Cost, matmul_bytes
from xconv._algorithms._filtering import matrix, transformed
from xconv._finish import PLAIN, Finish
from xconv._geometry import Axis, ConvProblem
from xconv._machine import cores
from xconv._movers import block, finished, one_axis_taps, written
from xconv._namespace import Array, Namespace, Traits, added, compiled, empty_like, packed
from xconv._products import matmul
from xconv._scratch import spare
from xconv._tilings import folded, tiled, untiled

_SMALL_KERNEL = 2**20  # bytes of a tap; larger ones take fewer points, whose kernel is the shorter to stream
_TAPS = (3, 4, 2, 5)  # those that save most multiplications with six points come first
_MOST, _MANY, _FEW = 8, 6, 4  # points along an axis:
_LONG = 4  # for so many taps, six leave few outputs for a tile,
_PRECISE = 128  # and with so many channels in a sum, eight have errors like six with more
_OWN = 16  # channels of compiled code, which has more to do for a tile than for its products with fewer
_WORTH = 64  # channels on both sides, and
_GAIN = 0.85  # of the products of six points, those of eight that are worth their errors for three taps
_BLOCK = 96  # tiles that compiled code has in work on each thread, at most
_ROOM = 2**25  # bytes for all of those, at most
_BINDING = 2**18  # bytes of traffic that take as long as beginning to transform a kernel


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Two to five taps without dilation, or as many for each step of the stride, along one axis at least."""
    if problem.direct:
        return "only direct sums are allowed (integers, or precision='strict')"
    if problem.kind == "integer":
        return "it divides, which integers cannot"
    if problem.groups > 1:
        return f"there are {problem.groups} groups, not one"
    if not _form(problem).axes:
        return "no axis has 2 to 5 taps for each step of its stride, and dilation 1"
    return None


class _Form(NamedTuple):
    """How a problem is done."""

    problem: ConvProblem  # without a stride along the axes transformed
    axes: tuple[int, ...]  # those
    taps: int  # along each of them
    strides: tuple[int, ...]  # along every axis, what is folded away


@lru_cache(maxsize=4096)
def _form(problem: ConvProblem) -> _Form:
    """Transformed are the last two axes, or the only one, that have the same few taps; two of them rather than one."""
    taps = [-(-a.window // a.stride) if a.dilation == 1 else 0 for a in problem.axes]
    axes = max((tuple(i for i, n in enumerate(taps) if n == few)[-2:] for few in _TAPS), key=len)
    strides = tuple(a.stride if i in axes else 1 for i, a in enumerate(problem.axes))
    window = taps[axes[0]] if axes else 1  # a single output of an input with holes may have no such axis
    stepped = tuple(
        a if s == 1 else Axis(a.output + window - 1, window)
        for a, s in zip(problem.axes, strides, strict=True)
    )
    channels = problem.channels_in * prod(strides)
    return _Form(replace(problem, axes=stepped, channels_in=channels), axes, window, strides)


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """The transforms cost about as much for each channel as 20 channels do in the products."""
    form = _form(problem)
    found = _cost(form)
    if max(form.strides) == 1:
        return found
    core = form.problem
    size = core.batch * prod(a.size for a in core.axes) * core.channels_in * core.itemsize
    copies = 1 if is_compiled(problem) else 2  # with zeros at the ends; and folded
    return found._replace(
        bytes=found.bytes + 2 * copies * size,
        calls=found.calls + 2 * copies,
        workspace=found.workspace + copies * size,
    )


def _cost(form: _Form) -> Cost:
    """Without a stride."""
    problem, axes, n = form.problem, form.axes, _points(form)
    m = n + 1 - form.taps
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
        sums = points * made * -(-filled // (4 * lanes))
        moved = size * points * (2 * read * filled_in + 2 * made * filled) + BEGIN * sums
        kept = size * points * (read * inputs + made * outputs)
        if taps == 1:  # many tiles are done by and by
            kept = min(kept, size * points * (inputs + outputs) * _BLOCK * cores(), _ROOM)
        return Cost(
            products, moved + 2 * bound, 5, kept, bind_bytes=2 * bound + _BINDING, bound=bound, step=m
        )
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
    form = _form(problem)
    w = _folded_kernel(w, form, xp)
    n, axes = _points(form), form.axes
    *window, channels, outputs = w.shape
    if is_compiled(problem):
        return compiled().winograd_kernel(w, n)
    others = [i for i in range(len(window)) if i not in axes]
    w = xp.permute_dims(w, (*others, *axes, len(window), len(window) + 1))
    taps = prod(window[i] for i in others)
    w = xp.reshape(w, (taps, form.taps ** len(axes), channels * outputs))
    w = xp.permute_dims(w, (1, 0, 2)) if taps > 1 else xp.reshape(w, (w.shape[1], taps, w.shape[2]))
    w = transformed(matrix(1, n, form.taps, w.dtype, w), w, len(axes), xp)
    w = xp.reshape(w, (w.shape[0], taps, channels, outputs))
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
        x, read = _read_by_compiled(x, problem, xp)
        points = isqrt(w.shape[0])  # a tile has those of the whole
        return compiled().winograd(x, w, read, points, problem.channels_out, y, last)
    x, problem = written(x, problem, xp)
    form = _form(problem)
    x, problem, axes = _folded_input(x, form, xp), form.problem, form.axes
    n, m = _points(form), _points(form) + 1 - form.taps
    points = n ** len(axes)
    x = tiled(x, [a if i in axes else None for i, a in enumerate(problem.axes)], m, xp)  # (points, N, *n, C)
    shape = x.shape[1:]
    x = transformed(matrix(0, n, form.taps, x.dtype, x), x, len(axes), xp, purpose="input")
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
    y = transformed(matrix(2, n, form.taps, y.dtype, y), y, len(axes), xp, purpose=kept)
    y = xp.reshape(y, (m ** len(axes), *shape[1:], problem.channels_out))  # (results, N, *tiles, O)
    y = untiled(y, axes, m, problem.outputs, out, xp)
    return finished(y, last) if problem.fast else y


def is_compiled(problem: ConvProblem) -> bool:
    """Over the last two axes, with at most one before them."""
    spatial = len(problem.axes)
    return problem.fast and spatial < 4 and _form(problem).axes == (spatial - 2, spatial - 1)


def _points(form: _Form) -> int:
    """Of a tile along an axis; but for compiled code, by what is the same for all tiles of a problem."""
    tap = form.problem.channels_in * form.problem.channels_out * form.problem.itemsize
    channels = form.problem.channels_in
    long = form.taps >= _LONG and (channels >= _OWN or not is_compiled(form.problem))
    if channels <= _PRECISE and (long or _pays(form)):
        return _MOST
    return _FEW if tap > _SMALL_KERNEL and form.taps < _LONG else _MANY


def _pays(form: _Form) -> bool:
    """Whether compiled code gains by larger tiles of three taps: there are channels, and little stands over."""
    problem = form.problem
    if not (
        form.taps == 3 and min(problem.channels_in, problem.channels_out) >= _WORTH and is_compiled(problem)
    ):
        return False
    most, many = (
        n**2 * prod(-(-problem.axes[i].output // (n + 1 - form.taps)) for i in form.axes)
        for n in (_MOST, _MANY)
    )
    return most <= _GAIN * many


def _folded_kernel(w: Array, form: _Form, xp: Namespace) -> Array:
    """(*k, C, O) to (*r, s C, O), with taps of zeros at the ends."""
    if max(form.strides) == 1:
        return w
    for i, (s, axis) in enumerate(zip(form.strides, form.problem.axes, strict=True)):
        short = axis.window * s - w.shape[i]
        if s > 1 and short:
            zeros = xp.zeros_like(w[(*(slice(None),) * i, slice(short), ...)])
            w = xp.concat([w, zeros], axis=i)
    w = folded(w, form.strides, xp, first=0)
    return xp.reshape(w, (*form.problem.window, form.problem.channels_in, form.problem.channels_out))


def _folded_input(x: Array, form: _Form, xp: Namespace) -> Array:
    """(N, *n, C) to (N, *n / s, s C)."""
    if max(form.strides) == 1:
        return x
    sizes = [a.size * s for a, s in zip(form.problem.axes, form.strides, strict=True)]
    short = [size - n for size, n in zip(sizes, x.shape[1:-1], strict=True)]
    if max(short) > 0:
        ends = [Axis(n, 1, high=max(more, 0)) for n, more in zip(x.shape[1:-1], short, strict=True)]
        x = block(x, ends, x.dtype, 0, xp, "whole steps")
    x = folded(x[(slice(None), *map(slice, sizes), ...)], form.strides, xp)
    shape = (x.shape[0], *(a.size for a in form.problem.axes), form.problem.channels_in)
    return packed(x, shape, "folded", xp)


def _read_by_compiled(x: Array, problem: ConvProblem, xp: Namespace) -> tuple[Array, tuple[Axis, ...]]:
    """(N, *n, steps of the last stride but one, C) and its axes; the last stride is folded where it stands."""
    form = _form(problem)
    axes, (rows, columns) = form.problem.axes, form.strides[-2:]
    if max(rows, columns) > 1:
        ends = [  # so many steps, and no more, that all taps find something
            a if s == 1 else a._replace(high=steps.size * s - a.size - a.low)
            for a, steps, s in zip(problem.axes, axes, form.strides, strict=True)
        ]
        x, _ = written(x, replace(problem, axes=tuple(ends)), xp)
        x, axes = folded(x, form.strides, xp), tuple(a.materialised() for a in axes)
    return xp.reshape(x, (x.shape[0], *(a.size for a in axes), rows, columns * problem.channels_in)), axes
