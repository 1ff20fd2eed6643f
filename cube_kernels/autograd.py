"""The autograd Function of a rollout that a compiled backend runs forward and backward."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from cube_kernels.lattice import Lattice
from cube_kernels.rule import Rule, RuleParameters


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


class Rollout(torch.autograd.Function):
    """Keeps the states at every ``checkpoint_every``-th step and nothing else; the backend's backward pass
    recomputes what it needs. Differentiable once: for second derivatives use ``backend="reference"``."""

    @staticmethod
    def forward(
        ctx: Any,
        backend: ModuleType,
        lattice: Lattice,
        rule: Rule,
        steps: int,
        checkpoint_every: int,
        for_backward: bool,
        x: Tensor,
        drive: Tensor | None,
        *parameters: Tensor | None,
    ) -> Tensor:
        x, drive = x.contiguous(), _contiguous(drive)
        weights = RuleParameters(*map(_contiguous, parameters))  # type: ignore[arg-type]
        result, checkpoints = backend.forward(x, weights, lattice, rule, drive, steps, checkpoint_every, for_backward)
        if for_backward:
            ctx.save_for_backward(x, drive, checkpoints, *weights)
            ctx.call = (backend, lattice, rule, steps, checkpoint_every)
        return result

    @staticmethod
    def backward(ctx: Any, result_gradient: Tensor) -> tuple[Any, ...]:
        backend, lattice, rule, steps, checkpoint_every = ctx.call
        if torch.is_grad_enabled():  # create_graph=True; the second derivative would silently be zero
            raise RuntimeError(
                f"cube_kernels: backend {backend.name!r} is differentiable once; for second derivatives "
                "(create_graph=True) use backend='reference'"
            )
        x, drive, checkpoints, *parameters = ctx.saved_tensors
        x_gradient, gradients, drive_gradient = backend.backward(
            result_gradient.contiguous(),
            x,
            RuleParameters(*parameters),
            lattice,
            rule,
            drive,
            steps,
            checkpoint_every,
            checkpoints,
        )
        return None, None, None, None, None, None, x_gradient, drive_gradient, *gradients
