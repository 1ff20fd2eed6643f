"""Word vectors as word2vec's files, which most tools read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cube3d.errors import UserError
from cube3d.files import replacing
from cube3d.words.vectors import Floats


def write_word2vec(path: Path, words: Sequence[str], matrix: Floats) -> None:
    """Writes a file that :func:`read_word_vectors` gives back bit for bit: word2vec binary if the name ends in
    ``.bin``, word2vec text otherwise.

    Args:
        path: written whole or not at all.
        words: without spaces, tabs and line ends, each once.
        matrix: ``[words, dim]``, float32.

    Raises:
        UserError: a word that the format cannot hold, or a full disk.
    """
    for word in words:
        if not word or any(mark in word for mark in " \t\r\n"):
            raise UserError(
                f"{path}: word2vec's format cannot hold the word {word!r}: it is empty or holds white space"
            )
    if len(set(words)) != len(words):
        raise UserError(f"{path}: a word is there twice")
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(f"{len(words)} {matrix.shape[1]}\n".encode())
        for word, row in zip(words, matrix.astype("<f4", copy=False), strict=True):
            # Text has the fewest digits that tell a float32 from its neighbors.
            numbers = row.tobytes() if path.suffix == ".bin" else " ".join(row.astype(str)).encode()
            file.write(word.encode("utf-8", "surrogateescape") + b" " + numbers + b"\n")
