"""What a run of the tests says at its end: which backends were compared with the reference, how each was executed, and
how many cases agreed. A pytest plugin; the tests are those marked ``conformance(backend, how it is executed)``."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

OUTCOMES = ("passed", "failed", "error", "skipped")
COMPARED = pytest.StashKey[dict[str, tuple[str, str]]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = {item.nodeid: item.get_closest_marker("conformance") for item in items}
    config.stash[COMPARED] = {name: (marker.args[0], marker.args[1]) for name, marker in marked.items() if marker}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    compared, rows = config.stash.get(COMPARED, {}), defaultdict[tuple[str, str], Counter[str]](Counter)
    for outcome in OUTCOMES:
        for report in terminalreporter.stats.get(outcome, []):
            if report.nodeid in compared:
                rows[compared[report.nodeid]][outcome] += 1
    if not rows:
        return
    terminalreporter.section("forward and every gradient against the reference in float64")
    for (backend, how), counts in sorted(rows.items()):
        numbers = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
        terminalreporter.write_line(f"{backend:<10} {how:<64} {numbers}")
