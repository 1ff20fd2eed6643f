"""What the passes of a compiled backend return, and the memory for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cube_kernels.automaton import StepWeights
from cube_kernels.schedule import Schedule


class Outputs(NamedTuple):
    """Of the forward pass."""

    state: Tensor
    """The last states ``[B, D, H, W, C]``."""
    trajectory: Tensor | None
    """``[kept, B, D, H, W, C]``, if any."""
    taken: Tensor | None
    """The steps each sample took, ``[B]``, if it may stop."""
    checkpoints: Tensor | None
    """``[checkpoints, B, D, H, W, C]``, if there are any."""


class Gradients(NamedTuple):
    """Of the backward pass."""

    state: Tensor
    drive: Tensor | None
    weights: StepWeights


def empty_outputs(x: Tensor, schedule: Schedule, keep_checkpoints: bool) -> Outputs:
    """Memory for the outputs of states ``x``, to be written."""
    kept = schedule.checkpoints if keep_checkpoints else 0
    return Outputs(
        torch.empty_like(x),
        x.new_empty((schedule.kept, *x.shape)) if schedule.trajectory_every else None,
        x.new_empty(x.shape[0], dtype=torch.int64) if schedule.tolerance >= 0 else None,
        x.new_empty((kept, *x.shape)) if kept else None,
    )


def empty_gradients(x: Tensor, drive: Tensor | None, weights: StepWeights) -> Gradients:
    """Memory for the gradients of what a rollout took, to be written."""
    return Gradients(
        torch.empty_like(x),
        None if drive is None else torch.empty_like(drive),
        StepWeights(*(None if w is None else torch.empty_like(w) for w in weights)),
    )
