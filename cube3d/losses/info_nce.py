"""InfoNCE."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cube3d.losses.batch import Batch


class InfoNCELoss(nn.Module):
    """``-mean_i log( e^{cos(p_i, a_i)/τ} / (e^{cos(p_i, a_i)/τ} + Σ_j e^{cos(p_i, n_ij)/τ}) )`` over the negatives
    ``n_ij`` of each row (van den Oord, Li and Vinyals, 2018, eq. 4). A row without negatives counts as 0.

    Args:
        temperature: τ, or where it starts.
        learned: its logarithm is a parameter.
    """

    def __init__(self, temperature: float, learned: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learned else None

    def forward(self, batch: Batch) -> Tensor:
        temperature = self.temperature if self.log_temperature is None else self.log_temperature.exp()
        negatives = (batch.similarity / temperature).masked_fill(~batch.negative, -math.inf)
        logits = torch.cat([batch.positive[:, None] / temperature, negatives], dim=1)
        return batch.mean(F.cross_entropy(logits, torch.zeros_like(batch.group), reduction="none"))
