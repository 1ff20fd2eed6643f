"""What a run of the tests says at its end: which backends were compared with the reference, how each was executed, and
how many cases agreed. A pytest plugin; the tests are those marked ``conformance(backend, how it is executed)``."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

OUTCOMES = ("passed", "failed", "error", "skipped")
PROPERTY = "conformance"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("conformance")
        if marker:  # a property of the test travels with its report, from other processes, too
            item.user_properties.append((PROPERTY, tuple(marker.args)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = defaultdict[tuple[str, str], Counter[str]](Counter)
    for outcome in OUTCOMES:
        for report in terminalreporter.stats.get(outcome, []):
            for backend, how in (value for name, value in report.user_properties if name == PROPERTY):
                rows[backend, how][outcome] += 1
    if not rows:
        return
    terminalreporter.section("forward and every gradient against the reference in float64")
    for (backend, how), counts in sorted(rows.items()):
        numbers = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
        terminalreporter.write_line(f"{backend:<10} {how:<64} {numbers}")
