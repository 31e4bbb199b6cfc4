"""A bias as one more term of every sum, times one: to add it afterwards would be one more pass over the result.

That pass takes about as long as ten terms. Where sums are short it is worth a longer row of each operand, and tiles of
Winograd's algorithm have one number that all their outputs contain.
"""

from __future__ import annotations

from math import prod

from xconv._geometry import ConvProblem
from xconv._movers import columns_and_one
from xconv._namespace import Array, Namespace, Traits, empty_like
from xconv._products import Each, matmul

BIASING = ("pointwise", "im2col", "winograd")
TERMS = 256  # in a sum; beside more of them, a bias is nothing,
COPIED = 128  # and if the input is copied for it alone,
TIMES = 2  # and there are so many outputs for each
PIXELS = 4  # for each term: the kernel is copied for every tile


def takes_bias(algorithm: str, problem: ConvProblem, traits: Traits) -> bool:
    """Whether the bias of NumPy's arrays is given to the algorithm, for a tile like this."""
    if not traits.threads or problem.holes or problem.fast or problem.groups > 1 or algorithm not in BIASING:
        return False
    if algorithm == "winograd":
        return True
    terms, copied = problem.taps * problem.channels_in, algorithm == "pointwise"
    if copied and problem.channels_out < TIMES * terms:
        return False
    return terms <= (COPIED if copied else TERMS) and PIXELS * terms <= problem.pixels


def bias_bytes(algorithm: str, problem: ConvProblem, traits: Traits) -> int:
    """What that needs beside the windows, or the input: a number for each, and the kernel copied."""
    if not takes_bias(algorithm, problem, traits):
        return 0
    terms = problem.taps * problem.channels_in + 1
    copied = terms if algorithm == "pointwise" else 1
    return (problem.pixels * copied + terms * problem.channels_out) * problem.itemsize


def biased_product(
    x: Array,
    w: Array,
    b: Array,
    problem: ConvProblem,
    xp: Namespace,
    out: Array | None,
    each: Each | None = None,
) -> Array:
    """Windows of x (N, *n, C), each with a one behind it, times w (T C, O) over b (O,), which may be in blocks."""
    *blocks, terms, width = w.shape
    rows = empty_like(w, (*blocks, terms + 1, width), w.dtype)
    rows[..., :terms, :] = w
    behind = width * prod(blocks) - problem.channels_out  # columns of zeros in the last block
    b = xp.concat([b, xp.zeros_like(b[:behind])]) if behind else b
    rows[..., terms, :] = xp.reshape(b, (*blocks, width))
    x = xp.reshape(columns_and_one(x, problem.axes, xp), (problem.pixels, terms + 1))
    return xp.reshape(
        matmul(x, rows, xp, out, blocked=problem.channels_out if blocks else 0, each=each),
        (problem.batch, *problem.outputs, problem.channels_out),
    )
