"""benchmarks/questions.py: the answers to a question are equal, and what is asked is set against what was measured."""

import json
import sys

import numpy as np
import pytest

from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import answers
import asked
import filters
import questions
import stacks
import timing

HURRIED = timing.Pace(rest=0, warmups=0, seconds=0, rounds=1)


@pytest.fixture
def checked(monkeypatch):
    """The results that were compared, by question."""
    seen = []

    def check(calls):
        seen.append({name: np.asarray(call()) for name, call in calls.items()})
        return whole(calls)

    whole = answers.check
    monkeypatch.setattr(answers, "check", check)
    return seen


def test_a_first_layer_by_loops(checked):
    lines = questions.question_a(HURRIED, size=6, count=2)
    assert {result.shape for result in checked[0].values()} == {(3, 3, 2)}
    assert {"triple loop of np.sum", "xconv", "xconv bound"} == set(checked[0])
    assert any("np.dot of (500, 108) and (108,)" in line for line in lines)
    assert [line.split(":")[0].strip() for line in lines[-2:]] == [
        "asked 100x as fast as triple loop of np.sum",
        "asked 5x as fast as np.dot of (500, 108) and (108,)",
    ]


@pytest.mark.backends("jax")  # which brings SciPy
def test_a_stack_of_images(checked, monkeypatch):
    monkeypatch.setattr(stacks, "LIMITED", (6, 2, 3))
    lines = questions.question_b(HURRIED, stacks=((6, 2, 3), (9, 3, 5)), others=())
    assert [next(iter(results.values())).shape for results in checked] == [(2, 6, 6), (3, 9, 9)]
    assert set(checked[0]) == {"convolve", "fftconvolve", "oaconvolve", "ndimage", "xconv", "xconv bound"}
    assert [line.split("  ")[1] for line in lines[2:4]] == ["6, 2, 3", "9, 3, 5"]
    assert any("asked 3x best SciPy" in line for line in lines)
    assert "(6, 2, 3): 0.00 GiB with the result; asked under 1 GiB: reached" in lines[-1]


@pytest.mark.backends("torch")
def test_torch_filters_a_stack():
    rng = np.random.default_rng(0)
    x, w = rng.random((2, 6, 7)), rng.random((3, 3))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    places = [(i, j) for i in range(3) for j in range(3)]
    expected = sum(w[2 - i, 2 - j] * padded[:, i : i + 6, j : j + 7] for i, j in places)
    np.testing.assert_allclose(asked.torch_filter(x, w), expected)


@pytest.mark.backends("jax")
def test_a_layer_from_pieces_of_scipy(checked):
    lines = questions.question_c(HURRIED, size=7, inputs=3, outputs=4)
    assert {result.shape for result in checked[0].values()} == {(4, 3, 3)}
    assert {"12 calls of convolve2d", "four shifted dots", "xconv", "xconv bound"} == set(checked[0])
    assert all(result.min() == 0 for result in checked[0].values())
    assert "asked 2x as fast as four shifted dots" in lines[-1]


def test_the_forward_pass_of_a_course(checked):
    lines = questions.question_d(HURRIED)
    assert {result.shape for result in checked[-1].values()} == {(2, 4, 5, 8)}
    assert {"nested loops of np.sum", "xconv", "xconv bound"} < set(checked[-1])
    assert "asked less than 10 of one window by einsum" in lines[-1]


@pytest.mark.parametrize(
    "wrong, says", [(np.zeros((3, 3, 2)), "are inf apart"), (np.ones(3), r"and .* gives \(3,\)")]
)
def test_a_wrong_answer_stops(monkeypatch, wrong, says):
    monkeypatch.setattr(asked, "triple_loop", lambda *_: wrong)
    with pytest.raises(SystemExit, match=says), np.errstate(divide="ignore"):
        questions.question_a(HURRIED, size=6, count=2)


def test_what_takes_long_is_run_once(monkeypatch):
    monkeypatch.setattr(answers, "ONCE", -1.0)
    count = {"a": 0, "b": 0}

    def call(name):
        count[name] += 1
        return np.ones(2)

    seconds = answers.measure({name: lambda name=name: call(name) for name in count}, HURRIED)
    assert list(seconds) == ["a", "b"]
    assert count == {"a": 1, "b": 1}


SECONDS = {"loop": 0.6, "window": 0.01, "xconv": 0.006, "xconv bound": 0.2}


def test_verdicts_are_given_for_every_call_of_xconv():
    assert answers.faster(SECONDS, "loop", 100) == (
        "  asked 100x as fast as loop: xconv 100x, reached; xconv bound 3x, missed"
    )
    assert answers.cheaper(SECONDS, "window", 10) == (
        "  asked less than 10 of window: xconv 0.6 of them, reached; xconv bound 20 of them, missed"
    )


def test_a_table_has_the_ratio_of_every_method():
    rows = [line.split() for line in answers.table(SECONDS)]
    assert rows[0] == ["ms", "over", "xconv", "over", "xconv", "bound"]
    assert rows[1] == ["loop", "600", "100x", "3x"]
    assert rows[3] == ["xconv", "6", "1x", "0.03x"]


def test_torch_copies_every_window():
    assert stacks._needs((1000, 50, 11)) == pytest.approx(48.4e9)
    assert 0 < stacks._room() < 2**60


# ------------------------------------------------------------------------------------------------ the filter table


def row(stack, dtype, **ms):
    return filters.Row(stack, dtype, {"fftconvolve": 6.0, "ndimage": 9.0, **ms}, 2**20)


def test_ratios_of_filters_are_of_scipys_best_and_of_the_plain_call():
    best = row((9, 2, 3), "float32", OpenCV=1.0, xconv=2.0, **{"xconv bound": 1.0})
    assert (best.ratio("SciPy"), best.ratio("OpenCV")) == (3.0, 0.5)
    assert filters.line(best).split()[-2:] == ["3.00x", "0.50x"]


def test_the_rows_that_miss_are_named():
    rows = [
        row((9, 2, 3), "float32", OpenCV=2.0, xconv=2.0),
        row((1000, 50, 11), "float64", OpenCV=2.0, xconv=3.0),
    ]
    lines = filters.verdicts(rows)
    assert "SciPy, in every row: missed by (1000, 50, 11) float64 2.00x; geometric mean 2.45x" in lines[0]
    assert "OpenCV, in every row: missed by (1000, 50, 11) float64 0.67x" in lines[1]
    assert lines[2].endswith("0.00 GiB with the result; asked under 1 GiB: reached")
    assert "reached" in filters.verdicts(rows[:1])[0]


def test_a_table_of_filters_is_measured_and_written(checked, tmp_path):
    pytest.importorskip("scipy", reason="SciPy's filters are not installed")
    rows = list(filters.measure([(6, 2, 3)], filters.DTYPES, HURRIED, opencv=False))
    assert [r.dtype for r in rows] == ["float32", "float64"]
    assert {result.dtype.name for results in checked[:1] for result in results.values()} == {"float32"}
    filters.save(rows, {"cpu": "a"}, tmp_path / "filters.json")
    written = json.loads((tmp_path / "filters.json").read_text(encoding="utf-8"))
    assert written["filters"][1]["stack"] == [6, 2, 3]
    assert written["filters"][1]["ratios"].keys() == {"SciPy"}
