"""Questions of the same words in another order, and of another meaning: word order ("convert a list to a tuple", "a
tuple to a list"), negation ("used but not", the other way round) and terms of two words ("search tree", "tree
search")."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class MinimalPair:
    """Two questions of the same words.

    Attributes:
        kind: what tells them apart.
        first, second: the questions.
    """

    kind: str
    first: str
    second: str


def minimal_pairs() -> list[MinimalPair]:
    """Those that ship with cube3d. None of it is a training text."""
    lines = (files("cube3d.pairs") / "minimal.jsonl").read_text(encoding="utf-8").splitlines()
    return [MinimalPair(**json.loads(line)) for line in lines]
