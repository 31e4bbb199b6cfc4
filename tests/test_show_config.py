"""What show_config prints: what a report about speed needs, and true."""

import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

import xconv
from descriptions import ROOT
from xconv import _machine, _namespace, _show
from xconv._show import show_config


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    from xconv import _remembered

    monkeypatch.setenv("XCONV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(_remembered, "_own", {})
    _remembered.reread()
    yield
    _remembered.reread()


def shown(capsys):
    """Title -> {name: value}, from the text."""
    show_config()
    out, error = capsys.readouterr()
    assert error == ""
    sections, rows = {}, None
    for line in out.splitlines():
        if line.startswith("  "):
            name, _, value = line.strip().partition("  ")
            rows[name] = value.strip()
        else:
            rows = sections[line] = {}
    return sections


def test_the_sections_in_order(capsys):
    assert list(shown(capsys)) == [
        f"xconv {xconv.__version__}",
        "machine",
        "settings",
        "BLAS",
        "array libraries",
        "bridges",
        "remembered tunings",
    ]


def test_it_gives_nothing_back():
    assert show_config() is None


def test_the_text_is_aligned_and_tidy(capsys):
    show_config()
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert not out.endswith("\n\n")
    lines = out.splitlines()
    assert lines == [line.rstrip() for line in lines]
    rows = [line for line in lines if line.startswith("  ") and "  " in line.strip()]
    (column,) = {len(line) - len(line[2:].partition("  ")[2].lstrip()) for line in rows}
    assert column > 10


def test_the_machine(capsys, monkeypatch):
    monkeypatch.setattr(_show, "cores", lambda: 7)
    monkeypatch.setattr(_show, "cpu_model", lambda: "A CPU")
    monkeypatch.setattr(_show, "cache_bytes", {1: 48 * 2**10, 2: 2**20 + 2**18, 3: None}.get)
    assert shown(capsys)["machine"] == {
        "processor": "A CPU",
        "cores": "7",
        "L1 cache": "48 KiB",
        "L2 cache": "1.25 MiB",
        "L3 cache": "unknown",
    }
    assert _machine.cores is not _show.cores


def test_the_settings_are_those_that_hold_here(capsys):
    before = shown(capsys)["settings"]
    with xconv.config(workspace=12345, threads=3, precision="strict"):
        inside = shown(capsys)["settings"]
    assert before == {
        "threads": "default",
        "workspace": "default",
        "cache": "default",
        "precision": "default",
        "fast": "True",
    }
    assert inside == {**before, "workspace": "12345", "threads": "3", "precision": "strict"}
    assert shown(capsys)["settings"] == before


def test_the_blas_that_numpy_uses_is_found(capsys, monkeypatch):
    import threadpoolctl

    infos = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
    show_config()
    lines = capsys.readouterr().out.partition("BLAS\n")[2].splitlines()
    for info in infos:  # there may be several of one name
        assert any(info["version"] in line for line in lines if line.strip().startswith(info["internal_api"]))
    assert infos
    for most, text in (
        (10**6, "in blocks of up to 1,000,000 multiplications, where they stand"),
        (0, "packed"),
    ):
        monkeypatch.setattr(_show, "small_products", lambda most=most: most)
        assert shown(capsys)["BLAS"]["products"] == text
    monkeypatch.setattr(_show, "threadpool_info", lambda: [{"user_api": "openmp"}])
    assert list(shown(capsys)["BLAS"]) == ["none"]


def test_installed_libraries_and_no_others(capsys):
    found = shown(capsys)["array libraries"]
    assert found["numpy"] == np.__version__
    for name in _namespace.KNOWN_LIBRARIES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            assert name not in found
        else:
            assert found[name] == version


def test_every_bridge_is_found(capsys):
    paths = (ROOT / "xconv" / "_bridges").iterdir()
    found = {path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(shown(capsys)["bridges"]) == found - {"__init__"}


def test_it_says_whether_there_are_compiled_movers(capsys):
    assert shown(capsys)["bridges"]["numba"] == "not installed (pip install xconv[fast])"


def test_the_memory_is_shown(capsys, tmp_path):
    assert shown(capsys)["remembered tunings"] == {
        "on this machine": "0",
        "file": str(tmp_path / "tunings.json"),
    }
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_imported_for_it():
    program = (
        "import sys; from xconv._show import show_config; before = set(sys.modules); show_config();"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(new - set(sys.stdlib_module_names), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stderr.strip() == "set()"
    assert "array libraries" in run.stdout
