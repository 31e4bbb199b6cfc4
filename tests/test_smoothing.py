"""The table of smoothing beside SciPy and OpenCV: what stands in it, and that results are compared first."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))
from smoothing import Row, beyond_its_result, check, line, measure
from timing import Pace

X = np.arange(6.0, dtype="float32").reshape(2, 3)
ROW = Row("median", (2, 3), "float32", {"xconv": 2.0, "scipy.ndimage": 5.0, "OpenCV": 1.0}, 2**21, 2.0)
QUICK = Pace(rest=0, warmups=0, seconds=0, samples=1, rounds=1)


def test_a_line_says_how_many_times_as_fast_and_whether_that_was_asked():
    text = line(ROW)
    assert "2.50x" in text
    assert "0.50x" in text
    assert "2.0 MiB" in text
    assert text.endswith("asked 2x SciPy: reached")
    assert line(replace(ROW, asked=3.0)).endswith("asked 3x SciPy: missed")
    without = replace(ROW, ms={"xconv": 2.0, "scipy.ndimage": 5.0})
    assert line(without).count(" - ") == 2


def test_results_that_differ_are_not_timed():
    check({"xconv": lambda: X, "scipy.ndimage": lambda: X * np.float32(1 + 5e-7)}, "float32")
    with pytest.raises(SystemExit, match=r"xconv are 1\.0e-05 apart, more than 1e-06"):
        check({"xconv": lambda: X, "scipy.ndimage": lambda: X * np.float32(1 + 1e-5)}, "float32")


def test_every_case_gives_a_row():
    def make(shape, dtype):
        x = np.ones(shape, dtype)
        return {"xconv": lambda: x + 1, "scipy.ndimage": lambda: x + 1}

    (row,) = measure([("sum", make, (4, 5), ("float64",), 1.0)], QUICK)
    assert (row.filter, row.shape, row.dtype) == ("sum", (4, 5), "float64")
    assert set(row.ratios) == {"scipy.ndimage"}


def test_memory_is_what_stands_beside_the_result():
    def call():
        other = np.ones(2**20, "uint8")
        return other[: 2**10].copy()

    assert 2**20 <= beyond_its_result(call) < 2**20 + 2**14


def test_the_latest_figures_can_be_read():
    table = json.loads((ROOT / "benchmarks" / "results" / "smoothing.json").read_text(encoding="utf-8"))
    assert {row["filter"] for row in table["smoothing"]} == {
        "gaussian_filter, sigma 3",
        "median_filter, 5x5",
    }
    assert all(row["ratios"]["scipy.ndimage"] > 0 for row in table["smoothing"])
