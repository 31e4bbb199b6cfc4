"""Large kernels by Fourier transforms, block by block ("overlap-save").

With F the discrete Fourier transform of length L, and windows that read from left to right as everywhere here,

    F(y)[f] = F(x)[f] * sum over t of w[t] exp(+2 pi i f t / L),     the second factor being conj(F(conj(w)))[f],

holds for a sum that wraps around after L elements. Of a block of L inputs the first L - reach + 1 outputs do not wrap;
they are kept, and the next block begins where the first output is missing. Each sample has blocks of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, product
from math import log2, prod
from typing import NamedTuple

from xconv._algorithms._cost import Cost, matmul_bytes
from xconv._borders import runs
from xconv._geometry import ConvProblem, edges
from xconv._movers import continued, spread, written
from xconv._namespace import Array, Namespace, Traits, added, assignable, contiguous, empty_like, window_view
from xconv._products import matmul

FACTORS = (2, 3, 4, 6, 8, 12, 16)  # lengths of a block that are considered, in reaches of the kernel
TOGETHER = 2**20  # bytes of real numbers, of inputs and outputs, that are transformed at once
LARGEST = 2**21  # the same of one block, unless the shortest blocks need more
FEW = 4  # input channels of a group up to which products are added one by one, without a matmul
NORM = (
    "ortho"  # NumPy 2.4 does float32 in float64, ten times as slowly, where a transform is not to be scaled
)
STRIDED = 6  # bytes of traffic for a byte of channels, which are moved in front of the blocks and back
SETUP = 20_000  # bytes of traffic in the time that NumPy takes to begin the transforms of one row of lines
START = 25  # array operations in the time that a tile takes before its first transform
KERNELS = 1.5  # bytes of traffic for a byte of the products: their kernels are too many for a cache
STAGE = 1.3  # bytes of traffic for a byte in one of the log2(length) stages of a transform


class Cut(NamedTuple):
    """How an axis is cut: ``blocks`` of ``length`` inputs, ``step`` apart, each giving ``kept`` outputs."""

    length: int
    kept: int
    step: int
    blocks: int
    extent: int  # positions from the first to the last output kept


def why_not(problem: ConvProblem, traits: Traits) -> str | None:
    """Floating-point numbers that need not be summed directly, and a kernel of more than one element."""
    if not traits.fft:
        return f"{traits.namespace} has no Fourier transforms here"
    if problem.direct:
        return "only direct sums are allowed (integers, or precision='strict')"
    if problem.kind == "integer":
        return "integers are summed as they are"
    if problem.taps == 1:
        return "the kernel has one tap, not several"
    if 0 in (problem.batch, *problem.outputs, problem.channels_in, problem.channels_out):
        return "there is nothing to compute"
    return None


def cost(problem: ConvProblem, traits: Traits) -> Cost:
    """Every number passes through the stages of a transform, forth and back; every frequency has a product.

    A stage is counted as traffic, for so it takes its time. With a stride, most of the outputs are computed in vain.
    """
    cuts, size = _cuts(lengths(problem), problem), problem.itemsize
    length, count = prod(cut.length for cut in cuts), problem.batch * prod(cut.blocks for cut in cuts)
    groups, channels = problem.groups, problem.channels_in + problem.channels_out
    inputs, outputs = problem.channels_in // groups, problem.channels_out // groups
    together = min(_together(length, problem), count) if traits.writeable else count
    rounds = -(-count // together)
    frequencies, number = _frequencies(length, problem)
    staged = _staged(tuple(cut.length for cut in cuts), problem)
    padded = problem.batch * prod((cut.blocks - 1) * cut.step + cut.length for cut in cuts)
    given = problem.batch * prod(axis.size for axis in problem.axes)
    copied = padded * problem.channels_in * size if padded > given else 0
    moved = 4 * copied + count * channels * (staged + (0 if channels == 2 else STRIDED) * length * size)
    flops, calls = 0, rounds * (4 * sum(cut.length > 1 for cut in cuts) + 8) + START
    if inputs <= FEW:
        moved += 4 * count * frequencies * inputs * problem.channels_out * number
        calls += 2 * rounds * inputs
    else:  # a multiplication and an addition of complex numbers are eight of real ones
        flops = (2 if problem.kind == "complex" else 8) * count * frequencies * inputs * problem.channels_out
        products = matmul_bytes(together, inputs, outputs, number, packed=True)
        moved += int(KERNELS * rounds * groups * frequencies * products)
        moved += 4 * count * frequencies * channels * number
        calls += rounds * groups * frequencies // 8  # their products are small, and come one after the other
    kernels = inputs * problem.channels_out
    return Cost(
        flops,
        moved,
        calls,
        2 * copied + together * frequencies * number * (2 * channels + problem.channels_out),
        bind_bytes=kernels * (staged + 4 * frequencies * number),
        bound=kernels * frequencies * number,
        step=max(cut.kept for cut in cuts),
    )


def bind(w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """The transformed kernel: (C/G, G, O/G, *f), or (*f, G, C/G, O/G) where a matmul adds up the channels."""
    rank, real = len(problem.axes), problem.kind != "complex"
    z = w
    for i, axis in enumerate(problem.axes):
        z = spread(z, i, axis.dilation, 0, xp)
    found = lengths(problem)
    # conj(F(conj(w))) is what the inverse transform gives, but for the scale.
    z = _forward(z, 0, found, xp, real=real, inverse=True) * prod(found) ** 0.5  # (*f, C/G, O)
    z = xp.reshape(z, (*z.shape[:-1], problem.groups, problem.channels_out // problem.groups))
    front = tuple(range(rank))
    order = (*front, rank + 1, rank, rank + 2) if z.shape[rank] > FEW else (rank, rank + 1, rank + 2, *front)
    return contiguous(xp.permute_dims(z, order), xp)


def run(x: Array, w: Array, problem: ConvProblem, xp: Namespace, out: Array | None = None) -> Array:
    """Some blocks at a time: transform, multiply, transform back, keep what has not wrapped around."""
    x, problem = written(x, problem, xp)
    rank = len(problem.axes)
    found = list(w.shape[:rank] if problem.channels_in // problem.groups > FEW else w.shape[3:])
    if problem.kind != "complex":  # half of the last transform is left out, and its length is even
        last = max(i for i, size in enumerate(found) if size > 1)
        found[last] = 2 * (found[last] - 1)
    cuts = _cuts(tuple(found), problem)
    for i, cut in enumerate(cuts):
        end = max((cut.blocks - 1) * cut.step + cut.length, x.shape[1 + i])
        x = continued(x, 1 + i, runs(0, end, x.shape[1 + i], "constant"), 0, xp)
    x = _blocks(x, cuts, xp)
    if not assignable(xp):
        y = _convolved(x, w, cuts, problem, xp)
        return y[(slice(None), *(slice(0, n) for n in problem.outputs), slice(None))]
    y = (
        out
        if out is not None
        else empty_like(x, (problem.batch, *problem.outputs, problem.channels_out), x.dtype)
    )
    counts = (problem.batch, *(cut.blocks for cut in cuts))
    for place in _rounds(counts, _together(prod(found), problem)):
        part = _convolved(x[(*place, ...)], w, cuts, problem, xp)
        target = [
            slice(p.start * cut.kept, min(p.stop * cut.kept, n))
            for p, cut, n in zip(place[1:], cuts, problem.outputs, strict=True)
        ]
        kept = tuple(slice(0, t.stop - t.start) for t in target)
        y[(place[0], *target, slice(None))] = part[(slice(None), *kept, slice(None))]
    return y


@lru_cache(maxsize=4096)
def lengths(problem: ConvProblem) -> tuple[int, ...]:
    """How long the blocks are along every axis: the least work on this image that keeps them in cache."""
    reaches = [axis.reach for axis in problem.axes]
    halved = max((i for i, reach in enumerate(reaches) if reach > 1), default=0)

    def of(factor: int) -> tuple[int, ...]:
        return tuple(
            1 if a.reach == 1 else smooth(max(min(factor * a.reach, a.size), 2), even=i == halved)
            for i, a in enumerate(problem.axes)
        )

    def work(found: tuple[int, ...]) -> float:
        return prod(cut.blocks for cut in _cuts(found, problem)) * _staged(found, problem)

    first, *others = map(of, FACTORS)
    most = LARGEST // (problem.itemsize * (problem.channels_in + problem.channels_out))
    return min([first, *(found for found in others if prod(found) <= most)], key=work)


def _staged(found: tuple[int, ...], problem: ConvProblem) -> int:
    """Traffic that takes as long as the transforms of one channel of a block, in one direction."""
    length, rows = prod(found), 0
    for i, size in enumerate(found):
        others = [*found[:i], *found[i + 1 :]] or [1]
        rows += prod(others[:-1]) * (size > 1)
    return int(length * problem.itemsize * (STAGE * log2(length) + 4)) + SETUP * rows


@lru_cache(maxsize=4096)
def smooth(least: int, *, even: bool = False) -> int:
    """The smallest number from ``least`` on, even if asked for, without a prime factor above 5."""
    size = least
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1 and not (even and size % 2):
            return size
        size += 1


def _cuts(found: tuple[int, ...], problem: ConvProblem) -> tuple[Cut, ...]:
    cuts = []
    for length, axis in zip(found, problem.axes, strict=True):
        kept = (length - axis.reach) // axis.stride + 1
        extent = (kept - 1) * axis.stride + 1
        cuts.append(Cut(length, kept, kept * axis.stride, -(-axis.output // kept), extent))
    return tuple(cuts)


def _frequencies(length: int, problem: ConvProblem) -> tuple[int, int]:
    """How many numbers a transformed block has, about, and the bytes of one."""
    if problem.kind == "complex":
        return length, problem.itemsize
    return length // 2 + 1, 2 * problem.itemsize


def _together(length: int, problem: ConvProblem) -> int:
    """How many blocks are transformed at once."""
    return max(TOGETHER // (length * (problem.channels_in + problem.channels_out) * problem.itemsize), 1)


def _rounds(counts: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Boxes of at most ``most`` of the blocks (N, *count), long in the last axes."""
    cut: list[list[slice]] = []
    for count in reversed(counts):
        extent = min(count, most)
        most //= extent
        cut.insert(0, [slice(*edge) for edge in pairwise(edges(count, extent))])
    return product(*cut)


def _blocks(x: Array, cuts: tuple[Cut, ...], xp: Namespace) -> Array:
    """The overlapping blocks of x (N, *n, C), viewed where that is possible: (N, *count, C, *length)."""
    rank = len(cuts)
    view = window_view(x, tuple(cut.blocks for cut in cuts), tuple((cut.length, cut.step, 1) for cut in cuts))
    if view is not None:
        return xp.permute_dims(view, (*range(1 + rank), 1 + 2 * rank, *range(1 + rank, 1 + 2 * rank)))
    for i, cut in enumerate(cuts):
        before = (slice(None),) * (1 + 2 * i)
        starts = range(0, cut.blocks * cut.step, cut.step)
        x = xp.stack([x[(*before, slice(s, s + cut.length), ...)] for s in starts], axis=1 + 2 * i)
    axes = range(1, 1 + 2 * rank)
    return xp.permute_dims(x, (0, *axes[::2], 1 + 2 * rank, *axes[1::2]))


def _convolved(x: Array, w: Array, cuts: tuple[Cut, ...], problem: ConvProblem, xp: Namespace) -> Array:
    """The outputs of some blocks (N, *count, C, *length), put together: (N, *(count * kept), O)."""
    rank, real, dtype, counts = len(cuts), problem.kind != "complex", x.dtype, x.shape[: 1 + len(cuts)]
    found = [cut.length for cut in cuts]
    z = _forward(x if problem.channels_in == 1 else contiguous(x, xp), 2 + rank, found, xp, real=real)
    z = _multiplied(z, w, problem, xp)
    axes = [(2 + rank + i, cut) for i, cut in enumerate(cuts) if cut.length > 1]
    for axis, cut in axes:
        if real and axis == axes[-1][0]:
            z = xp.fft.irfft(z, n=cut.length, axis=axis, norm=NORM)
        else:
            z = xp.fft.ifft(z, axis=axis, norm=NORM)
        z = z[(*(slice(None),) * axis, slice(0, cut.extent, cut.step // cut.kept), ...)]
    z = z if z.dtype == dtype else xp.astype(z, dtype)
    z = xp.permute_dims(z, (0, *(axis for i in range(rank) for axis in (1 + i, 2 + rank + i)), 1 + rank))
    sizes = tuple(n * cut.kept for n, cut in zip(counts[1:], cuts, strict=True))
    return xp.reshape(z, (counts[0], *sizes, problem.channels_out))


def _forward(
    x: Array, first: int, found: Sequence[int], xp: Namespace, *, real: bool, inverse: bool = False
) -> Array:
    """Transform the axes from ``first`` on that are longer than one, filled with zeros to the given lengths."""
    axes = [(first + i, length) for i, length in enumerate(found) if length > 1]
    for axis, length in reversed(axes):
        if real and axis == axes[-1][0]:
            transform = xp.fft.ihfft if inverse else xp.fft.rfft
        else:
            transform = xp.fft.ifft if inverse else xp.fft.fft
        x = transform(x, n=length, axis=axis, norm=NORM)
    return x


def _multiplied(z: Array, w: Array, problem: ConvProblem, xp: Namespace) -> Array:
    """The products at every frequency: (N, *count, C, *f) and a bound kernel give (N, *count, O, *f)."""
    rank, groups, outputs = len(problem.axes), problem.groups, problem.channels_out // problem.groups
    inputs = problem.channels_in // groups
    counts, frequencies = z.shape[: 1 + rank], z.shape[2 + rank :]
    shape = (*counts, problem.channels_out, *frequencies)
    if inputs <= FEW:
        z = xp.reshape(z, (*counts, groups, inputs, 1, *frequencies))
        before = (slice(None),) * (2 + rank)
        y = z[(*before, 0, ...)] * w[0, ...]
        for i in range(1, inputs):
            y = added(y, z[(*before, i, ...)] * w[i, ...], xp)
        return xp.reshape(y, shape)
    # (F, G, B, C/G) @ (F, G, C/G, O/G) = (F, G, B, O/G) for F frequencies and B blocks
    z = xp.reshape(z, (prod(counts), groups, inputs, prod(frequencies)))
    w = xp.reshape(w, (prod(frequencies), groups, inputs, outputs))
    y = matmul(contiguous(xp.permute_dims(z, (3, 1, 0, 2)), xp), w, xp)
    return xp.reshape(xp.permute_dims(y, (2, 1, 3, 0)), shape)
