"""The audit complains about exactly what it is there to find."""

import json

import pytest

import audit
from descriptions import Description, ExpectedFailure


def description(*tests):
    failures = tuple(ExpectedFailure(test, "because", "https://example.org/1") for test in tests)
    return Description("some", "numpy", (), ("cpu",), False, "", {}, failures)


def test_a_test_skipped_in_every_session_is_found():
    sessions = {
        "numpy": {"t.py::a": "skipped", "t.py::b": "skipped", "t.py::c": "passed"},
        "torch": {"t.py::a": "skipped", "t.py::b": "passed"},
    }
    assert audit.never_run(sessions) == ["t.py::a: skipped in numpy, torch, run in none"]


def test_a_test_collected_by_one_session_only_is_found():
    assert audit.never_run({"numpy": {"t.py::a": "skipped"}, "torch": {}}) == [
        "t.py::a: skipped in numpy, run in none"
    ]


def test_a_module_skipped_in_one_session_and_run_in_another_is_fine():
    assert audit.never_run({"numpy": {"t.py": "skipped"}, "torch": {"t.py::a": "passed"}}) == []
    assert audit.never_run({"numpy": {"t.py": "skipped"}, "torch": {"u.py::a": "passed"}}) != []
    assert audit.never_run({"numpy": {"t.py": "skipped"}, "torch": {"t.py::a": "skipped"}}) != []


@pytest.mark.parametrize("outcome", ["passed", "failed", "xfailed", "xpassed"])
def test_whatever_did_not_skip_did_run(outcome):
    assert audit.never_run({"numpy": {"t.py::a": "skipped"}, "torch": {"t.py::a": outcome}}) == []


def test_an_expected_failure_that_fails_is_not_stale():
    assert audit.stale(description("t.py::a"), {"t.py::a[1]": "xfailed", "t.py::ab": "passed"}) == []


@pytest.mark.parametrize("outcome", ["passed", "skipped", "xpassed"])
def test_an_expected_failure_that_does_not_fail_is_stale(outcome):
    assert audit.stale(description("t.py::a"), {"t.py::a": outcome}) == [
        f"backends/some.toml: t.py::a is expected to fail, but {outcome}"
    ]


def test_an_expected_failure_without_a_test_is_stale():
    assert audit.stale(description("t.py::gone"), {"t.py::a": "passed"}) == [
        "backends/some.toml: there is no test t.py::gone"
    ]


def write(folder, backend, outcomes):
    text = json.dumps({"backend": backend, "outcomes": outcomes})
    (folder / f"{backend}.json").write_text(text, encoding="utf-8")


def test_the_audit_reads_what_the_sessions_wrote(tmp_path, capsys):
    assert audit.main(tmp_path) == 1
    assert "no session has left outcomes" in capsys.readouterr().out

    write(tmp_path, "numpy", {"t.py::a": "passed"})
    assert audit.main(tmp_path) == 0
    assert "audit: numpy: 1 tests" in capsys.readouterr().out

    write(tmp_path, "torch", {"t.py::b": "skipped"})
    assert audit.main(tmp_path) == 1
    assert "t.py::b: skipped in torch, run in none" in capsys.readouterr().out
