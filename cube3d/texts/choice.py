"""Which of the texts are taken, where there are more than are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def chosen(sources: Sequence[Sequence[str]], count: int | None, first: bool = False) -> list[str]:
    """``count`` different texts, from each source as many as from the others as far as it has them; all for None.

    Texts of a source are taken in the order of their hash, so that the choice depends on the texts alone, and a larger
    one holds most of a smaller one.

    Args:
        sources: the texts of each. One that several have belongs to the first.
        count: how many at most.
        first: whether the first source is taken whole, if it has no more than that.
    """
    known: set[str] = set()
    ordered = []
    for texts in sources:
        own = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(own)
        ordered.append(sorted(own, key=lambda text: hashlib.sha256(text.encode()).digest()))
    sizes = [len(texts) for texts in ordered]
    wanted = sum(sizes) if count is None else count
    whole = [min(sizes[0], wanted)] if first else []
    shares = whole + _shares(sizes[len(whole) :], wanted - sum(whole))
    return [text for texts, share in zip(ordered, shares, strict=True) for text in texts[:share]]


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """Equal parts of the count; what a small source lacks is shared by the others."""
    shares = [0] * len(sizes)
    left = count
    for place, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        shares[i] = min(sizes[i], left // (len(sizes) - place))
        left -= shares[i]
    return shares
