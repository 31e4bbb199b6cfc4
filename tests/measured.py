"""Results of benchmarks that nobody measured: what the tests of tables, targets and files are given."""

import sys
from dataclasses import replace

from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # programs that are run as files import each other by plain names
import result as kept

MACHINE = {
    "cpu": "a, 2 cores",
    "threads": "2 for every engine, load 1",
    "commit": "b",
    "torch": "2, 2 threads",
}


def result(layer, batch, xconv, bound=None, torch=(9, 9), others=None, **facts):
    """Milliseconds of xconv, plain and bound, of torch in two formats, and of others."""
    ms = {"xconv": xconv} | ({} if bound is None else {"xconv bound": bound})
    ms |= {"torch NCHW": torch[0], "torch NHWC": torch[1]} | (others or {})
    usual = {"net": "net", "kind": "conv", "times": 1, "gflop": 0.5, "algorithm": "direct", "error": 0.0}
    return kept.Result(layer=layer, batch=batch, output=[batch, 4], ms=ms, **usual | facts)


def with_fast(r, fast, bound=None, **facts):
    """The same result with milliseconds of compiled movers."""
    ms = r.ms | {"xconv[fast]": fast} | ({} if bound is None else {"xconv[fast] bound": bound})
    return replace(r, ms=ms, **facts)


RESULTS = [
    result("a", 1, 4, 2, (9, 8), times=3),
    result("b", 1, 8, 4, (9, 9), {"ONNX Runtime": 4, "JAX NHWC": 6, "JAX NCHW": 5}),
    result("p", 1, 8, None, (4, 3), {"OpenCV": 2}, kind="pool", gflop=0.0),
]


FAST = [
    with_fast(RESULTS[0], 2, 1, fast_algorithm="winograd"),
    with_fast(RESULTS[1], 2, 1, fast_algorithm="direct"),
    with_fast(RESULTS[2], 2, fast_algorithm="window"),
]
