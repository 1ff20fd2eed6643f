"""What backends compute, as operations that autograd differentiates: each derivative is written once here. An eager
call goes straight to the kernel, all else (compilers, function transforms, fake tensors, subclasses) by the registered
operator of the same name in :mod:`cube_kernels.call.operators`.

A rollout keeps the states at every ``checkpoint_every``-th step and nothing else; the backend's backward pass
recomputes what it needs. It is differentiable once: for second derivatives there is ``backend="reference"``.
Perception, its adjoint and its filter gradient are each linear in both arguments, and the derivatives of each are the
other two: so they are differentiable any number of times. Forward derivatives are the reference's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cube_kernels.automaton import Automaton, StepWeights, bind
from cube_kernels.backends.contract import Call, Kernels, Outputs, Schedule
from cube_kernels.call import door
from cube_kernels.call.dispatch import KERNELS
from cube_kernels.lattice import Lattice
from cube_kernels.torch_internals import applied, transformed
from cube_kernels.update_rule import Rule
from cube_kernels.value import check_choice

read_lattice, read_rule = lru_cache(maxsize=256)(Lattice.from_key), lru_cache(maxsize=256)(Rule.from_key)

Tensors = tuple[Any, ...]
"""Tensors or None, in an order that the operation says."""


class RolloutJob(NamedTuple):
    """All of a rollout but its tensors."""

    kernels: Kernels
    automaton: Automaton
    schedule: Schedule

    def written(self) -> tuple[Any, ...]:
        """As the schema of an operator takes it: names and text, so that an exported program carries all it needs."""
        return self.kernels.name, self.automaton.lattice.key, self.automaton.rule.key, *self.schedule

    @classmethod
    def read(cls, backend: str, lattice: str, rule: str, *schedule: Any) -> RolloutJob:
        """The inverse of :meth:`written`."""
        return cls(_kernels(backend), bind(read_lattice(lattice), read_rule(rule)), Schedule(*schedule))

    def call(self, tensors: Tensors) -> Call:
        """With the tensors in the order of :data:`ROLLOUT_TENSORS`."""
        x, bank, hidden_weight, hidden_bias, head_weight, head_bias, rate, drive, write_mask = tensors
        weights = StepWeights(bank, hidden_weight, hidden_bias, head_weight, head_bias, rate)
        return Call(self.automaton, self.schedule, x, weights, drive, write_mask)


class PerceptionJob(NamedTuple):
    """All of a perception but its tensors."""

    kernels: Kernels
    lattice: Lattice

    def written(self) -> tuple[Any, ...]:
        """As :meth:`RolloutJob.written`."""
        return self.kernels.name, self.lattice.key

    @classmethod
    def read(cls, backend: str, lattice: str) -> PerceptionJob:
        """The inverse of :meth:`written`."""
        return cls(_kernels(backend), read_lattice(lattice))


def _kernels(name: str) -> Kernels:
    check_choice("cube_kernels", "backend", name, KERNELS)
    return KERNELS[name]


ROLLOUT_TENSORS = ("x", *StepWeights._fields, "drive", "write_mask")


class Operation(NamedTuple):
    """Something that backends compute."""

    name: str
    """Of its operator."""
    look: Callable[..., int]
    """``(job, tensors)`` to their :class:`cube_kernels.call.door.Kind`, which is not ODD where they fit the job."""
    check: Callable[..., Any]
    """``(job, tensors)``: raises where they do not."""
    kernel: Callable[..., Any]
    """``(job, *tensors)`` in plain memory to results."""
    differentiated: Callable[..., Any]
    """The same where a gradient will be asked for; what only its derivative needs comes last."""
    save: Callable[..., Any]
    """``(ctx, tensors, results)`` to the results that the user sees; ``ctx.job`` is the job."""
    gradients: Callable[..., Tensors]
    """``(ctx, *gradients of the results)``, or None for zeros, to those of the tensors."""
    traced: Callable[..., Any]
    """``(job, *tensors)`` by the operator."""


def apply(operation: Operation, job: Any, *tensors: Any, kind: int = door.Kind.ODD) -> Any:
    """What the operation gives for tensors that :mod:`cube_kernels.call.door` has checked, and found of this kind."""
    if transformed():
        return operation.traced(job, *tensors)
    if kind == door.Kind.ODD:
        kind = operation.look(job, tensors)
    if kind == door.Kind.ODD:
        dense = tuple(map(door.resolved, tensors))
        kind = door.survey(dense)
        if kind == door.Kind.ODD:
            return operation.traced(job, *tensors)
        operation.check(job, dense)
        tensors = dense
    if kind == door.Kind.TRAINED and torch.is_grad_enabled():
        return applied(_Derivative, operation, job, *tensors)
    return operation.kernel(job, *tensors)


class _Derivative(torch.autograd.Function):
    """An operation in an eager call."""

    @staticmethod
    def forward(ctx: Any, operation: Operation, job: Any, *tensors: Any) -> Any:
        ctx.operation, ctx.job = operation, job
        return operation.save(ctx, tensors, operation.differentiated(job, *tensors))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensors:
        return None, None, *ctx.operation.gradients(ctx, *gradients)


# The rollout: tensors as in ROLLOUT_TENSORS.


def _look_at_rollout(job: RolloutJob, tensors: Tensors) -> int:
    return door.look(tensors, job.automaton.call_shapes)


def _check_rollout(job: RolloutJob, tensors: Tensors) -> None:
    door.check_call(job.call(tensors), ROLLOUT.name)


def _forward(job: RolloutJob, *tensors: Any) -> Outputs:
    return job.kernels.forward(job.call(tensors), keep_checkpoints=False)


def _forward_with_checkpoints(job: RolloutJob, *tensors: Any) -> Outputs:
    return job.kernels.forward(job.call(tensors), keep_checkpoints=True)


def _save_rollout(ctx: Any, tensors: Tensors, outputs: Outputs) -> Tensors:
    state, trajectory, taken, checkpoints = outputs
    ctx.save_for_backward(taken, checkpoints, *tensors)
    if taken is not None:
        ctx.mark_non_differentiable(taken)
    ctx.set_materialize_grads(False)
    return state, trajectory, taken


def _rollout_gradients(ctx: Any, state_gradient: Any, trajectory_gradient: Any, *_: Any) -> Tensors:
    return *apply(ROLLOUT_BACKWARD, ctx.job, state_gradient, trajectory_gradient, *ctx.saved_tensors), None


def _trace_rollout(job: RolloutJob, *tensors: Any) -> Tensors:
    state, trajectory, taken = torch.ops.cube_kernels.rollout_forward(*tensors, *job.written())
    return state, trajectory if job.schedule.trajectory_every else None, taken if job.schedule.tolerance >= 0 else None


# Its backward pass: the gradients of the last states and of the trajectory, the steps taken, the checkpoints, and then
# the tensors of the rollout.


@lru_cache(maxsize=256)
def _backward_shapes(automaton: Automaton, schedule: Schedule, given: tuple[bool, ...]) -> tuple[Any, ...]:
    """Of the tensors as :func:`_look_at_backward` orders them."""
    state, *others = automaton.call_shapes
    kept = state, (schedule.kept, *state), (schedule.checkpoints, *state)
    return state, *(shape if there else None for shape, there in zip(kept, given, strict=True)), *others


def _look_at_backward(job: RolloutJob, tensors: Tensors) -> int:
    """A saved tensor may come back as another: hooks change them."""
    state_gradient, trajectory_gradient, taken, checkpoints, x, *others = tensors
    if taken is not None:
        return door.Kind.ODD  # of another dtype, which a look does not know
    given = state_gradient is not None, trajectory_gradient is not None, job.schedule.checkpoints > 0
    shapes = _backward_shapes(job.automaton, job.schedule, given)
    return door.look((x, state_gradient, trajectory_gradient, checkpoints, *others), shapes)


def _check_backward(job: RolloutJob, tensors: Tensors) -> None:
    door.check_call(job.call(tensors[4:]), ROLLOUT_BACKWARD.name)
    door.check_kept(job.schedule, tensors[4], tensors[:4], ROLLOUT_BACKWARD.name)


def _backward(job: RolloutJob, state_gradient: Any, trajectory_gradient: Any, *saved: Any) -> Tensors:
    """The gradients of all tensors but the write mask."""
    schedule, (taken, checkpoints, *tensors) = job.schedule, saved
    call = job.call(tuple(tensors))
    found = job.kernels.backward(
        call,
        checkpoints if schedule.checkpoints else None,
        taken.clamp(0, schedule.steps) if schedule.tolerance >= 0 else None,
        torch.zeros_like(call.x) if state_gradient is None else state_gradient,
        trajectory_gradient if schedule.trajectory_every else None,
    )
    return found.state, *found.weights, found.drive


def _save_nothing(ctx: Any, tensors: Tensors, gradients: Any) -> Any:
    return gradients


def _refuse_second_derivative(ctx: Any, *_: Any) -> Tensors:
    """Without it, it would silently be zero."""
    raise RuntimeError(
        f"cube_kernels: backend {ctx.job.kernels.name!r} is differentiable once; for second derivatives "
        "(create_graph=True) use backend='reference'"
    )


def _trace_backward(job: RolloutJob, *tensors: Any) -> Tensors:
    found = torch.ops.cube_kernels.rollout_backward(*tensors, *job.written())
    return tuple(None if tensor is None else gradient for tensor, gradient in zip(tensors[4:12], found, strict=True))


# Perception, its adjoint and its filter gradient: tensors as in the kernels' own.


def _perceive(job: PerceptionJob, x: Tensor, filters: Tensor | None) -> Tensor:
    if filters is not None and not filters.shape[0]:  # nothing for a kernel to do
        return x.new_zeros((*x.shape[:4], 0))
    return job.kernels.perceive(x, job.lattice, filters)


def _perceive_gradients(ctx: Any, gradient: Tensor) -> Tensors:
    x, filters = ctx.saved_tensors
    return _asked(ctx, (PERCEIVE_ADJOINT, gradient, filters), (FILTER_GRADIENT, x, gradient))


def _adjoint(job: PerceptionJob, percepts: Tensor, filters: Tensor | None) -> Tensor:
    if filters is not None and not filters.shape[0]:
        return percepts.new_zeros((*percepts.shape[:4], job.lattice.channels))
    return job.kernels.perceive_adjoint(percepts, job.lattice, filters)


def _adjoint_gradients(ctx: Any, gradient: Tensor) -> Tensors:
    percepts, filters = ctx.saved_tensors
    return _asked(ctx, (PERCEIVE, gradient, filters), (FILTER_GRADIENT, gradient, percepts))


def _filter_gradient(job: PerceptionJob, x: Tensor, percepts: Tensor) -> Tensor:
    if not percepts.shape[-1]:
        return x.new_zeros((0, len(job.lattice.offsets), job.lattice.channels))
    return job.kernels.filter_gradient(x, job.lattice, percepts)


def _filter_gradients(ctx: Any, gradient: Tensor) -> Tensors:
    x, percepts = ctx.saved_tensors
    return _asked(ctx, (PERCEIVE_ADJOINT, percepts, gradient), (PERCEIVE, x, gradient))


def _asked(ctx: Any, *derivatives: tuple[Operation, Tensor, Any]) -> Tensors:
    """Those of the derivatives in the two tensors that are asked for."""
    needed = ctx.needs_input_grad[-2:]
    return tuple(
        apply(operation, ctx.job, *tensors) if wanted else None
        for wanted, (operation, *tensors) in zip(needed, derivatives, strict=True)
    )


def _save_both(ctx: Any, tensors: Tensors, result: Tensor) -> Tensor:
    ctx.save_for_backward(*tensors)
    return result


def _by(name: str) -> Callable[..., Any]:
    """A perception by its operator."""

    def traced(job: PerceptionJob, *tensors: Any) -> Any:
        return getattr(torch.ops.cube_kernels, name)(*tensors, *job.written())

    return traced


def _perception(name: str, kernel: Callable[..., Tensor], gradients: Callable[..., Tensors]) -> Operation:
    def look(job: PerceptionJob, tensors: Tensors) -> int:
        return door.look_at_perception(name, job.lattice, *tensors)

    def check(job: PerceptionJob, tensors: Tensors) -> None:
        door.check_perception(name, job.lattice, *tensors)

    return Operation(name, look, check, kernel, kernel, _save_both, gradients, _by(name))


ROLLOUT = Operation(
    "rollout_forward",
    _look_at_rollout,
    _check_rollout,
    _forward,
    _forward_with_checkpoints,
    _save_rollout,
    _rollout_gradients,
    _trace_rollout,
)
ROLLOUT_BACKWARD = Operation(
    "rollout_backward",
    _look_at_backward,
    _check_backward,
    _backward,
    _backward,
    _save_nothing,
    _refuse_second_derivative,
    _trace_backward,
)
PERCEIVE = _perception("perceive_forward", _perceive, _perceive_gradients)
PERCEIVE_ADJOINT = _perception("perceive_adjoint", _adjoint, _adjoint_gradients)
FILTER_GRADIENT = _perception("filter_gradient", _filter_gradient, _filter_gradients)
