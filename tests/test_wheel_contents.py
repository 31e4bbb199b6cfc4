"""The look inside the wheel, which `nox -s wheel` takes, sees what is too much and what is missing."""

import pytest

import wheel_contents

EXPECTED = {"xconv/__init__.py", "xconv/_algorithms/direct.py", "xconv/py.typed"}
INFO = [f"xconv-0.1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")]
GOOD = [*sorted(EXPECTED), *INFO]


def test_a_good_wheel_passes():
    assert wheel_contents.complaints(GOOD, EXPECTED) == []


@pytest.mark.parametrize("extra", ["tests/a.py", "backends/b.toml", "xconv/c.txt", "xconvert.py"])
def test_a_file_too_many_is_found(extra):
    assert wheel_contents.complaints([*GOOD, extra], EXPECTED) == [f"should not be in the wheel: {extra}"]


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_file_is_found(name):
    found = wheel_contents.complaints([other for other in GOOD if other != name], EXPECTED)
    assert found
    assert all(complaint.startswith("missing from the wheel") for complaint in found)


def test_the_checkout_is_what_is_expected(tmp_path):
    for name in (*EXPECTED, "xconv/__pycache__/conv.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert wheel_contents.expected_files(tmp_path / "xconv") == EXPECTED
