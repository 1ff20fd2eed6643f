"""One word a line with its numbers: word2vec text and fastText ``.vec`` with a header line, GloVe without."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from cube3d.errors import UserError
from cube3d.words.vectors import WordVectors


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
            content = content.rstrip(b" \r\n")
            if header and line == 1:
                count, dim = map(int, content.split())
                continue
            if dim is None:
                dim = content.count(b" ")
            # From the right: words may hold spaces (GloVe has some).
            word, *numbers = content.rsplit(b" ", dim)
            if len(numbers) != dim or dim == 0:
                raise UserError(f"{path}:{line}: expected a word and {dim or 'its'} numbers, found {_shown(content)}")
            if len(words) == count:
                raise UserError(f"{path}:{line}: another word, but the header says {count}")
            try:
                values.frombytes(np.array(numbers, np.float32).tobytes())
            except ValueError as error:
                raise UserError(f"{path}:{line}: {error}") from error
            words.append(word.decode("utf-8", "surrogateescape"))
    if count is not None and len(words) < count:
        raise UserError(f"{path}:{line}: truncated: the header says {count} words, the file ends after {len(words)}")
    assert dim is not None
    return WordVectors(path, words, np.frombuffer(values, np.float32).reshape(len(words), dim), dim)


def _shown(content: bytes) -> str:
    text = content.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 40 else text[:40] + "…")
