"""Texts that say nearly the same: the same marks and numbers, and equal or nearly equal sets of character 4-grams."""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from cube3d.pairs.pair import normalized

SHINGLE = 4
"""Characters of a shingle."""

SOME = 8
"""Shingles that are looked at first, beside twice as many as may be lacking."""

ROUNDING = 1e-9
"""What a product of a threshold and a count may be off by."""

_WRITTEN_ALIKE = str.maketrans(
    {**dict.fromkeys("“”„‟«»「」『』", '"'), **dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("‐‑‒–—−", "-")}
    | dict.fromkeys("。、，；：？！؟،؛।॥¿¡", " ")
)
"""Quotes and dashes of any style, and marks that are nothing but punctuation."""

_PUNCTUATION = re.compile(
    r"""
      (?<=[^\W\d_])['-](?=[^\W\d_])                       # within a word: don't, near-duplicate
    | (?<=[^\s\d.])\.+(?=["']?\s) | (?<=[^\s.])\.+(?=["']?$)  # behind a word: a sentence ends; "1. " may be a number
    | (?<=\w)[,;:]+(?=["']\s|["']$) | (?<=[^\s,;:])[,;:]+(?=\s|$)
    | (?<=[^\W\d_])!+(?=["']?$) | (?<=[^\W\d_]{2})!+(?=[?!"']*$)   # at the end of a line; 5! and n!? are factorials
    | (?<=[^\s?])\?+(?=[!"']*$)
    """,
    re.VERBOSE | re.MULTILINE,
)
_AROUND = re.compile(
    r"""
      (?<!\w)(["'])([^\W\d_]{2}[^"'\n]*)\1(?!\w)                 # "5" and 'a' may be another thing than 5 and a
    | (?<![\w*])(\*{1,2})([^\W\d_]{2}[^*\n]*(?<!\s))\3(?![\w*])  # emphasis; not the stars of *args, **kwargs
    | (`+)([^`\n]+)\5
    """,
    re.VERBOSE,
)
"""Words in quotes, and what Markdown puts around text."""


def compared(text: str) -> str:
    """A text without letter case and punctuation.

    A mark is punctuation only where a sentence has it: a comma behind a word, a question mark at the end of a line,
    quotes or emphasis around words, an apostrophe or hyphen between letters. All others say something and stay, as
    those of ``C++``, ``!=``, ``-5``, ``f(x)`` and ``*args`` do.

    >>> compared("Isn't “overfitting” bad, in C++?")
    'isn t overfitting bad in c++'
    """
    alike = "\n".join(map(normalized, text.translate(_WRITTEN_ALIKE).split("\n")))
    for _ in range(2):  # what is behind `C++.` and "why?" shows when they are unwrapped
        alike = _AROUND.sub(lambda found: found[found.lastindex or 0], _PUNCTUATION.sub(" ", alike))
    return " ".join(alike.split())


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

    def shingles(self) -> set[int]:
        """Their hashes."""
        last = max(1, len(self.text) - SHINGLE + 1)
        return {zlib.crc32(self.text[i : i + SHINGLE].encode()) for i in range(last)}

    def resembles(self, other: Shingled, threshold: float) -> bool:
        """Whether the Jaccard similarity of the shingles, ``|A ∩ B| / |A ∪ B|``, reaches the threshold."""
        mine, others = self.shingles(), other.shingles()
        return self.exact == other.exact and len(mine & others) >= threshold * len(mine | others)


class Resembling:
    """Finds the texts that resemble one, without comparing all with all, and puts texts into classes.

    Two sets whose similarity is t or more have most of their shingles in common, and so one that is among the rarest
    of both: of the larger set among ``n - ⌈t n⌉ + 1``, of the smaller among ``n - ⌈2t / (1 + t) n⌉ + 1`` (prefix
    filtering: Bayardo, Ma and Srikant, 2007, "Scaling up all pairs similarity search"; Xiao et al., 2008). Texts of one
    template share its frequent shingles alone, and so are not compared. Nothing that resembles is missed.

    Args:
        texts: all that will be asked for, by number.
        threshold: see :meth:`Shingled.resembles`.

    Attributes:
        comparisons: how many there have been.
    """

    def __init__(self, texts: Sequence[Shingled], threshold: float) -> None:
        self.texts, self.threshold, self.comparisons = texts, threshold, 0
        self._shingles = [np.fromiter(text.shingles(), np.uint32) for text in texts]
        known, often = np.unique(np.concatenate([np.empty(0, np.uint32), *self._shingles]), return_counts=True)
        self._alone: list[int] = []  # how many shingles of a text no other text has
        for i, shingles in enumerate(self._shingles):
            found = often[np.searchsorted(known, shingles)]
            self._shingles[i] = shingles[np.lexsort((shingles, found))]  # the rarest first
            self._alone.append(int((found == 1).sum()))
        exact: dict[tuple[str, ...], int] = {}
        self._exact = [exact.setdefault(text.exact, len(exact)) for text in texts]
        self._parent = list(range(len(texts)))
        # Texts that were added, by their rarest shingles as the smaller and as the larger one of two, class by class.
        self._smaller: dict[int, list[list[int]]] = defaultdict(list)
        self._larger: dict[int, list[list[int]]] = defaultdict(list)

    def add(self, i: int) -> None:
        """Lets text ``i`` be found."""
        for holders, keys in zip((self._smaller, self._larger), self._keys(i), strict=True):
            for key in keys:
                groups = holders[key]
                if groups and self.number(groups[-1][0]) == self.number(i):
                    groups[-1].append(i)
                else:
                    groups.append([i])

    def count(self, i: int) -> int:
        """How many classes :meth:`matches` would look at."""
        return sum(map(len, self._holding(i)))

    def matches(self, i: int) -> Iterator[int]:
        """Added texts that resemble text ``i``: one of each class but its own, which the caller may :meth:`join`."""
        mine = set(self._shingles[i].tolist())
        tried: set[int] = set()
        own = self.number(i)
        for groups in self._holding(i):
            for group in groups:
                for other in group:
                    if other in tried:
                        continue
                    if self.number(other) == own:  # and so is the rest of the group
                        break
                    tried.add(other)
                    if self._resemble(mine, other):
                        yield other
                        own = self.number(i)
                        break
            if own != i:
                self._merge(groups)

    def resemble(self, i: int, other: int) -> bool:
        """Whether two of the texts do."""
        return self._exact[i] == self._exact[other] and self._resemble(set(self._shingles[i].tolist()), other)

    def join(self, i: int, other: int) -> None:
        """Makes one class of those of two texts."""
        self._parent[self.number(i)] = self.number(other)

    def number(self, i: int) -> int:
        """Of the text's class."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def _keys(self, i: int) -> Iterator[list[int]]:
        """The text's rarest shingles, as many as it needs as the smaller and as the larger one of two. Texts with other
        marks or numbers have other keys."""
        t, size, exact = self.threshold, len(self._shingles[i]), self._exact[i] << 32
        for share in (2 * t / (1 + t), t):
            last = size - math.ceil(share * size - ROUNDING) + 1
            yield [exact | shingle for shingle in self._shingles[i][self._alone[i] : last].tolist()]

    def _holding(self, i: int) -> Iterator[list[list[int]]]:
        """Texts that were added under one of the keys, class by class."""
        for holders, keys in zip((self._larger, self._smaller), self._keys(i), strict=True):
            yield from (holders[key] for key in keys if key in holders)

    def _resemble(self, mine: set[int], other: int) -> bool:
        shingles = self._shingles[other]
        self.comparisons += 1
        share = self.threshold / (1 + self.threshold)
        lacking = len(shingles) - math.ceil(share * (len(mine) + len(shingles)) - ROUNDING)
        rarest = shingles[: 2 * max(lacking, 0) + SOME].tolist()  # where texts differ, if they do
        if len(rarest) - len(mine.intersection(rarest)) > lacking:
            return False
        common = len(mine.intersection(shingles.tolist()))
        return common >= self.threshold * (len(mine) + len(shingles) - common)

    def _merge(self, groups: list[list[int]]) -> None:
        """Puts into one group what has become one class."""
        merged: dict[int, list[int]] = {}
        for group in groups:
            known = merged.setdefault(self.number(group[0]), group)
            if known is not group:
                known.extend(group)
        groups[:] = merged.values()


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
