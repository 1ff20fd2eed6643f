"""Cosine distance."""

import torch.nn.functional as F
from torch import Tensor, nn


class CosineLoss(nn.Module):
    """``mean_i (1 - cos(p_i, a_i))``."""

    def forward(self, prediction: Tensor, answer: Tensor, group: Tensor) -> Tensor:
        """
        Args:
            prediction, answer: ``[B, dim]``.
            group: answer group of each row, ``[B]``, int64; not used.
        """
        return (1 - F.cosine_similarity(prediction, answer, dim=-1)).mean()
