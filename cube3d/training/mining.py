"""Wrong answers that a question could be taken for."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from cube3d.config import NegativeSettings
from cube3d.errors import UserError
from cube3d.losses.negatives import true_negatives
from cube3d.vectors import Part


def mine(part: Part, settings: NegativeSettings) -> Tensor:
    """The wrong answers nearest to each question by the teacher's vectors, as rows of the part's bank,
    ``[N, settings.mined]``, nearest first. Answers of the question's group and those above the ceiling are not wrong.

    Raises:
        UserError: a question has fewer.
    """
    wrong = true_negatives(part.group, part.answer, part.bank_group, part.bank, settings.ceiling)
    fewest = int(wrong.sum(1).min())
    if fewest < settings.mined:
        raise UserError(
            f"loss.negatives.mined is {settings.mined}, but {part.pairs[int(wrong.sum(1).argmin())].source} has only "
            f"{fewest} wrong answers among the {len(part.bank)} of the training part"
        )
    similarity = F.normalize(part.question, dim=-1) @ F.normalize(part.bank, dim=-1).T
    return similarity.masked_fill(~wrong, -math.inf).topk(settings.mined).indices
