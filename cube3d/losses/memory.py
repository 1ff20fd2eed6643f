"""Answers of earlier batches as negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossBatchMemory(nn.Module):
    """A queue of the newest answers and their groups (Wang, Zhang, Huang and Scott, 2020, "Cross-Batch Memory for
    Embedding Learning"). The paper's vectors drift while the network learns; these are a fixed teacher's, and exact.

    Its buffers are saved with the model, so that training resumes bit for bit.

    Args:
        size: answers that are kept.
        dim: width of their vectors.
    """

    filled: Tensor
    answers: Tensor
    groups: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("filled", torch.tensor(0))
        self.register_buffer("answers", torch.zeros(size, dim))
        self.register_buffer("groups", torch.zeros(size, dtype=torch.int64))

    def read(self) -> tuple[Tensor, Tensor]:
        """The answers ``[n, dim]`` and their groups ``[n]``, oldest first."""
        return self.answers[: self.filled], self.groups[: self.filled]

    @torch.no_grad()
    def push(self, answers: Tensor, groups: Tensor) -> None:
        """Adds answers ``[n, dim]`` and their groups ``[n]``; the oldest make room."""
        size = len(self.groups)
        kept, kept_groups = self.read()
        kept, kept_groups = torch.cat([kept, answers])[-size:], torch.cat([kept_groups, groups])[-size:]
        self.answers[: len(kept)] = kept
        self.groups[: len(kept)] = kept_groups
        self.filled.fill_(len(kept))
