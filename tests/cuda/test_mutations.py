"""Planted bugs: each checker catches what it is said to catch, and finds nothing where nothing is planted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.building import SOURCE, cmake, configure_tests, outcome, run, why_not
from tests.cuda.mutations import CHECKERS, CRASH, MUTATIONS, SIGNS, Mutation, table


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.bug)
def test_what_a_mutation_replaces_is_there_once(mutation: Mutation):
    assert (SOURCE / "cuda" / mutation.file).read_text().count(mutation.right) == 1


def test_the_documented_table_is_the_one_that_is_tested():
    assert table() in (SOURCE.parent / "docs" / "cuda.md").read_text()


def finding(program: Path) -> str:
    """What the tests print first of :data:`SIGNS`."""
    code, printed = outcome(str(program), TSAN_OPTIONS="halt_on_error=1")
    found = {name: printed.find(sign) for name, sign in SIGNS.items() if sign in printed}
    if code < 0 and not found:
        return CRASH
    assert bool(found) == (code != 0), printed
    return min(found, key=lambda name: found[name]) if found else ""


@pytest.mark.sweep
@pytest.mark.skipif(why_not() is not None, reason=f"csrc/tests cannot be built: {why_not()}")
@pytest.mark.parametrize("checker", CHECKERS)
def test_planted_bugs_are_caught(checker: str, tmp_path: Path):
    source, build = tmp_path / "csrc", tmp_path / "build"
    shutil.copytree(SOURCE, source)
    configure_tests(build, CHECKERS[checker], source=source)

    def result() -> str:
        run(cmake(), "--build", str(build), "--target", "cube_cuda_tests")
        return finding(build / "cube_cuda_tests")

    found = {"none": result()}
    for mutation in MUTATIONS:
        path = source / "cuda" / mutation.file
        original = path.read_text()
        path.write_text(original.replace(mutation.right, mutation.wrong))
        found[mutation.bug] = result()
        path.write_text(original)
    assert found == {"none": "", **{m.bug: m.caught[checker] for m in MUTATIONS}}
