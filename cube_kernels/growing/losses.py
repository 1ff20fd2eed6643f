"""Losses beside the distance to a target: one number a sample, to rank a pool by, and to train on by their mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cube_kernels.value import check_range


def overflow_loss(x: Tensor, limit: float = 1.0) -> Tensor:
    """How far states leave ``[-limit, limit]``: the mean of ``|x − clamp(x)|`` over cells and channels. Added to
    another loss, it keeps hidden channels from growing without end (Niklasson, Mordvintsev, Randazzo and Levin:
    "Self-Organising Textures", Distill, 2021, where it is a sum).

    Args:
        x: states ``[B, ..., C]`` of any floating-point dtype.
        limit: the largest size that costs nothing.

    Returns:
        ``[B]``, in the dtype of ``x``.

    Raises:
        ValueError, TypeError: a limit that is negative or no number.

    Example::

        loss = (distance(x) + 0.1 * overflow_loss(x)).mean()
    """
    limit = check_range("overflow_loss", "limit", limit, 0, math.inf)
    return (x.abs() - limit).relu().flatten(1).mean(1)


def spectral_loss(x: Tensor, target: Tensor) -> Tensor:
    """How far apart two spectra are: the mean squared difference of the magnitudes of their Fourier transforms over
    space, channel by channel. It is zero for shifted copies on a torus, so it says what a texture looks like and not
    where it lies (the spectrum constraint of Liu, Gousseau and Xia: "Texture Synthesis Through Convolutional Neural
    Networks and Spectrum Constraints", ICPR 2016). Transforms are orthonormal: against a target of zeros the loss is
    the mean of ``x²``.

    Args:
        x: ``[B, D, H, W, C]``, or any other axes between the batch and the channels; half-width ones are computed in
            float32.
        target: like ``x``, or one sample of it without the batch.

    Returns:
        ``[B]``, in the dtype of ``x``, float32 for half-width ones.

    Raises:
        ValueError: a target of another shape.

    Example::

        loss = spectral_loss(x[..., :3], picture).mean()
    """
    if x.ndim < 3 or target.shape not in (x.shape, x.shape[1:]):
        raise ValueError(
            f"spectral_loss: x has shape {tuple(x.shape)} and target {tuple(target.shape)}; x takes a batch, space and "
            "channels, and target the same shape, or it without the batch"
        )
    space = tuple(range(1 - x.ndim, -1))

    def magnitudes(state: Tensor) -> Tensor:
        wide = state if state.dtype == torch.float64 else state.float()
        return torch.fft.fftn(wide, dim=space, norm="ortho").abs()

    return (magnitudes(x) - magnitudes(target)).square().flatten(1).mean(1)
