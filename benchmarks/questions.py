"""The four questions that xconv grew out of, each answered in one run beside the asker's own code.

``python benchmarks/questions.py``, or ``nox -s bench -- --questions``. The numbers of all answers to a question are
compared before any of them is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module

import asked
import numpy as np
from answers import Calls, cheaper, check, faster, measure, table
from engines import BOUND, PLAIN, threads_for_xconv
from stacks import question_b
from timing import Pace

import xconv

PACE = Pace()
IMPORTS = ("cv2", "scipy.fft", "torch", "threadpoolctl", "scipy.ndimage", "scipy.signal")


def question_a(pace: Pace = PACE, size: int = 32, count: int = 10) -> list[str]:
    """A first layer by loops, beside a dense layer of 500 units: why is the layer with so few weights slower?"""
    rng = np.random.default_rng(0)
    image, kernels = rng.random((size, size, 3)), rng.random((count, 2, 2, 3))
    weights, flat = rng.random((500, size * size * 3)), image.reshape(-1)
    w = np.ascontiguousarray(np.moveaxis(kernels, 0, -1))  # (2, 2, 3, count)
    loop, dot = "triple loop of np.sum", f"np.dot of {weights.shape} and {flat.shape}"
    answers: Calls = {
        loop: lambda: asked.triple_loop(image, kernels, 2),
        PLAIN: lambda: xconv.conv(image, w, stride=2),
        BOUND: partial(xconv.plan(xconv.conv, image, w, stride=2), image),
    }
    seconds = measure(answers, pace, {dot: lambda: np.dot(weights, flat)})
    title = f"a. {size}x{size}x3 image, {count} kernels of 2x2x3, stride 2"
    return [title, *table(seconds), faster(seconds, loop, 100), faster(seconds, dot, 5)]


def question_c(pace: Pace = PACE, size: int = 25, inputs: int = 16, outputs: int = 32) -> list[str]:
    """A layer with max-pool and ReLU from SciPy's pieces: how can it be fast without a framework?"""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((inputs, size, size)), rng.standard_normal((outputs, inputs, 2, 2))
    b = rng.standard_normal(outputs)
    turned = np.ascontiguousarray(w[..., ::-1, ::-1])  # convolve2d turns its kernel round, a layer does not

    def finish(y: np.ndarray) -> np.ndarray:
        return xconv.relu(xconv.max_pool(y, (2, 2), layout="NCHW"))

    layer = xconv.plan(xconv.conv, x, turned, b, layout="NCHW")
    calls, dots = f"{inputs * outputs} calls of convolve2d", "four shifted dots"
    answers: Calls = {
        calls: lambda: asked.many_convolve2d(x, w, b),
        dots: lambda: asked.shifted_dots(x, w, b),
        PLAIN: lambda: finish(xconv.conv(x, turned, b, layout="NCHW")),
        BOUND: lambda: finish(layer(x)),
    }
    seconds = measure(answers, pace)
    title = f"c. {outputs}x{inputs}x2x2 layer on {inputs}x{size}x{size}, bias, 2x2 max-pool, ReLU"
    return [
        title,
        *table(seconds),
        faster(seconds, calls, 100),
        faster(seconds, dots, 2),
    ]


def question_d(
    pace: Pace = PACE, shape: tuple[int, int, int, int] = (2, 5, 7, 4), count: int = 8
) -> list[str]:
    """The forward pass of a course: is the broadcast or the einsum of one window the better one?"""
    rng = np.random.default_rng(0)
    a_prev, w, b = (
        rng.standard_normal(shape),
        rng.standard_normal((3, 3, shape[-1], count)),
        rng.standard_normal(count),
    )
    forward = partial(asked.conv_forward, a_prev, w, b, pad=2, stride=2)
    answers: Calls = {
        "nested loops of np.sum": partial(forward, window=asked.window_of_sums),
        "loops, each window by broadcast": partial(forward, window=asked.window_by_broadcast),
        "loops, each window by einsum": partial(forward, window=asked.window_by_einsum),
        PLAIN: lambda: xconv.conv(a_prev, w, b, stride=2, padding=2),
        BOUND: partial(xconv.plan(xconv.conv, a_prev, w, b, stride=2, padding=2), a_prev),
    }
    a_slice = np.ascontiguousarray(a_prev[0, :3, :3])
    windows: Calls = {
        "one window by broadcast": lambda: asked.window_by_broadcast(a_slice, w, b),
        "one window by einsum": lambda: asked.window_by_einsum(a_slice, w, b),
    }
    check(windows)
    seconds = measure(answers, pace, windows)
    title = f"d. A_prev {shape} with W {w.shape}, pad 2, stride 2: the whole layer"
    return [title, *table(seconds), cheaper(seconds, "one window by einsum", 10)]


QUESTIONS: dict[str, Callable[[Pace], list[str]]] = {
    "a": question_a,
    "b": question_b,
    "c": question_c,
    "d": question_d,
}


@contextmanager
def same_threads(threads: int | None) -> Iterator[int]:
    """Inside, every library has this number of threads, by default what torch takes; xconv on NumPy alone."""
    try:
        cv2, scipy_fft, torch, threadpoolctl = map(
            import_module, ("cv2", "scipy.fft", "torch", "threadpoolctl")
        )
    except ImportError as error:
        sys.exit(f"this needs {error.name}: `nox -s bench -- --questions` brings it")
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    with ExitStack() as stack:
        for scope in (
            torch.inference_mode(),
            scipy_fft.set_workers(threads),
            threadpoolctl.threadpool_limits(threads, user_api="blas"),
            threads_for_xconv(threads),
            xconv.config(fast=False),
        ):
            stack.enter_context(scope)
        yield threads


def main(threads: int | None = None, chosen: Sequence[str] = tuple(QUESTIONS)) -> int:
    """Answer the chosen questions, every library with the same number of threads."""
    with same_threads(threads) as threads:
        print(f"{threads} threads for everything that has threads")
        for letter in chosen:
            print("\n" + "\n".join(QUESTIONS[letter](PACE)), flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", nargs="*", help=f"of {', '.join(QUESTIONS)} (default: all)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="for every library (default: what torch takes)"
    )
    options = parser.parse_args()
    if unknown := set(options.question) - set(QUESTIONS):
        parser.error(f"there is no question {', '.join(sorted(unknown))}")
    sys.exit(main(options.threads, options.question or tuple(QUESTIONS)))
