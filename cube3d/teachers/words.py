"""A teacher made of word vectors: the mean over a text's words, the rare ones weighted more."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cube3d.errors import UserError
from cube3d.teachers.locate import file_sha256
from cube3d.teachers.teacher import Teacher
from cube3d.words import WordVectors, read_word_vectors

WORD_FILES = (".vec", ".bin", ".txt")
"""How their names end; no model of ``transformers`` that is read here has such a name."""

WORD = re.compile(r"\w+|[^\w\s]")
"""A run of letters and digits, or one other mark: how the files that can be had split their texts."""


class WordTeacher(Teacher):
    """``Σ idf(w) v(w) / Σ idf(w)`` over the words ``w`` of a text that have a vector.

    ``idf(w) = 1 + ln((1 + N) / (1 + n(w)))``, where ``n(w)`` of the ``N`` training texts hold the word (Spärck Jones,
    1972, smoothed). A word is looked up as it is written, then in lower case, and then, in a fastText model, by its
    parts; one without a vector counts nothing.

    Args:
        path: any file that :func:`cube3d.words.read_word_vectors` reads. It is read when a text must be.
        texts: how many training texts the weights come from; 0: all words weigh the same.
        holding: in how many of them each word is.

    Raises:
        UserError: the file cannot be read.
    """

    def __init__(self, path: Path, texts: int = 0, holding: dict[str, int] | None = None) -> None:
        self.path, self.texts, self.holding = path, texts, holding or {}

    def __str__(self) -> str:
        return str(self.path)

    @cached_property
    def key(self) -> str:
        """A hash of the file and of what was fitted."""
        try:
            digest = file_sha256(self.path)
        except OSError as error:
            raise UserError(f"teacher {self.path}: cannot be read: {error.strerror}") from error
        return hashlib.sha256(f"{digest}\n{json.dumps(self.learned, sort_keys=True)}".encode()).hexdigest()

    @property
    def anisotropic(self) -> bool:
        """Common words give all texts one direction (Arora et al., 2017; Mu and Viswanath, 2018)."""
        return True

    @property
    def learned(self) -> dict[str, Any]:
        return {"texts": self.texts, "holding": self.holding}

    def fitted(self, texts: Sequence[str]) -> WordTeacher:
        """The teacher with weights from the training texts."""
        holding = Counter(word for text in texts for word in self._count(text))
        return WordTeacher(self.path, len(texts), dict(holding))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[len(texts), dim]``, float32.

        Raises:
            UserError: no word of a text has a vector, or the file is damaged.
        """
        counted = [self._count(text) for text in texts]
        looked_up = {word: self._vectors.vector(word) for word in set().union(*counted)}
        vectors = {word: vector for word, vector in looked_up.items() if vector is not None}
        means = []
        for text, words in zip(texts, counted, strict=True):
            weights = {word: count * self._weight(word) for word, count in words.items() if word in vectors}
            if not weights:
                raise UserError(f"teacher {self.path}: no word of the text {text[:80]!r} has a vector")
            means.append(np.average([vectors[word] for word in weights], axis=0, weights=list(weights.values())))
        return torch.from_numpy(np.array(means, np.float32))

    def reads(self, text: str) -> bool:
        return any(self._vectors.vector(word) is not None for word in self._count(text))

    def _count(self, text: str) -> Counter[str]:
        """The text's words as they are looked up."""
        words = WORD.findall(text)
        return Counter(low if w not in self._vectors and (low := w.lower()) in self._vectors else w for w in words)

    def _weight(self, word: str) -> float:
        return 1 + math.log((1 + self.texts) / (1 + self.holding.get(word, 0)))

    @cached_property
    def _vectors(self) -> WordVectors:
        return read_word_vectors(self.path)
