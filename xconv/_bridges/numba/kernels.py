"""Functions that are compiled once for each kind of number, and called by an address, with their arguments in a table.

A kernel is written as ``kernel(job, first, last, *items)``: it does the pieces ``first`` to ``last`` of a job, which is
the address of 64-bit words. The first word is 0 until a piece has failed; the others are what `words` and `number`
read. Items are numbers of the types that it is compiled for, and nothing else. So whoever calls compiled code, on
whatever thread, needs to know an address only, and code is made once.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.callconv import RETCODE_NONE, RETCODE_OK
from numba.extending import intrinsic

from xconv._bridges.numba.vectors import I64, Lanes

Number = Any


class Kernel:
    """A function (job, first, last, *items), compiled when it is first asked for, or found on disk."""

    def __init__(self, function: Callable[..., None], *, cache: bool = True) -> None:
        options = {"nogil": True, "cache": cache, "error_model": "numpy"}
        self.dispatcher = njit(**options, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
        self.codes: dict[tuple[type, ...], int] = {}

    def code(self, *items: Number) -> int:
        """The address of the code for items of these types."""
        kinds = tuple(map(type, items))
        found = self.codes.get(kinds)
        if found is None:
            called = (*(types.int64,) * 3, *map(types.Omitted, items))
            self.dispatcher.compile(called)
            made = self.dispatcher.overloads[called]
            described, code = (getattr(made, field) for field in ("fndesc", "library"))
            found = self.codes[kinds] = code.get_pointer_to_function(described.llvm_func_name)
        return found


def job(words: tuple[int, ...]) -> tuple[array[int], int]:
    """A table of arguments, and its address; hold both."""
    made = array("q", (0, *words))
    return made, made.buffer_info()[0]


def word_of(number: Number) -> int:
    """A number of NumPy as `number` reads it from a table."""
    return int.from_bytes(number.tobytes().ljust(8, b"\0"), sys.byteorder, signed=True)


@intrinsic
def word(context, table, index):
    """A 64-bit integer of the table at an address."""

    def generate(context, b, signature, arguments):
        table, index = arguments
        return b.load(b.gep(b.inttoptr(table, I64.as_pointer()), [index]))

    return types.int64(types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def words(context, table, first, count):
    """So many of them, from the ``first`` on."""
    start, many = first.literal_value, count.literal_value
    several = types.UniTuple(types.int64, many)

    def generate(context, b, signature, arguments):
        place = b.inttoptr(arguments[0], I64.as_pointer())
        found = [b.load(b.gep(place, [ir.Constant(I64, start + i)])) for i in range(many)]
        return context.make_tuple(b, several, found)

    return several(types.int64, first, count), generate


@intrinsic
def put(context, table, index, value):
    """Write one of them."""

    def generate(context, b, signature, arguments):
        table, index, value = arguments
        b.store(value, b.gep(b.inttoptr(table, I64.as_pointer()), [index]))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 3), generate


@intrinsic(prefer_literal=True)
def stack(context, count):
    """The address of so many words, unset, which last as long as the function that asks for them."""
    many = count.literal_value

    def generate(context, b, signature, arguments):
        return b.ptrtoint(cgutils.alloca_once(b, I64, size=ir.Constant(I64, many)), I64)

    return types.int64(count), generate


@intrinsic
def number(context, table, index, item):
    """A number of the item's type in a table, in the place of an integer."""

    def generate(context, b, signature, arguments):
        table, index, _ = arguments
        place = b.gep(b.inttoptr(table, I64.as_pointer()), [index])
        return b.load(b.bitcast(place, Lanes(b, signature.args[2]).number.as_pointer()))

    return item(types.int64, types.int64, item), generate


@intrinsic
def load(context, address):
    """A word, as it is for all threads at once."""

    def generate(context, b, signature, arguments):
        return b.load_atomic(b.inttoptr(arguments[0], I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def call(context, code, job, first, last):
    """A kernel by its address; where it fails, the first word of its job says so."""

    def generate(context, b, signature, arguments):
        code, *given = arguments
        pointer, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(i32, [*(pointer.as_pointer(),) * 2, *(I64,) * 3])  # result and error before
        places = [cgutils.alloca_once(b, pointer) for _ in range(2)]
        status = b.call(b.inttoptr(code, kind.as_pointer()), [*places, *given])
        fine = [b.icmp_signed("==", status, expected) for expected in (RETCODE_OK, RETCODE_NONE)]
        with b.if_then(b.not_(b.or_(*fine)), likely=False):
            b.store_atomic(ir.Constant(I64, 1), b.inttoptr(given[0], I64.as_pointer()), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4), generate
