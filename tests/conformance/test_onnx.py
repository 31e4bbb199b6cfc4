"""The cases that the onnx package ships, run through xconv on the backend with their own tolerances."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the conformance cases come with the package onnx, which is not installed")

import onnx

from conformance import onnx_cases, onnx_ops, summary
from conformance.onnx_cases import ALL, EXCLUDED, LEFT_OUT, RUN, Case

LAZY_STEP = 2

# How many cases onnx 1.23.2 has for each operator. A later version may have more, none of these may go.
NODE_CASES = {
    "AveragePool": 20,
    "CausalConvWithState": 13,
    "Col2Im": 5,
    "Conv": 6 + 13,  # 13 in the expanded form of CausalConvWithState
    "ConvInteger": 2,
    "ConvTranspose": 11,
    "DeformConv": 4,
    "Gemm": 11,
    "GlobalAveragePool": 2,
    "GlobalMaxPool": 2,
    "LpPool": 8,
    "MaxPool": 19,
    "MaxUnpool": 2,
    "QLinearConv": 1,
}
CONVERTED_CASES = {
    "AveragePool": 7,
    "BatchNormalization": 5,
    "Conv": 26,
    "ConvTranspose": 2,
    "Gemm": 1,
    "MatMul": 1,
    "MaxPool": 8,
    "Pad": 4,
}


@pytest.mark.parametrize("case", RUN, ids=lambda case: case.id)
def test_case(case: Case, backend: Any, record_property: Any) -> None:
    record_property(summary.RUN, case.id)
    missing = sorted(name for name in case.dtypes if not backend.has(name))
    if missing:
        pytest.skip(f"{backend.name} has no {', '.join(missing)}")
    onnx_cases.check(case, backend.call)


@pytest.mark.parametrize("case", LEFT_OUT, ids=lambda case: case.id)
def test_an_excluded_case_still_has_no_translation(case: Case, backend: Any, record_property: Any) -> None:
    name = next(iter(case.operators & EXCLUDED.keys()))
    record_property(summary.EXCLUDED, f"{name}: {EXCLUDED[name]}")
    with pytest.raises(onnx_ops.NotTranslatedError, match=name):
        onnx_cases.check(case, backend.call)


def test_every_exclusion_has_a_reason_and_names_a_real_case() -> None:
    for name, reason in EXCLUDED.items():
        assert len(reason) > 20, f"{name} is excluded without a reason"
        assert any(name in case.operators for case in ALL), f"{name} is excluded, but no case has it"


@pytest.mark.parametrize(
    ("kind", "expected"), [("node", NODE_CASES), ("torch", CONVERTED_CASES)], ids=["node", "torch"]
)
def test_no_case_went_missing(kind: str, expected: dict[str, int]) -> None:
    found = Counter(name for case in ALL if case.kind == kind for name in case.operators)
    assert {name: count for name, count in expected.items() if found[name] < count} == {}


def test_at_least_135_cases_are_run(backend: Any) -> None:
    runnable = [case.id for case in RUN if all(backend.has(name) for name in case.dtypes)]
    assert len(runnable) >= 135
    assert len(set(runnable)) == len(runnable)


# -------------------------------------------------------------------------------------- the checks can fail


def call_numpy(function: Any, *arrays: Any, **options: Any) -> Any:
    return function(*arrays, **options)


def case_named(name: str) -> Case:
    return next(case for case in ALL if case.id == name)


def spoil(how: Any) -> Any:
    """A `call` whose floating-point results went through `how`."""

    def call(function: Any, *arrays: Any, **options: Any) -> Any:
        result = call_numpy(function, *arrays, **options)
        return tuple(map(how, result)) if isinstance(result, tuple) else how(result)

    return call


@pytest.mark.parametrize(
    "how",
    [
        lambda y: y * np.asarray(1.01, dtype=y.dtype),
        lambda y: y.astype(np.float64),
        lambda y: y[:, :, :1],
        lambda y: np.where(y == y.max(), np.nan, y).astype(y.dtype),
    ],
    ids=["one percent off", "another dtype", "another shape", "one NaN"],
)
@pytest.mark.parametrize(
    "name", ["torch-test_Conv2d", "node-test_averagepool_2d_pads", "torch-test_BatchNorm2d_eval"]
)
def test_a_wrong_result_fails(name: str, how: Any) -> None:
    onnx_cases.check(case_named(name), call_numpy)
    with pytest.raises(AssertionError):
        onnx_cases.check(case_named(name), spoil(how))


def test_a_wrong_index_fails() -> None:
    case = case_named("node-test_maxpool_with_argmax_2d_precomputed_strides")
    with pytest.raises(AssertionError):
        onnx_cases.check(case, spoil(lambda y: y[..., ::-1] if y.dtype.kind == "i" else y))


def test_an_attribute_without_a_translation_fails() -> None:
    case = case_named("node-test_maxpool_2d_default")
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("twist", 1))
    with pytest.raises(AssertionError, match="twist"):
        onnx_ops.run(model, case.data_sets[0][0], call_numpy)


def test_the_summary_counts_outcomes_and_lists_reasons() -> None:
    class Report:
        def __init__(self, when: str, *properties: tuple[str, str]) -> None:
            self.when = when
            self.user_properties = list(properties)

    run, excluded = (summary.RUN, "a"), (summary.EXCLUDED, "Op: no such function")
    reports = [
        ("passed", Report("call", run)),
        ("passed", Report("call", run)),
        ("", Report("setup", run)),
        ("", Report("teardown", run)),
        ("passed", Report("call")),
        ("passed", Report("call", excluded)),
        ("warnings", object()),
    ]
    assert summary.summary_lines(reports) == [
        "conformance: 2 passed, 1 excluded",
        "  1 excluded, Op: no such function",
    ]
    reports += [
        ("failed", Report("call", run)),
        ("failed", Report("call", excluded)),
        ("skipped", Report("call", run)),
    ]
    assert summary.summary_lines(reports) == [
        "conformance: 2 passed, 1 excluded, 2 failed, 1 skipped",
        "  1 excluded, Op: no such function",
    ]
    assert summary.summary_lines([("passed", Report("call"))]) == []
