"""Cosine distance."""

from torch import Tensor, nn

from cube3d.losses.batch import Batch


class CosineLoss(nn.Module):
    """``mean_i (1 - cos(p_i, a_i))``."""

    def forward(self, batch: Batch) -> Tensor:
        return batch.mean(1 - batch.positive)
