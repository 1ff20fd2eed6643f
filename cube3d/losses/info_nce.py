"""InfoNCE over the answers of a batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InfoNCELoss(nn.Module):
    """``-mean_i log( exp(cos(p_i, a_i)/τ) / Σ_j exp(cos(p_i, a_j)/τ) )`` (van den Oord et al., 2018, eq. 4), with the
    other answers of the batch as negatives. An answer of the same group is no negative and is left out.

    Args:
        temperature: τ at the start; its logarithm is learned.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(self, prediction: Tensor, answer: Tensor, group: Tensor) -> Tensor:
        """
        Args:
            prediction, answer: ``[B, dim]``.
            group: answer group of each row, ``[B]``, int64.
        """
        similarity = F.normalize(prediction, dim=-1) @ F.normalize(answer, dim=-1).T
        same = (group[:, None] == group[None, :]).fill_diagonal_(False)
        logits = (similarity / self.log_temperature.exp()).masked_fill(same, -math.inf)
        return F.cross_entropy(logits, torch.arange(len(group), device=logits.device))
