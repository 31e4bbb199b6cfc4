"""One run of the suite is one backend: ``pytest --backend torch``. What the tests get, and what is written down."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

import backends
import descriptions

# The same examples on every machine and in every run; the backends differ too much in speed for a time limit.
hypothesis.settings.register_profile("xconv", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("xconv")

BACKEND = pytest.StashKey[backends.Backend]()


def pytest_addoption(parser):
    group = parser.getgroup("xconv")
    group.addoption(
        "--backend",
        default=os.environ.get("XCONV_BACKEND", "numpy"),
        help="array library to test: the name of a file in backends/ (default: $XCONV_BACKEND, else numpy)",
    )
    group.addoption("--device", help="where its arrays live (default: the first of its devices)")
    group.addoption("--outcomes", metavar="FILE", help="write the outcome of every test to FILE")


def pytest_configure(config):
    # What the tests tune is remembered for this run only, and nothing that a user has tuned counts.
    os.environ["XCONV_CACHE_DIR"] = tempfile.mkdtemp(prefix="xconv-tests-")
    try:
        description = descriptions.load(config.getoption("backend"))
        for name, value in description.environment.items():
            os.environ.setdefault(name, value)
        config.stash[BACKEND] = backends.open_backend(description, config.getoption("device"))
    except ImportError as error:
        needs = ", ".join(description.installed) or description.namespace
        raise pytest.UsageError(f"backend {description.name} needs {needs}: {error}") from error
    except Exception as error:
        raise pytest.UsageError(f"backend {config.getoption('backend')}: {error}") from error
    # With xdist, only this file is read by the process that prints the summary.
    config.pluginmanager.import_plugin("conformance.summary")
    file = config.getoption("outcomes")
    if file and not hasattr(config, "workerinput"):  # with xdist, every report reaches the controller
        config.pluginmanager.register(Outcomes(description.name, config.rootpath / file))


def pytest_report_header(config):
    return f"array library: {config.stash[BACKEND]}"


def pytest_collection_modifyitems(config, items):
    """Keep the tests meant for this backend, and mark the ones that are known to fail on it.

    A test that does not ask for `backend` says the same on all of them, so it runs on NumPy only. A lazy backend traces
    and compiles every call: there a module with a number `LAZY_STEP` has each so-many-th of the cases of its tests.
    """
    description = config.stash[BACKEND].description
    known = set(descriptions.names())
    kept, others = [], []
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        marker = item.get_closest_marker("backends")
        if marker:
            unknown = set(marker.args) - known
            if unknown or not marker.args:
                raise pytest.UsageError(f"{item.nodeid}: no such backend: {sorted(unknown)}")
            meant = description.name in marker.args
        else:
            meant = description.name == "numpy" or "backend" in getattr(item, "fixturenames", ())
        if meant and description.lazy:
            test = item.module.__name__, item.function.__name__
            meant = seen[test] % getattr(item.module, "LAZY_STEP", 1) == 0
            seen[test] += 1
        (kept if meant else others).append(item)
        for failure in description.expected_failures:
            if failure.covers(item.nodeid):
                item.add_marker(pytest.mark.xfail(reason=f"{failure.reason} ({failure.link})", strict=True))
    items[:] = kept
    if others:
        config.hook.pytest_deselected(items=others)


@pytest.fixture(scope="session")
def backend(pytestconfig) -> backends.Backend:
    """The array library of this run."""
    return pytestconfig.stash[BACKEND]


class Outcomes:
    """Writes how every collected test ended, as JSON: ``{"backend": …, "outcomes": {id: outcome}}``.

    An outcome is passed, failed, skipped, xfailed (failed, as known) or xpassed. A module that is skipped as a whole
    stands under its own name.
    """

    # Of the phases of one test, the one that stands furthest on here counts.
    RANK = ("passed", "skipped", "xfailed", "xpassed", "failed")

    def __init__(self, backend: str, file: Path):
        self.backend = backend
        self.file = file
        self.outcomes: dict[str, str] = {}

    def pytest_collectreport(self, report):
        if report.outcome != "passed":
            self._note(report.nodeid, report.outcome)

    def pytest_runtest_logreport(self, report):
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
        self._note(report.nodeid, outcome)

    def _note(self, node_id, outcome):
        self.outcomes[node_id] = max(self.outcomes.get(node_id, "passed"), outcome, key=self.RANK.index)

    def pytest_sessionfinish(self):
        self.file.parent.mkdir(parents=True, exist_ok=True)
        table = {"backend": self.backend, "outcomes": dict(sorted(self.outcomes.items()))}
        self.file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


@pytest.fixture
def eager(monkeypatch):
    """Plans are made as on a machine where threads cost nothing, so that small problems are shared out, too."""
    import xconv
    from xconv import _extents, _plan

    monkeypatch.setattr(_plan, "cores", lambda: 4)
    for rates in ("CPU", "FAST"):
        monkeypatch.setattr(_plan, rates, getattr(_plan, rates)._replace(start=0.0, call=0.0))
    monkeypatch.setattr(_extents, "GRAIN", 1e-5)
    monkeypatch.setattr(_extents, "WORTH", 0.0)
    if "xconv._bridges.numba.sharing" in sys.modules:  # where there are compiled movers
        monkeypatch.setattr("xconv._bridges.numba.sharing.WORTH", 0)
    _plan.forget_plans()
    with xconv.config(threads=4, cache=2**15):
        yield
    _plan.forget_plans()
