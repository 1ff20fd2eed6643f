"""The weighted sum of losses that a run minimizes."""

from torch import Tensor, nn

from cube3d.config import LossSettings
from cube3d.losses.cosine import CosineLoss
from cube3d.losses.info_nce import InfoNCELoss


class Objective(nn.Module):
    """``Σ weight · loss`` over the losses with a positive weight."""

    def __init__(self, settings: LossSettings) -> None:
        super().__init__()
        losses = {"cosine": CosineLoss(), "info_nce": InfoNCELoss(settings.temperature)}
        self.weights = {name: getattr(settings, name) for name in losses}
        self.losses = nn.ModuleDict({name: loss for name, loss in losses.items() if self.weights[name] > 0})

    def forward(self, prediction: Tensor, answer: Tensor, group: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each loss by its name before weighting.

        Args:
            prediction, answer: ``[B, dim]``.
            group: answer group of each row, ``[B]``, int64.
        """
        parts = {name: loss(prediction, answer, group) for name, loss in self.losses.items()}
        total = sum(self.weights[name] * part for name, part in parts.items())
        assert isinstance(total, Tensor)
        return total, parts
