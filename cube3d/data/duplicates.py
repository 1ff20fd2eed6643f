"""Texts that say nearly the same: equal or nearly equal sets of character 4-grams."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cube3d.data.pairs import connected, normalized

SHINGLE = 4
"""Characters of a shingle."""

HASHES = 128
"""Length of a signature."""

MISSED = 1e-3
"""Share of the texts at the threshold that may not be found; those above it are missed more rarely still."""


class Shingled:
    """A text as the set of its shingles, without case and punctuation."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(re.findall(r"\w+", normalized(text)))
        self.numbers = re.findall(r"\d+", self.text)

    @cached_property
    def shingles(self) -> NDArray[np.uint64]:
        last = max(1, len(self.text) - SHINGLE + 1)
        hashes = {zlib.crc32(self.text[i : i + SHINGLE].encode()) for i in range(last)}
        return np.array(sorted(hashes), dtype=np.uint64)

    def resembles(self, other: Shingled, threshold: float) -> bool:
        """Whether the Jaccard similarity of the shingles, ``|A ∩ B| / |A ∪ B|``, reaches the threshold. Texts with
        other numbers do not resemble each other: ``conv1d`` is not ``conv2d``, nor 1914 1941."""
        if self.text == other.text:
            return True
        if self.numbers != other.numbers:
            return False
        common = len(np.intersect1d(self.shingles, other.shingles, assume_unique=True))
        return common >= threshold * (len(self.shingles) + len(other.shingles) - common)


def resemblance_classes(texts: Sequence[Shingled], threshold: float) -> list[int]:
    """A number for each text such that texts share it if they resemble each other, directly or through others.

    Candidates come from MinHash signatures cut into bands (Broder, 1997; Leskovec, Rajaraman and Ullman, 2014,
    ch. 3), so that the cost grows with the number of texts and not its square; each is then verified.
    """
    unique = list({shingled.text: shingled for shingled in texts}.values())
    keys: list[list[object]] = [[shingled.text] for shingled in unique]
    for a, b in _candidates(unique, threshold):
        if unique[a].resembles(unique[b], threshold):
            keys[a].append((a, b))
            keys[b].append((a, b))
    class_of = dict(zip((shingled.text for shingled in unique), connected(keys), strict=True))
    return [class_of[shingled.text] for shingled in texts]


def _rows(threshold: float) -> int:
    """Rows of a band: the most with which texts at the threshold still meet. Those with Jaccard similarity s share
    one of b bands of r rows with probability 1 - (1 - s^r)^b, so more rows spare more comparisons."""
    fitting = (r for r in (16, 8, 4, 2) if (1 - threshold**r) ** (HASHES // r) <= MISSED)
    return next(fitting, 1)


def _candidates(texts: Sequence[Shingled], threshold: float) -> set[tuple[int, int]]:
    rows = _rows(threshold)
    draw = np.random.default_rng(0)
    # Multiply-shift hashing (Dietzfelbinger et al., 1997): odd factors, the upper half of the product.
    factor = draw.integers(0, 2**63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offset = draw.integers(0, 2**63, HASHES, dtype=np.uint64)
    found: set[tuple[int, int]] = set()
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for i, shingled in enumerate(texts):
        for key in _bands(shingled.shingles, factor, offset, rows):
            buckets[key].append(i)
    for members in buckets.values():
        found.update(combinations(members, 2))
    return found


def _bands(
    shingles: NDArray[np.uint64], factor: NDArray[np.uint64], offset: NDArray[np.uint64], rows: int
) -> Iterator[tuple[int, bytes]]:
    signature = ((shingles[:, None] * factor + offset) >> np.uint64(32)).min(0).astype(np.uint32)
    for band, values in enumerate(signature.reshape(-1, rows)):
        yield band, values.tobytes()
