"""Question–answer pairs and their answer groups."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cube3d.errors import UserError


@dataclass(frozen=True)
class Pair:
    """One question with its answer.

    Attributes:
        question, answer: text, not blank.
        source: where it came from, ``file:line``.
        domain, difficulty: labels of the data set; "" where it has none.
        group: the data set's name for the answer; "" where it has none.
    """

    question: str
    answer: str
    source: str
    domain: str = ""
    difficulty: str = ""
    group: str = ""


def normalized(text: str) -> str:
    """Text as it is compared: Unicode NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def answer_groups(pairs: Sequence[Pair]) -> list[int]:
    """A number for each pair such that pairs share it if they share the answer's text, the data set's group
    or the question's text, directly or through others. Splitting by it lets no answer, and no question, be on
    both sides."""
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_with: dict[tuple[str, str], int] = {}
    for i, pair in enumerate(pairs):
        keys = [("answer", normalized(pair.answer)), ("question", normalized(pair.question))]
        if pair.group:
            keys.append(("group", pair.group))
        for key in keys:
            parent[root(i)] = root(first_with.setdefault(key, i))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(pairs))]


@dataclass(frozen=True)
class Split:
    """Indices of the pairs of each part."""

    train: list[int]
    validation: list[int]
    test: list[int]


MIN_GROUPS = 2
"""Groups that each part needs: among fewer answers there is nothing to rank."""


def split_by_group(
    groups: Sequence[int],
    pairs: Sequence[Pair],
    validation: float,
    test: float,
    seed: int,
    test_seed: int | None = None,
) -> Split:
    """Splits so that each answer group is in one part.

    Groups are ordered by a hash of the seed and their smallest answer text, so that the split depends on
    nothing but the data and the seed, and adding pairs moves few others. ``test_seed`` orders them for the choice of
    the test part; None takes ``seed``.

    Raises:
        UserError: fewer groups than the split needs.
    """
    labels: dict[int, str] = {}
    for group, pair in zip(groups, pairs, strict=True):
        text = normalized(pair.answer)
        labels[group] = min(labels.get(group, text), text)

    def ordered_by(seed: int, chosen: Iterable[int]) -> list[int]:
        return sorted(chosen, key=lambda group: hashlib.sha256(f"{seed}\n{labels[group]}".encode()).digest())

    ordered = ordered_by(seed if test_seed is None else test_seed, labels)
    test_count = round(test * len(ordered))
    validation_count = round(validation * len(ordered))
    train_count = len(ordered) - test_count - validation_count
    if min(test_count, validation_count, train_count) < MIN_GROUPS:
        raise UserError(
            f"{len(pairs)} pairs have {len(ordered)} answer groups, which split into {train_count} for training, "
            f"{validation_count} for validation and {test_count} for testing; each part needs at least {MIN_GROUPS}"
        )
    ordered[test_count:] = ordered_by(seed, ordered[test_count:])
    part_of = {
        group: "test" if i < test_count else "validation" if i < test_count + validation_count else "train"
        for i, group in enumerate(ordered)
    }
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i, group in enumerate(groups):
        parts[part_of[group]].append(i)
    return Split(**parts)
