"""Readers of question–answer pairs. Every problem is an error that names the file and the line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from cube3d.errors import UserError
from cube3d.pairs.pair import Pair
from cube3d.pairs.readers.chatterbot import chatterbot
from cube3d.pairs.readers.docstrings import docstring_pairs
from cube3d.pairs.readers.objects import json_file, jsonl
from cube3d.pairs.readers.record import REQUIRED, Reader, given, pair_of
from cube3d.pairs.readers.table import csv_file
from cube3d.pairs.readers.text import txt
from cube3d.strict import read_text

BUNDLED = "bundled"
"""Name of the data set that ships with cube3d."""

DOCS = "docs:"
"""What stands before a module's name where its docstrings are the source."""

READERS: dict[str, Reader] = {
    ".jsonl": jsonl,
    ".json": json_file,
    ".csv": csv_file,
    ".txt": txt,
    ".yml": chatterbot,
    ".yaml": chatterbot,
}

CONTEXT_TURNS = 2
"""Turns before a question that are read with it, unless told otherwise: the last question and its answer."""

VALID = f"{', '.join(READERS)}, {BUNDLED!r} or '{DOCS}<module>'"


def read_pairs(sources: Sequence[str], context: int = CONTEXT_TURNS) -> list[Pair]:
    """All pairs of the sources, in their order.

    Args:
        sources: paths, ``"bundled"``, or ``"docs:<module>"`` for the docstrings of an installed module.

            - JSONL: an object a line with ``question`` and ``answer``, and optionally ``domain``, ``difficulty``,
              ``group`` (a name that answers with one meaning share), ``source`` (where it came from), ``score``
              and ``id`` (no two alike in a file). Or a conversation: see
              :func:`cube3d.pairs.readers.dialogue.replies`. Other names are ignored, null is as good as absent.
            - JSON: an array of such objects, or an object with one.
            - CSV: a header line with the same names; see :func:`cube3d.pairs.readers.table.csv_file`.
            - TXT: ``Q: …`` followed by ``A: …``; further lines belong to what stands above them.
            - YAML: a ChatterBot corpus, ``categories`` and ``conversations``.
        context: how many turns of a conversation before a question are read with it.

    Raises:
        UserError: no source, an unknown format, a file that cannot be read or is not UTF-8, a line that is not
            what the format says, a blank question or answer, a key, a column or an id that is there twice, a
            conversation and a question in one record.
    """
    if not sources:
        raise UserError(f"no pairs: name files ({VALID})")
    pairs: list[Pair] = []
    for source in sources:
        if source.startswith(DOCS):
            pairs.extend(docstring_pairs(source.removeprefix(DOCS)))
            continue
        for path in bundled_files() if source == BUNDLED else [Path(source)]:
            pairs.extend(_read_file(path, context))
    return pairs


def make_pairs(records: Iterable[tuple[str, str] | Mapping[str, object]], context: int = CONTEXT_TURNS) -> list[Pair]:
    """Pairs of Python's own values, checked as those of a file are.

    Args:
        records: ``(question, answer)``, or mappings with the names that an object of JSONL has.
        context: see :func:`read_pairs`.

    Raises:
        UserError: no record, or one that is no pair; the message has its place, ``pairs[7]``.

    >>> told = {"question": "What is a cell?", "answer": "One place of a lattice.", "group": "cells"}
    >>> [pair.question for pair in make_pairs([("What is a lattice?", "A grid of cells."), told])]
    ['What is a lattice?', 'What is a cell?']
    """
    pairs = []
    for i, record in enumerate(records):
        if isinstance(record, Mapping):
            named = dict(record)
        elif isinstance(record, tuple) and len(record) == len(REQUIRED):
            named = dict(zip(REQUIRED, record, strict=True))
        else:
            raise UserError(f"pairs[{i}]: is {record!r}; expected (question, answer) or a mapping")
        pairs.append(pair_of(Path("pairs"), f"[{i}]", given(named), context))
    if not pairs:
        raise UserError("pairs: there are none")
    return pairs


def bundled_files() -> list[Path]:
    folder = Path(str(files("cube3d.pairs") / "bundled"))
    return sorted(folder.glob("*.jsonl"))


def _read_file(path: Path, context: int) -> list[Pair]:
    if path.suffix not in READERS:
        raise UserError(f"{path}: unknown format {path.suffix!r}; valid: {VALID}")
    pairs = [pair_of(path, place, record, context) for place, record in READERS[path.suffix](path, read_text(path))]
    if not pairs:
        raise UserError(f"{path}: holds no pairs")
    return pairs
