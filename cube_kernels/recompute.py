"""Computing again in the backward pass what was not kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from cube_kernels.torch_internals import transforming


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, of which the backward pass keeps the arguments alone. Compilers choose themselves what
    to keep, and function transforms refuse the hooks of a checkpoint."""
    if transforming():
        return function(*arguments)
    # To its end: ranks that share a lattice would stop at other exchanges, and wait for each other.
    with set_checkpoint_early_stop(False):
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
