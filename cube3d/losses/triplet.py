"""Triplet loss."""

from torch import Tensor, nn

from cube3d.losses.batch import Batch


class TripletLoss(nn.Module):
    """``mean_i mean_j max(0, d(p_i, a_i) - d(p_i, n_ij) + margin)`` over the negatives ``n_ij`` of each row
    (Schroff, Kalenichenko and Philbin, 2015, "FaceNet"), with the prediction as anchor, its answer as
    positive and ``d = 1 - cos``. A row without negatives counts as 0.

    Args:
        margin: how much farther than its answer each negative should be.
    """

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, batch: Batch) -> Tensor:
        violation = (batch.similarity - batch.positive[:, None] + self.margin).relu() * batch.negative
        return batch.mean(violation.sum(1) / batch.negative.sum(1).clamp_min(1))
