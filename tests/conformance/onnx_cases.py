"""The cases that the onnx package ships for the operators of xconv, and the operators left out with reasons.

Two sets are taken: the node cases whose graph holds an operator with "Conv", "Pool", "Gemm" or "Col2Im" in
its name, and the models converted from PyTorch that hold a convolution, a pool, a normalisation, a pad or a
dense layer. They are chosen by name rather than from a list, so that an operator which a later onnx adds
shows up as a failing case.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from conformance import onnx_ops

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # the package divides by zero and overflows on purpose while it makes its cases
    from onnx.backend.test.loader import load_model_tests

    _NODE_CASES = load_model_tests(kind="node")
    _CONVERTED_CASES = load_model_tests(kind="pytorch-converted")

# Operators whose cases are not run, each with the reason. A case of one of them that would pass, and an entry
# that names no real case, are failures of test_onnx.py.
EXCLUDED = {
    "CausalConvWithState": "hands on the state of a stream, which xconv does not; its expanded form is run",
    "DeformConv": "samples the input at fractional offsets, which xconv does not offer",
}

_NODE_OPERATORS = re.compile("conv|pool|gemm|col2im", re.IGNORECASE)
_CONVERTED_OPERATORS = re.compile("conv|pool|gemm|matmul|normalization|pad", re.IGNORECASE)

DataSet = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]  # inputs, expected outputs


@dataclass(frozen=True)
class Case:
    """One model with its inputs, its expected outputs and its own tolerances."""

    kind: str
    name: str
    model: onnx.ModelProto
    folder: Path | None
    memory: Sequence[DataSet] | None
    rtol: float
    atol: float

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.name}"

    @cached_property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}

    @cached_property
    def data_sets(self) -> list[DataSet]:
        if self.folder is None:
            return [(inputs, outputs) for inputs, outputs in self.memory]
        folders = sorted(self.folder.glob("test_data_set_*"))
        return [(_arrays(folder, "input"), _arrays(folder, "output")) for folder in folders]

    @cached_property
    def dtypes(self) -> set[str]:
        """The names of the dtypes that xconv may meet in this case."""
        constants = [onnx.numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer]
        arrays = [array for inputs, outputs in self.data_sets for array in (*inputs, *outputs)]
        return {np.asarray(array).dtype.name for array in (*constants, *arrays)}


def _arrays(folder: Path, stem: str) -> list[np.ndarray]:
    """input_0.pb, input_1.pb, ... of one folder, in the order of their numbers."""
    count = len(list(folder.glob(f"{stem}_*.pb")))
    assert count, f"no {stem}_*.pb in {folder}"
    return [onnx.numpy_helper.to_array(onnx.load_tensor(folder / f"{stem}_{i}.pb")) for i in range(count)]


def _collect(kind: str, cases: Sequence[Any], wanted: re.Pattern[str]) -> list[Case]:
    collected = []
    for case in cases:
        folder = None if case.model_dir is None else Path(case.model_dir)
        model = onnx.load(folder / "model.onnx") if folder is not None else case.model
        if any(wanted.search(node.op_type) for node in model.graph.node):
            collected.append(Case(kind, case.name, model, folder, case.data_sets, case.rtol, case.atol))
    return sorted(collected, key=lambda case: case.name)  # every xdist worker must list them alike


ALL = _collect("node", _NODE_CASES, _NODE_OPERATORS) + _collect(
    "torch", _CONVERTED_CASES, _CONVERTED_OPERATORS
)
RUN = [case for case in ALL if not case.operators & EXCLUDED.keys()]
LEFT_OUT = [case for case in ALL if case.operators & EXCLUDED.keys()]


def check(case: Case, call: Callable[..., Any]) -> None:
    """Run the case, every xconv function through `call`, and compare as the case's own runner does."""
    assert case.data_sets, f"{case.id} has no data"
    for inputs, expected in case.data_sets:
        actual = onnx_ops.run(case.model, inputs, call)
        for got, wanted in zip(actual, map(np.asarray, expected), strict=True):
            assert got.dtype == wanted.dtype, f"the result is {got.dtype}, the case has {wanted.dtype}"
            assert got.shape == wanted.shape, f"the result is {got.shape}, the case has {wanted.shape}"
            np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=case.atol)
