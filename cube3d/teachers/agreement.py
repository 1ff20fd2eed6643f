"""How far teachers agree: on the whole, and on each pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """Of two teachers on the same questions and answers.

    Attributes:
        similarity: Spearman's correlation of their similarities between questions and answers, as representational
            similarity analysis compares spaces of different dimensions (Kriegeskorte et al., 2008).
        top_1: share of the questions for which both find the same answer nearest.
    """

    similarity: float
    top_1: float


def agreement(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Agreement:
    """Agreement of two teachers.

    Args:
        first, second: each teacher's unit vectors of the questions ``[N, dim]`` and of the answers ``[A, dim]``;
            ``dim`` may differ.
    """
    cosines = [question @ answer.T for question, answer in (first, second)]
    top = [cosine.argmax(dim=1) for cosine in cosines]
    return Agreement(spearman(*(c.flatten() for c in cosines)).item(), (top[0] == top[1]).double().mean().item())


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation along the last dimension, ``[..., N]`` and ``[..., N]`` to ``[...]``, float64; tied
    values share the mean of their ranks."""
    return F.cosine_similarity(_centered_ranks(first), _centered_ranks(second), dim=-1)


def _centered_ranks(values: Tensor) -> Tensor:
    ordered = values.sort(dim=-1).values
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    doubled = (below + not_above).double()
    return doubled - doubled.mean(dim=-1, keepdim=True)


def item_agreement(teachers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """How far the teachers agree on each question–answer pair, ``[N]``, float64: the mean, over pairs of teachers, of
    Spearman's correlation between their similarities of the pair's question to all answers. 1 where all order the
    answers alike; a pair on which they differ is doubtful data.

    Args:
        teachers: unit vectors of the questions and of the answers, both ``[N, dim]``, for each of at least two
            teachers; ``dim`` may differ.
    """
    cosines = [question @ answer.T for question, answer in teachers]
    pairs = [spearman(cosines[i], cosines[j]) for i in range(len(cosines)) for j in range(i)]
    return torch.stack(pairs).mean(dim=0)
