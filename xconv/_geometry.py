"""The surveyor: integers only. Output sizes, pads, windows, tiles, and the two transposes of a convolution.

Everything is said per spatial axis. Along one axis a convolution (or a pool) reads

    position(o, t) = o * stride + t * dilation - low        for output o and tap t,

in the *spread* input, where neighbouring elements stand ``input_dilation`` apart with holes between them.
Positions outside the spread input are padding; ``low`` and ``high`` may be negative, which crops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import pairwise, product
from math import gcd, prod
from typing import NamedTuple, TypeVar


class Axis(NamedTuple):
    """One spatial axis of a window sliding over an input."""

    size: int
    window: int
    stride: int = 1
    dilation: int = 1
    input_dilation: int = 1
    low: int = 0
    high: int = 0

    @property
    def reach(self) -> int:
        """Length from the first to the last tap of the window."""
        return self.dilation * (self.window - 1) + 1

    @property
    def spread(self) -> int:
        """Length of the input once its holes are counted."""
        return (self.size - 1) * self.input_dilation + 1 if self.size else 0

    @property
    def output(self) -> int:
        """Number of windows; zero or less when the padded input is too short for one."""
        return (self.spread + self.low + self.high - self.reach) // self.stride + 1

    def reads(self, start: int, stop: int) -> tuple[int, int]:
        """First and last (exclusive) position in the spread input that the outputs ``start:stop`` read."""
        return start * self.stride - self.low, (stop - 1) * self.stride - self.low + self.reach

    def tile(self, start: int, stop: int) -> tuple[int, int, Axis]:
        """The outputs ``start:stop`` as a problem of their own: input from, input to, and their axis.

        The new axis never crops, and its padding is what of the old one its windows really touch.
        """
        first, last = self.reads(start, stop)
        begin = min(max(-(-first // self.input_dilation), 0), self.size)
        end = max(min((last - 1) // self.input_dilation + 1, self.size), begin)
        if begin == end:
            return 0, 0, self._replace(size=0, low=last - first, high=0)
        low = begin * self.input_dilation - first
        high = last - ((end - 1) * self.input_dilation + 1)
        return begin, end, self._replace(size=end - begin, low=low, high=high)

    def part(self, start: int, stop: int) -> Axis:
        """The same outputs through the taps ``start:stop`` alone."""
        low, high = self.low - start * self.dilation, self.high - (self.window - stop) * self.dilation
        return self._replace(window=stop - start, low=low, high=high)

    @property
    def inner(self) -> tuple[int, int]:
        """First and last (exclusive) output whose window lies in the input, which has no holes, completely."""
        start = max(-(-self.low // self.stride), 0)
        stop = min((self.size + self.low - self.reach) // self.stride + 1, self.output)
        return (start, stop) if start < stop else (0, 0)

    def met(self, tap: int, start: int, stop: int) -> tuple[slice, slice]:
        """Which of the outputs ``start:stop`` find this tap in the input, which has no holes, and where."""
        outputs, elements = self.meets(tap) or (slice(0, 0), slice(0, 0))
        first, last = max(outputs.start, start), min(outputs.stop, stop)
        if first >= last:
            return slice(0, 0), slice(0, 0)
        begin = elements.start + (first - outputs.start) * self.stride
        return slice(first, last), slice(begin, begin + (last - first - 1) * self.stride + 1, self.stride)

    def reached(self, start: int, stop: int) -> tuple[int, int]:
        """First and last (exclusive) of the outputs whose windows may read any of the elements ``start:stop``."""
        begin = -(-(start * self.input_dilation + self.low - self.reach + 1) // self.stride)
        end = ((stop - 1) * self.input_dilation + self.low) // self.stride + 1
        begin = min(max(begin, 0), self.output)
        return begin, max(min(end, self.output), begin)

    def meets(self, tap: int) -> tuple[slice, slice] | None:
        """The outputs whose tap is an element of the input, and those elements; None where there are none.

        From o * stride + t * dilation - low = p * input_dilation, both go on in steps, the outputs by
        input_dilation / g and the elements by stride / g, where g is the greatest common divisor of the two.
        """
        common = gcd(self.stride, self.input_dilation)
        step, offset = self.input_dilation // common, tap * self.dilation - self.low
        first = max(-(offset // self.stride), 0)
        last = min(((self.size - 1) * self.input_dilation - offset) // self.stride, self.output - 1)
        candidates = range(first, min(first + step, last + 1))
        start = next((o for o in candidates if (o * self.stride + offset) % self.input_dilation == 0), None)
        if start is None:
            return None
        count = (last - start) // step
        element = (start * self.stride + offset) // self.input_dilation
        end = element + count * (self.stride // common) + 1
        return slice(start, start + count * step + 1, step), slice(element, end, self.stride // common)

    def materialised(self) -> Axis:
        """The same windows over an input whose padding and holes have been written out."""
        return self._replace(size=self.spread + self.low + self.high, input_dilation=1, low=0, high=0)

    def transposed(self) -> Axis:
        """The axis of the gradient by the input: outputs spread by the stride, the window flipped.

        From position(o, t) = p * input_dilation follows p = (o * stride + t * dilation - low) / input_dilation:
        again a window, over the outputs, with stride and input dilation exchanged.
        """
        mirrored = self._replace(size=self.output, stride=self.input_dilation, input_dilation=self.stride)
        low = self.reach - 1 - self.low
        high = (self.size - 1) * self.input_dilation + self.reach - mirrored.spread - low
        return mirrored._replace(low=low, high=high)

    def weight_transposed(self) -> Axis:
        """The axis of the gradient by the kernel: the outputs are the window, stride and dilation exchanged."""
        reach = self.stride * (self.output - 1) + 1
        high = self.dilation * (self.window - 1) + reach - self.spread - self.low
        return Axis(self.size, self.output, self.dilation, self.stride, self.input_dilation, self.low, high)


@dataclass(frozen=True)
class ConvProblem:
    """One convolution in closed form: integers and strings, no arrays.

    The input is (batch, *sizes, channels_in), the kernel (*windows, channels_in / groups, channels_out), the
    output (batch, *outputs, channels_out); output channels are group-major.
    """

    batch: int
    axes: tuple[Axis, ...]
    channels_in: int
    channels_out: int
    groups: int = 1
    kind: str = "float"  # "float", "complex" or "integer": what the products are computed in
    itemsize: int = 4  # bytes of one such number
    pad_mode: str = "constant"
    extra: int = 0  # bytes a tile holds for each output pixel, besides the sums themselves
    cast: bool = False  # whether the input has another dtype than the products
    direct: bool = False  # only direct sums will do: integers held in floats, or a setting that asks for them
    fast: bool = False  # whether compiled movers do it
    separable: bool = False  # whether the kernel is given as one for each axis, whose product it is
    ends: bool = (
        False  # whether compiled sums would do all that comes after them as well: bias, residual, bounds
    )
    beside: int = 1  # how many neighbours on the last axis of the result stand side by side in its channels

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """Spatial sizes of the output."""
        return tuple(axis.output for axis in self.axes)

    @cached_property
    def window(self) -> tuple[int, ...]:
        """Spatial sizes of the kernel."""
        return tuple(axis.window for axis in self.axes)

    @cached_property
    def taps(self) -> int:
        """Number of positions in the kernel."""
        return prod(self.window)

    @cached_property
    def pixels(self) -> int:
        """Number of output positions in the whole batch."""
        return self.batch * prod(self.outputs)

    @cached_property
    def flops(self) -> int:
        """Multiplications and additions of the direct sum."""
        return 2 * self.pixels * self.taps * (self.channels_in // self.groups) * self.channels_out

    @cached_property
    def holes(self) -> bool:
        """Whether there are holes between the elements of the input."""
        return any(axis.input_dilation > 1 for axis in self.axes)

    @property
    def left(self) -> bool:
        """Whether padding and holes are left to the work: it goes by phases."""
        return self.holes

    def transposed(self) -> ConvProblem:
        """The gradient by the input, as a convolution of the output's gradient.

        Its kernel is this one's with every spatial axis flipped and, within each group, channels exchanged.
        """
        return replace(
            self,
            axes=tuple(axis.transposed() for axis in self.axes),
            channels_in=self.channels_out,
            channels_out=self.channels_in,
        )

    def weight_transposed(self) -> ConvProblem:
        """The gradient by the kernel, as a convolution of the input with the output's gradient as kernel.

        Input (N, *n, groups * I) enters as (I, *n, groups * N); the gradient (N, *m, groups * O) as a kernel
        (*m, N, groups * O); the result is (I, *k, groups * O). So the groups stay ordinary groups.
        """
        return replace(
            self,
            batch=self.channels_in // self.groups,
            axes=tuple(axis.weight_transposed() for axis in self.axes),
            channels_in=self.groups * self.batch,
        )


COPIES = 3  # of running reductions


@dataclass(frozen=True)
class WindowProblem:
    """One sliding-window reduction: input (batch, *sizes, channels), output (batch, *outputs, channels)."""

    batch: int
    axes: tuple[Axis, ...]
    channels: int
    itemsize: int = 4
    copies: int = COPIES  # temporaries of the size of its padded input that a tile needs
    held: int = 0  # temporaries of the size of its output, besides
    pad_mode: str = "constant"
    cast: bool = False  # whether the input has another dtype than the numbers reduced
    fast: bool = False  # whether compiled movers do it
    skips: bool = False  # whether the work skips padding by itself, where there are no holes
    kind: str = "pool"  # "pool", "network" of minima and maxima, or "lines" that are filtered one axis after the other

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """Spatial sizes of the output."""
        return tuple(axis.output for axis in self.axes)

    @cached_property
    def holes(self) -> bool:
        """Whether there are holes between the elements of the input."""
        return any(axis.input_dilation > 1 for axis in self.axes)

    @property
    def left(self) -> bool:
        """Whether padding is left to the work."""
        return self.skips and not self.holes


Problem = ConvProblem | WindowProblem


def padded_pixels(problem: Problem) -> int:
    """Number of input positions in the whole batch, once padding and holes are written out."""
    return problem.batch * prod(a.spread + a.low + a.high for a in problem.axes)


def input_copies(problem: Problem) -> int:
    """How often the input is copied before the work begins: into the right dtype, and with its padding."""
    padded = any(a.low or a.high or a.input_dilation > 1 for a in problem.axes)
    return problem.cast + padded


T = TypeVar("T", bound=Problem)


class Tile(NamedTuple):
    """One tile: where its result goes, what input it reads, and the problem it is by itself."""

    target: tuple[slice, ...]  # batch and spatial axes of the output
    source: tuple[slice, ...]  # batch and spatial axes of the input
    reads: tuple[tuple[int, int], ...]  # the same before clipping: positions in the padded, spread input
    problem: Problem  # over the source, with what is left of padding and holes
    core: Problem  # over the block that the work gets: padding and holes are written out, or else left to it
    entire: bool  # the source is the whole input


def cut(problem: Problem, edges: tuple[tuple[int, ...], ...]) -> Iterable[Tile]:
    """The tiles of ``problem`` between the given edges of the batch and of every output axis, in raster order."""
    few = prod(len(e) - 1 for e in edges) <= 256
    return _kept_cut(problem, edges) if few else _cut(problem, edges)


@lru_cache(maxsize=256)
def _kept_cut(problem: Problem, edges: tuple[tuple[int, ...], ...]) -> tuple[Tile, ...]:
    return tuple(_cut(problem, edges))


def _cut(problem: Problem, edges: tuple[tuple[int, ...], ...]) -> Iterator[Tile]:
    batches, *spatial = (tuple(pairwise(e)) for e in edges)
    sizes = tuple(axis.size for axis in problem.axes)
    for start, stop in batches:
        for place in product(*spatial):
            cuts = [axis.tile(*p) for axis, p in zip(problem.axes, place, strict=True)]
            axes = tuple(axis for _, _, axis in cuts)
            part = replace(problem, batch=stop - start, axes=axes)
            yield Tile(
                (slice(start, stop), *(slice(*p) for p in place)),
                (slice(start, stop), *(slice(begin, end) for begin, end, _ in cuts)),
                tuple(axis.reads(*p) for axis, p in zip(problem.axes, place, strict=True)),
                part,
                part if problem.left else materialised(part),
                part.batch == problem.batch and tuple(a.size for a in axes) == sizes,
            )


def materialised(problem: T) -> T:
    """The same problem over an input whose padding and holes have been written out."""
    return replace(problem, axes=tuple(axis.materialised() for axis in problem.axes), pad_mode="constant")


def edges(size: int, extent: int, step: int = 1) -> tuple[int, ...]:
    """Edges that cut ``size`` into as few pieces of at most ``extent`` as possible, as even as possible.

    Where ``extent`` is a multiple of ``step``, so are they.
    """
    if size == 0:
        return (0,)
    if extent % step:
        step = 1
    count, steps = -(-size // extent), -(-size // step)
    return tuple(min(steps * i // count * step, size) for i in range(count + 1))


def same_pads(size: int, window: int, stride: int, dilation: int, *, lower: bool = False) -> tuple[int, int]:
    """Padding that makes the output ceil(size / stride) long; an odd extra element goes at the end, or the start."""
    total = max((-(-size // stride) - 1) * stride + dilation * (window - 1) + 1 - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def ceil_high(axis: Axis) -> int:
    """The high padding that gives the output of ``ceil_mode``.

    A partial window counts if it starts in the input or in its low padding.
    """
    outputs = -(-(axis.spread + axis.low + axis.high - axis.reach) // axis.stride) + 1
    if (outputs - 1) * axis.stride >= axis.spread + axis.low:
        outputs -= 1
    return (outputs - 1) * axis.stride + axis.reach - axis.spread - axis.low


def has_empty_window(axis: Axis) -> bool:
    """Whether some window meets no real element of the input."""
    for o in range(axis.output):
        base = o * axis.stride - axis.low
        if axis.input_dilation == 1 and 0 <= base < axis.spread:
            return (axis.output - 1) * axis.stride - axis.low >= axis.spread  # all later windows begin inside
        taps = (base + t * axis.dilation for t in range(axis.window))
        if not any(0 <= p < axis.spread and p % axis.input_dilation == 0 for p in taps):
            return True
    return False


def adaptive_bounds(size: int, output: int) -> tuple[tuple[int, int], ...]:
    """Start and end of each adaptive window: floor(i * size / output) to ceil((i + 1) * size / output)."""
    return tuple((i * size // output, -(-(i + 1) * size // output)) for i in range(output))
