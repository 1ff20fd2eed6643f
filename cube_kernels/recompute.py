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
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def recomputed_to_the_end(function: Callable[..., Any], *arguments: Any) -> Any:
    """The same, but all of the function again, not until all is there that the backward pass needs: where it talks to
    other processes, each would stop at another message."""
    if transforming():
        return function(*arguments)
    with set_checkpoint_early_stop(False):
        return recomputed(function, *arguments)
