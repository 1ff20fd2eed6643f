"""How far a rollout goes and what it leaves behind."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Schedule(NamedTuple):
    """The plain numbers of a call, as the backends take them."""

    steps: int
    checkpoint_every: int
    seed: int  # of the fire mask
    trajectory_every: int  # 0: no trajectory
    tolerance: float  # negative: every sample takes all steps

    @property
    def kept(self) -> int:
        """States of the trajectory: those after steps k, 2k, ... up to and with the last."""
        return self.steps // self.trajectory_every if self.trajectory_every else 0

    @property
    def checkpoints(self) -> int:
        """States kept for the backward pass: those after steps k, 2k, ... below the last."""
        return max(self.steps - 1, 0) // self.checkpoint_every


class Rollout(NamedTuple):
    """What :func:`cube_kernels.rollout` returns when asked for more than the last state."""

    state: Tensor
    """The last states ``[B, D, H, W, C]``."""
    trajectory: Tensor | None
    """The states after steps ``k, 2k, ...``, ``[steps // k, B, D, H, W, C]``, with ``k = trajectory_every``. A sample
    that has stopped stays as it is. None if no trajectory was asked for."""
    steps: Tensor
    """How many steps each sample took: int64 ``[B]``."""
