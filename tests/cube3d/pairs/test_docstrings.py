"""Docstrings of installed packages as pairs, read without running a line of theirs."""

import sys

import pytest

from cube3d.errors import UserError
from cube3d.pairs import read_pairs

FILES = {
    "__init__.py": '"""Handles things.\n\nAt length."""\nraise RuntimeError("imported")\n',
    "tools.py": '''
__all__ = ["Tool", "make"]

class Tool:
    """Cuts :class:`~things.Wood`
    and ``metal``."""

    def cut(self):
        """Cuts once."""

    def _hidden(self):
        """Not for users."""

    def bare(self): ...

async def make(n):
    r"""make(n, *, m=3) -> Tool

    Makes n\\u tools.
    """

def other():
    """Is not exported."""
''',
    "inner/__init__.py": "",
    "inner/deep.py": 'def dig():\n    """Digs."""\n\ndef _own():\n    """Is private."""\n',
    "_private.py": 'def f():\n    """Is private."""\n',
    "tests/test_tools.py": 'def test_cut():\n    """Is a test."""\n',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / "made_things" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "made_things"


def test_a_package_gives_a_pair_for_each_public_docstring(package):
    pairs = read_pairs(["docs:made_things"])
    assert {(p.question, p.answer) for p in pairs} == {
        ("What does the module made_things do?", "Handles things."),
        ("What does made_things.tools.Tool do?", "Cuts things.Wood and ``metal``."),
        ("What does made_things.tools.Tool.cut do?", "Cuts once."),
        ("What does made_things.tools.make do?", "Makes n\\u tools."),
        ("What does made_things.inner.deep.dig do?", "Digs."),
    }
    assert {pair.domain for pair in pairs} == {"made_things"}
    assert "made_things.tools:4" in {pair.source for pair in pairs}


def test_nothing_is_imported(package):
    """The package raises when it is imported; so does a parent of what is asked for."""
    assert [p.answer for p in read_pairs(["docs:made_things.inner"])] == ["Digs."]
    assert not any(name.startswith("made_things") for name in sys.modules)


def test_modules_of_the_standard_library_and_of_packages():
    answers = {p.question: p.answer for p in read_pairs(["docs:json", "docs:torch.nn.modules.linear"])}
    assert answers["What does json.dumps do?"] == "Serialize ``obj`` to a JSON formatted ``str``."
    assert "linear transformation" in answers["What does torch.nn.modules.linear.Linear do?"]


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("no_such_module", "no Python source of a module 'no_such_module'"),
        ("json.nothing", "no Python source of a module 'json.nothing'"),
        ("", "no Python source of a module ''"),
        ("sys", "no Python source"),
        ("_json", "no Python source"),
    ],
)
def test_a_module_without_source_is_named(module, told):
    with pytest.raises(UserError) as caught:
        read_pairs([f"docs:{module}"])
    assert f"docs:{module}:" in str(caught.value)
    assert told in str(caught.value)


def test_a_module_without_docstrings_is_named(package):
    (package / "tools.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="docs:made_things.tools: no public docstrings"):
        read_pairs(["docs:made_things.tools"])


def test_source_that_is_not_python_is_named(package):
    (package / "tools.py").write_text("def {{ name }}():\n")
    with pytest.raises(UserError, match="tools.py: not Python"):
        read_pairs(["docs:made_things"])
