"""From the names of sources to texts."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from cube3d.errors import UserError
from cube3d.pairs import Pair
from cube3d.pairs.readers import DOCS
from cube3d.pairs.readers.docstrings import find_module, module_sources
from cube3d.strict import parse_json_lines, read_text
from cube3d.texts.dictionary import entries
from cube3d.texts.sentences import is_prose, sentences

PAIRS = "pairs"
"""Name of the source that is the training pairs themselves."""

VALID = f"{PAIRS!r}, '{DOCS}<module>', .txt, .md, .jsonl with a 'text', .dict or .dict.dz"

Say = Callable[[str], None]


def read_texts(sources: Sequence[str], pairs: Sequence[Pair], say: Say = print) -> Iterator[str]:
    """Texts of the sources, one after the other; they may repeat.

    Args:
        sources: names:

            - ``"pairs"``: questions and answers of the training pairs, whole, and the answers' sentences;
            - ``"docs:<module>"``: prose of the docstrings of an installed module or package and of its README, and
              what its public names ask for: "What does X do?";
            - a text or Markdown file: its sentences;
            - a JSONL file of objects with ``text``: each text as it is;
            - a dictionary of dictd (``.dict``, ``.dict.dz``): see :func:`cube3d.texts.dictionary.entries`.
        pairs: the training pairs.
        say: gets a line on what had to be left out.

    Raises:
        UserError: no source, an unknown one, one twice, one without a text, a file that cannot be read or is not UTF-8;
            with the line, an object that is none.
    """
    if not sources:
        raise UserError(f"texts.sources: no texts; name some ({VALID})")
    for i, source in enumerate(sources):
        if source in sources[:i]:
            raise UserError(f"texts.sources: {source!r} is there twice")
        empty = True
        for text in _texts(source, pairs, say):
            empty = False
            yield text
        if empty:
            raise UserError(f"texts.sources: {source!r}: there is no prose in it")


def _texts(source: str, pairs: Sequence[Pair], say: Say) -> Iterator[str]:
    if source == PAIRS:
        return _of_pairs(pairs)
    if source.startswith(DOCS):
        return _of_module(source.removeprefix(DOCS), say)
    path = Path(source)
    if path.name.endswith((".dict", ".dict.dz")):
        return filter(is_prose, entries(path))
    if path.suffix == ".jsonl":
        return _of_objects(path)
    if path.suffix in (".txt", ".md"):
        return sentences(read_text(path))
    raise UserError(f"texts.sources: {source!r}: unknown kind; valid: {VALID}")


def _of_pairs(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        yield pair.prompt
        yield pair.answer
        yield from sentences(pair.answer)


def _of_module(module: str, say: Say) -> Iterator[str]:
    files = list(module_sources(module, find_module(module), private=True))
    unread = []
    known = set()
    for name, path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what its authors may mend
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates, and sources of another Python
            unread.append(path)
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node)
                if docstring is None:
                    continue
                label = name if isinstance(node, ast.Module) else f"{name.split('.')[0]}.{node.name}"
                if "._" not in label:
                    yield f"What does {label} do?"
                # Classes that are copied from one another say the same a hundred times.
                if docstring not in known:
                    known.add(docstring)
                    yield from sentences(docstring)
    if unread:
        say(f"{DOCS}{module}: {len(unread)} of {len(files)} files are no Python of this version, such as {unread[0]}")
    yield from sentences(_readme(module))


def _readme(module: str) -> str:
    """Of the distributions that the module comes with; empty for the standard library."""
    distributions = metadata.packages_distributions().get(module.split(".")[0], [])
    described = (metadata.metadata(name) for name in dict.fromkeys(distributions))
    return "\n\n".join(str(about.json.get("description", "")) for about in described)


def _of_objects(path: Path) -> Iterator[str]:
    for number, line, record in parse_json_lines(read_text(path), path):
        place = f"{path}:{number}"
        text = record.get("text") if isinstance(record, dict) else None
        if not (isinstance(text, str) and text.strip()):
            raise UserError(f"{place}: expected an object with a 'text' that is not blank, found {line.strip()[:60]!r}")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise UserError(f"{place}: the text holds half of a surrogate pair")
        yield text.strip()
