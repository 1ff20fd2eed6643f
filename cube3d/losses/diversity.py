"""Diversity of the predictions."""

import torch.nn.functional as F
from torch import Tensor, nn

from cube3d.losses.batch import Batch


class DiversityLoss(nn.Module):
    """``M₁² + max(0, M₂ - 1/dim)``, where ``M₁`` and ``M₂`` are the mean of ``cos(p_i, p_j)`` and of its square over
    the pairs of different answer groups: 0 for right angles, 2 - 1/dim for predictions that have collapsed into one
    (Zhang, Yu, Kumar and Chang, 2017, "Learning Spread-out Local Feature Descriptors": global
    orthogonal regularization). It concerns the predictions alone, so the curriculum leaves no row out.
    """

    def forward(self, batch: Batch) -> Tensor:
        unit = F.normalize(batch.prediction, dim=-1)
        different = batch.group[:, None] != batch.group[None, :]
        cosine = (unit @ unit.T) * different
        pairs = different.sum().clamp_min(1)
        mean, second_moment = cosine.sum() / pairs, cosine.square().sum() / pairs
        return mean.square() + (second_moment - 1 / unit.shape[1]).relu()
