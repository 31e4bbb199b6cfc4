"""Winograd's transforms F(m, r) of tiles and kernels over two axes, in the words of the compiler.

Of the n = m + r - 1 points along an axis, 0 is the first and infinity the last. Those between come in pairs, p and -p,
which share their even and their odd powers. The matrices are those of `xconv._algorithms._filtering`.

The numbers of a tile for one vector of channels stay in registers, from the first to the last.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xconv._bridges.numba.vectors import I64, Lanes

PAIRS = (1, 2, 1 / 2)
# Of the point 0, and of every pair.
SCALES = {4: (1, 1 / 2), 6: (1 / 4, -1 / 6, 1 / 24), 8: (1, -2 / 9, 1 / 90, 32 / 45)}


def _input_4(b: Any, m: Any, d: list[Any]) -> list[Any]:
    return [b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[3], d[1])]


def _input_6(b: Any, m: Any, d: list[Any]) -> list[Any]:
    two, four = m.constant(2), m.constant(4)
    minus_two, minus_four, minus_five = m.constant(-2), m.constant(-4), m.constant(-5)
    even, odd = m.multiplied(minus_four, d[2], d[4]), m.multiplied(minus_four, d[1], d[3])
    near, far = b.fsub(d[4], d[2]), b.fsub(d[3], d[1])
    return [
        m.multiplied(four, d[0], m.multiplied(minus_five, d[2], d[4])),
        b.fadd(even, odd),
        b.fsub(even, odd),
        m.multiplied(two, far, near),
        m.multiplied(minus_two, far, near),
        m.multiplied(four, d[1], m.multiplied(minus_five, d[3], d[5])),
    ]


def _input_8(b: Any, m: Any, d: list[Any]) -> list[Any]:
    two, half, many, middle = m.constant(2), m.constant(1 / 2), m.constant(21 / 4), m.constant(-17 / 4)
    most = b.fmul(m.constant(-5 / 2), d[3])
    evens = (
        m.multiplied(middle, d[4], b.fadd(d[2], d[6])),
        m.multiplied(m.constant(-5 / 4), d[4], m.multiplied(m.constant(1 / 4), d[2], d[6])),
        m.multiplied(m.constant(-5), d[4], m.multiplied(m.constant(4), d[2], d[6])),
    )
    odds = (
        m.multiplied(middle, d[3], b.fadd(d[1], d[5])),
        m.multiplied(two, d[5], m.multiplied(half, d[1], most)),
        m.multiplied(half, d[5], m.multiplied(two, d[1], most)),
    )
    made = [m.multiplied(many, b.fsub(d[4], d[2]), b.fsub(d[0], d[6]))]
    for even, odd in zip(evens, odds, strict=True):
        made += [b.fadd(even, odd), b.fsub(even, odd)]
    return [*made, m.multiplied(many, b.fsub(d[3], d[5]), b.fsub(d[7], d[1]))]


INPUTS = {4: _input_4, 6: _input_6, 8: _input_8}


def _from_points(count: int, b: Any, m: Any, d: list[Any]) -> list[Any]:
    """So many outputs: powers of the points, from 0 on, and infinity in the last one."""
    first, *pairs, last = d
    sums = [(b.fadd(p, q), b.fsub(p, q)) for p, q in zip(pairs[::2], pairs[1::2], strict=True)]
    made = []
    for k in range(count):
        value, *more = [pair[k % 2] for pair in sums]
        for number, term in zip(PAIRS[1:], more, strict=False):
            value = m.multiplied(m.constant(number**k), term, value) if k else b.fadd(value, term)
        made.append(value)
    made[0] = b.fadd(first, made[0])
    made[-1] = b.fadd(made[-1], last)
    return made


def _kernel_to_points(points: int, b: Any, m: Any, d: list[Any]) -> list[Any]:
    """Polynomials with these coefficients at every point, times its scale."""
    first, *pairs = SCALES[points]
    made = [b.fmul(m.constant(first), d[0])]
    for number, scale in zip(PAIRS, pairs, strict=False):
        even, odd = (_powers(b, m, d, start, number, scale) for start in (0, 1))
        made += [b.fadd(even, odd), b.fsub(even, odd)]
    return [*made, d[-1]]


def _powers(b: Any, m: Any, d: list[Any], start: int, number: float, scale: float) -> Any:
    """Every other coefficient from one on."""
    value = None
    for t in range(start, len(d), 2):
        factor = m.constant(scale * number**t)
        value = b.fmul(factor, d[t]) if value is None else m.multiplied(factor, d[t], value)
    return value


def _both(b: Any, m: Any, transform: Any, tile: list[list[Any]]) -> list[list[Any]]:
    """A transform of the columns, then of the rows."""
    columns = [transform(b, m, [row[j] for row in tile]) for j in range(len(tile[0]))]
    return [transform(b, m, [column[i] for column in columns]) for i in range(len(columns[0]))]


@intrinsic(prefer_literal=True)
def to_points(context, points, item, places, channel, v, step, left):
    """One vector of channels of a tile, with numbers at ``places`` plus ``channel``, to points ``step`` apart."""
    n = points.literal_value

    def generate(context, b, signature, arguments):
        _, _, places, channel, v, step, left = arguments
        l = Lanes(b, signature.args[1])
        with b.if_else(b.icmp_signed(">=", left, ir.Constant(I64, l.lanes))) as (whole, part):
            for branch, mask in ((whole, None), (part, left)):
                with branch:
                    mask = None if mask is None else l.first_lanes(mask)
                    tile = [
                        [
                            l.read(b.add(l.word(places, ir.Constant(I64, i * n + j)), channel), mask)
                            for j in range(n)
                        ]
                        for i in range(n)
                    ]
                    at = v
                    for row in _both(b, l, INPUTS[n], tile):
                        for value in row:
                            l.write(value, at, mask)
                            at = b.add(at, step)
        return context.get_dummy_value()

    return types.void(points, item, *(types.int64,) * 5), generate


def _behind(b: Any, l: Lanes, table: Any, index: Any, channel: Any) -> Any:
    """The address that a table holds, and so many bytes on."""
    return b.add(l.word(table, index), channel)


@intrinsic(prefer_literal=True)
def from_points(context, points, outputs, item, p, step, start, residuals, places, channel, left, low, high):
    """The other way; ``start`` and what stands at ``residuals``, if that is not 0, are added."""
    n, transform = points.literal_value, partial(_from_points, outputs.literal_value)

    def generate(context, b, signature, arguments):
        _, _, _, p, step, start, residuals, places, channel, left, low, high = arguments
        l = Lanes(b, signature.args[2])
        with b.if_else(b.icmp_signed(">=", left, ir.Constant(I64, l.lanes))) as (whole, part):
            for branch, mask in ((whole, None), (part, left)):
                with branch:
                    mask = None if mask is None else l.first_lanes(mask)
                    at, read = p, []
                    for _ in range(n * n):
                        read.append(l.read(at, mask))
                        at = b.add(at, step)
                    tile = [read[i * n : i * n + n] for i in range(n)]
                    bias, least, most = l.load(b.add(start, channel)), l.spread(low), l.spread(high)
                    values = [b.fadd(one, bias) for row in _both(b, l, transform, tile) for one in row]
                    for i, value in enumerate(values):
                        where = ir.Constant(I64, i)
                        there = b.icmp_signed("!=", residuals, ir.Constant(I64, 0))
                        value = l.plus_if(
                            there, value, partial(_behind, b, l, residuals, where, channel), mask
                        )
                        l.write(l.clamped(value, least, most), b.add(l.word(places, where), channel), mask)
        return context.get_dummy_value()

    return types.void(points, outputs, item, *(types.int64,) * 7, item, item), generate


@intrinsic(prefer_literal=True)
def kernel_to_points(context, points, taps, item, w, row, column, u, step, left):
    """The taps of one vector of outputs, ``row`` and ``column`` bytes apart, to points ``step`` apart."""
    transform, many = partial(_kernel_to_points, points.literal_value), range(taps.literal_value)

    def generate(context, b, signature, arguments):
        _, _, _, w, row, column, u, step, left = arguments
        l = Lanes(b, signature.args[2])
        mask = l.first_lanes(left)
        down = [b.mul(row, ir.Constant(I64, i)) for i in many]
        along = [b.mul(column, ir.Constant(I64, j)) for j in many]
        tile = [[l.masked_load(b.add(b.add(w, down[i]), along[j]), mask) for j in many] for i in many]
        for numbers in _both(b, l, transform, tile):
            for value in numbers:
                l.store(value, u)
                u = b.add(u, step)
        return context.get_dummy_value()

    return types.void(points, taps, item, *(types.int64,) * 6), generate
