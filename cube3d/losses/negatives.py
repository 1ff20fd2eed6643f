"""Which of the candidate answers are a row's negatives."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.config import NegativeSettings


@torch.no_grad()
def true_negatives(
    group: Tensor, answer: Tensor, candidate_group: Tensor, candidates: Tensor, ceiling: float | None
) -> Tensor:
    """The candidates that do not answer a row's question, ``[B, N]``, bool.

    Args:
        group: ``[B]``, int64; a candidate of the row's own group is no negative.
        answer: ``[B, dim]``.
        candidate_group: ``[N]``, int64.
        candidates: ``[N, dim]``.
        ceiling: a candidate whose cosine with the row's answer is above it is taken for another wording of that answer
            (Qu et al., 2021, "RocketQA": denoised negatives); None: groups alone decide.
    """
    negative = group[:, None] != candidate_group[None, :]
    if ceiling is not None:
        negative &= F.normalize(answer, dim=-1) @ F.normalize(candidates, dim=-1).T <= ceiling
    return negative


@torch.no_grad()
def chosen(negative: Tensor, positive: Tensor, similarity: Tensor, settings: NegativeSettings, margin: float) -> Tensor:
    """Those of the negatives that the losses see, ``[B, N]``, bool.

    - ``all``: every one.
    - ``random``: ``count`` of each row, drawn from torch's global generator.
    - ``hard``: the ``count`` of each row that are most similar to the prediction (Hermans, Beyer and Leibe, 2017, "In
      Defense of the Triplet Loss").
    - ``semi_hard``: among those that are farther from the prediction than the answer is, but by less than the margin
      (Schroff et al., 2015, "FaceNet"), the ``count`` most similar ones.

    Args:
        negative: ``[B, N]``, bool.
        positive: cosine of each prediction with its answer, ``[B]``.
        similarity: cosine of each prediction with each candidate, ``[B, N]``.
        settings: ``choose`` and ``count``; None takes all that qualify.
        margin: of the triplet loss.
    """
    if settings.choose == "semi_hard":
        lead = positive[:, None] - similarity
        negative = negative & (lead > 0) & (lead < margin)
    if settings.count is None or settings.count >= negative.shape[1]:
        return negative
    preference = torch.rand_like(similarity) if settings.choose == "random" else similarity
    best = preference.masked_fill(~negative, -math.inf).topk(settings.count).indices
    return torch.zeros_like(negative).scatter(1, best, True) & negative
