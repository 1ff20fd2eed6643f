"""Where torch traces or transforms a call instead of running it: compilers, exports, fake tensors, functorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor


def transforming() -> bool:
    """Whether an operation may do something else than compute: then calls go through
    :mod:`cube_kernels.operators`."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()  # what autograd.Function asks as well
        or torch._C._len_torch_dispatch_stack() > 0
    )


def constant(make: Callable[..., np.ndarray[Any, Any]]) -> Callable[..., Tensor]:
    """A function that makes an array of hashable arguments, as one that makes a tensor, with two more arguments:
    ``device`` and ``dtype`` (None: the array's). Both are made once. Where torch transforms, the tensor is a new one:
    it is the transform's own, and nothing after it could use it."""
    numbers = lru_cache(maxsize=64)(make)

    @lru_cache(maxsize=64)
    def kept(device: torch.device, dtype: torch.dtype | None, *arguments: Any) -> Tensor:
        with torch.inference_mode(False):  # later calls may differentiate by it
            return torch.from_numpy(numbers(*arguments)).to(device, dtype)

    @wraps(make)
    def made(*arguments: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        if transforming():
            return torch.ops.aten.lift_fresh_copy(torch.from_numpy(numbers(*arguments))).to(device, dtype)
        return kept(device, dtype, *arguments)

    return made
