"""A trained mapping and residual ridge as one prediction: the first ranks better, the second comes nearer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cube3d.evaluation.metrics import LOSSES, measure
from cube3d.model import MappingModel
from cube3d.vectors import Parts

SHARES = tuple(tenths / 10 for tenths in range(10))
"""What is tried; 0 leaves the mapping as it is, and 1, which would leave nothing of it, is not among them."""


@dataclass(frozen=True, eq=False)
class Linear:
    """``q · map + shift``, computed in float64, in the precision of the question.

    Attributes:
        map: ``[dim, dim]``, float64.
        shift: ``[dim]``, float64.
    """

    map: Tensor
    shift: Tensor

    def __call__(self, questions: Tensor) -> Tensor:
        return (questions.double() @ self.map + self.shift).to(questions.dtype)


@torch.no_grad()
def mix(model: MappingModel, ridge: Linear, parts: Parts, stop_on: str) -> float:
    """Mixes ridge into the model's predictions, at the share that is best on the validation part.

    Args:
        model: trained.
        ridge: fitted to the pairs that the model was trained on.
        parts: of the run; the test part is not read.
        stop_on: the metric of :class:`cube3d.config.TrainingSettings` that chose the model's epoch.

    Returns:
        The share.
    """
    validation, center = parts.validation, parts.train.answer.mean(0)

    def worse(share: float) -> float:
        model.set_ridge(ridge.map, ridge.shift, share)
        value = measure(model.map(validation.question), validation, center, model.objective)[stop_on]
        return value if stop_on in LOSSES else -value

    best = min(SHARES, key=worse)
    model.set_ridge(ridge.map, ridge.shift, best)
    return best
