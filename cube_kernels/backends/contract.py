"""What a backend is, what it is given and what it gives back."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cube_kernels.automaton import Automaton, StepWeights
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import Rule


class BackendError(RuntimeError):
    """The backend that was asked for cannot run the call; the message gives its reason."""


class Schedule(NamedTuple):
    """The plain numbers of a rollout: how far it goes and what it leaves behind."""

    steps: int
    checkpoint_every: int
    seed: int
    """Of the fire mask."""
    trajectory_every: int
    """0: no trajectory."""
    tolerance: float
    """Negative: every sample takes all steps."""
    first_step: int = 0
    """The number of the call's first step, and of its first sample, in the fire mask."""
    first_sample: int = 0

    @property
    def kept(self) -> int:
        """States of the trajectory: those after steps k, 2k, ... up to and with the last."""
        return self.steps // self.trajectory_every if self.trajectory_every else 0

    @property
    def checkpoints(self) -> int:
        """States kept for the backward pass: those after steps k, 2k, ... below the last."""
        return (self.steps - 1) // self.checkpoint_every if self.steps else 0


class Call(NamedTuple):
    """A rollout as a backend gets it: tensors in plain memory of their own, contiguous, on one device, of one dtype
    and of the shapes that the automaton takes."""

    automaton: Automaton
    schedule: Schedule
    x: Tensor
    """``[B, D, H, W, C]``."""
    weights: StepWeights
    drive: Tensor | None
    """``[B or 1, D, H, W, U]``."""
    write_mask: Tensor | None
    """``[B or 1, D, H, W]``, bool, False for cells that never change."""


class Outputs(NamedTuple):
    """What the forward pass gives back."""

    state: Tensor
    """The last states ``[B, D, H, W, C]``."""
    trajectory: Tensor | None
    """``[kept, B, D, H, W, C]``, if any."""
    taken: Tensor | None
    """The steps each sample took, int64 ``[B]``, if it may stop."""
    checkpoints: Tensor | None
    """``[checkpoints, B, D, H, W, C]``, if there are any."""


class Gradients(NamedTuple):
    """What the backward pass gives back: of each tensor of the call, in its shape."""

    state: Tensor
    weights: StepWeights
    drive: Tensor | None


class Backend(Protocol):
    """A module that computes rollouts and perception."""

    name: str

    def why_not(self, lattice: Lattice, rule: Rule | None, dtype: torch.dtype, device: torch.device) -> str | None:
        """None if it runs such a call (perception alone if there is no rule), otherwise the reason."""


class Kernels(Backend, Protocol):
    """A backend that computes derivatives itself. Tensors given and returned are contiguous."""

    def forward(self, call: Call, keep_checkpoints: bool) -> Outputs:
        """All steps of a rollout. Without ``keep_checkpoints`` no backward pass will follow."""

    def backward(
        self,
        call: Call,
        checkpoints: Tensor | None,
        taken: Tensor | None,
        state_gradient: Tensor,
        trajectory_gradient: Tensor | None,
    ) -> Gradients:
        """The gradients of a rollout.

        Args:
            call: as :meth:`forward` had it.
            checkpoints, taken: what it gave back.
            state_gradient: ``[B, D, H, W, C]``, of the last states, in their dtype, or in float32 where that is
                narrower; so is the gradient of the first states.
            trajectory_gradient: ``[kept, B, D, H, W, C]``; None for zeros.
        """

    def perceive(self, x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
        """See :func:`cube_kernels.perceive`."""

    def perceive_adjoint(self, percepts: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
        """The transpose of perception in the state: ``[B, D, H, W, P·C]`` to ``[B, D, H, W, C]``."""

    def filter_gradient(self, x: Tensor, lattice: Lattice, percepts: Tensor) -> Tensor:
        """The transpose of perception in the filters: ``[P, offsets, C]``."""


def empty_outputs(x: Tensor, schedule: Schedule, keep_checkpoints: bool) -> Outputs:
    """Memory for the outputs of states ``x``, to be written."""
    kept = schedule.checkpoints if keep_checkpoints else 0
    return Outputs(
        torch.empty_like(x),
        x.new_empty((schedule.kept, *x.shape)) if schedule.trajectory_every else None,
        x.new_empty(x.shape[0], dtype=torch.int64) if schedule.tolerance >= 0 else None,
        x.new_empty((kept, *x.shape)) if kept else None,
    )


def empty_gradients(call: Call, dtype: torch.dtype) -> Gradients:
    """Memory for the gradients of a call, that of the states in this dtype, to be written."""
    return Gradients(
        torch.empty_like(call.x, dtype=dtype),
        StepWeights(*[None if w is None else torch.empty_like(w) for w in call.weights]),
        None if call.drive is None else torch.empty_like(call.drive),
    )
