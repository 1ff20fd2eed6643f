"""Two small tasks for the examples that show a lattice inside a trainer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DIM = 48
SIZE = 8


def embeddings(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Questions and answers, unit vectors ``[count, DIM]``: an answer is its question turned by a fixed rotation
    and mixed with it."""
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(0))).Q
    question = F.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)
    return question, F.normalize(question + question @ rotation, dim=-1)


def voxels(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Balls in noise and balls without, ``[count, SIZE, SIZE, SIZE, 1]``."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, SIZE)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    center = torch.rand(count, 1, 1, 1, 3, generator=generator) - 0.5
    clean = ((grid - center).norm(dim=-1, keepdim=True) < 0.6).float()
    return clean + 0.5 * torch.randn(clean.shape, generator=generator), clean
