"""The matrices of `spectral`: discrete Fourier transforms of real rows, as products of real numbers.

A frequency that is real has one row, cosines; another has three, for the parts a and b of a + b i, and for a + b.
"""

from __future__ import annotations

from math import cos, pi, sin

Rows = list[list[float]]


def points_of(length: int) -> int:
    """Rows that a transformed block has: one for a frequency that is real, three for another."""
    return length + (length - 1) // 2


def length_of(points: int) -> int:
    """The length of a block that has so many."""
    return points // 3 * 2 + points % 3


def forward(length: int) -> Rows:
    """(P, L): what gives the rows a, b and a + b of every frequency."""
    return _waves(length, range(length), -1)


def of_kernel(length: int, taps: int, dilation: int) -> Rows:
    """(P, taps): the same of the kernel's rows, g, h and g + h, of the conjugate."""
    return _waves(length, range(0, taps * dilation, dilation), 1)


def _waves(length: int, places: range, sign: int) -> Rows:
    rows: Rows = []
    for frequency in range(length // 2 + 1):
        waves = [_wave(length, frequency * place) for place in places]
        rows.append([c for c, _ in waves])
        if not _is_real(length, frequency):
            rows.append([sign * s for _, s in waves])
            rows.append([c + sign * s for c, s in waves])
    return rows


def backward(length: int, kept: int, stride: int) -> Rows:
    """(kept, P): the outputs of a block from a g, b h and (a + b) (g + h) of every frequency."""
    rows: Rows = []
    for place in range(0, kept * stride, stride):
        row = []
        for frequency in range(length // 2 + 1):
            c, s = (2 * part / length for part in _wave(length, frequency * place))
            row += [c / 2] if _is_real(length, frequency) else [c + s, s - c, -s]
        rows.append(row)
    return rows


def _is_real(length: int, frequency: int) -> bool:
    """Whether a real signal has a real number at this frequency."""
    return 2 * frequency % length == 0


def places(taps: int, stride: int, dilation: int, width: int) -> Rows:
    """(taps, reach B): where every tap stands in a band matrix, one for each of its outputs."""
    reach = (width - 1) * stride + (taps - 1) * dilation + 1
    rows = [[0.0] * (reach * width) for _ in range(taps)]
    for tap, row in enumerate(rows):
        for output in range(width):
            row[(output * stride + tap * dilation) * width + output] = 1.0
    return rows


def _wave(length: int, turns: int) -> tuple[float, float]:
    """Cosine and sine of so many parts of a turn, of which ``length`` are a whole one."""
    angle = 2 * pi * (turns % length) / length
    return cos(angle), sin(angle)
