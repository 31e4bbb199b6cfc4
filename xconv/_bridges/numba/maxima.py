"""The largest element of every window and where it stands, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xconv._address import address
from xconv._bridges.numba.arrays import Array
from xconv._bridges.numba.kernels import Kernel, put, stack, words
from xconv._bridges.numba.reductions import PIXELS
from xconv._bridges.numba.sharing import TAP, shared
from xconv._bridges.numba.taps import byte_steps, geometry, met, padding, place_taps, three
from xconv._bridges.numba.vectors import I32, I64, WIDTH, Lanes
from xconv._geometry import Axis


@intrinsic(prefer_literal=True)
def _first_maxima(
    context, item, x, step, off, rise, count, edge, inside, nothing, start, base, next_base, y, ystep, to, next_to,
    some, left,
):  # fmt: skip
    """The first largest of ``count`` taps of `PIXELS` pixels; addresses are those of `reductions.reduce_rows`.

    Tap ``t`` stands ``rise[t]`` behind the window's first, whose position is ``base`` and ``next_base`` more for every
    pixel. A pixel with nothing above the padding is at the place that ``start`` holds for it, behind its first.
    """

    def generate(context, b, signature, arguments):
        _, x, step, off, rise, count, edge, inside, nothing, start, *results = arguments
        base, next_base, y, ystep, to, next_to, some, left = results
        m = Lanes(b, signature.args[0])
        word = I32 if m.size == 4 else I64
        long = ir.VectorType(I64, m.lanes)

        def times(number: int, step: Any) -> Any:
            return b.mul(step, ir.Constant(I64, number))

        def place(table: Any, index: Any) -> Any:
            value = m.word(table, index)
            return m.spread(value if word is I64 else b.trunc(value, word))

        def write(value: Any, position: Any, p: int, mask: Any | None) -> None:
            m.write(value, b.add(y, times(p, ystep)), mask)
            if word is not I64:
                position = b.sext(position, long)
            position = b.add(position, m.spread(b.add(base, times(p, next_base))))
            where = m.at(b.add(to, times(p, next_to)), long)
            if mask is None:
                b.store(position, where, align=8)
                return
            kind = ir.FunctionType(ir.VoidType(), [long, where.type, I32, mask.type])
            name = f"llvm.masked.store.v{m.lanes}i64.p0"
            function = cgutils.get_or_insert_function(b.module, kind, name)
            b.call(function, [position, where, ir.Constant(I32, 8), mask])

        def all_taps(mask: Any | None, *, edge: bool) -> None:
            def tap(t: Any, made: list[Any]) -> list[Any]:
                begin, position = b.add(x, m.word(off, t)), place(rise, t)
                if edge:
                    pair = b.shl(t, ir.Constant(I64, 1))
                    first = m.word(inside, pair)
                    width = b.sub(m.word(inside, m.plus(pair, 1)), first)
                new = []
                for p in range(PIXELS):
                    at = b.add(begin, times(p, step))
                    if edge:
                        there = b.icmp_unsigned("<", b.sub(ir.Constant(I64, p), first), width)
                        at = b.select(there, at, nothing)
                    value, (best, found) = m.read(at, mask), made[2 * p : 2 * p + 2]
                    # a first NaN is better, and then nothing is
                    better = b.and_(b.fcmp_unordered(">", value, best), b.fcmp_ordered("ord", best, best))
                    new += [b.select(better, value, best), b.select(better, position, found)]
                return new

            begin = [m.read(nothing, mask), None] * PIXELS
            begin[1::2] = [place(start, ir.Constant(I64, p)) for p in range(PIXELS)]
            made = m.loop(count, begin, tap)
            for p in range(PIXELS):
                if edge:
                    with b.if_then(b.icmp_signed("<", ir.Constant(I64, p), some)):
                        write(made[2 * p], made[2 * p + 1], p, mask)
                else:
                    write(made[2 * p], made[2 * p + 1], p, mask)

        complete = b.icmp_signed(">=", left, ir.Constant(I64, m.lanes))
        with b.if_else(b.and_(complete, b.icmp_signed("==", edge, ir.Constant(I64, 0)))) as (inner, edges):
            with inner:
                all_taps(None, edge=False)
            with edges:
                all_taps(m.first_lanes(left), edge=True)
        return context.get_dummy_value()

    return types.void(item, *(types.int64,) * 17), generate


@Kernel
def _maxima(job, start_row, end_row, item):
    """The whole input is known by where the first window begins, how far apart positions are, and its sizes.

    Padding that was written out is part of x, but nothing above it stands in the whole input only.
    """
    size, x, nothing, y, to, channels = words(job, 1, 6)
    windows, strides, dilations = words(job, 7, 3), words(job, 10, 3), words(job, 13, 3)
    lows, sizes, outputs = words(job, 16, 3), words(job, 19, 3), words(job, 22, 3)
    xs, ys, tos = words(job, 25, 4), words(job, 29, 4), words(job, 33, 4)
    first, worth, entire = words(job, 37, 3), words(job, 40, 3), words(job, 43, 3)
    most = max(windows[0] * windows[1] * windows[2], 1)
    table = np.empty(7 * most, np.int64)
    off, start = table.ctypes.data, stack(PIXELS)
    rise, number, everywhere, inside = off + 8 * most, off + 16 * most, off + 24 * most, off + 40 * most
    for t in range(most):
        put(everywhere, 2 * t, 0)
        put(everywhere, 2 * t + 1, 2**62)
    reach = (PIXELS - 1) * strides[2] + (windows[2] - 1) * dilations[2]
    lanes = WIDTH // size
    steps = (dilations[0] * xs[1], dilations[1] * xs[2], dilations[2] * xs[3])
    rises = (dilations[0] * worth[0], dilations[1] * worth[1], dilations[2] * worth[2])
    seen, count = ((-1, -1), (-1, -1)), 0
    for row in range(start_row, end_row):
        p, rest = row % outputs[1], row // outputs[1]
        o, sample = rest % outputs[0], rest // outputs[0]
        i = o * strides[0] - lows[0]
        j = p * strides[1] - lows[1]
        planes = met(i, dilations[0], windows[0], sizes[0])
        rows = met(j, dilations[1], windows[1], sizes[1])
        if seen != (planes, rows):
            seen = (planes, rows)
            count = place_taps(planes, rows, windows[2], windows, steps, off, number)
            place_taps(planes, rows, windows[2], windows, rises, rise, number)
        at = x + sample * xs[0] + i * xs[1] + j * xs[2]
        values = y + sample * ys[0] + o * ys[1] + p * ys[2]
        places = to + sample * tos[0] + o * tos[1] + p * tos[2]
        above = met(first[0] + o * strides[0], dilations[0], windows[0], entire[0])[0] * rises[0]
        above += met(first[1] + p * strides[1], dilations[1], windows[1], entire[1])[0] * rises[1]
        base = (first[0] + o * strides[0]) * worth[0] + (first[1] + p * strides[1]) * worth[1]
        for q in range(0, outputs[2], PIXELS):
            k = q * strides[2] - lows[2]
            some = min(outputs[2] - q, PIXELS)
            edge = some < PIXELS or k < 0 or k + reach >= sizes[2] or count == 0
            bounds = everywhere
            for t in range(PIXELS):
                before = met(first[2] + (q + t) * strides[2], dilations[2], windows[2], entire[2])
                put(start, t, above + before[0] * rises[2])
            if edge:
                bounds = inside
                for t in range(count):
                    u = k + t % windows[2] * dilations[2]
                    begin, end = met(u, strides[2], some, sizes[2])
                    put(inside, 2 * t, begin)
                    put(inside, 2 * t + 1, end)
                if count == 0:  # one tap of nothing
                    put(off, 0, 0)
                    put(rise, 0, 0)
                    put(inside, 0, 0)
                    put(inside, 1, 0)
            for c in range(0, channels, lanes):
                d = c * size
                _first_maxima(
                    item, at + k * xs[3] + d, xs[3] * strides[2], off, rise,
                    max(count, 1), edge, bounds, nothing, start,
                    base + first[2] + q * strides[2], strides[2], values + q * ys[3] + d, ys[3],
                    places + q * tos[3] + 8 * c, tos[3], some, channels - c,
                )  # fmt: skip
    table[0] = 0  # it is alive until here


def first_maximum(
    x: Array, axes: tuple[Axis, ...], whole: tuple[Axis, ...], origin: Sequence[int], y: Array, indices: Array
) -> tuple[Array, Array]:
    """The largest elements of windows of x (N, *n, C), to y (N, *out, C), and where each stands, to ``indices``.

    The first of equals is taken and the first NaN, if any; a window without anything larger than the padding gives its
    first element inside the input. Positions are counted in the input that has the axes ``whole``, without padding;
    ``axes`` are those of x, and ``origin`` is which windows of the whole its first ones are.
    """
    if not y.size:
        return y, indices
    _kept, nothing = padding(float("-inf"), y.dtype)
    every = three(whole)
    first = (o * a.stride - a.low for o, a in zip((*(0,) * (3 - len(whole)), *origin), every, strict=True))
    worth = (prod(a.size for a in every[i + 1 :]) for i in range(3))
    shared(
        _maxima, (y.dtype.type(0),), prod(y.shape[:-2]), TAP * y.size * prod(a.window for a in axes), 1,
        (
            y.itemsize, address(x), nothing, address(y), address(indices), y.shape[-1], *geometry(axes),
            *byte_steps(x.strides), *byte_steps(y.strides), *byte_steps(indices.strides), *first, *worth,
            *(a.size for a in every),
        ),
    )  # fmt: skip
    return y, indices
