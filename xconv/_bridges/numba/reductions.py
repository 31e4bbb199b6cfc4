"""The loop of depthwise convolutions and pools: one vector of channels of neighbouring pixels, a row of taps at a time.

What taps read again for the next pixel is loaded once, and every pixel meets its taps in the same order wherever it
stands, at an edge or not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xconv._bridges.numba.vectors import I64, Lanes

PRODUCTS, SUM, MAX, MIN = 0, 1, 2, 3
PIXELS = 7  # at once: what they need fits the registers, and the widths of most networks' layers are multiples of it


def _extreme(m: Lanes, sign: str, value: Any, best: Any) -> Any:
    """The larger (``>``) or smaller (``<``) one; a NaN wins over any number."""
    kept = m.b.select(m.b.fcmp_ordered(sign, value, best), value, best)
    return m.b.select(m.b.fcmp_ordered("ord", value, value), kept, value)


def _reduced(m: Lanes, kind: int, value: Any, weight: Any, made: Any) -> Any:
    if kind == PRODUCTS:
        return m.multiplied(value, weight, made)
    if kind == SUM:
        return m.b.fadd(made, value)
    return _extreme(m, ">" if kind == MAX else "<", value, made)


@intrinsic(prefer_literal=True)
def reduce_rows(
    context, kind, window, stride, item, x, step, off, count, edge, inside, nothing, w, woff, beside, start, y, ystep,
    some, r, rstep, left, low, high,
):  # fmt: skip
    """Reduce ``window`` neighbouring taps in each of ``count`` rows, for `PIXELS` pixels ``stride`` columns apart.

    Byte addresses: column ``j`` of row ``t`` is at ``x + off[t] + j * step``, its weights at ``w + woff[t]`` and every
    ``beside`` bytes behind. ``inside`` holds for every row which columns there are, from and to, and ``some`` is how
    many pixels there are: what stands at ``nothing`` takes the place of other columns. Where all are there, ``edge``
    may be 0. A reduction begins with what is at ``start``, and with what is at ``r + p * rstep`` if ``r`` is not 0;
    ``left`` channels remain. Results go to ``y + p * ystep``; sums of products are held between ``low`` and ``high``.
    """
    which, taps, apart = kind.literal_value, window.literal_value, stride.literal_value
    columns = (PIXELS - 1) * apart + taps

    def generate(context, b, signature, arguments):
        x, step, off, count, edge, inside, nothing, w, woff, beside, start, *results = arguments[4:]
        y, ystep, some, r, rstep, left, low, high = results
        m = Lanes(b, signature.args[3])

        def times(number: int, step: Any) -> Any:
            return b.mul(step, ir.Constant(I64, number))

        def residual(p: int) -> Any:
            return b.add(r, times(p, rstep))

        def row(t: Any, made: list[Any], read: Callable[[Any], Any], *, edge: bool) -> list[Any]:
            begin = b.add(x, m.word(off, t))
            weights: list[Any] = [None] * taps
            if which == PRODUCTS:
                place = b.add(w, m.word(woff, t))
                weights = [read(b.add(place, times(i, beside))) for i in range(taps)]
            if edge:
                pair = b.shl(t, ir.Constant(I64, 1))
                first = m.word(inside, pair)
                width = b.sub(m.word(inside, m.plus(pair, 1)), first)
            made = list(made)
            for j in range(columns):
                at = b.add(begin, times(j, step))
                if edge:
                    there = b.icmp_unsigned("<", b.sub(ir.Constant(I64, j), first), width)
                    at = b.select(there, at, nothing)
                value = read(at)
                for p in range(PIXELS):
                    if 0 <= j - p * apart < taps:
                        made[p] = _reduced(m, which, value, weights[j - p * apart], made[p])
            return made

        def all_rows(mask: Any | None, *, edge: bool) -> None:
            begin = [m.read(start, mask)] * PIXELS
            if which == PRODUCTS:
                for p in range(PIXELS):
                    there = b.icmp_signed("!=", r, ir.Constant(I64, 0))
                    if edge:
                        there = b.and_(there, b.icmp_signed("<", ir.Constant(I64, p), some))
                    begin[p] = m.plus_if(there, begin[p], partial(residual, p), mask)
            made = m.loop(count, begin, lambda t, made: row(t, made, lambda at: m.read(at, mask), edge=edge))
            if which == PRODUCTS:
                least, most = m.spread(low), m.spread(high)
                made = [m.clamped(one, least, most) for one in made]
            for p, one in enumerate(made):
                if edge:
                    with b.if_then(b.icmp_signed("<", ir.Constant(I64, p), some)):
                        m.write(one, b.add(y, times(p, ystep)), mask)
                else:
                    m.write(one, b.add(y, times(p, ystep)), mask)

        complete = b.icmp_signed(">=", left, ir.Constant(I64, m.lanes))
        with b.if_else(b.and_(complete, b.icmp_signed("==", edge, ir.Constant(I64, 0)))) as (inner, edges):
            with inner:
                all_rows(None, edge=False)
            with edges:
                all_rows(m.first_lanes(left), edge=True)
        return context.get_dummy_value()

    words = (types.int64,) * 17
    return types.void(kind, window, stride, item, *words, item, item), generate
