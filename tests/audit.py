"""What no single session can see: a test that is skipped in all of them, and an expected failure that is stale.

``python tests/audit.py`` reads the outcomes that the sessions tests-NAME left in .reports/. Standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import descriptions

FOLDER = descriptions.ROOT / ".reports"


def read(folder: Path) -> dict[str, dict[str, str]]:
    """The outcomes of every session that left some: ``{backend: {test id: outcome}}``."""
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {table["backend"]: table["outcomes"] for table in tables}


def never_run(sessions: dict[str, dict[str, str]]) -> list[str]:
    """One complaint for each test that was skipped in every session in which it was collected."""
    skipped: dict[str, list[str]] = {}
    run = set()
    for name, outcomes in sessions.items():
        for test, outcome in outcomes.items():
            if outcome == "skipped":
                skipped.setdefault(test, []).append(name)
            else:
                run |= {test, test.partition("::")[0]}  # a module that is skipped elsewhere did run here
    never = sorted(set(skipped) - run)
    return [f"{test}: skipped in {', '.join(skipped[test])}, run in none" for test in never]


def stale(description: descriptions.Description, outcomes: dict[str, str]) -> list[str]:
    """One complaint for each expected failure of a backend that did not fail, or no longer exists."""
    complaints = []
    for failure in description.expected_failures:
        found = {test: outcome for test, outcome in outcomes.items() if failure.covers(test)}
        if not found:
            complaints.append(f"backends/{description.name}.toml: there is no test {failure.test}")
        complaints += [
            f"backends/{description.name}.toml: {test} is expected to fail, but {outcome}"
            for test, outcome in sorted(found.items())
            if outcome != "xfailed"
        ]
    return complaints


def main(folder: Path = FOLDER) -> int:
    """Print what was read and every complaint; 1 if there is any."""
    sessions = read(folder)
    complaints = never_run(sessions)
    for name in descriptions.names():
        if name in sessions:
            complaints += stale(descriptions.load(name), sessions[name])
            print(f"audit: {name}: {len(sessions[name])} tests")
        else:
            print(f"audit: {name}: no outcomes, nox -s tests-{name} has not run here")
    if not sessions:
        complaints.append("no session has left outcomes: run the sessions tests-NAME first")
    for complaint in complaints:
        print(f"audit: {complaint}")
    print(f"audit: {len(complaints)} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
