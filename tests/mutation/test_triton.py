"""Bugs planted in the Triton kernels: the tests that claim to catch each do, in a copy of the package."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.building import SOURCE, outcome
from tests.mutation.planting import Mutation, first_finding, is_there_once, planted, table
from tests.mutation.triton import CHECKERS, FOLDER, MUTATIONS, SIGNS, Checker

ROOT = SOURCE.parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.bug)
def test_what_a_mutation_replaces_is_there_once(mutation: Mutation):
    assert is_there_once(mutation, FOLDER)


def test_the_documented_table_is_the_one_that_is_tested():
    assert table(MUTATIONS, list(CHECKERS)) in (ROOT / "docs" / "triton.md").read_text()


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """All that the tests need; where nothing is planted, the default run of the tests is what finds nothing."""
    pytest.importorskip("triton", reason="Triton is not installed")
    folder = tmp_path_factory.mktemp("copy")
    for name in ("cube_kernels", "tests", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "csrc").symlink_to(SOURCE)
    return folder


def finding(copy: Path, checker: Checker) -> str:
    """What the tests say first."""
    variables = {"TRITON_INTERPRET": "0", "PYTHONPATH": str(copy), **checker.variables}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--rootdir", str(copy)]
    code, printed = outcome(*command, *(str(copy / test) for test in checker.tests), **variables)
    found = first_finding("\n".join(line for line in printed.splitlines() if line.startswith("E ")), SIGNS)
    assert bool(found) == (code != 0), printed
    return found


@pytest.mark.sweep
@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.bug)
def test_planted_bugs_are_caught(mutation: Mutation, checker: str, copy: Path):
    with planted(mutation, copy / FOLDER.relative_to(ROOT)):
        found = finding(copy, CHECKERS[checker])
    assert found == mutation.caught[list(CHECKERS).index(checker)]
