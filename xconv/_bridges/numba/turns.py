"""Channels that stand apart, put side by side, in registers: squares turned, and few rows woven into one."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xconv._bridges.numba.rows import Converted, vectors_of
from xconv._bridges.numba.vectors import I32, I64

WOVEN = 4  # rows, at most, that are woven


class Shuffled(Converted):
    """Vectors whose numbers change places."""

    def shuffled(self, a: Any, b: Any, order: list[int]) -> Any:
        return self.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), order))

    def turned(self, rows: list[Any]) -> list[Any]:
        """As many vectors as they have lanes, rows made columns, in steps that are one instruction each.

        First within pieces of 16 bytes, which processors shuffle by themselves, then piece by piece.
        """
        n, piece = self.lanes, 16 // self.size
        half = 1
        while (
            half < piece
        ):  # in a group of `piece` rows: numbers of two rows side by side, pairs of them, ...
            step = [at for at in range(n // half) if at % (piece // half) < piece // (2 * half)]
            low = [half * at + i + source * n for at in step for source in (0, 1) for i in range(half)]
            high = [at + piece // 2 for at in low]
            new: list[Any] = []
            for group in range(0, n, 2 * half):
                for i in range(half):
                    a, b = rows[group + i], rows[group + half + i]
                    new += [self.shuffled(a, b, low), self.shuffled(a, b, high)]
            rows, half = new, 2 * half
        columns = [self._pieces([rows[group + i] for group in range(0, n, piece)]) for i in range(piece)]
        return [columns[i % piece][i // piece] for i in range(n)]

    def _pieces(self, rows: list[Any]) -> list[Any]:
        """Pieces of 16 bytes, rows made columns."""
        if len(rows) == 1:
            return rows
        piece = 16 // self.size
        even = [i for i in range(2 * self.lanes) if i // piece % 2 == 0]
        odd = [i + piece for i in even]
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        evens = self._pieces([self.shuffled(a, b, even) for a, b in pairs])
        odds = self._pieces([self.shuffled(a, b, odd) for a, b in pairs])
        return [row for both in zip(evens, odds, strict=True) for row in both]

    def woven(self, rows: list[Any]) -> list[Any]:
        """As many vectors as there are rows: the first number of each row, then the second of each."""
        n, count, new = self.lanes, len(rows), []
        for k in range(count):
            numbers = [divmod(k * n + lane, count) for lane in range(n)]
            made = rows[0]
            for i in range(1, count):  # what was right before stays; of the first two, both are put in order
                order = [at if i == 1 else lane for lane, (at, _) in enumerate(numbers)]
                made = self.shuffled(
                    made,
                    rows[i],
                    [n + at if row == i else order[lane] for lane, (at, row) in enumerate(numbers)],
                )
            new.append(made)
        return new


@intrinsic
def turn(context, old, new, x, xs, y, ys, columns, rows, dump):
    """Up to a vector of rows, ``xs`` apart, of up to a vector of numbers: made columns, ``ys`` apart.

    What is read of more columns than there are goes to ``dump``.
    """

    def generate(context, b, signature, arguments):
        _, _, x, xs, y, ys, columns, rows, dump = arguments
        m = Shuffled(b, *signature.args[:2])
        n = ir.Constant(I64, m.lanes)
        whole = b.and_(b.icmp_signed(">=", columns, n), b.icmp_signed(">=", rows, n))
        with b.if_else(whole) as (all_of_it, part):
            for branch, entire in ((all_of_it, True), (part, False)):
                with branch:
                    across = None if entire else m.first_lanes(columns)
                    down = None if entire else m.first_lanes(rows)
                    values = []
                    for i in range(m.lanes):
                        place = ir.Constant(I64, i)
                        if not entire:  # past the end the first row once more
                            place = b.select(b.icmp_signed("<", place, rows), place, ir.Constant(I64, 0))
                        values.append(m.taken(b.add(x, b.mul(place, xs)), across))
                    for i, value in enumerate(m.turned(values)):
                        place = ir.Constant(I64, i)
                        target = b.add(y, b.mul(place, ys))
                        if not entire:
                            target = b.select(b.icmp_signed("<", place, columns), target, dump)
                        m.write(value, target, down)
        return context.get_dummy_value()

    return types.void(old, new, *(types.int64,) * 7), generate


@intrinsic(prefer_literal=True)
def weave(context, rows, old, new, x, xs, y, count):
    """``rows`` rows of ``count`` numbers, ``xs`` apart, to one: the first of each, then the second of each."""
    many = rows.literal_value

    def generate(context, b, signature, arguments):
        _, _, _, x, xs, y, count = arguments
        m = Shuffled(b, *signature.args[1:3])

        def body(at: Any, mask: Any | None) -> None:
            theirs, ours = (b.mul(at, ir.Constant(I64, n)) for n in (m.kind.bitwidth // 8, many * m.size))
            source, target = b.add(x, theirs), b.add(y, ours)
            values = [m.taken(b.add(source, b.mul(xs, ir.Constant(I64, i))), mask) for i in range(many)]
            left = b.mul(b.sub(count, at), ir.Constant(I64, many))
            for i, value in enumerate(m.woven(values)):
                rest = None if mask is None else m.first_lanes(b.sub(left, ir.Constant(I64, i * m.lanes)))
                m.write(value, m.plus(target, i * m.lanes * m.size), rest)

        vectors_of(b, m, count, body)
        return context.get_dummy_value()

    return types.void(rows, old, new, *(types.int64,) * 4), generate
