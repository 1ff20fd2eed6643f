"""How well predicted vectors meet their answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cube3d.vectors import Part

Floats = NDArray[np.float64]

TIE = 1e-9
"""Cosines nearer than this are equal: the same vectors differ by some 1e-16 from one row of a product to another."""


def ranks(prediction: Tensor, part: Part) -> Tensor:
    """Rank of the true answer of each prediction in the part's bank, by cosine: ``[N]``, float64, 1 is best.

    Where the question's group has several answers, the best placed counts and the others take no place. A tie
    takes the mean of its places, so that a constant prediction gains nothing by it. A prediction that is not a
    number comes last.
    """
    similarity = F.normalize(prediction.double(), dim=-1) @ F.normalize(part.bank.double(), dim=-1).T
    relevant = part.group[:, None] == part.bank_group[None, :]
    best = similarity.masked_fill(~relevant, -2).max(dim=1, keepdim=True).values
    level = (similarity - best).abs() <= TIE
    below = ~level & (similarity < best)
    return 1 + (~(below | level) & ~relevant).sum(1).double() + (level & ~relevant).sum(1).double() / 2


RANKING_TEMPERATURE = 0.05


def ranking_loss(prediction: Tensor, part: Part) -> float:
    """Mean negative log-likelihood of the true answer among the part's bank under a softmax of the cosines at a
    fixed temperature: the MRR's smooth companion. The MRR of some dozens of groups moves in steps as large as
    the gains it should tell apart, and a training loss falls with its learned temperature alone."""
    similarity = F.normalize(prediction, dim=-1) @ F.normalize(part.bank, dim=-1).T
    likelihood = (similarity / RANKING_TEMPERATURE).softmax(dim=-1)
    relevant = part.group[:, None] == part.bank_group[None, :]
    return -(likelihood * relevant).sum(1).log().mean().item()


def per_question(prediction: Tensor, part: Part, center: Tensor) -> dict[str, Floats]:
    """Each metric for each question, ``[N]``.

    Args:
        prediction: ``[N, dim]``.
        part: the questions, their answers and the bank.
        center: mean of the training answers, ``[dim]``, taken off both sides for ``centered_cosine``, since
            the vectors of one teacher share a large common component.
    """
    rank = ranks(prediction, part)
    values = {
        "cosine": F.cosine_similarity(prediction, part.answer, dim=-1),
        "centered_cosine": F.cosine_similarity(prediction - center, part.answer - center, dim=-1),
        "mrr": 1 / rank,
        **{f"recall@{k}": (rank <= k).double() for k in (1, 5, 10)},
    }
    return {name: value.double().numpy() for name, value in values.items()}


METRICS = ("cosine", "centered_cosine", "mrr", "recall@1", "recall@5", "recall@10")


LOSSES = ("loss", "ranking_loss")
"""Of what :func:`measure` gives, those that are better the lower they are."""


@torch.no_grad()
def measure(
    prediction: Tensor,
    part: Part,
    center: Tensor,
    objective: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]],
) -> dict[str, float]:
    """What training and a mixture are chosen by on the validation part: ``loss`` and each loss by its name, measured
    on the whole part, ``ranking_loss``, and the means of ``mrr``, ``cosine`` and ``centered_cosine``.

    Args:
        prediction, part, center: see :func:`per_question`.
        objective: in evaluation, so that every answer of another group is a negative.
    """
    total, parts = objective(prediction, part.answer, part.group)
    values = per_question(prediction, part, center)
    return {
        "loss": total.item(),
        **{f"loss_{name}": loss.item() for name, loss in parts.items()},
        "ranking_loss": ranking_loss(prediction, part),
        **{name: float(values[name].mean()) for name in ("mrr", "cosine", "centered_cosine")},
    }


def anisotropy(prediction: Tensor) -> float:
    """Mean cosine between different predictions: 1 where all point one way (Ethayarajh, 2019)."""
    unit = F.normalize(prediction.double(), dim=-1)
    n = len(unit)
    return ((unit.sum(0).square().sum() - n) / (n * (n - 1))).item()


def effective_dimensions(prediction: Tensor) -> float:
    """Participation ratio ``(Σ λ)² / Σ λ²`` of the covariance's eigenvalues: near 0 where predictions collapse."""
    values = torch.linalg.svdvals(prediction.double() - prediction.double().mean(0)).square()
    return (values.sum().square() / values.square().sum().clamp_min(1e-30)).item()
