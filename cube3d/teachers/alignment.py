"""Linear maps that make the vectors of teachers fit to be compared and combined, fitted on training vectors alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SHRINKAGE = 0.3
"""How far a covariance is drawn towards a multiple of the identity. 0.3 and 0.5 were the best of 0.01 to 0.9 on
development data; see docs/decisions.md."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """``x ↦ (x - mean) @ map``, at unit length.

    Attributes:
        mean: ``[dim]``, float32.
        map: ``[dim, new dim]``, float32.
    """

    mean: Tensor
    map: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """``[N, dim]`` to unit vectors ``[N, new dim]``."""
        return F.normalize((vectors - self.mean) @ self.map, dim=-1)

    def then(self, map: Tensor) -> Alignment:
        """This and a linear map ``[new dim, newer dim]`` after it."""
        return Alignment(self.mean, (self.map.double() @ map.double()).float())


def unchanged(dim: int) -> Alignment:
    """The identity on unit vectors."""
    return Alignment(torch.zeros(dim), torch.eye(dim))


def whitening(vectors: Tensor) -> Alignment:
    """Zero-phase whitening by the vectors' mean and covariance ``S`` (Kessy et al., 2018; of text embeddings, Su et
    al., 2021). ``S`` is shrunk to ``(1 - λ) S + λ tr(S)/dim · I`` (Ledoit and Wolf, 2004), so that directions which few
    texts show are not blown up, and fewer texts than dimensions do.

    Args:
        vectors: ``[N, dim]``.
    """
    mean, covariance = _moments(vectors)
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    values, axes = torch.linalg.eigh(
        (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.trace() / len(covariance) * identity
    )
    return Alignment(mean.float(), ((axes * values.rsqrt()) @ axes.T).float())


def principal_components(vectors: Tensor, dim: int) -> Alignment:
    """The ``dim`` orthogonal directions of the largest variance (Pearson, 1901), not scaled.

    Args:
        vectors: ``[N, D]`` with ``D ≥ dim``.
    """
    mean, covariance = _moments(vectors)
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -dim:].flip(1).contiguous()
    return Alignment(mean.float(), axes.float())


def rotation(vectors: Tensor, anchor: Tensor) -> Tensor:
    """Orthogonal Procrustes: the ``R`` that minimizes ``‖vectors R - anchor‖`` among those with orthonormal rows or
    columns (Schönemann, 1966), ``[dim, anchor dim]``, float64. From more dimensions to fewer it keeps those that the
    anchor has a counterpart of.

    Args:
        vectors: ``[N, dim]``.
        anchor: ``[N, anchor dim]``, of the same texts.
    """
    left, _, right = torch.linalg.svd(vectors.double().T @ anchor.double(), full_matrices=False)
    return left @ right


def _moments(vectors: Tensor) -> tuple[Tensor, Tensor]:
    vectors = vectors.double()
    mean = vectors.mean(dim=0)
    return mean, (vectors - mean).T @ (vectors - mean) / len(vectors)
