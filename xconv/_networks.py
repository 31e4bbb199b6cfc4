"""Selection networks: which minima and maxima give the element of a rank of every window. Integers only.

A window is a *pattern* of offsets. It is halved until single elements are left; the halves, sorted, are merged by the
odd-even network of Batcher (Knuth, The Art of Computer Programming, 5.3.4). Two things keep it short:

- Patterns that are translations of one another are one computation, which the windows share: of a box of 5 x 5, columns
  are sorted once, pairs of columns merged once.
- Element i of a sorted part of m has i elements below it and m - 1 - i above. Where that is more than the rank leaves
  room for, it is not what is looked for, in any window, and is forgotten. Looking for the largest, one of each is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import NamedTuple

Offset = tuple[int, ...]
Pattern = tuple[Offset, ...]  # in raster order, the least along every axis 0


class Step(NamedTuple):
    """``slots[target] = maximum or minimum(slots[a] from one offset on, slots[b] from another on)``.

    Slot 0 is the input. Offsets count from where the part begins whose elements these are, and ``reach`` is that of its
    last one: so many elements, in raster order, the result is shorter than the input.
    """

    target: int
    a: int
    at_a: Offset
    b: int
    at_b: Offset
    reach: Offset
    largest: bool


class Network(NamedTuple):
    """The steps that end with the element looked for, and how many slots they take, the input included."""

    steps: tuple[Step, ...]
    slots: int


class _Value(NamedTuple):
    """A minimum or a maximum that is to be computed: of two values before it, each from an offset on."""

    a: int
    at_a: Offset
    b: int
    at_b: Offset
    reach: Offset
    largest: bool


Term = tuple[int, Offset]  # a value, and the offset from which it is read


def box(sizes: Sequence[int]) -> Pattern:
    """All offsets of a window of these sizes."""
    pattern: Pattern = ((),)
    for size in sizes:
        pattern = tuple((*offset, i) for offset in pattern for i in range(size))
    return pattern


@lru_cache(maxsize=64)
def network(pattern: Pattern, rank: int) -> Network:
    """The network for the element ``rank``, counted from 0, of the sorted elements of a pattern."""
    values: list[_Value] = []
    parts: dict[Pattern, tuple[int, list[Term]]] = {}
    zero = (0,) * len(pattern[0])

    def part(pattern: Pattern) -> tuple[int, list[Term]]:
        """The sorted elements of a pattern that may be the one, and how many below them are forgotten."""
        if len(pattern) == 1:
            return 0, [(0, zero)]
        if pattern in parts:
            return parts[pattern]
        (first, at_first), (second, at_second) = halves(pattern)
        (low_a, a), (low_b, b) = part(first), part(second)
        low = max(0, len(pattern) - taps + rank)
        high = min(len(pattern) - 1, rank)
        found = _merged(
            [(value, at_first) for value, _ in a],
            [(value, at_second) for value, _ in b],
            range(low - low_a - low_b, high + 1 - low_a - low_b),
            values,
            reach(pattern),
        )
        parts[pattern] = low, [(value, zero) for value, _ in found]
        return parts[pattern]

    taps = len(pattern)
    _, ((last, _),) = part(pattern)
    return _allotted(values, last)


def reach(pattern: Pattern) -> Offset:
    """The largest offset along every axis."""
    return tuple(map(max, zip(*pattern, strict=True)))


def halves(pattern: Pattern) -> tuple[tuple[Pattern, Offset], tuple[Pattern, Offset]]:
    """A pattern cut in two along its last axis of more than one element, and where the parts begin.

    The first one's length is a power of two: so parts are doubled, and those of neighbouring windows are the same.
    """
    axis = max(i for i, most in enumerate(reach(pattern)) if most)
    places = sorted({offset[axis] for offset in pattern})
    cut = places[0] + (1 << (places[-1] - places[0]).bit_length() - 1)
    first = tuple(offset for offset in pattern if offset[axis] < cut)
    return _moved(first), _moved(tuple(offset for offset in pattern if offset[axis] >= cut))


def _moved(pattern: Pattern) -> tuple[Pattern, Offset]:
    least = tuple(map(min, zip(*pattern, strict=True)))
    return tuple(tuple(o - m for o, m in zip(offset, least, strict=True)) for offset in pattern), least


def _merged(a: list[Term], b: list[Term], wanted: range, values: list[_Value], reach: Offset) -> list[Term]:
    """Of two sorted lists in one, the elements ``wanted``: by whichever way takes fewer steps."""
    ways = []
    for way in (_odd_even, _one_by_one):
        to = _Comparisons(len(values), reach)
        found = way(a, b, wanted, to)
        made, found = _needed(to.made, found, len(values))
        ways.append((len(made), made, found))
    _, made, found = min(ways, key=lambda w: w[0])
    values += made
    return found


class _Comparisons:
    """Minima and maxima for a part of this reach, numbered from ``before + 1`` on; value 0 is the input."""

    def __init__(self, before: int, reach: Offset) -> None:
        self.made: list[_Value] = []
        self.before = before
        self.reach = reach

    def smaller(self, x: Term, y: Term) -> Term:
        return self._add(_Value(*x, *y, self.reach, largest=False))

    def larger(self, x: Term, y: Term) -> Term:
        return self._add(_Value(*x, *y, self.reach, largest=True))

    def _add(self, value: _Value) -> Term:
        self.made.append(value)
        return self.before + len(self.made), (0,) * len(self.reach)


def _odd_even(a: list[Term], b: list[Term], wanted: range, to: _Comparisons) -> list[Term]:
    def merge(a: list[Term], b: list[Term]) -> list[Term]:
        if not a or not b:
            return a + b
        if len(a) == len(b) == 1:
            return [to.smaller(a[0], b[0]), to.larger(a[0], b[0])]
        odd, even = merge(a[::2], b[::2]), merge(a[1::2], b[1::2])
        found = [odd[0]]
        for x, y in zip(even, odd[1:], strict=False):
            found += [to.smaller(x, y), to.larger(x, y)]
        return found + even[len(odd) - 1 :] + odd[len(even) + 1 :]

    return merge(a, b)[wanted.start : wanted.stop]


def _one_by_one(a: list[Term], b: list[Term], wanted: range, to: _Comparisons) -> list[Term]:
    """Element k of both: the least, over all i + j = k + 1, of the largest among i of the one and j of the other."""

    def element(k: int) -> Term:
        found = []
        for i in range(max(0, k + 1 - len(b)), min(len(a), k + 1) + 1):
            j = k + 1 - i
            found.append(b[j - 1] if not i else a[i - 1] if not j else to.larger(a[i - 1], b[j - 1]))
        return reduce(to.smaller, found)

    return [element(k) for k in wanted]


def _needed(made: list[_Value], found: list[Term], before: int) -> tuple[list[_Value], list[Term]]:
    """Those of the values that the ones found depend on, numbered anew from ``before + 1`` on."""
    needed = {value for value, _ in found}
    for number in range(before + len(made), before, -1):
        if number in needed:
            needed |= {made[number - before - 1].a, made[number - before - 1].b}
    kept = [n for n in range(before + 1, before + len(made) + 1) if n in needed]
    new = {n: before + 1 + i for i, n in enumerate(kept)}
    chosen = (made[n - before - 1] for n in kept)
    return (
        [v._replace(a=new.get(v.a, v.a), b=new.get(v.b, v.b)) for v in chosen],
        [(new.get(value, value), at) for value, at in found],
    )


def _allotted(values: list[_Value], last: int) -> Network:
    """The values that the last one depends on, each in a slot that is free from then on until it is used last."""
    values, ((last, _),) = _needed(values, [(last, ())], 0)
    until = {last: len(values) + 1}
    for number, value in enumerate(values, 1):
        for used in (value.a, value.b):
            until[used] = max(until.get(used, 0), number)
    slot, slots, steps = {0: 0}, 1, []
    free: list[int] = []
    for number, value in enumerate(values, 1):
        if not free:
            free.append(slots)
            slots += 1
        slot[number] = free.pop()
        places = {"target": slot[number], "a": slot[value.a], "b": slot[value.b]}
        steps.append(Step(**(value._asdict() | places)))
        free += [slot[used] for used in {value.a, value.b} if used and until[used] == number]
    return Network(tuple(steps), slots)
