"""What :mod:`cube_kernels.autograd` does, as operators in torch's namespace ``cube_kernels``: compilers, function
transforms and fake tensors see these, plain eager calls take the shorter way. Their arguments have been checked by
:mod:`cube_kernels.calls`; to be called by nothing else.

Lattices and rules pass through the schemas as text (their ``key``) and backends by name, so that an exported program
carries all that it needs. What a call leaves out is an empty tensor: a trajectory of no states, steps taken by no
samples.

Under ``torch.vmap`` the samples are folded into one batch, and the fire mask counts them through. Where parameters are
mapped over, and in backward passes, whose sums must end with each sample of vmap's, one call follows the other; there
each counts its own samples. Both give each sample its own result, the second takes as many times longer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.utils._pytree import tree_map

from cube_kernels.autograd import contiguous, once_differentiable
from cube_kernels.automaton import Automaton, StepWeights, bind
from cube_kernels.dispatch import BACKENDS
from cube_kernels.lattice import Lattice
from cube_kernels.rule import Rule
from cube_kernels.schedule import Rollout, Schedule

_INPUTS = (
    "Tensor x, Tensor? bank, Tensor? hidden_weight, Tensor? hidden_bias, Tensor? head_weight, Tensor? head_bias, "
    "Tensor? rate, Tensor? drive, Tensor? write_mask"
)
_CALL = (
    "str backend, str lattice, str rule, "
    "int steps, int checkpoint_every, SymInt seed, int trajectory_every, float tolerance"
)

_library = torch.library.Library("cube_kernels", "DEF")
_library.define(f"rollout_forward({_INPUTS}, {_CALL}) -> (Tensor, Tensor, Tensor)")
_library.define(f"rollout_with_checkpoints({_INPUTS}, {_CALL}) -> (Tensor, Tensor, Tensor, Tensor)")
_library.define(
    "rollout_backward(Tensor state_gradient, Tensor trajectory_gradient, Tensor taken, Tensor checkpoints, "
    f"{_INPUTS}, {_CALL}) -> Tensor[]"
)
_library.define("perceive_forward(Tensor x, Tensor? filters, str backend, str lattice) -> Tensor")
_library.define("perceive_adjoint(Tensor percepts, Tensor? filters, str backend, str lattice) -> Tensor")
_library.define("filter_gradient(Tensor x, Tensor percepts, str backend, str lattice) -> Tensor")
_operators = torch.ops.cube_kernels

WEIGHTS = slice(1, 7)  # among the inputs of a rollout


read_lattice, read_rule = lru_cache(maxsize=256)(Lattice.from_key), lru_cache(maxsize=256)(Rule.from_key)


def _automaton(lattice: str, rule: str) -> Automaton:
    return bind(read_lattice(lattice), read_rule(rule))


def rollout(
    backend: ModuleType,
    x: Tensor,
    weights: StepWeights,
    automaton: Automaton,
    schedule: Schedule,
    drive: Tensor | None,
    write_mask: Tensor | None,
) -> Rollout:
    """Like :func:`cube_kernels.autograd.rollout`."""
    state, trajectory, taken = _operators.rollout_forward(
        x, *weights, drive, write_mask, backend.name, automaton.lattice.key, automaton.rule.key, *schedule
    )
    steps: Any = taken if schedule.tolerance >= 0 else None
    return Rollout(state, trajectory if schedule.trajectory_every else None, steps)


def perceive(backend: ModuleType, x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """Like :func:`cube_kernels.autograd.perceive`."""
    return _operators.perceive_forward(x, filters, backend.name, lattice.key)


# The rollout. Only its autograd kernel, below all transforms, knows whether a gradient will be asked for: so it
# is there that it turns into the one that keeps checkpoints.


def _rollout_kernel(keep_checkpoints: bool, *arguments: Any) -> tuple[Tensor, ...]:
    x, *rest = (contiguous(tensor) for tensor in arguments[:9])
    backend, lattice, rule, *schedule = arguments[9:]
    state, trajectory, taken, checkpoints = BACKENDS[backend].forward(
        x, StepWeights(*rest[:6]), _automaton(lattice, rule), Schedule(*schedule), *rest[6:], keep_checkpoints
    )
    outputs = (
        state,
        x.new_empty((0, *x.shape)) if trajectory is None else trajectory,
        x.new_empty(0, dtype=torch.int64) if taken is None else taken,
    )
    if not keep_checkpoints:
        return outputs
    return (*outputs, x.new_empty((0, *x.shape)) if checkpoints is None else checkpoints)


def _rollout_fake(keep_checkpoints: bool, *arguments: Any) -> tuple[Tensor, ...]:
    x, schedule = arguments[0], Schedule(*arguments[12:])
    outputs = (
        x.new_empty(x.shape),
        x.new_empty((schedule.kept, *x.shape)),
        x.new_empty(x.shape[0] if schedule.tolerance >= 0 else 0, dtype=torch.int64),
    )
    return (*outputs, x.new_empty((schedule.checkpoints, *x.shape))) if keep_checkpoints else outputs


def _save_rollout(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    _, _, taken, checkpoints = output
    ctx.save_for_backward(taken, checkpoints, *inputs[:9])
    ctx.call = inputs[9:]
    ctx.mark_non_differentiable(taken)
    return output[:3]


def _rollout_gradients(ctx: Any, state_gradient: Tensor, trajectory_gradient: Tensor, *_: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    gradients = iter(_operators.rollout_backward(state_gradient, trajectory_gradient, *saved, *ctx.call))
    x_weights_drive = (None if tensor is None else next(gradients) for tensor in saved[2:10])
    return *x_weights_drive, None, *(None for _ in ctx.call)


def _backward_kernel(*arguments: Any) -> list[Tensor]:
    state_gradient, trajectory_gradient, taken, checkpoints, x, *rest = (contiguous(t) for t in arguments[:13])
    backend, lattice, rule, *numbers = arguments[13:]
    schedule = Schedule(*numbers)
    x_gradient, drive_gradient, gradients = BACKENDS[backend].backward(
        state_gradient,
        trajectory_gradient if schedule.trajectory_every else None,
        x,
        StepWeights(*rest[:6]),
        _automaton(lattice, rule),
        schedule,
        *rest[6:],
        checkpoints,
        taken if schedule.tolerance >= 0 else None,
    )
    return [gradient for gradient in (x_gradient, *gradients, drive_gradient) if gradient is not None]


def _backward_fake(*arguments: Any) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in arguments[4:12] if tensor is not None]


def _refuse_second_derivative(ctx: Any, *_: Any) -> None:
    raise once_differentiable(ctx.backend)


def _save_backend(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> tuple[Tensor, ...]:
    ctx.backend = inputs[13]
    return tuple(output)


# Perception, its adjoint and its filter gradient are each linear in both arguments, and the derivatives of each are the
# other two.


def _perceive_kernel(x: Tensor, filters: Tensor | None, backend: str, lattice: str) -> Tensor:
    return BACKENDS[backend].perceive(x.contiguous(), read_lattice(lattice), contiguous(filters))


def _perceive_fake(x: Tensor, filters: Tensor | None, backend: str, lattice: str) -> Tensor:
    vectors = len(read_lattice(lattice).neighbors) if filters is None else filters.shape[0]
    return x.new_empty((*x.shape[:-1], vectors * x.shape[-1]))


def _perceive_gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    (x, filters), (needs_x, needs_filters, *_) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        _operators.perceive_adjoint(gradient, filters, *ctx.call) if needs_x else None,
        _operators.filter_gradient(x, gradient, *ctx.call) if needs_filters else None,
        None,
        None,
    )


def _adjoint_kernel(percepts: Tensor, filters: Tensor | None, backend: str, lattice: str) -> Tensor:
    return BACKENDS[backend].perceive_adjoint(percepts.contiguous(), read_lattice(lattice), contiguous(filters))


def _adjoint_fake(percepts: Tensor, filters: Tensor | None, backend: str, lattice: str) -> Tensor:
    return percepts.new_empty((*percepts.shape[:-1], read_lattice(lattice).channels))


def _adjoint_gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    (percepts, filters), (needs_percepts, needs_filters, *_) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        _operators.perceive_forward(gradient, filters, *ctx.call) if needs_percepts else None,
        _operators.filter_gradient(gradient, percepts, *ctx.call) if needs_filters else None,
        None,
        None,
    )


def _filter_kernel(x: Tensor, percepts: Tensor, backend: str, lattice: str) -> Tensor:
    return BACKENDS[backend].filter_gradient(x.contiguous(), read_lattice(lattice), percepts.contiguous())


def _filter_fake(x: Tensor, percepts: Tensor, backend: str, lattice: str) -> Tensor:
    channels = x.shape[-1]
    return x.new_empty((percepts.shape[-1] // channels, len(read_lattice(lattice).offsets), channels))


def _filter_gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    (x, percepts), (needs_x, needs_percepts, *_) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        _operators.perceive_adjoint(percepts, gradient, *ctx.call) if needs_x else None,
        _operators.perceive_forward(x, gradient, *ctx.call) if needs_percepts else None,
        None,
        None,
    )


def _save_perception(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    ctx.save_for_backward(*inputs[:2])
    ctx.call = inputs[2:]
    return output


# Autograd


def _differentiable(
    operator: Callable[..., Any],
    forward: Callable[..., Any],
    save: Callable[..., Any],
    gradients: Callable[..., Any],
) -> Callable[..., Any]:
    """The autograd kernel of an operator; ``forward`` is what it runs where a gradient will be asked for. What
    ``torch.library.register_autograd`` makes refuses to run inside ``torch.func.grad`` (pytorch issue 170834); this is
    the node that functorch makes for its own functions."""

    class Node(torch.autograd.function._SingleLevelFunction):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd():  # enabled for the transforms outside
                output = forward(*arguments)
            return save(ctx, arguments, output)

        backward = staticmethod(gradients)

    def kernel(*arguments: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
            with enable_single_level_autograd_function():
                return Node.apply(*arguments)  # type: ignore[attr-defined]
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return kernel


# torch.vmap


def _one_by_one(operator: Callable[..., Any]) -> Callable[..., Any]:
    def rule(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        def sample(index: int) -> Any:
            return operator(*(a if d is None else a.select(d, index) for a, d in zip(arguments, dims, strict=True)))

        stacked = tree_map(lambda *outputs: torch.stack(outputs), *map(sample, range(info.batch_size)))
        return stacked, tree_map(lambda _: 0, stacked)

    return rule


def _fold(tensor: Tensor, dim: int | None, size: int, batch: int) -> Tensor:
    """``[B or 1, ...]`` with a dimension of vmap's, or without, to ``[size·B, ...]``."""
    mapped = tensor[None] if dim is None else tensor.movedim(dim, 0)
    return mapped.expand(size, batch, *mapped.shape[2:]).flatten(0, 1)


def _rollout_folded(operator: Callable[..., Any]) -> Callable[..., Any]:
    def rule(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        if any(dim is not None for dim in dims[WEIGHTS]):
            return _one_by_one(operator)(info, dims, *arguments)
        size, folded = info.batch_size, list(arguments)
        x, dim = arguments[0], dims[0]
        batch = x.shape[1 if dim == 0 else 0]
        for i in (0, 7, 8):  # x, drive, write mask
            shared = dims[i] is None and (arguments[i] is None or (arguments[i].shape[0] == 1 and i > 0))
            if not shared:
                folded[i] = _fold(arguments[i], dims[i], size, batch)
        state, trajectory, taken, *checkpoints = operator(*folded)
        stops = Schedule(*arguments[12:]).tolerance >= 0
        outputs = (
            state.unflatten(0, (size, batch)),
            trajectory.unflatten(1, (size, batch)),
            taken.unflatten(0, (size, batch)) if stops else taken,
            *(kept.unflatten(1, (size, batch)) for kept in checkpoints),
        )
        return outputs, (0, 1, 0 if stops else None, *(1 for _ in checkpoints))

    return rule


def _perception_folded(operator: Callable[..., Any]) -> Callable[..., Any]:
    def rule(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        if dims[1] is not None:
            return _one_by_one(operator)(info, dims, *arguments)
        x, rest = arguments[0].movedim(dims[0], 0), arguments[1:]
        return operator(x.flatten(0, 1), *rest).unflatten(0, x.shape[:2]), 0

    return rule


# Registration

for _name, _kernel, _fake, _vmap in (
    ("rollout_forward", partial(_rollout_kernel, False), partial(_rollout_fake, False), _rollout_folded),
    ("rollout_with_checkpoints", partial(_rollout_kernel, True), partial(_rollout_fake, True), _rollout_folded),
    ("rollout_backward", _backward_kernel, _backward_fake, _one_by_one),
    ("perceive_forward", _perceive_kernel, _perceive_fake, _perception_folded),
    ("perceive_adjoint", _adjoint_kernel, _adjoint_fake, _perception_folded),
    ("filter_gradient", _filter_kernel, _filter_fake, _one_by_one),
):
    _library.impl(_name, _kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"cube_kernels::{_name}", _fake, lib=_library)
    torch.library.register_vmap(f"cube_kernels::{_name}", _vmap(getattr(_operators, _name)), lib=_library)

for _name, _forward, _save, _gradients in (
    ("rollout_forward", "rollout_with_checkpoints", _save_rollout, _rollout_gradients),
    ("rollout_backward", "rollout_backward", _save_backend, _refuse_second_derivative),
    ("perceive_forward", "perceive_forward", _save_perception, _perceive_gradients),
    ("perceive_adjoint", "perceive_adjoint", _save_perception, _adjoint_gradients),
    ("filter_gradient", "filter_gradient", _save_perception, _filter_gradients),
):
    _node = _differentiable(getattr(_operators, _name), getattr(_operators, _forward), _save, _gradients)
    _library.impl(_name, _node, "Autograd")
