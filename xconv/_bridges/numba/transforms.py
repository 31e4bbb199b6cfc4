"""Winograd's transforms F(m, 3) of tiles and kernels over two axes, in the words of the compiler.

The numbers of a tile for one vector of channels stay in registers, from the first to the last.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xconv._bridges.numba.vectors import I64, Lanes


def _input_2(b: Any, m: Any, d: list[Any]) -> list[Any]:
    return [b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[1], d[3])]


def _input_4(b: Any, m: Any, d: list[Any]) -> list[Any]:
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


def _output_2(b: Any, m: Any, d: list[Any]) -> list[Any]:
    return [b.fadd(b.fadd(d[0], d[1]), d[2]), b.fsub(b.fsub(d[1], d[2]), d[3])]


def _output_4(b: Any, m: Any, d: list[Any]) -> list[Any]:
    two, four, eight = m.constant(2), m.constant(4), m.constant(8)
    s, t, p, q = b.fadd(d[1], d[2]), b.fsub(d[1], d[2]), b.fadd(d[3], d[4]), b.fsub(d[3], d[4])
    return [
        b.fadd(b.fadd(d[0], s), p),
        m.multiplied(two, q, t),
        m.multiplied(four, p, s),
        b.fadd(m.multiplied(eight, q, t), d[5]),
    ]


def _kernel_2(b: Any, m: Any, d: list[Any]) -> list[Any]:
    half = m.constant(1 / 2)
    ends, middle = b.fmul(half, b.fadd(d[0], d[2])), b.fmul(half, d[1])
    return [d[0], b.fadd(ends, middle), b.fsub(ends, middle), d[2]]


def _kernel_4(b: Any, m: Any, d: list[Any]) -> list[Any]:
    ends, middle = b.fmul(m.constant(-1 / 6), b.fadd(d[0], d[2])), b.fmul(m.constant(-1 / 6), d[1])
    far = m.multiplied(m.constant(1 / 24), d[0], b.fmul(m.constant(1 / 6), d[2]))
    near = b.fmul(m.constant(1 / 12), d[1])
    return [
        b.fmul(m.constant(1 / 4), d[0]),
        b.fadd(ends, middle),
        b.fsub(ends, middle),
        b.fadd(far, near),
        b.fsub(far, near),
        d[2],
    ]


def _both(b: Any, m: Any, transform: Any, tile: list[list[Any]]) -> list[list[Any]]:
    """A transform of the columns, then of the rows."""
    columns = [transform(b, m, [row[j] for row in tile]) for j in range(len(tile[0]))]
    return [transform(b, m, [column[i] for column in columns]) for i in range(len(columns[0]))]


@intrinsic(prefer_literal=True)
def to_points(context, outputs, item, places, channel, v, step, left):
    """One vector of channels of a tile, with numbers at ``places`` plus ``channel``, to points ``step`` apart."""
    m = outputs.literal_value

    def generate(context, b, signature, arguments):
        _, _, places, channel, v, step, left = arguments
        l, n = Lanes(b, signature.args[1]), m + 2
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
                    for row in _both(b, l, {2: _input_2, 4: _input_4}[m], tile):
                        for value in row:
                            l.write(value, at, mask)
                            at = b.add(at, step)
        return context.get_dummy_value()

    return types.void(outputs, item, *(types.int64,) * 5), generate


def _behind(b: Any, l: Lanes, table: Any, index: Any, channel: Any) -> Any:
    """The address that a table holds, and so many bytes on."""
    return b.add(l.word(table, index), channel)


@intrinsic(prefer_literal=True)
def from_points(context, outputs, item, p, step, start, residuals, places, channel, left, low, high):
    """The other way; ``start`` and what stands at ``residuals``, if that is not 0, are added."""
    m = outputs.literal_value

    def generate(context, b, signature, arguments):
        _, _, p, step, start, residuals, places, channel, left, low, high = arguments
        l, n = Lanes(b, signature.args[1]), m + 2
        with b.if_else(b.icmp_signed(">=", left, ir.Constant(I64, l.lanes))) as (whole, part):
            for branch, mask in ((whole, None), (part, left)):
                with branch:
                    mask = None if mask is None else l.first_lanes(mask)
                    at, points = p, []
                    for _ in range(n * n):
                        points.append(l.read(at, mask))
                        at = b.add(at, step)
                    tile = [points[i * n : i * n + n] for i in range(n)]
                    bias, least, most = l.load(b.add(start, channel)), l.spread(low), l.spread(high)
                    values = [
                        b.fadd(one, bias)
                        for row in _both(b, l, {2: _output_2, 4: _output_4}[m], tile)
                        for one in row
                    ]
                    for i, value in enumerate(values):
                        where = ir.Constant(I64, i)
                        there = b.icmp_signed("!=", residuals, ir.Constant(I64, 0))
                        value = l.plus_if(
                            there, value, partial(_behind, b, l, residuals, where, channel), mask
                        )
                        l.write(l.clamped(value, least, most), b.add(l.word(places, where), channel), mask)
        return context.get_dummy_value()

    return types.void(outputs, item, *(types.int64,) * 7, item, item), generate


@intrinsic(prefer_literal=True)
def kernel_to_points(context, outputs, item, w, row, column, u, step, left):
    """The 3 by 3 numbers of one vector of outputs, ``row`` and ``column`` bytes apart, to points ``step`` apart."""
    m = outputs.literal_value

    def generate(context, b, signature, arguments):
        _, _, w, row, column, u, step, left = arguments
        l = Lanes(b, signature.args[1])
        mask, three = l.first_lanes(left), range(3)
        down = [b.mul(row, ir.Constant(I64, i)) for i in three]
        along = [b.mul(column, ir.Constant(I64, j)) for j in three]
        tile = [[l.masked_load(b.add(b.add(w, down[i]), along[j]), mask) for j in three] for i in three]
        for points in _both(b, l, {2: _kernel_2, 4: _kernel_4}[m], tile):
            for value in points:
                l.store(value, u)
                u = b.add(u, step)
        return context.get_dummy_value()

    return types.void(outputs, item, *(types.int64,) * 6), generate
