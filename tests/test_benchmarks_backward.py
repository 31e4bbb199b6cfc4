"""benchmarks/backward.py: ratios to either format of torch, and results that are compared before they are timed."""

import sys

import numpy as np
import pytest

from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import backward as program


def test_the_ratio_is_to_the_faster_format_or_to_the_default():
    row = program.Row("net", "layer", "conv", {"xconv": 2.0, "torch NCHW": 3.0, "torch NHWC": 1.0}, 0.0)
    assert row.ratio("xconv") == 0.5
    assert row.ratio("xconv", "NHWC") == 1.5
    dense = program.Row("net", "fc", "dense", {"xconv": 2.0, "torch": 3.0}, 0.0)
    assert dense.ratio("xconv", "NHWC") == 1.5


def test_a_call_is_forward_and_backward():
    layer = program.Layer(net="net", name="layer", shape=(6, 5, 3), kernel=3, channels=4, padding=1)
    arrays = program.operands(layer, 2)
    call, dy = program.ours(layer, arrays)
    y, dx, dw, db = call()
    assert y.shape == dy.shape == (2, 6, 5, 4)
    assert [g.shape for g in (dx, dw, db)] == [a.shape for a in arrays]
    np.testing.assert_allclose(db, dy.sum(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)
    assert program.beyond(call) >= 0


class Tensor:
    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def numpy(self):
        return self.array


def test_another_result_is_not_timed():
    layer = program.Layer(net="net", name="layer", shape=(6, 5, 3), kernel=3, channels=4, padding=1)
    call, _ = program.ours(layer, program.operands(layer, 2))
    y, dx, *_ = call()
    same = [Tensor(np.moveaxis(a, -1, 1)) for a in (y, dx)]
    program.check(layer, (y, dx), same)
    with pytest.raises(AssertionError, match="another result than torch's"):
        program.check(layer, (y, dx * 1.01), same)
