"""Question–answer pairs, their answer groups, and splits that keep each in one part."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from cube3d.errors import UserError


@dataclass(frozen=True)
class Pair:
    """One question with its answer.

    Attributes:
        question, answer: text, not blank.
        source: where it was read, ``file:line``.
        domain, difficulty: labels of the data set; "" where it has none.
        group: the data set's name for the answer; "" where it has none.
        context: the turns of the conversation before the question, oldest first, as many as are read with it.
        dialogue: the conversation it is a turn of; "" where it is none.
        origin: where it came from before it was written to its file; "" where the file does not say.
        score: its quality from 0 to 1 as ``cube3d data build`` found it; None where nobody has.
    """

    question: str
    answer: str
    source: str
    domain: str = ""
    difficulty: str = ""
    group: str = ""
    context: tuple[str, ...] = ()
    dialogue: str = ""
    origin: str = ""
    score: float | None = None

    @property
    def prompt(self) -> str:
        """What a teacher reads as the question: the context's turns and the question, a line each."""
        return "\n".join((*self.context, self.question))


_RAISED = str.maketrans(
    {raised: f"^{plain}" for raised, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁱⁿ", "0123456789+-in", strict=True)}
    | {fraction: f" {fraction}" for fraction in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)
"""What NFKC would write on the line: 2⁵ is not 25, nor 1½ 11/2."""


def normalized(text: str) -> str:
    """Text as it is compared: Unicode NFKC with ``^`` before what is raised, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text.translate(_RAISED)).casefold().split())


def connected(keys: Iterable[Iterable[Hashable]]) -> list[int]:
    """A number for each item, from 0 in their order, such that items share it if they share a key, directly or
    through others."""
    parent: list[int] = []

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_with: dict[Hashable, int] = {}
    for i, item_keys in enumerate(keys):
        parent.append(i)
        for key in item_keys:
            parent[root(i)] = root(first_with.setdefault(key, i))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(parent))]


def answer_groups(pairs: Sequence[Pair]) -> list[int]:
    """A number for each pair such that pairs share it if they share the answer's text, the data set's group
    or the question's text with its context, directly or through others. Splitting by it lets no answer, and no
    question, be on both sides."""

    def keys(pair: Pair) -> list[Hashable]:
        own: list[Hashable] = [("answer", normalized(pair.answer)), ("question", normalized(pair.prompt))]
        return [*own, ("group", pair.group)] if pair.group else own

    return connected(map(keys, pairs))


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
    """Splits so that each answer group is in one part, and each conversation: its later turns have the earlier
    answers in their context.

    Groups are ordered by a hash of the seed and their smallest answer text, so that the split depends on
    nothing but the data and the seed, and adding pairs moves few others. ``test_seed`` orders them for the choice of
    the test part; None takes ``seed``.

    Raises:
        UserError: fewer groups than the split needs.
    """
    units = connected(
        [("group", group), ("dialogue", pair.dialogue)] if pair.dialogue else [("group", group)]
        for group, pair in zip(groups, pairs, strict=True)
    )
    labels: dict[int, str] = {}
    for unit, pair in zip(units, pairs, strict=True):
        text = normalized(pair.answer)
        labels[unit] = min(labels.get(unit, text), text)

    def ordered_by(seed: int, chosen: Iterable[int]) -> list[int]:
        return sorted(chosen, key=lambda unit: hashlib.sha256(f"{seed}\n{labels[unit]}".encode()).digest())

    ordered = ordered_by(seed if test_seed is None else test_seed, labels)
    test_count = round(test * len(ordered))
    validation_count = round(validation * len(ordered))
    train_count = len(ordered) - test_count - validation_count
    if min(test_count, validation_count, train_count) < MIN_GROUPS:
        kind = "answer groups" if len(ordered) == len(set(groups)) else "groups of conversations that share no answer"
        raise UserError(
            f"{len(pairs)} pairs have {len(ordered)} {kind}, which split into {train_count} for training, "
            f"{validation_count} for validation and {test_count} for testing; each part needs at least {MIN_GROUPS}"
        )
    ordered[test_count:] = ordered_by(seed, ordered[test_count:])
    part_of = {
        unit: "test" if i < test_count else "validation" if i < test_count + validation_count else "train"
        for i, unit in enumerate(ordered)
    }
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i, unit in enumerate(units):
        parts[part_of[unit]].append(i)
    return Split(**parts)
