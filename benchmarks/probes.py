"""What is seen of a call beside its time: memory, bits, and what a second thread gains."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
from engines import threads_for_xconv
from timing import Pace, compare

Call = Callable[[], np.ndarray]


def memory_beyond_result(call: Call) -> int:
    """Bytes that a call holds at its peak beyond its result. NumPy reports its arrays to tracemalloc.

    It must have been made once before, so that what is made once and kept, such as a plan, does not count.
    """
    tracemalloc.start()
    try:
        result = call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return peak - result.nbytes


def same_bits(makers: Iterable[Callable[[], Call]]) -> bool:
    """Whether each call, made and run with one thread and then with two, gives the same bits."""
    for make in makers:
        results = []
        for threads in (1, 2):
            with threads_for_xconv(threads):
                results.append(np.ascontiguousarray(make()()))
        one, two = (result.reshape(-1).view(np.uint8) for result in results)
        if not np.array_equal(one, two):
            return False
    return True


def thread_gain(call: Call, pace: Pace) -> float:
    """Time with one thread over time with two, in bursts side by side."""

    def with_threads(threads: int) -> np.ndarray:
        with threads_for_xconv(threads):
            return call()

    seconds = compare({"one": lambda: with_threads(1), "two": lambda: with_threads(2)}, pace)
    return seconds["one"] / seconds["two"]
