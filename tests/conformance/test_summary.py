"""The table at the end of a run counts what happened, not what was meant to happen."""

import sys

from tests.building import SOURCE, outcome

TESTS = """
import pytest

compiled, interpreted = (pytest.mark.conformance("triton", how) for how in ("compiled", "interpreted"))

@compiled
@pytest.mark.parametrize("number", range(3))
def test_agrees(number):
    assert number < 2

@compiled
def test_skipped():
    pytest.skip("no")

@interpreted
def test_never_starts(missing):
    pass

@interpreted
@pytest.mark.sweep
def test_not_chosen():
    pass

def test_of_something_else():
    pass
"""


def test_each_outcome_is_counted_by_backend_and_way_of_execution(tmp_path):
    path = tmp_path / "test_drawn.py"
    path.write_text(TESTS)
    options = [
        "-p",
        "tests.conformance.summary",
        "-c",
        str(SOURCE.parent / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
    ]
    _, printed = outcome(sys.executable, "-m", "pytest", *options, str(path), PYTHONPATH=str(SOURCE.parent))
    rows = [line.split() for line in printed.splitlines() if line.startswith("triton")]
    assert [" ".join(row) for row in rows] == [
        "triton compiled 2 passed, 1 failed, 1 skipped",
        "triton interpreted 1 error",
    ]
