"""Bugs planted in the CUDA sources: each checker catches what it is said to catch, and finds nothing where nothing is
planted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.building import PATH, SOURCE, cmake, configure_tests, outcome, run, why_not
from tests.mutation.cuda import (
    CHECKERS,
    COMPILED,
    COMPILED_SIGNS,
    CRASH,
    EMULATED_SIGNS,
    FOLDER,
    MUTATIONS,
    SANITIZERS,
)
from tests.mutation.planting import Mutation, first_finding, is_there_once, planted, table


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.bug)
def test_what_a_mutation_replaces_is_there_once(mutation: Mutation):
    assert is_there_once(mutation, FOLDER)


def test_the_documented_table_is_the_one_that_is_tested():
    assert table(MUTATIONS, CHECKERS) in (SOURCE.parent / "docs" / "cuda.md").read_text()


def check(checker: str, source: Path, finding: Callable[[], str]) -> None:
    """``finding``: what the checker says first of the sources as they are now."""
    found = {"none": finding()}
    for mutation in MUTATIONS:
        with planted(mutation, source / "cuda"):
            found[mutation.bug] = finding()
    assert found == {"none": "", **{m.bug: m.caught[CHECKERS.index(checker)] for m in MUTATIONS}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy."""
    if why_not() is not None:
        pytest.skip(f"csrc cannot be built: {why_not()}")
    return Path(shutil.copytree(SOURCE, tmp_path / "csrc"))


@pytest.mark.sweep
@pytest.mark.parametrize("checker", SANITIZERS)
def test_planted_bugs_are_caught_in_emulated_kernels(checker: str, source: Path, tmp_path: Path):
    build = tmp_path / "build"
    configure_tests(build, SANITIZERS[checker], source=source)

    def finding() -> str:
        run(cmake(), "--build", str(build), "--target", "cube_cuda_tests")
        code, printed = outcome(str(build / "cube_cuda_tests"), TSAN_OPTIONS="halt_on_error=1")
        found = first_finding(printed, EMULATED_SIGNS)
        if code < 0 and not found:
            return CRASH
        assert bool(found) == (code != 0), printed
        return found

    check(checker, source, finding)


@pytest.mark.sweep
@pytest.mark.skipif(shutil.which("nvcc", path=PATH) is None, reason="there is no nvcc on the PATH")
def test_planted_bugs_are_caught_in_compiled_kernels(source: Path, tmp_path: Path):
    def finding() -> str:
        code, printed = outcome(sys.executable, "-m", "tests.mutation.run_cuda", str(source), str(tmp_path / "build"))
        found = first_finding(printed, COMPILED_SIGNS)
        assert bool(found) == (code != 0), printed
        return found

    check(COMPILED, source, finding)
