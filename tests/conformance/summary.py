"""The line "conformance: N passed, M excluded" at the end of a session, with the reason of each exclusion.

A pytest plugin. Each conformance test leaves a property in its report, which pytest-xdist carries from its
workers to the process that prints the summary.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

RUN = "conformance-run"  # property of a case that is run: its name
EXCLUDED = "conformance-excluded"  # property of a case that is left out: "operator: reason"


def summary_lines(reports: Iterable[tuple[str, Any]]) -> list[str]:
    """reports: (outcome as the terminal counts it, report) -> the lines, none if no case was selected."""
    counts: Counter[str] = Counter()
    exclusions: Counter[str] = Counter()
    for outcome, report in reports:
        properties = dict(getattr(report, "user_properties", ()))
        if getattr(report, "when", None) != "call" or not properties.keys() & {RUN, EXCLUDED}:
            continue
        if outcome == "passed" and EXCLUDED in properties:
            outcome = "excluded"
            exclusions[properties[EXCLUDED]] += 1
        counts[outcome] += 1
    if not counts:
        return []
    others = [
        f"{count} {name}" for name, count in sorted(counts.items()) if name not in ("passed", "excluded")
    ]
    first = ", ".join([f"{counts['passed']} passed", f"{counts['excluded']} excluded", *others])
    reasons = [f"  {count} excluded, {reason}" for reason, count in sorted(exclusions.items())]
    return [f"conformance: {first}", *reasons]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = ((outcome, report) for outcome, stats in terminalreporter.stats.items() for report in stats)
    for line in summary_lines(reports):
        terminalreporter.write_line(line)
