"""What a state looks like: color times opacity, and opacity."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cube_kernels.value import check_positive, check_range

Paint = Callable[[Tensor], Tensor]
"""``[..., C] → [..., 4]``: color times opacity, and opacity, floats in [0, 1]."""


def colors(states: Tensor) -> Tensor:
    """The first four channels as they are: color times opacity, and opacity, as cells that grow have them (Mordvintsev
    et al., 2020); of fewer channels the first, in black.

    Args:
        states: ``[..., C]``.

    Returns:
        ``[..., 4]``.
    """
    if states.shape[-1] < 4:
        return shade(0)(states)
    opacity = states[..., 3:4].clamp(0, 1)
    return torch.cat([torch.minimum(states[..., :3].clamp(0, 1), opacity), opacity], dim=-1)


def shade(
    channel: int, low: float = 0.0, high: float = 1.0, color: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Paint:
    """One channel in one color, from transparent at ``low`` to opaque at ``high``.

    Args:
        channel: which.
        low, high: what is transparent and what opaque; ``low`` may be the larger.
        color: red, green and blue in [0, 1].

    Returns:
        What :func:`cube_kernels.view.frames` and :class:`cube_kernels.view.Page` take as ``paint``.

    Raises:
        ValueError, TypeError: a negative channel, ends that are equal, a color beyond [0, 1].

    Example::

        view.frames(grown, view.shade(1, 0.0, 0.4, (0.1, 0.2, 0.6)))
    """
    channel = check_positive("shade", "channel", channel, least=0)
    low, high = (check_range("shade", name, end, -math.inf, math.inf) for name, end in (("low", low), ("high", high)))
    if low == high:
        raise ValueError(f"shade: low and high are both {low}; they must differ")
    red, green, blue = (check_range("shade", "every part of color", part, 0, 1) for part in color)

    def paint(states: Tensor) -> Tensor:
        if channel >= states.shape[-1]:
            raise ValueError(f"shade: channel is {channel}, but the states have {states.shape[-1]} channels")
        opacity = ((states[..., channel, None] - low) / (high - low)).clamp(0, 1)
        return opacity * torch.tensor([red, green, blue, 1.0], dtype=states.dtype, device=states.device)

    return paint


def painted(owner: str, states: Tensor, paint: Paint) -> Tensor:
    """The states ``[T, D, H, W, C]`` as float32 ``[T, D, H, W, 4]`` on the CPU."""
    if states.ndim != 5:
        raise ValueError(
            f"{owner}: states has shape {tuple(states.shape)}; it takes one sample's, [T, D, H, W, C]: of a trajectory "
            "[T, B, D, H, W, C] trajectory[:, 0]"
        )
    seen = paint(states.detach())
    if seen.shape != (*states.shape[:-1], 4):
        raise ValueError(f"{owner}: paint gives shape {tuple(seen.shape)}; it takes {(*states.shape[:-1], 4)}")
    return seen.float().nan_to_num().clamp(0, 1).cpu()
