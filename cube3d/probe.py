"""What a bag of tokens cannot tell apart: questions of the same words in another order.

Each pair of the probe has one bag of words and two meanings, of one of three kinds: word order ("convert a list to a
tuple", "a tuple to a list"), negation ("used but not", the other way round) and terms of two words ("search tree",
"tree search"). A reader tells the two apart if it puts each nearer to the teachers' vector of itself than to that of
the other. Whatever sees only the bag is right in half of the cases, since a tie counts a half.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch.nn.functional as F
from torch import Tensor

TIE = 1e-6
"""Cosines nearer than this are equal: a bag adds up the same vectors in another order."""


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
    """The probe that ships with cube3d. None of it is a training text."""
    lines = (files("cube3d.data") / "probe.jsonl").read_text(encoding="utf-8").splitlines()
    return [MinimalPair(**json.loads(line)) for line in lines]


def told_apart(
    pairs: Sequence[MinimalPair], read: Callable[[list[str]], Tensor], teach: Callable[[list[str]], Tensor]
) -> dict[str, float]:
    """The share of the questions that are nearer to their own teachers' vector than to the other's, for each kind and
    for ``all``; a tie counts a half.

    Args:
        pairs: the questions.
        read: texts to vectors ``[N, dim]``.
        teach: texts to the teachers' vectors ``[N, dim]``.
    """
    texts = [[pair.first for pair in pairs], [pair.second for pair in pairs]]
    ours, theirs = ([F.normalize(f(side), dim=-1) for side in texts] for f in (read, teach))
    found: dict[str, list[float]] = {"all": []}
    for own, other in ((0, 1), (1, 0)):
        lead = (ours[own] * (theirs[own] - theirs[other])).sum(-1)
        for pair, value in zip(pairs, lead.tolist(), strict=True):
            right = 0.5 if abs(value) <= TIE else float(value > 0)
            found["all"].append(right)
            found.setdefault(pair.kind, []).append(right)
    return {kind: sum(values) / len(values) for kind, values in found.items()}
