"""What every loss is given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """``B`` predictions with their answers, and ``N`` answers of which some are negatives.

    Attributes:
        prediction, answer: ``[B, dim]``.
        group: answer group of each row, ``[B]``, int64.
        positive: ``cos(p_i, a_i)``, ``[B]``.
        similarity: ``cos(p_i, n_j)`` to each candidate answer, ``[B, N]``.
        negative: which candidates are negatives of which row, ``[B, N]``, bool.
        counted: the rows that a mean over rows takes, ``[B]``, bool; the curriculum leaves out the others.
    """

    prediction: Tensor
    answer: Tensor
    group: Tensor
    positive: Tensor
    similarity: Tensor
    negative: Tensor
    counted: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values ``[B]`` over the counted rows; 0 if there are none."""
        return (values * self.counted).sum() / self.counted.sum().clamp_min(1)
