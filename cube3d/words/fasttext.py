"""fastText's binary model: the dictionary, and the matrix of words and subwords.

Bojanowski, Grave, Joulin and Mikolov, 2017, "Enriching Word Vectors with Subword Information".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cube3d.words.files import Cursor
from cube3d.words.vectors import WordVectors

MAGIC = 793712314
NEWEST = 12
ARGUMENTS = (
    *("dim", "ws", "epoch", "min_count", "neg", "word_ngrams"),
    *("loss", "model", "bucket", "minn", "maxn", "lr_update_rate"),
)
END_OF_SENTENCE = b"</s>"
WORD = 0


def read(cursor: Cursor) -> WordVectors:
    """
    Args:
        cursor: at the start of a model that fastText trained without labels, of any version.

    Raises:
        UserError: with the byte, for a file that ends early or contradicts itself, a classifier, and a quantized model.
    """
    (first,) = cursor.numbers("i", "the header")
    versioned = first == MAGIC
    if versioned:
        (version,) = cursor.numbers("i", "the version")
        if version > NEWEST:
            raise cursor.error(f"version {version}; up to {NEWEST} is known")
    else:  # the oldest files begin with the arguments
        cursor.position = 0
    arguments = dict(zip(ARGUMENTS, cursor.numbers("12i", "the arguments"), strict=True))
    cursor.numbers("d", "the arguments")
    entries, word_count, label_count = cursor.numbers("3i", "the dictionary")
    cursor.numbers("q", "the dictionary")
    pruned = cursor.numbers("q", "the dictionary")[0] if versioned else -1
    if (
        min(arguments["dim"] - 1, arguments["bucket"], word_count, label_count) < 0
        or entries != word_count + label_count
    ):
        raise cursor.error("damaged, or neither a fastText model nor word2vec's binary format")
    if label_count > 0:
        raise cursor.error(f"a classifier with {label_count} labels; word vectors come from models without")
    if pruned >= 0:
        raise cursor.error("a pruned model; word vectors come from models as they were trained")
    words = []
    for i in range(entries):
        what = f"word {i} of {entries}"
        words.append(cursor.until(b"\0", what).decode("utf-8", "surrogateescape"))
        _, kind = cursor.numbers("qb", what)
        if kind != WORD:
            raise cursor.error(f"damaged: {what} is of kind {kind}")
    if versioned and cursor.numbers("?", "the matrix")[0]:
        raise cursor.error("a quantized model (.ftz); word vectors come from models as they were trained")
    rows, dim = cursor.numbers("2q", "the matrix")
    if (rows, dim) != (word_count + arguments["bucket"], arguments["dim"]):
        raise cursor.error(f"damaged: a matrix of {rows} by {dim}; {word_count} words and their subwords need another")
    start = cursor.skip(4 * rows * dim, f"the matrix of {rows} by {dim}")
    matrix = np.frombuffer(cursor.data, "<f4", rows * dim, start).reshape(rows, dim)
    undivided = END_OF_SENTENCE if versioned else None
    subwords = Subwords(word_count, arguments["bucket"], arguments["minn"], arguments["maxn"], undivided)
    return WordVectors(cursor.path, words, matrix, dim, subwords)


@dataclass(frozen=True)
class Subwords:
    """A word's character n-grams of ``shortest`` to ``longest`` characters, between ``<`` and ``>``, hashed to
    ``buckets`` rows that begin at ``first``. The word ``undivided`` has none: fastText spared the mark of a sentence's
    end since its files have a version."""

    first: int
    buckets: int
    shortest: int
    longest: int
    undivided: bytes | None = None

    def rows(self, word: bytes) -> list[int]:
        if word == self.undivided or self.buckets == 0:
            return []
        return [self.first + fnv(gram) % self.buckets for gram in self.grams(word)]

    def grams(self, word: bytes) -> list[bytes]:
        """In fastText's order. A character is a byte and the UTF-8 continuation bytes behind it; the marks alone
        are no n-grams."""
        marked = b"<" + word + b">"
        starts = [i for i, byte in enumerate(marked) if byte & 0xC0 != 0x80] + [len(marked)]
        characters = len(starts) - 1
        return [
            marked[starts[i] : starts[i + n]]
            for i in range(characters)
            for n in range(max(self.shortest, 1), min(self.longest, characters - i) + 1)
            if not (n == 1 and i in (0, characters - 1))
        ]


def fnv(text: bytes) -> int:
    """32-bit FNV-1a, but each byte is taken for a signed one, as fastText does it: those above 127 turn all the
    upper bits, too."""
    value = 2166136261
    for byte in text:
        value = (value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619 & 0xFFFFFFFF
    return value
