"""Loops over vectors of the processor that stay in its registers, written in the words of the compiler.

LLVM does not find these by itself: the sums of several pixels are kept in registers over all terms, so that a term
costs little more than its multiplications. A pixel is an address; so any rank, stride and dilation is the same loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def _machine() -> tuple[int, int]:
    """Bytes of a vector, and how many registers there are for them."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx2") and features.get("fma"):
        return 32, 16
    return 16, 32 if features.get("neon") else 16


WIDTH, _REGISTERS = _machine()
MOST = 4 if _REGISTERS == 32 else 2  # vectors of outputs that are summed at once
# Pixels that are summed at once with so many vectors of outputs: all sums and one term of each fit the registers.
PIXELS_1, PIXELS_2, PIXELS_3, PIXELS_4 = (14, 10, 7, 6) if _REGISTERS == 32 else (8, 6, 1, 1)


EARLY = 2**14  # bytes that weights are called for before they are read: those of the next outputs
AHEAD = 16  # rows that are called for before they are read


class Lanes:
    """What the loops below have in common: numbers, addresses and vectors of one type."""

    def __init__(self, builder: Any, item: Any) -> None:
        self.b = builder
        self.number = ir.FloatType() if item == types.float32 else ir.DoubleType()
        self.size = 4 if item == types.float32 else 8
        self.lanes = WIDTH // self.size
        self.vector = ir.VectorType(self.number, self.lanes)
        self.name = f"v{self.lanes}f{8 * self.size}"

    def at(self, address: Any, kind: Any) -> Any:
        return self.b.inttoptr(address, kind.as_pointer())

    def plus(self, address: Any, count: int) -> Any:
        return self.b.add(address, ir.Constant(I64, count)) if count else address

    def word(self, table: Any, index: Any) -> Any:
        """A 64-bit integer of a table."""
        return self.b.load(self.b.gep(self.at(table, I64), [index]))

    def load(self, address: Any) -> Any:
        return self.b.load(self.at(address, self.vector), align=self.size)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.at(address, self.vector), align=self.size)

    def prefetch(self, address: Any) -> None:
        """Have what stands at an address brought near; there need not be anything."""
        where = self.at(address, ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [where.type, I32, I32, I32])
        function = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0")
        self.b.call(function, [where, *(ir.Constant(I32, i) for i in (0, 3, 1))])  # to read, to be kept, data

    def spread(self, value: Any) -> Any:
        """A number in every lane."""
        kind = ir.VectorType(value.type, self.lanes)
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.b.insert_element(nothing, value, ir.Constant(I32, 0))
        return self.b.shuffle_vector(
            first, nothing, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        )

    def spread_from(self, address: Any) -> Any:
        return self.spread(self.b.load(self.at(address, self.number), align=self.size))

    def multiplied(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, rounded once where the processor can."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.b.call(
            cgutils.get_or_insert_function(self.b.module, kind, f"llvm.fmuladd.{self.name}"), [a, b, c]
        )

    def first_lanes(self, count: Any) -> Any:
        """A mask of the first ``count`` lanes."""
        lanes = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return self.b.icmp_signed("<", lanes, self.spread(count))

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [float(value)] * self.lanes)

    def read(self, address: Any, mask: Any | None) -> Any:
        return self.load(address) if mask is None else self.masked_load(address, mask)

    def write(self, value: Any, address: Any, mask: Any | None) -> None:
        if mask is None:
            self.store(value, address)
        else:
            self.masked_store(value, address, mask)

    def plus_if(self, there: Any, value: Any, address: Callable[[], Any], mask: Any | None) -> Any:
        """``value``, and where a condition holds what stands at an address as well."""
        before = self.b.block
        with self.b.if_then(there):
            more = self.b.fadd(value, self.read(address(), mask))
            inside = self.b.block
        return self.either(before, [value], inside, [more])[0]

    def either(self, before: Any, values: list[Any], inside: Any, others: list[Any]) -> list[Any]:
        """What stands in the one block or in the other, wherever one came from."""
        found = []
        for value, other in zip(values, others, strict=True):
            found.append(self.b.phi(value.type))
            found[-1].add_incoming(value, before)
            found[-1].add_incoming(other, inside)
        return found

    def plus_rows(
        self, values: list[Any], base: Any, rows: list[Any], count: int, masks: list[Any]
    ) -> list[Any]:
        """``count`` values for each row, and where ``base`` is not 0 what stands so far behind it as well."""
        before = self.b.block
        with self.b.if_then(self.b.icmp_signed("!=", base, ir.Constant(I64, 0))):
            found = []
            for p, row in enumerate(rows):
                at = self.b.add(base, row)
                for i in range(count):
                    more = self.masked_load(self.plus(at, i * self.lanes * self.size), masks[i])
                    found.append(self.b.fadd(values[p * count + i], more))
            inside = self.b.block
        return self.either(before, values, inside, found)

    def masked_load(self, address: Any, mask: Any) -> Any:
        where = self.at(address, self.vector)
        kind = ir.FunctionType(self.vector, [where.type, I32, mask.type, self.vector])
        function = cgutils.get_or_insert_function(self.b.module, kind, f"llvm.masked.load.{self.name}.p0")
        zeros = ir.Constant(self.vector, [0.0] * self.lanes)
        return self.b.call(function, [where, ir.Constant(I32, self.size), mask, zeros])

    def masked_store(self, value: Any, address: Any, mask: Any) -> None:
        where = self.at(address, self.vector)
        kind = ir.FunctionType(ir.VoidType(), [self.vector, where.type, I32, mask.type])
        function = cgutils.get_or_insert_function(self.b.module, kind, f"llvm.masked.store.{self.name}.p0")
        self.b.call(function, [value, where, ir.Constant(I32, self.size), mask])

    def clamped(self, value: Any, low: Any, high: Any) -> Any:
        """NaN stays NaN."""
        value = self.b.select(self.b.fcmp_ordered("<", value, low), low, value)
        return self.b.select(self.b.fcmp_ordered(">", value, high), high, value)

    def clamped_all(self, values: list[Any], low: Any, high: Any) -> list[Any]:
        """The same for all of them, and not at all where there are no bounds."""
        endless = [ir.Constant(self.number, float(end)) for end in ("-inf", "inf")]
        bounded = self.b.or_(
            self.b.fcmp_ordered("!=", low, endless[0]), self.b.fcmp_ordered("!=", high, endless[1])
        )
        before = self.b.block
        with self.b.if_then(bounded):
            least, most = self.spread(low), self.spread(high)
            held = [self.clamped(value, least, most) for value in values]
            inside = self.b.block
        return self.either(before, values, inside, held)

    def loop(self, count: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """``count`` times, at least once: what the body makes of the index and of what it made last."""
        before = self.b.block
        inside, after = self.b.append_basic_block("terms"), self.b.append_basic_block("summed")
        self.b.branch(inside)
        self.b.position_at_end(inside)
        index = self.b.phi(I64)
        index.add_incoming(ir.Constant(I64, 0), before)
        phis = []
        for value in carried:
            phis.append(self.b.phi(value.type))
            phis[-1].add_incoming(value, before)
        new = body(index, phis)
        following = self.plus(index, 1)
        end = self.b.block
        index.add_incoming(following, end)
        for phi, value in zip(phis, new, strict=True):
            phi.add_incoming(value, end)
        self.b.cbranch(self.b.icmp_signed("<", following, count), inside, after)
        self.b.position_at_end(after)
        return new


@intrinsic(prefer_literal=True)
def sum_rows(context, vectors, several, item, x, px, off, count, w, start, y, py, r, pr, left, low, high):
    """Sums over ``count`` numbers of each of ``several`` pixels times ``vectors`` vectors of weights.

    Byte addresses: pixels at ``x + px[p]``, their numbers ``off[k]`` behind; the weights at ``w``, one row after the
    other; what is added to the sums at ``start``, and where ``r`` is not 0 also at ``r + pr[p]``; results, of which
    ``left`` remain, at ``y + py[p]``, held between ``low`` and ``high``. ``item`` is any number of the type.
    """
    v, pixels = vectors.literal_value, several.literal_value

    def generate(context, b, signature, arguments):
        _, _, _, x, px, off, count, w, start, y, py, r, pr, left, low, high = arguments
        m = Lanes(b, signature.args[2])
        width = m.lanes * m.size
        places = [ir.Constant(I64, p) for p in range(pixels)]
        xs = [b.add(x, m.word(px, p)) for p in places]
        masks = [m.first_lanes(b.sub(left, ir.Constant(I64, i * m.lanes))) for i in range(v)]
        zero = m.constant(0.0)

        def body(k: Any, sums: list[Any]) -> list[Any]:
            *sums, weights = sums
            offset = m.word(off, k)
            for i in range(0, v * width, 64):
                m.prefetch(m.plus(weights, EARLY + i))
            row = [m.load(m.plus(weights, i * width)) for i in range(v)]
            new = []
            for p in range(pixels):
                value = m.spread_from(b.add(xs[p], offset))
                new += [m.multiplied(value, row[i], sums[p * v + i]) for i in range(v)]
            return [*new, m.plus(weights, v * width)]

        sums = m.loop(count, [*[zero] * (v * pixels), w], body)[:-1]
        more = [m.load(m.plus(start, i * width)) for i in range(v)]
        sums = [b.fadd(one, more[i % v]) for i, one in enumerate(sums)]
        sums = m.plus_rows(sums, r, [m.word(pr, p) for p in places], v, masks)
        sums = m.clamped_all(sums, low, high)
        ys = [b.add(y, m.word(py, p)) for p in places]
        with b.if_else(b.icmp_signed(">=", left, ir.Constant(I64, v * m.lanes))) as (whole, part):
            with whole:
                for p in range(pixels):
                    for i in range(v):
                        m.store(sums[p * v + i], m.plus(ys[p], i * width))
            with part:
                for p in range(pixels):
                    for i in range(v):
                        m.masked_store(sums[p * v + i], m.plus(ys[p], i * width), masks[i])
        return context.get_dummy_value()

    words = (types.int64,) * 11
    return types.void(vectors, several, item, *words, item, item), generate


@intrinsic(prefer_literal=True)
def copy_rows(context, vectors, item, x, apart, y, count, left):
    """``count`` rows of ``vectors`` vectors that are ``apart``, of which ``left`` numbers are there, side by side."""
    v = vectors.literal_value

    def generate(context, b, signature, arguments):
        _, _, x, apart, y, count, left = arguments
        m = Lanes(b, signature.args[1])
        width = m.lanes * m.size
        masks = [m.first_lanes(b.sub(left, ir.Constant(I64, i * m.lanes))) for i in range(v)]
        ahead = b.mul(apart, ir.Constant(I64, AHEAD))

        def rows(masks: list[Any]) -> None:
            def body(k: Any, carried: list[Any]) -> list[Any]:
                x, y = carried
                for i in range(0, v * width, 64):
                    m.prefetch(b.add(m.plus(x, i), ahead))
                for i, mask in enumerate(masks):
                    m.store(m.read(m.plus(x, i * width), mask), m.plus(y, i * width))
                return [b.add(x, apart), m.plus(y, v * width)]

            m.loop(count, [x, y], body)

        with b.if_else(b.icmp_signed(">=", left, ir.Constant(I64, v * m.lanes))) as (whole, part):
            with whole:
                rows([None] * v)
            with part:
                rows(masks)
        return context.get_dummy_value()

    return types.void(vectors, item, *(types.int64,) * 5), generate
