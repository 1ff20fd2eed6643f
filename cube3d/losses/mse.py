"""Squared error."""

from torch import Tensor, nn

from cube3d.losses.batch import Batch


class MSELoss(nn.Module):
    """``mean_i ‖p_i - a_i‖²``: a sum over the dimensions, so that its size does not depend on their number."""

    def forward(self, batch: Batch) -> Tensor:
        return batch.mean((batch.prediction - batch.answer).square().sum(1))
