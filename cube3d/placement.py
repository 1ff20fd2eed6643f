"""Which dimension of an embedding lies on which cell."""

from __future__ import annotations

import torch
from torch import Tensor


def correlation_order(vectors: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The dimensions in the order of the cells they should lie on, ``[dim]``, int64: those that are correlated, with
    either sign, on one cell or on near ones.

    The dimensions are drawn in space by the smoothest eigenvectors of the graph in which two are tied by the square of
    their correlation (Belkin and Niyogi, 2003, "Laplacian Eigenmaps"), and that space is cut into equal slabs along
    each axis in turn, the longest axis first, by the smoothest eigenvector.

    Args:
        vectors: ``[N, dim]``, of the training part.
        shape: cells along each axis; ``dim`` is a multiple of their number.
    """
    eigenvectors = _eigenmap(vectors.double())
    axes = sorted(range(3), key=lambda axis: -shape[axis])
    slabs = torch.arange(vectors.shape[1])[None]
    for k, axis in enumerate(axes):
        if shape[axis] > 1:
            along = eigenvectors[:, k][slabs].argsort(dim=1, stable=True)
            slabs = slabs.gather(1, along).view(len(slabs) * shape[axis], -1)
    cells = slabs.view(*(shape[axis] for axis in axes), -1)
    return cells.permute(*(axes.index(axis) for axis in range(3)), 3).flatten()


def _eigenmap(vectors: Tensor) -> Tensor:
    """Coordinates of each dimension, ``[dim, up to 3]``, the smoothest first."""
    centered = vectors - vectors.mean(0)
    unit = centered / centered.norm(dim=0).clamp_min(torch.finfo(vectors.dtype).tiny)  # a constant one is tied to none
    affinity = (unit.T @ unit).square()
    laplacian = affinity.sum(1).diag() - affinity
    smoothest = torch.linalg.eigh(laplacian).eigenvectors[:, 1:4]  # the first is constant
    # Either sign would do; the largest entry decides, so that the order depends on the vectors alone.
    return smoothest * smoothest.gather(0, smoothest.abs().argmax(0)[None]).sign()
