"""Where torch traces, transforms or captures a call instead of running it: compilers, exports, fake tensors, functorch,
CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cube_kernels.torch_internals import tracing, transformed


def transforming() -> bool:
    """Whether an operation may do something else than compute."""
    return tracing() or transformed()


def refuse_capture(what: str) -> None:
    """Raises where a CUDA graph is being captured: nothing can be copied from the host then, or waited for."""
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"cube_kernels: a CUDA graph is being captured, and {what}; make one such call before the capture"
        )


def constant(make: Callable[..., np.ndarray[Any, Any]]) -> Callable[..., Tensor]:
    """A function that makes an array of hashable arguments, as one that makes a tensor, with two more arguments:
    ``device`` and ``dtype`` (None: the array's). Both are made once. Where torch transforms, the tensor is a new one:
    it is the transform's own, and nothing after it could use it."""
    numbers = lru_cache(maxsize=64)(make)

    def on(device: torch.device, dtype: torch.dtype | None, *arguments: Any) -> Tensor:
        if device.type == "cuda":
            refuse_capture("a lattice's tables are not on the GPU yet")
        with torch.inference_mode(False):  # later calls may differentiate by it
            return torch.from_numpy(numbers(*arguments)).to(device, dtype)

    kept, never_dropped = lru_cache(maxsize=64)(on), cache(on)

    @wraps(make)
    def made(*arguments: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        if transforming():
            return torch.ops.aten.lift_fresh_copy(torch.from_numpy(numbers(*arguments))).to(device, dtype)
        if device.type == "cuda":  # a captured graph goes on reading it
            return never_dropped(device, dtype, *arguments)
        return kept(device, dtype, *arguments)

    return made
