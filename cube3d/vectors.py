"""Pairs as vectors: what training and evaluation work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cube3d.pairs import Pair, Split, normalized
from cube3d.teachers import Ensemble


@dataclass(frozen=True, eq=False)
class Part:
    """Pairs as unit vectors, with the bank of their distinct answers.

    Attributes:
        pairs: the ``N`` pairs.
        text: what is read as each one's question, ``N`` texts.
        question, answer: ``[N, dim]``.
        group: answer group of each pair, ``[N]``, int64.
        bank: ``[A, dim]``, one row for each distinct answer.
        bank_group: ``[A]``.
        bank_text: the ``A`` answers.
    """

    pairs: list[Pair]
    text: list[str]
    question: Tensor
    answer: Tensor
    group: Tensor
    bank: Tensor
    bank_group: Tensor
    bank_text: list[str]

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Parts:
    train: Part
    validation: Part
    test: Part

    @property
    def dim(self) -> int:
        """Of the teachers' space."""
        return self.train.question.shape[1]


def embed_parts(pairs: Sequence[Pair], groups: Sequence[int], split: Split, ensemble: Ensemble) -> Parts:
    """Each part of the split as vectors."""
    group = torch.tensor(groups)
    question = ensemble.questions([pair.prompt for pair in pairs], group)
    answer = ensemble.answers([pair.answer for pair in pairs])
    parts = {
        name: _part([pairs[i] for i in rows], group[rows], question[rows], answer[rows])
        for name, rows in vars(split).items()
    }
    return Parts(**parts)


def _part(pairs: Sequence[Pair], group: Tensor, question: Tensor, answer: Tensor) -> Part:
    first = {normalized(pair.answer): i for i, pair in reversed(list(enumerate(pairs)))}
    rows = sorted(first.values())
    texts = [pair.prompt for pair in pairs]
    return Part(list(pairs), texts, question, answer, group, answer[rows], group[rows], [pairs[i].answer for i in rows])
