"""Pairs from the docstrings of an installed package.

The source is parsed, not imported: importing runs a package's code and may need what is not there (a GPU, a
server). The price is that functions written in C have no docstring to be found.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from cube3d.errors import UserError
from cube3d.pairs.pair import Pair

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*->.*)?")
ROLE = re.compile(r":[\w:]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`")


def docstring_pairs(module: str) -> list[Pair]:
    """ "What does X do?" with the first paragraph of X's docstring, for each public module, class, function and
    method of a module or package.

    Args:
        module: its name, such as ``json`` or ``torch.nn``.

    Raises:
        UserError: there is no such module, it has no Python source, or nothing in it has a docstring.
    """
    spec = find_module(module)
    pairs = []
    for name, path in module_sources(module, spec):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:  # a template, or source of another Python
            raise UserError(f"docs:{module}: {path}: not Python {error}") from error
        for label, node in _documented(name, tree):
            answer = _first_paragraph(node)
            if answer:
                line = getattr(node, "lineno", 1)
                pairs.append(Pair(f"What does {label} do?", answer, f"{name}:{line}", domain=module.split(".")[0]))
    if not pairs:
        raise UserError(f"docs:{module}: no public docstrings in its Python source")
    return pairs


def find_module(module: str) -> ModuleSpec:
    """The module's spec, looked up part by part: ``importlib.util.find_spec`` would import the parents.

    Raises:
        UserError: there is no such module, or it has no Python source.
    """
    spec, places, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(name, places)
        if spec is None:
            raise UserError(f"docs:{module}: no Python source of a module {name!r} is installed")
        places = list(spec.submodule_search_locations or [])
    if spec is None or not (spec.origin or "").endswith(".py"):
        raise UserError(f"docs:{module}: has no Python source, and what is compiled has no docstring to read")
    return spec


def module_sources(module: str, spec: ModuleSpec, private: bool = False) -> Iterator[tuple[str, Path]]:
    """Names and files of the module and its submodules, the public ones or all; tests are not documentation."""
    assert spec.origin is not None
    if not spec.submodule_search_locations:
        yield module, Path(spec.origin)
        return
    folder = Path(spec.origin).parent
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        inner = parts[:-1] if parts[-1] == "__init__" else parts
        if not any((part.startswith("_") and not private) or part in ("test", "tests") for part in inner):
            yield ".".join((module, *inner)), path


def _documented(name: str, tree: ast.Module) -> Iterator[tuple[str, Documented]]:
    yield f"the module {name}", tree
    exported = _exported(tree)
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") or (exported is not None and node.name not in exported):
            continue
        yield f"{name}.{node.name}", node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                    yield f"{name}.{node.name}.{inner.name}", inner


def _exported(tree: ast.Module) -> set[str] | None:
    """What ``__all__`` lists where it is written out; None where there is none."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            try:
                return set(ast.literal_eval(node.value))  # type: ignore[attr-defined]
            except (ValueError, TypeError):  # computed
                return None
    return None


def _first_paragraph(node: Documented) -> str:
    """The docstring's first paragraph that is no signature, on one line, without reStructuredText's roles."""
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    for paragraph in re.split(r"\n\s*\n", text):
        line = " ".join(ROLE.sub(r"\1", paragraph).split())
        if line and not SIGNATURE.fullmatch(line):
            return line
    return ""
