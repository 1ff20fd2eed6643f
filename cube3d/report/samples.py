"""Held-out questions with the answers that the model finds nearest: where it gained, where it lost, and at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.metrics import ranks
from cube3d.run import Run
from cube3d.vectors import Part

NEAREST = 3


@dataclass(frozen=True)
class Found:
    """An answer of the bank, its cosine with the prediction, and whether it is a true one."""

    score: float
    text: str
    true: bool


@dataclass(frozen=True)
class Sample:
    """A question with its true answer, that answer's rank under no model and under the run's, and the nearest."""

    question: str
    answer: str
    control_rank: float
    rank: float
    nearest: list[Found]


def samples(run: Run, count: int = 4) -> dict[str, list[Sample]]:
    """The questions whose reciprocal rank the model raised most over none, lowered most, and some at random (by
    the run's seed); ``count`` of each at most, each question once."""
    test = run.parts.test
    prediction = run.model.predict(test)
    before, after = ranks(test.question, test), ranks(prediction, test)
    change = 1 / after - 1 / before
    order = change.argsort(stable=True).tolist()
    draw = torch.randperm(len(test), generator=torch.Generator().manual_seed(run.settings.seed)).tolist()
    chosen = {
        "Gained most": [i for i in reversed(order) if change[i] > 0],
        "Lost most": [i for i in order if change[i] < 0],
        "At random": draw,
    }
    shown: set[str] = set()
    found: dict[str, list[Sample]] = {}
    for title, rows in chosen.items():
        found[title] = []
        for i in rows:
            question = test.pairs[i].question
            if len(found[title]) < count and question not in shown:
                shown.add(question)
                nearest = _nearest(prediction[i], test, int(test.group[i]))
                found[title].append(Sample(question, test.pairs[i].answer, before[i].item(), after[i].item(), nearest))
    return found


def _nearest(prediction: Tensor, part: Part, group: int) -> list[Found]:
    scores = F.cosine_similarity(prediction[None], part.bank, dim=-1)
    best = scores.topk(min(NEAREST, len(scores)))
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [Found(score, part.bank_text[i], int(part.bank_group[i]) == group) for score, i in rows]
