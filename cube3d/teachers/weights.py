"""How much each teacher counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BATCH = 128
"""Pairs of a batch: each question has the batch's answers to choose from."""

NOTED = 10
"""How many times, evenly over the batches, the weights are worked out and noted."""

PENALTY = 1e-5


@dataclass(frozen=True)
class WeightsNoted:
    """The teachers' weights after so many batches."""

    batch: int
    weights: list[float]


def with_floor(weights: Tensor, floor: float) -> Tensor:
    """``floor + (1 - K floor) w`` along the last dimension: weights that still add up to 1, none below the floor.

    Args:
        weights: ``[..., K]``, not negative, with a sum of 1.
        floor: at most ``1/K``.
    """
    return floor + (1 - weights.shape[-1] * floor) * weights


def likelihood_weights(
    questions: Sequence[Tensor], answers: Sequence[Tensor], group: Tensor, window: int, floor: float, seed: int
) -> list[WeightsNoted]:
    """Weights under which the true answers of training pairs are most likely, followed over batches.

    The choice of an answer ``j`` for question ``i`` is modelled as ``softmax_j Σ_k v_k cos_k(i, j)``, the conditional
    logit of McFadden (1974); its ``v ≥ 0`` are fitted to the last ``window`` batches by maximum likelihood, with a
    small penalty that keeps them finite where no question is in doubt. A teacher's weight is its share of ``Σ v``; the
    temperature drops out, and a teacher whose cosines vary little is not taken for a weak one.

    Args:
        questions, answers: aligned unit vectors ``[N, dim]`` of each of the K teachers.
        group: answer group of each pair, ``[N]``; answers of the question's own group are all true.
        window: batches that count. As many are drawn, or as one pass over the pairs has if that is more.
        floor: least weight of a teacher.
        seed: of the order.

    Returns:
        The weights after some of the batches, the last ones at the end.
    """
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=window)
    noted = []
    generator = torch.Generator().manual_seed(seed)
    size = min(BATCH, len(group))
    batches = max(window, -(-len(group) // size))
    strengths = torch.full((len(questions),), 10.0, dtype=torch.float64)
    order = torch.empty(0, dtype=torch.int64)
    for batch in range(1, batches + 1):
        if len(order) < size:
            order = torch.randperm(len(group), generator=generator)
        rows, order = order[:size], order[size:]
        recent.append(
            (
                torch.stack([q[rows].double() @ a[rows].double().T for q, a in zip(questions, answers, strict=True)]),
                group[rows, None] == group[None, rows],
            )
        )
        if batch == batches or batch % max(1, batches // NOTED) == 0:
            cosines = torch.cat([c for c, _ in recent], dim=1)
            strengths = _most_likely(cosines, torch.cat([true for _, true in recent]), strengths)
            noted.append(WeightsNoted(batch, with_floor(strengths / strengths.sum(), floor).tolist()))
    return noted


def _most_likely(cosines: Tensor, true: Tensor, start: Tensor) -> Tensor:
    """The strengths ``v``, ``[K]``, for cosines ``[K, N, B]`` and the places of the true answers ``[N, B]``."""
    logarithm = start.clamp_min(1e-3).log().requires_grad_()
    optimizer = torch.optim.LBFGS([logarithm], max_iter=30, tolerance_change=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        choice = torch.einsum("k,knb->nb", logarithm.exp(), cosines)
        likelihood = choice.masked_fill(~true, -torch.inf).logsumexp(dim=1) - choice.logsumexp(dim=1)
        value = PENALTY * logarithm.exp().square().sum() - likelihood.mean()
        value.backward()
        return value

    optimizer.step(loss)
    return logarithm.detach().exp()


def margins(questions: Tensor, references: Tensor, own: Tensor) -> Tensor:
    """How clearly one reference answer is nearest to each question: the greatest cosine less the second, ``[N]``.

    Args:
        questions: unit vectors ``[N, dim]``.
        references: unit vectors ``[A, dim]``.
        own: which references are the question's own answers and do not count, ``[N, A]``.
    """
    best = (questions @ references.T).masked_fill(own, -1).topk(2, dim=1).values
    return best[:, 0] - best[:, 1]
