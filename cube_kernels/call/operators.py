"""Operators in torch's namespace ``cube_kernels``: what compilers, function transforms, fake tensors, tracers and
subclasses see of a call, where a plain eager one goes straight to its kernel. Anyone may call them, so each checks what
it gets.

``rollout``, ``perceive`` and ``absorb`` are whole calls. A compiler sees one node and reads none of the Python below
it; when it lowers it, the node dissolves into the operators of :mod:`cube_kernels.call.derivatives`, or into plain
PyTorch on the reference backend; in a loaded program it is an eager call, with its checks.

Lattices and rules pass through the schemas as text (their ``key``) and backends by name, so that a program carries all
that it needs. What a call leaves out is an empty tensor: a trajectory of no states, steps taken by no samples.

Under ``torch.vmap`` the samples are folded into one batch, and the fire mask counts them through. Where parameters are
mapped over, and in backward passes, whose sums must end with each sample of vmap's, one call follows the other; there
each counts its own samples. Both give each sample its own result, the second takes as many times longer.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_map

from cube_kernels.backends.contract import Schedule
from cube_kernels.call import door, whole
from cube_kernels.call.derivatives import (
    FILTER_GRADIENT,
    PERCEIVE,
    PERCEIVE_ADJOINT,
    ROLLOUT,
    ROLLOUT_BACKWARD,
    ROLLOUT_TENSORS,
    Operation,
    PerceptionJob,
    RolloutJob,
    Tensors,
    read_lattice,
    read_rule,
)
from cube_kernels.call.options import Options, Reached
from cube_kernels.lattice import Lattice
from cube_kernels.torch_internals import SingleLevelFunction, below_autograd, forward_mode, on_its_own_level
from cube_kernels.update_rule import Rule, RuleParameters

_SCHEMA_TYPES = {
    Tensor: "Tensor", int: "SymInt", float: "float", str: "str",
    Tensor | None: "Tensor?", int | None: "SymInt?", float | None: "float?",
}  # fmt: skip
_LATER = {"first_step": "=0", "first_sample": "=0"}


def _schema(fields: type) -> str:
    """The fields of a typed tuple as arguments of an operator; the counts that came later may be left out, as programs
    do that were exported before."""
    kinds = typing.get_type_hints(fields).items()
    return ", ".join(f"{_SCHEMA_TYPES[kind]} {name}{_LATER.get(name, '')}" for name, kind in kinds)


_ROLLOUT = ", ".join(f"Tensor{'' if name == 'x' else '?'} {name}" for name in ROLLOUT_TENSORS)
_ROLLOUT_JOB = f"str backend, str lattice, str rule, {_schema(Schedule)}"
_PERCEPTION_JOB = "str backend, str lattice"

_library = torch.library.Library("cube_kernels", "DEF")
for _signature in (
    f"rollout_forward({_ROLLOUT}, {_ROLLOUT_JOB}) -> (Tensor, Tensor, Tensor)",
    f"rollout_with_checkpoints({_ROLLOUT}, {_ROLLOUT_JOB}) -> (Tensor, Tensor, Tensor, Tensor)",
    "rollout_backward(Tensor? state_gradient, Tensor? trajectory_gradient, Tensor? taken, Tensor? checkpoints, "
    f"{_ROLLOUT}, {_ROLLOUT_JOB}) -> ({', '.join(['Tensor'] * (len(ROLLOUT_TENSORS) - 1))})",
    f"perceive_forward(Tensor x, Tensor? filters, {_PERCEPTION_JOB}) -> Tensor",
    f"perceive_adjoint(Tensor percepts, Tensor? filters, {_PERCEPTION_JOB}) -> Tensor",
    f"filter_gradient(Tensor x, Tensor percepts, {_PERCEPTION_JOB}) -> Tensor",
    "absorb(Tensor x, str lattice) -> Tensor",
    "perceive(Tensor x, Tensor? filters, str lattice, str backend) -> Tensor",
    f"rollout(Tensor x, {_schema(RuleParameters)}, str lattice, str rule, {_schema(Options)}) "
    "-> (Tensor, Tensor, Tensor)",
):
    _library.define(_signature)
_operators = torch.ops.cube_kernels


# Whole calls


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None, backend: str) -> Tensor:
    """:func:`cube_kernels.call.whole.perceive` as one operator."""
    return _operators.perceive(x, filters, lattice.key, backend)


def absorb(x: Tensor, lattice: Lattice) -> Tensor:
    """:func:`cube_kernels.call.whole.absorb` as one operator."""
    return _operators.absorb(x, lattice.key)


def rollout(x: Tensor, parameters: RuleParameters, lattice: Lattice, rule: Rule, options: Options) -> Reached:
    """:func:`cube_kernels.call.whole.rollout` as one operator."""
    state, trajectory, taken = _operators.rollout(x, *parameters, lattice.key, rule.key, *options)
    return state, None if options.trajectory_every is None else trajectory, None if options.tolerance is None else taken


def _perceive(x: Tensor, filters: Tensor | None, lattice: str, backend: str) -> Tensor:
    return whole.perceive(x, read_lattice(lattice), filters, backend)


def _absorb(x: Tensor, lattice: str) -> Tensor:
    return whole.absorb(x, read_lattice(lattice))


def _rollout(x: Tensor, *arguments: Any) -> Tensors:
    count = len(RuleParameters._fields)
    parameters, (lattice, rule, *options) = RuleParameters(*arguments[:count]), arguments[count:]
    result = whole.rollout(x, parameters, read_lattice(lattice), read_rule(rule), Options(*options))
    return _without_none(x, result)


for _name, _whole in (("perceive", _perceive), ("absorb", _absorb), ("rollout", _rollout)):
    _library.impl(_name, _whole, "CompositeImplicitAutograd")


def _without_none(x: Tensor, outputs: Tensors) -> Tensors:
    """Of a rollout: the state, the trajectory, the steps taken and maybe the checkpoints."""
    kinds = (x.dtype, x.dtype, torch.int64, x.dtype)
    empty = ((0,), (0, *x.shape), (0,), (0, *x.shape))
    return tuple(
        x.new_empty(shape, dtype=dtype) if output is None else output
        for output, dtype, shape in zip(outputs, kinds, empty, strict=False)
    )


# Kernels and fakes: (arguments as in the schema). Both check what they get.

_ROLLOUT_COUNT = len(ROLLOUT_TENSORS)


def _rollout_job(arguments: Tensors, owner: str) -> tuple[RolloutJob, Tensors]:
    tensors, job = arguments[:_ROLLOUT_COUNT], RolloutJob.read(*arguments[_ROLLOUT_COUNT:])
    door.check_call(job.call(tensors), owner)
    door.check_schedule(job.schedule, owner)
    return job, tensors


def _rollout_kernel(operation: Operation, kernel: Callable[..., Any], arguments: Tensors) -> Tensors:
    job, tensors = _rollout_job(tuple(map(door.plain, arguments)), operation.name)
    door.check_runs(job.kernels, job.automaton.lattice, job.automaton.rule, tensors[0], operation.name)
    return _without_none(tensors[0], kernel(job, *tensors))


def _forward_kernel(*arguments: Any) -> Tensors:
    return _rollout_kernel(ROLLOUT, ROLLOUT.kernel, arguments)[:3]


def _checkpointing_kernel(*arguments: Any) -> Tensors:
    return _rollout_kernel(ROLLOUT, ROLLOUT.differentiated, arguments)


def _forward_fake(*arguments: Any) -> Tensors:
    return _checkpointing_fake(*arguments)[:3]


def _checkpointing_fake(*arguments: Any) -> Tensors:
    job, (x, *_) = _rollout_job(arguments, ROLLOUT.name)
    schedule = job.schedule
    return (
        x.new_empty(x.shape),
        x.new_empty((schedule.kept, *x.shape)),
        x.new_empty(x.shape[0] if schedule.tolerance >= 0 else 0, dtype=torch.int64),
        x.new_empty((schedule.checkpoints, *x.shape)),
    )


def _backward_job(arguments: Tensors) -> tuple[RolloutJob, Tensors]:
    job, tensors = _rollout_job(arguments[4:], ROLLOUT_BACKWARD.name)
    door.check_kept(job.schedule, tensors[0], arguments[:4], ROLLOUT_BACKWARD.name)
    return job, tensors


def _backward_kernel(*arguments: Any) -> Tensors:
    arguments = tuple(map(door.plain, arguments))
    job, tensors = _backward_job(arguments)
    door.check_runs(job.kernels, job.automaton.lattice, job.automaton.rule, tensors[0], ROLLOUT_BACKWARD.name)
    found = ROLLOUT_BACKWARD.kernel(job, *arguments[:4], *tensors)
    return tuple(tensors[0].new_empty(0) if gradient is None else gradient for gradient in found)


def _backward_fake(*arguments: Any) -> Tensors:
    _, tensors = _backward_job(arguments)
    return tuple(tensors[0].new_empty(0 if tensor is None else tensor.shape) for tensor in tensors[:-1])


def _perception_kernel(operation: Operation) -> Callable[..., Tensor]:
    def kernel(*arguments: Any) -> Tensor:
        first, second, *text = map(door.plain, arguments)
        job = PerceptionJob.read(*text)
        door.check_perception(operation.name, job.lattice, first, second)
        door.check_runs(job.kernels, job.lattice, None, first, operation.name)
        result: Tensor = operation.kernel(job, first, second)
        return result

    return kernel


def _perception_fake(operation: Operation) -> Callable[..., Tensor]:
    def fake(first: Tensor, second: Tensor | None, *text: str) -> Tensor:
        lattice = PerceptionJob.read(*text).lattice
        shape = door.check_perception(operation.name, lattice, first, second)
        return first.new_empty(shape)

    return fake


# Autograd. Only an operator's autograd kernel, below all transforms, knows whether a gradient will be asked for: so it
# is there that a rollout turns into one that keeps checkpoints.


class _TracedDerivative(SingleLevelFunction):
    """An operation in a call by its operator."""

    @staticmethod
    def forward(ctx: Any, operation: Operation, differentiated: Callable[..., Any], job: Any, *tensors: Any) -> Any:
        ctx.operation, ctx.job = operation, job
        with torch.enable_grad(), below_autograd():  # enabled for the transforms outside
            results = differentiated(*tensors, *job.written())
        return operation.save(ctx, tensors, results)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensors:
        return None, None, None, *ctx.operation.gradients(ctx, *gradients)


def _autograd_kernel(operation: Operation, job: type[Any], count: int, differentiated: str) -> Callable[..., Any]:
    operator, kept = getattr(_operators, operation.name), getattr(_operators, differentiated)

    def kernel(*arguments: Any) -> Any:
        tensors, text = arguments[:count], arguments[count:]
        if forward_mode() and any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
            raise NotImplementedError(
                f"cube_kernels: the operator {operation.name} carries no derivative forward; cube_kernels.rollout and "
                "cube_kernels.perceive do, and their gradients do with backend='reference'"
            )
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
            with on_its_own_level():
                return _TracedDerivative.apply(operation, kept, job.read(*text), *tensors)
        with below_autograd():
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
        named = dict(zip(ROLLOUT_TENSORS, dims[:_ROLLOUT_COUNT], strict=True))
        if any(dim is not None for name, dim in named.items() if name not in ("x", "drive", "write_mask")):
            return _one_by_one(operator)(info, dims, *arguments)
        size, folded = info.batch_size, list(arguments)
        batch = arguments[0].shape[1 if dims[0] == 0 else 0]
        for name in ("x", "drive", "write_mask"):
            place = ROLLOUT_TENSORS.index(name)
            tensor, dim = arguments[place], dims[place]
            shared = dim is None and (tensor is None or (tensor.shape[0] == 1 and name != "x"))
            if not shared:
                folded[place] = _fold(tensor, dim, size, batch)
        state, trajectory, taken, *checkpoints = operator(*folded)
        stops = RolloutJob.read(*arguments[_ROLLOUT_COUNT:]).schedule.tolerance >= 0
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


def _register(
    name: str, kernel: Callable[..., Any], fake: Callable[..., Any], mapped: Callable[[Any], Callable[..., Any]]
) -> None:
    _library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"cube_kernels::{name}", fake, lib=_library)
    torch.library.register_vmap(f"cube_kernels::{name}", mapped(getattr(_operators, name)), lib=_library)


_register("rollout_forward", _forward_kernel, _forward_fake, _rollout_folded)
_register("rollout_with_checkpoints", _checkpointing_kernel, _checkpointing_fake, _rollout_folded)
_register("rollout_backward", _backward_kernel, _backward_fake, _one_by_one)
for _operation, _mapped in (
    (PERCEIVE, _perception_folded), (PERCEIVE_ADJOINT, _perception_folded), (FILTER_GRADIENT, _one_by_one)
):  # fmt: skip
    _register(_operation.name, _perception_kernel(_operation), _perception_fake(_operation), _mapped)

for _operation, _job, _count, _kept in (
    (ROLLOUT, RolloutJob, _ROLLOUT_COUNT, "rollout_with_checkpoints"),
    (ROLLOUT_BACKWARD, RolloutJob, 4 + _ROLLOUT_COUNT, "rollout_backward"),
    (PERCEIVE, PerceptionJob, 2, "perceive_forward"),
    (PERCEIVE_ADJOINT, PerceptionJob, 2, "perceive_adjoint"),
    (FILTER_GRADIENT, PerceptionJob, 2, "filter_gradient"),
):
    _library.impl(_operation.name, _autograd_kernel(_operation, _job, _count, _kept), "Autograd")
