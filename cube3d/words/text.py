"""One word a line with its numbers: word2vec text and fastText ``.vec`` with a header line, GloVe without."""

from __future__ import annotations

import re
from array import array
from itertools import islice
from pathlib import Path

import numpy as np

from cube3d.errors import UserError
from cube3d.words.files import BOM
from cube3d.words.vectors import WordVectors

_FIELD = re.compile(rb"[^ \t]+")
"""What stands between spaces and tabs, which tools put before, between and behind."""


def read(path: Path, header: bool) -> WordVectors:
    """
    Args:
        path: the file.
        header: whether its first line says how many words there are and how wide they are.

    Raises:
        UserError: with the line, for one that is not a word and its numbers, and for more or fewer lines than the
            header says.
    """
    words: list[str] = []
    values = array("f")
    count = dim = None
    with path.open("rb") as file:
        for line, content in enumerate(file, start=1):  # at b"\n" alone: words may hold what Unicode calls a line end
            if not content.endswith(b"\n"):  # half of a number is a number, too
                raise UserError(f"{path}:{line}: truncated: the last line has no end")
            content = (content.removeprefix(BOM) if line == 1 else content).rstrip(b" \t\r\n")
            fields = _FIELD.findall(content)
            if header and line == 1:
                count, dim = map(int, fields)
                continue
            if dim is None:
                dim = len(fields) - 1
            if len(fields) <= dim or dim < 1:
                raise UserError(
                    f"{path}:{line}: expected a word and {max(dim, 0) or 'its'} numbers, found {_shown(content)}"
                )
            if len(words) == count:
                raise UserError(f"{path}:{line}: another word, but the header says {count}")
            try:
                values.frombytes(np.array(fields[-dim:], np.float32).tobytes())
            except ValueError as error:
                raise UserError(f"{path}:{line}: {error}") from error
            words.append(_word(content, len(fields) - dim).decode("utf-8", "surrogateescape"))
    if count is not None and len(words) < count:
        raise UserError(f"{path}:{line}: truncated: the header says {count} words, the file ends after {len(words)}")
    assert dim is not None
    matrix = np.frombuffer(values, np.float32).reshape(len(words), dim)
    return WordVectors(path, words, matrix, dim, first_line=2 if header else 1)


def _word(content: bytes, fields: int) -> bytes:
    """The first so many fields as they are written: words may hold spaces (GloVe has some)."""
    found = list(islice(_FIELD.finditer(content), fields))
    return content[found[0].start() : found[-1].end()]


def _shown(content: bytes) -> str:
    text = content.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 40 else text[:40] + "…")
