"""The only door to the backends: no pointer leaves Python before the checks here have agreed.

A call of :func:`cube_kernels.rollout` is checked by what the user gave (:func:`check_given`), a registered operator,
which anyone may call, and what a saved-tensor hook gives back by what the backend gets (:func:`check_call`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Size, SymInt, Tensor, nn

from cube_kernels.automaton import Automaton, StepWeights
from cube_kernels.backends import native
from cube_kernels.backends.contract import BackendError, Call, Kernels, Schedule
from cube_kernels.lattice import Lattice
from cube_kernels.philox import SEED_LIMIT, check_counts
from cube_kernels.torch_internals import SPECIAL, dispatch_keys, is_zero_tensor
from cube_kernels.update_rule import Rule, RuleParameters
from cube_kernels.value import check_kind, check_positive

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Kind(enum.IntEnum):
    """What :func:`survey` and :func:`look` find."""

    ODD = 0
    """A tensor that kernels cannot read as it is: not dense and contiguous in memory of its own."""
    FROZEN = 1
    TRAINED = 2
    """A gradient will be asked for."""


@lru_cache(maxsize=1)
def _reader() -> Any:
    module, _ = native.extension()
    return None if module is None else module.TensorReader([Tensor, nn.Parameter])


def look(tensors: tuple[Tensor | None, ...], shapes: tuple[tuple[int, ...] | None, ...]) -> int:
    """:func:`survey` and :func:`check_given` or :func:`check_call` in one, by compiled code in a fifth of the time. It
    only says yes: what is ``Kind.ODD`` to it may be right, too.

    Args:
        tensors: of a rollout.
        shapes: ``given_shapes`` or ``call_shapes`` of its automaton.
    """
    reader = _reader()
    return Kind.ODD if reader is None else reader.look(tensors, shapes)


def survey(tensors: Iterable[Tensor | None]) -> Kind:
    """How kernels and autograd take them."""
    kind = Kind.FROZEN
    for tensor in tensors:
        if tensor is not None:
            if dispatch_keys(tensor).raw_repr() & SPECIAL or not tensor.is_contiguous():
                return Kind.ODD
            if tensor.requires_grad:
                kind = Kind.TRAINED
    return kind


def resolved(tensor: Tensor | None) -> Tensor | None:
    """The same numbers, contiguous, where only strides, negation or zeros without memory keep kernels from them;
    others as they are."""
    if tensor is None or tensor.layout is not torch.strided:
        return tensor
    if is_zero_tensor(tensor):
        tensor = tensor + torch.zeros((), dtype=tensor.dtype, device=tensor.device)  # a copy would be another such
    return tensor.resolve_neg().contiguous()


def plain(tensor: Any) -> Any:
    """As :func:`resolved`; what is no tensor stays as it is.

    Raises:
        TypeError: a tensor whose memory kernels cannot read.
    """
    if not isinstance(tensor, Tensor):
        return tensor
    tensor = resolved(tensor)
    if survey((tensor,)) is Kind.ODD:
        kind = f"{type(tensor).__module__}.{type(tensor).__qualname__}"
        raise TypeError(
            f"cube_kernels: a tensor is a {kind} of layout {tensor.layout} with the keys {dispatch_keys(tensor)}; "
            "valid: dense tensors of the CPU or a GPU, and classes whose __torch_dispatch__ hands such on"
        )
    return tensor


def check_state(x: Tensor, lattice: Lattice, owner: str) -> None:
    """A state of this lattice: ``[B, D, H, W, C]`` in one of :data:`DTYPES`."""
    check_tensor(x, "x", owner)
    if x.dim() != 5 or x.shape[1:] != lattice.state_shape:
        wanted = ", ".join(map(str, ("B", *lattice.state_shape)))
        raise ValueError(f"{owner}: x has shape {list(x.shape)}; this lattice takes [{wanted}]")
    check_dtype(x, "x", owner)


def check_tensor(tensor: Any, name: str, owner: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{owner}: {name} is {tensor!r}; it takes a tensor")


def check_dtype(tensor: Tensor, name: str, owner: str) -> None:
    """One of :data:`DTYPES`."""
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{owner}: {name} is {tensor.dtype}; valid: {', '.join(map(str, DTYPES))}")


def check_like(tensor: Tensor, name: str, shape: tuple[int, ...], x: Tensor, owner: str) -> None:
    """A tensor of this shape, in the dtype and on the device of ``x``."""
    check_shape(tensor, name, shape, owner)
    if tensor.dtype is not x.dtype:
        raise TypeError(f"{owner}: {name} is {tensor.dtype}, but x is {x.dtype}; they must agree")
    check_device(tensor, name, x, owner)


def check_shape(tensor: Tensor, name: str, shape: tuple[int, ...], owner: str) -> None:
    check_tensor(tensor, name, owner)
    if tensor.shape != shape:
        raise ValueError(f"{owner}: {name} has shape {list(tensor.shape)}; expected {list(shape)}")


def check_device(tensor: Tensor, name: str, x: Tensor, owner: str) -> None:
    if tensor.device != x.device:
        raise ValueError(f"{owner}: {name} is on {tensor.device}, but x is on {x.device}; they must agree")


def check_filters(filters: Tensor, lattice: Lattice, x: Tensor, owner: str) -> None:
    """A bank ``[P, offsets, C]``, P being 0 or more."""
    check_tensor(filters, "filters", owner)
    bank = filters.shape[0] if filters.dim() else 1
    check_like(filters, "filters", (bank, len(lattice.offsets), lattice.channels), x, owner)


def check_given(
    x: Tensor, parameters: RuleParameters, automaton: Automaton, drive: Tensor | None, write_mask: Tensor | None
) -> None:
    """Raises ValueError or TypeError unless the tensors fit the lattice, the rule and each other."""
    _check_rollout("rollout", automaton, automaton.given_shapes, x, parameters, drive, write_mask)


def check_call(call: Call, owner: str) -> None:
    """The same of what a backend gets, with its weights in the parameters' place."""
    automaton = call.automaton
    _check_rollout(owner, automaton, automaton.call_shapes, call.x, call.weights, call.drive, call.write_mask)


def _check_rollout(
    owner: str,
    automaton: Automaton,
    shapes: tuple[tuple[int, ...] | None, ...],
    x: Tensor,
    named: RuleParameters | StepWeights,
    drive: Tensor | None,
    write_mask: Tensor | None,
) -> None:
    """Each tensor has its shape, and is there if and only if it has one."""
    check_state(x, automaton.lattice, owner)
    for name, tensor, shape in zip(named._fields, named, shapes[1 : 1 + len(named)], strict=True):
        if tensor is not None and shape is not None:
            check_like(tensor, name, shape, x, owner)
        elif shape is not None:
            raise ValueError(f"{owner}: {name} is None; this rule takes one of shape {list(shape)}")
        elif tensor is not None:
            raise ValueError(f"{owner}: {name} was given, but this rule has none; pass None")
    _check_cells(automaton, x, drive, write_mask, owner)


def check_schedule(schedule: Schedule, owner: str) -> None:
    for name in ("steps", "checkpoint_every", "seed", "trajectory_every"):
        check_positive(owner, name, getattr(schedule, name), least=int(name == "checkpoint_every"))
    check_counts(owner, schedule.steps, schedule.first_step, schedule.first_sample)
    if schedule.seed >= SEED_LIMIT:
        raise ValueError(f"{owner}: seed is {schedule.seed}; it must be below 2^63")
    if math.isnan(schedule.tolerance):
        raise ValueError(f"{owner}: tolerance is {schedule.tolerance}; it takes a number")


def check_kept(schedule: Schedule, x: Tensor, tensors: tuple[Any, ...], owner: str) -> None:
    """What the backward pass gets beside the call: the gradients of the last states and of the trajectory, or None for
    zeros, and the steps taken and the checkpoints, as the forward pass gave them back; those that the schedule does not
    ask for are not looked at."""
    state_gradient, trajectory_gradient, taken, checkpoints = tensors
    if state_gradient is not None:
        check_like(state_gradient, "state_gradient", x.shape, x, owner)
    if trajectory_gradient is not None and schedule.trajectory_every:
        check_like(trajectory_gradient, "trajectory_gradient", (schedule.kept, *x.shape), x, owner)
    if schedule.checkpoints:
        if checkpoints is None:
            raise ValueError(f"{owner}: checkpoints is None; expected {[schedule.checkpoints, *x.shape]}")
        check_like(checkpoints, "checkpoints", (schedule.checkpoints, *x.shape), x, owner)
    if schedule.tolerance >= 0:
        if taken is None:
            raise ValueError(f"{owner}: taken is None; expected {[x.shape[0]]}")
        check_shape(taken, "taken", (x.shape[0],), owner)
        if taken.dtype is not torch.int64:
            raise TypeError(f"{owner}: taken is {taken.dtype}; it takes torch.int64")
        check_device(taken, "taken", x, owner)


def look_at_perception(operation: str, lattice: Lattice, first: Tensor, second: Tensor | None) -> int:
    """:func:`look` at what :func:`check_perception` checks."""
    if not isinstance(lattice, Lattice) or not isinstance(second, Tensor | None):
        return Kind.ODD
    if second is None:
        vectors = None
    elif operation == "filter_gradient":
        vectors = second.shape[-1] // lattice.channels if second.dim() else 0
    else:
        vectors = second.shape[0] if second.dim() else 0
    if isinstance(vectors, SymInt):  # a compiler's, which cannot be looked up
        return Kind.ODD
    return look((first, second, None), _perception_shapes(operation, lattice, vectors))


@lru_cache(maxsize=256)
def _perception_shapes(operation: str, lattice: Lattice, vectors: int | None) -> tuple[Any, ...]:
    state = (-1, *lattice.state_shape)
    percepts = (-1, *lattice.shape, (len(lattice.neighbors) if vectors is None else vectors) * lattice.channels)
    filters = None if vectors is None else (vectors, len(lattice.offsets), lattice.channels)
    return {
        "perceive_forward": (state, filters, None),
        "perceive_adjoint": (percepts, filters, None),
        "filter_gradient": (state, percepts, None),
    }[operation]


def check_perception(operation: str, lattice: Lattice, first: Tensor, second: Tensor | None) -> tuple[int, ...]:
    """Checks what one of the three operations of perception gets, and tells the shape of its result.

    Args:
        operation: the name of its operator, ``"perceive_forward"``, ``"perceive_adjoint"`` or ``"filter_gradient"``.
        lattice: what states live on.
        first: states, or percepts for the adjoint.
        second: filters, or percepts for the filter gradient.
    """
    check_kind(lattice, Lattice)
    channels = lattice.channels
    vectors = len(lattice.neighbors)
    if operation == "filter_gradient":
        check_state(first, lattice, operation)
        if second is None:
            raise TypeError(f"{operation}: percepts is None; it takes a tensor")
        vectors = second.shape[-1] // channels if second.dim() else 0
        check_like(second, "percepts", (first.shape[0], *lattice.shape, vectors * channels), first, operation)
        return vectors, len(lattice.offsets), channels
    adjoint = operation == "perceive_adjoint"
    check_tensor(first, "percepts" if adjoint else "x", operation)
    if second is not None:
        check_filters(second, lattice, first, operation)
        vectors = second.shape[0]
    if adjoint:
        batch = first.shape[0] if first.dim() else 0
        check_shape(first, "percepts", (batch, *lattice.shape, vectors * channels), operation)
        check_dtype(first, "percepts", operation)
        return batch, *lattice.state_shape
    check_state(first, lattice, operation)
    return first.shape[0], *lattice.shape, vectors * channels


def check_runs(kernels: Kernels, lattice: Lattice, rule: Rule | None, like: Tensor, owner: str) -> None:
    """Raises BackendError unless the backend can."""
    reason = kernels.why_not(lattice, rule, like.dtype, like.device)
    if reason is not None:
        raise BackendError(f"{owner}: backend is {kernels.name!r}, but it cannot run this call: {reason}")


def _check_cells(automaton: Automaton, x: Tensor, drive: Tensor | None, write_mask: Tensor | None, owner: str) -> None:
    """What cells are given each: a drive, a write mask."""
    channels, shape = automaton.rule.drive, automaton.lattice.shape
    if (drive is None) != (channels == 0):
        given = "no drive was given" if drive is None else "a drive was given"
        raise ValueError(f"{owner}: {given}, but the rule has {channels} drive channels")
    if drive is not None:
        check_tensor(drive, "drive", owner)
        check_like(drive, "drive", _per_sample(drive, x, (*shape, channels)), x, owner)
    if write_mask is not None:
        check_tensor(write_mask, "write_mask", owner)
        check_shape(write_mask, "write_mask", _per_sample(write_mask, x, shape), owner)
        if write_mask.dtype is not torch.bool:
            raise TypeError(
                f"{owner}: write_mask is {write_mask.dtype}; it takes torch.bool, True where cells may change"
            )
        check_device(write_mask, "write_mask", x, owner)


def _per_sample(tensor: Tensor, x: Tensor, shape: tuple[int, ...]) -> Size:
    """``[B or 1, *shape]``, whichever the tensor comes nearer to."""
    shared = tensor.dim() == len(shape) + 1 and tensor.shape[0] == 1
    return Size((1 if shared else x.shape[0], *shape))
