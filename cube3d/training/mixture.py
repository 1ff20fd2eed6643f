"""A trained mapping and residual ridge as one prediction: the first ranks better, the second comes nearer."""

from __future__ import annotations

import torch

from cube3d.metrics import LOSSES, measure
from cube3d.model import MappingModel
from cube3d.training.ridge import Linear
from cube3d.vectors import Parts

SHARES = tuple(tenths / 10 for tenths in range(10))
"""What is tried; 0 leaves the mapping as it is, and 1, which would leave nothing of it, is not among them."""


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
