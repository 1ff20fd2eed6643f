"""Which dtypes may meet in a module, and in which statistics are computed."""

from __future__ import annotations

import torch
from torch import Tensor

AUTOCAST = {torch.float32, torch.bfloat16, torch.float16}
"""What autocast casts to one dtype."""


def agree(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor may meet a module's parameter: both are of one dtype, or autocast is on and makes it so."""
    return tensor.dtype == parameter.dtype or (
        {tensor.dtype, parameter.dtype} <= AUTOCAST and autocasts(tensor.device.type)
    )


def autocasts(device: str) -> bool:
    """Whether autocast is on for this kind of device."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Its dtype, or float32 where that is narrower: the square of 300 is no float16."""
    return torch.promote_types(tensor.dtype, torch.float32)


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor.to(wide_dtype(tensor))
