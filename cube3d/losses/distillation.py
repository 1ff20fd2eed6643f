"""Relational distillation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cube3d.losses.batch import Batch


class RelationalDistillationLoss(nn.Module):
    """``T² · mean_i KL( softmax_j(cos(a_i, a_j)/T) ‖ softmax_j(cos(p_i, p_j)/T) )``, ``j ≠ i``: the predictions
    should be as near to each other as the teacher's vectors of their answers are.

    The distributions are those of Passalis and Tefas, 2018 ("Learning Deep Representations with Probabilistic
    Knowledge Transfer"), the temperature and its factor T², which keeps the size of the gradient, those of Hinton,
    Vinyals and Dean, 2015 ("Distilling the Knowledge in a Neural Network", section 2).

    Args:
        temperature: T; fixed, since a learned one would grow without end.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        if len(batch.group) == 1:  # no other row to relate to
            return batch.prediction.sum() * 0
        teacher, student = self._log_probability(batch.answer), self._log_probability(batch.prediction)
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
        return self.temperature**2 * batch.mean(divergence)

    def _log_probability(self, vectors: Tensor) -> Tensor:
        """``[B, B - 1]``: of each row, the log probability of every other."""
        unit = F.normalize(vectors, dim=-1)
        others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        return ((unit @ unit.T)[others].view(len(unit), -1) / self.temperature).log_softmax(1)
