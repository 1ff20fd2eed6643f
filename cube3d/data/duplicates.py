"""Texts that say nearly the same: the same marks and numbers, and equal or nearly equal sets of character 4-grams."""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cube3d.data.pairs import normalized

SHINGLE = 4
"""Characters of a shingle."""

_WRITTEN_ALIKE = str.maketrans(
    {**dict.fromkeys("“”„‟«»「」『』", '"'), **dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("‐‑‒–—−", "-")}
    | dict.fromkeys("。、؟،؛।॥¿¡", " ")
)
"""Quotes and dashes of any style, and marks that are nothing but punctuation."""

_PUNCTUATION = re.compile(
    r"""
      (?<=[^\W\d_])['-](?=[^\W\d_])                       # within a word: don't, near-duplicate
    | (?<=[^\s\d])\.+(?=["']?\s) | (?<=\S)\.+(?=["']?$)   # behind a word: a sentence ends; "1. " may be a number
    | (?<=\w)[,;:]+(?=["']\s|["']$) | (?<=\S)[,;:]+(?=\s|$)
    | (?<=[^\W\d_])!+(?=["']?$) | (?<=[^\W\d_]{2})!+(?=[?!"']*$)   # at the end of a line; 5! and n!? are factorials
    | (?<=\S)\?+(?=[!"']*$)
    """,
    re.VERBOSE | re.MULTILINE,
)
_QUOTED = re.compile(r"""(?<!\w)(["'])([^\W\d_]{2}[^"'\n]*)\1(?!\w)|`([^`\n]+)`""")
"""Words in quotes; "5" and 'a' may be another thing than 5 and a. Backticks are markup."""


def compared(text: str) -> str:
    """A text without letter case and punctuation.

    A mark is punctuation only where a sentence has it: a comma behind a word, a question mark at the end of a line,
    quotes around words, an apostrophe or hyphen between letters. All others say something and stay, as those of
    ``C++``, ``!=``, ``-5``, ``f(x)`` and ``*args`` do.

    >>> compared("Isn't “overfitting” bad, in C++?")
    'isn t overfitting bad in c++'
    """
    alike = "\n".join(map(normalized, text.translate(_WRITTEN_ALIKE).split("\n")))
    unquoted = _QUOTED.sub(lambda quoted: quoted[2] or quoted[3], _PUNCTUATION.sub(" ", alike))
    return " ".join(_PUNCTUATION.sub(" ", unquoted).split())


class Shingled:
    """A text as the set of its shingles.

    Attributes:
        text: as it is compared.
        exact: its numbers and marks in their order. Texts that differ in one do not resemble each other: ``conv1d`` is
            not ``conv2d``, nor ``==`` ``!=``.
    """

    def __init__(self, text: str) -> None:
        self.text = compared(text)
        found = re.findall(r"\d+|[^\w\s]", self.text)
        self.exact = tuple(part for part in found if part.isdigit() or unicodedata.category(part)[0] in "PS")

    @cached_property
    def shingles(self) -> NDArray[np.uint32]:
        """Hashes of the shingles, ``[count]``, each once."""
        last = max(1, len(self.text) - SHINGLE + 1)
        hashes = {zlib.crc32(self.text[i : i + SHINGLE].encode()) for i in range(last)}
        return np.fromiter(sorted(hashes), np.uint32, len(hashes))

    def resembles(self, other: Shingled, threshold: float) -> bool:
        """Whether the Jaccard similarity of the shingles, ``|A ∩ B| / |A ∪ B|``, reaches the threshold."""
        if self.text == other.text:
            return True
        if self.exact != other.exact:
            return False
        common = len(np.intersect1d(self.shingles, other.shingles, assume_unique=True))
        return common >= threshold * (len(self.shingles) + len(other.shingles) - common)


class Resembling:
    """Finds the texts that resemble one, without comparing all with all, and puts texts into classes.

    Two sets whose similarity is t or more have most of their shingles in common, and so one that is among the rarest
    of both: of the larger set among ``n - ⌈t n⌉ + 1``, of the smaller among ``n - ⌈2t / (1 + t) n⌉ + 1`` (prefix
    filtering: Bayardo, Ma and Srikant, 2007, "Scaling up all pairs similarity search"; Xiao et al., 2008). Texts that
    share a template share its frequent shingles alone, and are never compared. Nothing that resembles is missed.

    Args:
        texts: all that will be asked for; of a class one is found.
        threshold: see :meth:`Shingled.resembles`.
    """

    def __init__(self, texts: Sequence[Shingled], threshold: float) -> None:
        self.texts, self.threshold = texts, threshold
        self.compared = 0
        """How many texts were compared."""
        self._parent = list(range(len(texts)))
        self._exact: dict[tuple[str, ...], int] = {}
        every = [text.shingles for text in texts]
        self._known, self._often = np.unique(np.concatenate(every or [np.empty(0, np.uint32)]), return_counts=True)
        # By shingle: the texts that were added under it as the smaller and as the larger one, class by class.
        self._smaller: dict[int, list[list[int]]] = defaultdict(list)
        self._larger: dict[int, list[list[int]]] = defaultdict(list)

    def add(self, i: int) -> None:
        """Lets text ``i`` be found."""
        few, many = self._rarest(i)
        for holders, keys in ((self._smaller, few), (self._larger, many)):
            for key in keys:
                groups = holders[key]
                if groups and self.number(groups[-1][0]) == self.number(i):
                    groups[-1].append(i)
                else:
                    groups.append([i])

    def count(self, i: int) -> int:
        """How many classes :meth:`matches` would look at, at most."""
        return sum(len(groups) for groups in self._candidates(i))

    def matches(self, i: int) -> Iterator[int]:
        """Added texts that resemble text ``i``, of each class but its own one; the caller may join it to theirs."""
        tried: set[int] = set()
        for groups in self._candidates(i):
            self._merge(groups)
            for group in groups:
                if self.number(group[0]) == self.number(i):
                    continue
                for other in group:
                    if other in tried:
                        continue
                    tried.add(other)
                    self.compared += 1
                    if self.texts[i].resembles(self.texts[other], self.threshold):
                        yield other
                        break

    def join(self, i: int, other: int) -> None:
        """Makes one class of two."""
        self._parent[self.number(i)] = self.number(other)

    def number(self, i: int) -> int:
        """Of the text's class; that of another class is another."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def _candidates(self, i: int) -> Iterator[list[list[int]]]:
        few, many = self._rarest(i)
        for holders, keys in ((self._larger, few), (self._smaller, many)):
            yield from (holders[key] for key in keys if key in holders)

    def _merge(self, groups: list[list[int]]) -> None:
        """Puts into one group what has become one class."""
        if len(groups) > 1:
            merged: dict[int, list[int]] = {}
            for group in groups:
                known = merged.setdefault(self.number(group[0]), group)
                if known is not group:
                    known.extend(group)
            groups[:] = merged.values()

    def _rarest(self, i: int) -> tuple[list[int], list[int]]:
        """The text's rarest shingles, as few as it needs as the smaller and as the larger text of two. Texts of
        other marks or numbers have others; one that no other text has finds nothing."""
        text, t = self.texts[i], self.threshold
        size = len(text.shingles)
        often = self._often[np.searchsorted(self._known, text.shingles)]
        order = np.lexsort((text.shingles, often))
        exact = self._exact.setdefault(text.exact, len(self._exact)) << 32

        def first(share: float) -> list[int]:
            rows = order[: size - math.ceil(share * size - 1e-9) + 1]
            return [exact | shingle for shingle in text.shingles[rows[often[rows] > 1]].tolist()]

        return first(2 * t / (1 + t)), first(t)


def resemblance_classes(texts: Sequence[Shingled], threshold: float) -> list[int]:
    """A number for each text such that texts share it if they resemble each other, directly or through others."""
    unique = {shingled.text: shingled for shingled in texts}
    resembling = Resembling(list(unique.values()), threshold)
    for i in range(len(unique)):
        for other in resembling.matches(i):
            resembling.join(i, other)
        resembling.add(i)
    class_of = {text: resembling.number(i) for i, text in enumerate(unique)}
    return [class_of[shingled.text] for shingled in texts]
