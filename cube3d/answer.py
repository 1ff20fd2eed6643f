"""Answering: the bank's answers nearest to the cube's prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from cube3d.errors import UserError
from cube3d.run import Run
from cube3d.teachers import embed
from cube3d.vectors import embed_part


@dataclass(frozen=True)
class Answer:
    """An answer of the bank and its cosine with the prediction."""

    score: float
    text: str


def ask(run: Run, question: str, count: int) -> list[Answer]:
    """The ``count`` answers of the run's pairs nearest to what the cube predicts, best first.

    Raises:
        UserError: an empty question, or a run that is not trained.
    """
    if not question.strip():
        raise UserError("the question is empty")
    bank = embed_part(run.pairs, run.groups, run.teacher)
    prediction = run.model.predict(embed(run.teacher, [question]))
    scores = F.cosine_similarity(prediction, bank.bank, dim=-1)
    best = scores.topk(min(count, len(scores)))
    return [Answer(s, bank.bank_text[i]) for s, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
