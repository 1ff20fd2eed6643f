"""The weighted sum of losses that a run minimizes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cube3d.config import LossSettings
from cube3d.losses.batch import Batch
from cube3d.losses.cosine import CosineLoss
from cube3d.losses.distillation import RelationalDistillationLoss
from cube3d.losses.diversity import DiversityLoss
from cube3d.losses.gather import gather
from cube3d.losses.info_nce import InfoNCELoss
from cube3d.losses.memory import CrossBatchMemory
from cube3d.losses.mse import MSELoss
from cube3d.losses.negatives import chosen, true_negatives
from cube3d.losses.triplet import TripletLoss

# Each loss by the name of its weight in the settings.
LOSSES: dict[str, Callable[[LossSettings], nn.Module]] = {
    "cosine": lambda settings: CosineLoss(),
    "mse": lambda settings: MSELoss(),
    "triplet": lambda settings: TripletLoss(settings.margin),
    "info_nce": lambda settings: InfoNCELoss(settings.temperature, settings.learn_temperature),
    "diversity": lambda settings: DiversityLoss(),
    "distillation": lambda settings: RelationalDistillationLoss(settings.distillation_temperature),
}


class Objective(nn.Module):
    """``Σ weight · loss`` over the losses with a positive weight, in the precision of the answers.

    In training a batch is that of all processes, and negatives are chosen as the settings say among the answers of the
    training part, or among the batch's, the mined ones and the memory's. In evaluation they are all the answers of
    other groups, so that figures of different settings can be compared.

    Args:
        settings: weights, and what the losses and the choice of negatives take.
        dim: width of the vectors.
    """

    def __init__(self, settings: LossSettings, dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.weights = {name: weight for name in LOSSES if (weight := getattr(settings, name)) > 0}
        self.losses = nn.ModuleDict({name: LOSSES[name](settings) for name in self.weights})
        self.memory = CrossBatchMemory(settings.negatives.memory, dim) if settings.negatives.memory else None

    def forward(
        self,
        prediction: Tensor,
        answer: Tensor,
        group: Tensor,
        counted: Tensor | None = None,
        mined: Tensor | None = None,
        mined_group: Tensor | None = None,
        bank: Tensor | None = None,
        bank_group: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each loss by its name before weighting.

        Args:
            prediction, answer: ``[B, dim]``.
            group: answer group of each row, ``[B]``, int64.
            counted: rows that a mean over rows takes, ``[B]``, bool; None: all.
            mined: wrong answers found for each row before training, ``[B, K, dim]``.
            mined_group: their answer groups, ``[B, K]``, int64.
            bank: the distinct answers of the training part, ``[N, dim]``, which the pool "bank" needs in training. They
                are handed in at each call and are no buffer, so that no checkpoint has them.
            bank_group: their answer groups, ``[N]``, int64.

        Raises:
            ValueError: in training, the pool is "bank" and there is none.
        """
        counted = torch.ones_like(group, dtype=torch.bool) if counted is None else counted
        with torch.autocast(prediction.device.type, enabled=False):  # cosines lie close: half precision ties them
            prediction = prediction.to(answer.dtype)
            if self.training:
                prediction, answer, group, counted = map(gather, (prediction, answer, group, counted))
            candidates, candidate_group = answer, group
            if self.training:
                if self.settings.negatives.pool == "bank":
                    if bank is None or bank_group is None:
                        raise ValueError("loss.negatives.pool is 'bank': training takes the bank and its groups")
                    candidates, candidate_group = bank, bank_group
                else:
                    candidates, candidate_group = self._candidates(answer, group, mined, mined_group)
            batch = self._batch(prediction, answer, group, counted, candidates, candidate_group)
            parts = {name: loss(batch) for name, loss in self.losses.items()}
        total = sum(self.weights[name] * part for name, part in parts.items())
        assert isinstance(total, Tensor)
        return total, parts

    def _candidates(
        self, answer: Tensor, group: Tensor, mined: Tensor | None, mined_group: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Answers ``[N, dim]`` that may be negatives, and their groups ``[N]``."""
        answers, groups = [answer], [group]
        if mined is not None and mined_group is not None:
            answers.append(gather(mined).flatten(0, 1))
            groups.append(gather(mined_group).flatten())
        if self.memory is not None:
            remembered, remembered_group = self.memory.read()
            answers.append(remembered)
            groups.append(remembered_group)
        candidates = torch.cat(answers), torch.cat(groups)
        if self.memory is not None:
            self.memory.push(answer, group)  # last: what was read are views
        return candidates

    def _batch(
        self, prediction: Tensor, answer: Tensor, group: Tensor, counted: Tensor, candidates: Tensor, groups: Tensor
    ) -> Batch:
        positive = F.cosine_similarity(prediction, answer, dim=-1)
        similarity = F.normalize(prediction, dim=-1) @ F.normalize(candidates, dim=-1).T
        choice = self.settings.negatives
        negative = true_negatives(group, answer, groups, candidates, choice.ceiling if self.training else None)
        if self.training:
            negative = chosen(negative, positive, similarity, choice, self.settings.margin)
        return Batch(prediction, answer, group, positive, similarity, negative, counted)
