"""Tables that lattices and rules need, made once and kept on each device."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cube_kernels.torch_internals import transforming

Made = TypeVar("Made")

SIZE = 256
"""Tables of a kind that are kept."""


def capturing() -> bool:
    """Whether a CUDA graph is being captured."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def refuse_capture(what: str) -> None:
    """Raises where a CUDA graph is being captured: nothing can be copied from the host then, or waited for."""
    if capturing():
        raise RuntimeError(
            f"cube_kernels: a CUDA graph is being captured, and {what}; make one such call before the capture"
        )


def kept_for_graphs(make: Callable[..., Made]) -> Callable[..., Made]:
    """The function with its last results kept, and for ever those that a CUDA graph was captured with: it goes on
    reading their memory."""
    latest, captured = lru_cache(maxsize=SIZE)(make), dict[Any, Made]()

    @wraps(make)
    def kept(*arguments: Any) -> Made:
        made = captured[arguments] if arguments in captured else latest(*arguments)
        if capturing():
            captured[arguments] = made
        return made

    return kept


def constant(make: Callable[..., np.ndarray[Any, Any]]) -> Callable[..., Tensor]:
    """A function that makes an array of hashable arguments, as one that makes a tensor, with two more arguments:
    ``device`` and ``dtype`` (None: the array's). Both are made once. Where torch transforms, the tensor is a new one:
    it is the transform's own, and nothing after it could use it."""
    numbers = lru_cache(maxsize=SIZE)(lambda *arguments: np.ascontiguousarray(make(*arguments)))

    def on(device: torch.device, dtype: torch.dtype | None, *arguments: Any) -> Tensor:
        if device.type == "cuda":
            refuse_capture("a lattice's tables are not on the GPU yet")
        with torch.inference_mode(False):  # later calls may differentiate by it
            return torch.from_numpy(numbers(*arguments)).to(device, dtype)

    kept, kept_on_gpu = lru_cache(maxsize=SIZE)(on), kept_for_graphs(on)

    @wraps(make)
    def made(*arguments: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        if transforming():
            return torch.ops.aten.lift_fresh_copy(torch.from_numpy(numbers(*arguments))).to(device, dtype)
        return (kept_on_gpu if device.type == "cuda" else kept)(device, dtype, *arguments)

    return made
