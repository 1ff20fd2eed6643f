"""Rules that Triton's tools do not check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cube_kernels.backends import triton as backend

SOURCES = sorted(Path(backend.__file__).parent.glob("*.py"))


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """The calls of ``tl.name``."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == f"tl.{name}"]


def loads_without_a_cast(source: str) -> list[int]:
    """Lines. A call is cast where it is what an attribute ``to`` that is called is taken of."""
    tree = ast.parse(source)
    cast = {
        id(n.func.value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "to"
    }
    return [call.lineno for call in calls(tree, "load") if id(call) not in cast]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_load_is_cast_at_once(path):
    """The interpreter computes with bfloat16 without a word, and wrongly."""
    assert not loads_without_a_cast(path.read_text())


def test_the_rule_about_loads_finds_one_without_a_cast():
    assert loads_without_a_cast("x = tl.load(p) * 2\ny = tl.load(p).to(tl.float32)") == [1]


def masked_loads_without_other(source: str) -> list[int]:
    """Lines. What they read where the mask is false is whatever there is; in the interpreter it is zero."""
    given = [(call.lineno, {keyword.arg for keyword in call.keywords}) for call in calls(ast.parse(source), "load")]
    return [line for line, names in given if "mask" in names and "other" not in names]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_masked_load_says_what_the_rest_is(path):
    assert not masked_loads_without_other(path.read_text())


def test_the_rule_about_masks_finds_one_without_other():
    loads = "x = tl.load(p, mask=m)\ny = tl.load(p, mask=m, other=0.0)\nz = tl.load(p)"
    assert masked_loads_without_other(loads) == [1]


def test_there_are_no_atomics_and_no_inline_assembly():
    for path in SOURCES:
        used = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
        assert not [name for name in used if "atomic" in name or "inline_asm" in name or "libdevice" in name], path


def test_importing_the_package_does_not_import_triton():
    check = "import sys, cube_kernels; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
