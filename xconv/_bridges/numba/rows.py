"""Rows of numbers on their way from one place to another, in the words of the compiler: converted, filled in, added to.

Everything is an address and a number of bytes, so that one version serves arrays of any layout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xconv._bridges.numba.vectors import I32, I64, Lanes


def halves() -> bool:
    """Whether the processor reads 16-bit floats."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("f16c") or features.get("neon"))


class Converted(Lanes):
    """Vectors read as numbers of another type, of which a boolean stands for 16-bit floats, and made into ours."""

    def __init__(self, builder: Any, old: Any, new: Any) -> None:
        super().__init__(builder, new)
        self.kind = types.float16 if isinstance(old, types.Boolean) else old
        self.old: Any = ir.IntType(self.kind.bitwidth)
        if isinstance(self.kind, types.Float):
            self.old = {16: ir.HalfType(), 32: ir.FloatType(), 64: ir.DoubleType()}[self.kind.bitwidth]
        self.many = ir.VectorType(self.old, self.lanes)

    def ours(self, value: Any) -> Any:
        """One number, or a vector of them, converted as NumPy does it."""
        vector = isinstance(value.type, ir.VectorType)
        target = self.vector if vector else self.number
        if value.type == target:
            return value
        if isinstance(self.kind, types.Integer):
            return self.b.sitofp(value, target) if self.kind.signed else self.b.uitofp(value, target)
        if self.kind.bitwidth == 64:
            return self.b.fptrunc(value, target)
        if self.kind.bitwidth == 16:  # by way of 32 bits, for which there is an instruction
            single = ir.FloatType()
            value = self.b.fpext(value, ir.VectorType(single, self.lanes) if vector else single)
        return value if value.type == target else self.b.fpext(value, target)

    def taken(self, address: Any, mask: Any | None) -> Any:
        """The vector at an address, of any alignment; with a mask, zeros beside it."""
        where = self.at(address, self.many)
        if mask is None:
            return self.ours(self.b.load(where, align=1))
        letter = "i" if isinstance(self.kind, types.Integer) else "f"
        name = f"llvm.masked.load.v{self.lanes}{letter}{self.kind.bitwidth}.p0"
        kind = ir.FunctionType(self.many, [where.type, I32, mask.type, self.many])
        function = cgutils.get_or_insert_function(self.b.module, kind, name)
        return self.ours(
            self.b.call(function, [where, ir.Constant(I32, 1), mask, ir.Constant(self.many, None)])
        )


def vectors_of(b: Any, m: Lanes, count: Any, body: Callable[[Any, Any | None], None]) -> None:
    """``body`` at every whole vector of ``count`` numbers, and with a mask at what is left."""
    left = b.and_(count, ir.Constant(I64, m.lanes - 1))
    whole = b.sub(count, left)
    with cgutils.for_range_slice(b, ir.Constant(I64, 0), whole, ir.Constant(I64, m.lanes), I64) as (at, _):
        body(at, None)
    with b.if_then(b.icmp_signed("!=", left, ir.Constant(I64, 0))):
        body(whole, m.first_lanes(left))


@intrinsic
def move_number(context, old, new, x, y):
    """One number at ``x``, converted, to ``y``. ``old`` and ``new`` are any numbers of the types."""

    def generate(context, b, signature, arguments):
        _, _, x, y = arguments
        m = Converted(b, *signature.args[:2])
        b.store(m.ours(b.load(m.at(x, m.old), align=1)), m.at(y, m.number))
        return context.get_dummy_value()

    return types.void(old, new, types.int64, types.int64), generate


@intrinsic
def move_rows(context, old, new, x, xs, y, ys, rows, count):
    """``rows`` times ``count`` numbers, side by side; the next row is ``xs`` and ``ys`` bytes behind."""

    def generate(context, b, signature, arguments):
        _, _, x, xs, y, ys, rows, count = arguments
        m = Converted(b, *signature.args[:2])
        ours, theirs = ir.Constant(I64, m.size), ir.Constant(I64, m.kind.bitwidth // 8)
        with cgutils.for_range(b, rows, intp=I64) as row:
            source, target = b.add(x, b.mul(row.index, xs)), b.add(y, b.mul(row.index, ys))

            def body(at: Any, mask: Any | None) -> None:
                m.write(m.taken(b.add(source, b.mul(at, theirs)), mask), b.add(target, b.mul(at, ours)), mask)

            vectors_of(b, m, count, body)
        return context.get_dummy_value()

    return types.void(old, new, *(types.int64,) * 6), generate


@intrinsic
def fill_rows(context, value, y, ys, rows, count):
    """``rows`` times ``count`` numbers, all the same."""

    def generate(context, b, signature, arguments):
        value, y, ys, rows, count = arguments
        m = Lanes(b, signature.args[0])
        everywhere = m.spread(value)
        with cgutils.for_range(b, rows, intp=I64) as row:
            target = b.add(y, b.mul(row.index, ys))

            def body(at: Any, mask: Any | None) -> None:
                m.write(everywhere, b.add(target, b.mul(at, ir.Constant(I64, m.size))), mask)

            vectors_of(b, m, count, body)
        return context.get_dummy_value()

    return types.void(value, *(types.int64,) * 4), generate


@intrinsic
def finish_rows(context, y, ys, r, rs, start, rows, count, low, high):
    """``rows`` times ``count`` numbers, plus ``start`` and, if that is not 0, what stands at ``r``; then bounded."""

    def generate(context, b, signature, arguments):
        y, ys, r, rs, start, rows, count, low, high = arguments
        m = Lanes(b, signature.args[-1])
        least, most, there = m.spread(low), m.spread(high), b.icmp_signed("!=", r, ir.Constant(I64, 0))

        def finished(beside: Callable[[Any], Any] | None) -> None:
            with cgutils.for_range(b, rows, intp=I64) as row:
                target = b.add(y, b.mul(row.index, ys))
                more = None if beside is None else beside(row.index)

                def body(at: Any, mask: Any | None) -> None:
                    at = b.mul(at, ir.Constant(I64, m.size))
                    where = b.add(target, at)
                    value = b.fadd(m.read(where, mask), m.read(b.add(start, at), mask))
                    if more is not None:
                        value = b.fadd(value, m.read(b.add(more, at), mask))
                    m.write(m.clamped(value, least, most), where, mask)

                vectors_of(b, m, count, body)

        with b.if_else(there) as (with_residual, without):
            with with_residual:
                finished(lambda row: b.add(r, b.mul(row, rs)))
            with without:
                finished(None)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 7, low, high), generate
