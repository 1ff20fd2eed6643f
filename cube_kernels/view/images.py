"""Frames of a trajectory as images."""

from __future__ import annotations

import torch
from torch import Tensor

from cube_kernels.value import check_choice, check_positive
from cube_kernels.view.paint import Paint, colors, painted


def frames(states: Tensor, paint: Paint = colors, axis: str = "D", at: int | None = None) -> Tensor:
    """Images of one sample over the steps, on white, a pixel a cell.

    In space one looks along an axis: cells lie before each other, the first in front, and what is behind is seen as far
    as opacity lets it; or at one slice. The plane is a single slice.

    Args:
        states: ``[T, D, H, W, C]``, of any dtype and on any device.
        paint: what a state looks like; see :mod:`cube_kernels.view`.
        axis: ``"D"``, ``"H"`` or ``"W"``: along which to look. The others are rows and columns, in this order.
        at: the slice to show; None for all of them.

    Returns:
        uint8 ``[T, rows, columns, 3]`` on the CPU: red, green, blue.

    Raises:
        ValueError, TypeError: states of another shape, an unknown axis, a slice that is not there.

    Example::

        images = view.frames(grown, axis="H", at=16)
    """
    axis = check_choice("frames", "axis", axis, "DHW")
    seen = painted("frames", states, paint).movedim(1 + "DHW".index(axis), 1)
    if at is not None:
        at = check_positive("frames", "at", at, least=0)
        if at >= seen.shape[1]:
            raise ValueError(f"frames: at is {at}, but there are {seen.shape[1]} slices along {axis}")
        seen = seen[:, at : at + 1]
    passed = torch.cumprod(1 - seen[..., 3:], dim=1)  # of the light, by the cells up to each
    before = torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
    image = (seen[..., :3] * before).sum(1) + passed[:, -1]
    return (image * 255).round().to(torch.uint8)
