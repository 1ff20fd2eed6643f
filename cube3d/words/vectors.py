"""Words with their vectors, whichever file they came from."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cube3d.errors import UserError

Floats = NDArray[np.float32]


class Rows(Protocol):
    """Vectors by number; a matrix is one such."""

    def __getitem__(self, index: int, /) -> Any: ...


class Subwords(Protocol):
    """Where the vectors of a word's parts lie."""

    def rows(self, word: bytes) -> list[int]: ...


class ScatteredRows:
    """Vectors that lie anywhere in a file; one is read when it is asked for."""

    def __init__(self, data: mmap.mmap, offsets: NDArray[np.int64], dim: int) -> None:
        self._data, self._offsets, self._dim = data, offsets, dim

    def __getitem__(self, index: int) -> Floats:
        return np.frombuffer(self._data, "<f4", self._dim, int(self._offsets[index]))


class WordVectors:
    """A vocabulary with one vector for each word, and for any word where the file has subwords.

    Args:
        path: the file, for messages.
        words: in the file's order. Bytes that are not UTF-8 are kept as lone surrogates (``surrogateescape``), so
            that nothing is lost.
        rows: row ``i`` is the vector of word ``i``, ``[dim]``, float32; the rows of subwords follow.
        dim: width of the vectors.
        subwords: the rows of a word's parts, or None.
        first_line: of the file, that of the first word, where each has a line of its own.

    Raises:
        UserError: a word that is there twice, with both places.
    """

    def __init__(
        self,
        path: Path,
        words: list[str],
        rows: Rows,
        dim: int,
        subwords: Subwords | None = None,
        first_line: int | None = None,
    ) -> None:
        self.path, self.words, self.dim = path, words, dim
        self._rows, self._subwords = rows, subwords
        self._index: dict[str, int] = {}
        for i, word in enumerate(words):
            if self._index.setdefault(word, i) != i:
                places = f"as number {self._index[word]} and {i}"
                if first_line is not None:
                    places += f", in line {self._index[word] + first_line} and {i + first_line}"
                raise UserError(f"{path}: the word {word!r} is there twice, {places}")

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: str) -> bool:
        """Whether the word is in the vocabulary; others may have a vector from their parts."""
        return word in self._index

    def vector(self, word: str) -> Floats | None:
        """``[dim]``, float32: the word's row, averaged with those of its subwords where the file has some
        (Bojanowski et al., 2017, "Enriching Word Vectors with Subword Information"). None for a word that is not
        in the vocabulary and has no subwords either.

        Raises:
            UserError: the file's numbers are not finite.
        """
        own = self._index.get(word)
        numbers = [] if own is None else [own]
        if self._subwords is not None:
            numbers += self._subwords.rows(word.encode("utf-8", "surrogateescape"))
        if not numbers:
            return None
        vector: Floats = np.mean([self._rows[i] for i in numbers], axis=0, dtype=np.float32)
        if not np.isfinite(vector).all():
            raise UserError(f"{self.path}: the vector of {word!r} is not finite: the file is damaged")
        return vector

    @cached_property
    def matrix(self) -> Floats:
        """The vectors of :attr:`words`, ``[words, dim]``, in memory."""
        return np.array([self.vector(word) for word in self.words], np.float32).reshape(len(self.words), self.dim)
