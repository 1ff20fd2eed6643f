"""The autograd Functions of what a compiled backend runs forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from cube_kernels.automaton import Automaton, StepWeights
from cube_kernels.backends.results import Outputs
from cube_kernels.lattice import Lattice
from cube_kernels.schedule import Rollout, Schedule


def contiguous(tensor: Any) -> Any:
    """A tensor as a kernel reads it; None stays None."""
    return None if tensor is None else tensor.contiguous()


def once_differentiable(backend: str) -> RuntimeError:
    """What a second derivative of a rollout gets: without it, it would silently be zero."""
    return RuntimeError(
        f"cube_kernels: backend {backend!r} is differentiable once; for second derivatives (create_graph=True) use "
        "backend='reference'"
    )


def _forward(
    backend: ModuleType,
    automaton: Automaton,
    schedule: Schedule,
    tensors: Sequence[Any],
    keep_checkpoints: bool,
) -> Outputs:
    x, drive, write_mask, *weights = tensors
    return backend.forward(x, StepWeights(*weights), automaton, schedule, drive, write_mask, keep_checkpoints)


class _Rollout(torch.autograd.Function):
    """Keeps the states at every ``checkpoint_every``-th step and nothing else; the backend's backward pass
    recomputes what it needs. Differentiable once: for second derivatives use ``backend="reference"``."""

    @staticmethod
    def forward(
        ctx: Any,
        backend: ModuleType,
        automaton: Automaton,
        schedule: Schedule,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        state, trajectory, taken, checkpoints = _forward(backend, automaton, schedule, tensors, keep_checkpoints=True)
        ctx.save_for_backward(checkpoints, taken, *tensors)
        ctx.call = (backend, automaton, schedule)
        if taken is not None:
            ctx.mark_non_differentiable(taken)
        ctx.set_materialize_grads(False)
        return state, trajectory, taken

    @staticmethod
    def backward(
        ctx: Any, state_gradient: Tensor | None, trajectory_gradient: Tensor | None, _: None
    ) -> tuple[Any, ...]:
        backend, automaton, schedule = ctx.call
        if torch.is_grad_enabled():  # create_graph=True
            raise once_differentiable(backend.name)
        checkpoints, taken, x, drive, write_mask, *weights = ctx.saved_tensors
        x_gradient, drive_gradient, gradients = backend.backward(
            torch.zeros_like(x) if state_gradient is None else state_gradient.contiguous(),
            contiguous(trajectory_gradient),
            x,
            StepWeights(*weights),
            automaton,
            schedule,
            drive,
            write_mask,
            checkpoints,
            taken,
        )
        return None, None, None, x_gradient, drive_gradient, None, *gradients


def rollout(
    backend: ModuleType,
    x: Tensor,
    weights: StepWeights,
    automaton: Automaton,
    schedule: Schedule,
    drive: Tensor | None,
    write_mask: Tensor | None,
) -> Rollout:
    """See :func:`cube_kernels.rollout`; ``steps`` of the result is None where every sample takes all of them."""
    trained, tensors = False, [x, drive, write_mask, *weights]
    for i, tensor in enumerate(tensors):
        if tensor is not None:
            trained = trained or tensor.requires_grad
            if not tensor.is_contiguous():
                tensors[i] = tensor.contiguous()
    if trained and torch.is_grad_enabled():
        state, trajectory, taken = _Rollout.apply(backend, automaton, schedule, *tensors)
    else:
        state, trajectory, taken, _ = _forward(backend, automaton, schedule, tensors, keep_checkpoints=False)
    return Rollout(state, trajectory, taken)


# Perception, its adjoint and its filter gradient are each linear in both arguments, and the derivatives of each
# are the other two: so they are differentiable any number of times.


class _Perceive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backend: ModuleType, lattice: Lattice, x: Tensor, filters: Tensor | None) -> Tensor:
        x, filters = x.contiguous(), contiguous(filters)
        ctx.save_for_backward(x, filters)
        ctx.call = (backend, lattice)
        return backend.perceive(x, lattice, filters)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (backend, lattice), (x, filters) = ctx.call, ctx.saved_tensors
        needs_x, needs_filters = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            _PerceiveAdjoint.apply(backend, lattice, gradient, filters) if needs_x else None,
            _FilterGradient.apply(backend, lattice, x, gradient) if needs_filters else None,
        )


class _PerceiveAdjoint(torch.autograd.Function):
    """``[B, D, H, W, P·C]`` to ``[B, D, H, W, C]``: the transpose of perception in ``x``."""

    @staticmethod
    def forward(ctx: Any, backend: ModuleType, lattice: Lattice, percepts: Tensor, filters: Tensor | None) -> Tensor:
        percepts, filters = percepts.contiguous(), contiguous(filters)
        ctx.save_for_backward(percepts, filters)
        ctx.call = (backend, lattice)
        return backend.perceive_adjoint(percepts, lattice, filters)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (backend, lattice), (percepts, filters) = ctx.call, ctx.saved_tensors
        needs_percepts, needs_filters = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            _Perceive.apply(backend, lattice, gradient, filters) if needs_percepts else None,
            _FilterGradient.apply(backend, lattice, gradient, percepts) if needs_filters else None,
        )


class _FilterGradient(torch.autograd.Function):
    """``[P, offsets, C]``: the transpose of perception in the filters."""

    @staticmethod
    def forward(ctx: Any, backend: ModuleType, lattice: Lattice, x: Tensor, percepts: Tensor) -> Tensor:
        x, percepts = x.contiguous(), percepts.contiguous()
        ctx.save_for_backward(x, percepts)
        ctx.call = (backend, lattice)
        return backend.filter_gradient(x, lattice, percepts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (backend, lattice), (x, percepts) = ctx.call, ctx.saved_tensors
        needs_x, needs_percepts = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            _PerceiveAdjoint.apply(backend, lattice, percepts, gradient) if needs_x else None,
            _Perceive.apply(backend, lattice, x, gradient) if needs_percepts else None,
        )


def perceive(backend: ModuleType, x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """See :func:`cube_kernels.perceive`."""
    if torch.is_grad_enabled() and (x.requires_grad or (filters is not None and filters.requires_grad)):
        return _Perceive.apply(backend, lattice, x, filters)
    return backend.perceive(x.contiguous(), lattice, contiguous(filters))
