"""Rollouts and perception on the blocks of a lattice that several ranks share.

A chunk of steps begins with an exchange of halos and is an ordinary rollout of the widened block, a window of the whole
lattice: so every backend works as it is. The backward pass keeps the states at every ``checkpoint_every``-th step; it
repeats the exchanges of a segment, and its steps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cube_kernels import functional
from cube_kernels.automaton import bind
from cube_kernels.backends import reference
from cube_kernels.backends.contract import Kernels
from cube_kernels.call import door
from cube_kernels.call.dispatch import KERNELS, choose
from cube_kernels.call.options import Options, Rollout
from cube_kernels.call.whole import autocast
from cube_kernels.sharding import by_autograd, by_kernels
from cube_kernels.sharding.agreement import agree
from cube_kernels.sharding.blocks import Sharding
from cube_kernels.sharding.course import Course
from cube_kernels.sharding.exchange import shared
from cube_kernels.torch_internals import autocasting, transforming
from cube_kernels.update_rule import Rule, RuleParameters
from cube_kernels.value import check_positive


def perceive(x: Tensor, sharding: Sharding, filters: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """:func:`cube_kernels.perceive` on this rank's block.

    Args:
        x: states ``[B, d, h, w, C]`` of the block.
        sharding: how the lattice is shared.
        filters: ``[P, offsets, C]``, the same on all ranks, or None; see :func:`cube_kernels.perceive`.
        backend: see :func:`cube_kernels.rollout`.

    Returns:
        ``[B, d, h, w, P·C]``, or ``[B, d, h, w, neighbors·C]``. Differentiable any number of times; the gradient of
        the filters is that of the whole lattice, on every rank.

    Raises:
        DisagreementError, PeerError: ranks that call differently, or do not answer.
    """
    check_block(x, "x", sharding, (sharding.lattice.channels,), "perceive")
    said = {
        "operation": "perceive",
        "lattice": sharding.lattice,
        "filters": _shared_by_all(filters),
        "x": _of_each(x),
        "backend": backend,
        "gradients": torch.is_grad_enabled(),
    }
    agree(said, sharding.groups, x.device)
    if filters is not None and _trained(filters):
        (filters,) = (f.to(x.dtype) for f in shared([filters], sharding.groups))
    block = sharding.widened(1, 1)
    wide = block.filled(block.widen(x))
    if block.lattice is None:
        vectors = len(sharding.lattice.neighbors) if filters is None else filters.shape[0]
        percepts = wide.new_zeros((*wide.shape[:-1], vectors * sharding.lattice.channels))
        return block.own(percepts + by_autograd.nothing([wide, filters]))
    return block.own(functional.perceive(wide, block.lattice, filters, backend=backend))


def rollout(
    x: Tensor,
    parameters: RuleParameters,
    sharding: Sharding,
    rule: Rule,
    *,
    steps: int,
    every: int = 1,
    drive: Tensor | None = None,
    write_mask: Tensor | None = None,
    seed: int | None = None,
    checkpoint_every: int | None = None,
    trajectory_every: int | None = None,
    tolerance: float | None = None,
    backend: str = "auto",
    first_step: int = 0,
    first_sample: int = 0,
) -> Tensor | Rollout:
    """:func:`cube_kernels.rollout` on this rank's block of a lattice that ranks share. The native backend's states have
    the bits that one process would give them, for any number of ranks; gradients are those of the whole lattice, to
    rounding.

    Args:
        x: states ``[B, d, h, w, C]`` of the block.
        parameters: the rule's, the same on all ranks.
        sharding: how the lattice is shared.
        rule, steps, seed, trajectory_every, tolerance, backend, first_step, first_sample: as
            :func:`cube_kernels.rollout` takes them, the same on all ranks.
        every: steps from one exchange to the next. More of them are fewer, larger messages, and cells beside the cuts
            that are computed twice.
        drive: ``[B or 1, d, h, w, rule.drive]`` of the block.
        write_mask: bool ``[B or 1, d, h, w]`` of the block.
        checkpoint_every: at least so many steps from one state that the backward pass keeps to the next; None takes
            ``⌈√T⌉``.

    Returns:
        As :func:`cube_kernels.rollout`, of the block. Each rank must go backward through it if one does: the exchanges
        are repeated. The gradient of each parameter is the sum over all ranks' blocks, on every rank.

    Raises:
        ValueError, TypeError: a shape or option that does not fit.
        DisagreementError: ranks that call differently.
        PeerError: a rank that does not answer within its group's timeout.
    """
    check_block(x, "x", sharding, (sharding.lattice.channels,), "rollout")
    if drive is not None:
        check_block(drive, "drive", sharding, (rule.drive,), "rollout")
    if write_mask is not None:
        check_block(write_mask, "write_mask", sharding, (), "rollout")
    every = check_positive("rollout", "every", every)
    options = Options(
        steps, drive, write_mask, seed, checkpoint_every, trajectory_every, tolerance, backend, first_step, first_sample
    )
    schedule = options.schedule(rule)
    rings = bind(sharding.lattice, rule).rings
    said = {
        "operation": "rollout",
        "lattice": sharding.lattice,
        "rule": rule,
        "sizes": [cut.sizes for cut in sharding.cuts],
        "every": every,
        **options._replace(drive=None, write_mask=None)._asdict(),
        "x": _of_each(x),
        "drive": _of_each(drive),
        "write_mask": _of_each(write_mask),
        "parameters": {name: _shared_by_all(p) for name, p in parameters._asdict().items()},
        "gradients": torch.is_grad_enabled(),
    }
    agree(said, sharding.groups, x.device)

    if autocasting():
        x, parameters, drive = autocast(x, parameters, drive)
    chunk = 1 if tolerance is not None else every
    block = sharding.widened(chunk, rings)
    course = Course(block, rule, options, chunk, schedule.checkpoint_every, sharding.groups)
    entered = _entered(parameters, sharding.groups)
    if drive is not None:
        drive = block.filled(block.widen(drive))
    if write_mask is not None:
        with torch.no_grad():
            write_mask = block.filled(block.widen(write_mask.to(torch.uint8)[..., None]))[..., 0].bool()
    chosen = reference if transforming() else choose(backend, sharding.lattice, rule, x.dtype, x.device)
    if chosen is reference:
        state, kept, taken = by_autograd.rollout(course, x, write_mask, drive, entered)
    else:
        narrow = RuleParameters(*(None if p is None else p.to(x.dtype) for p in entered))
        job = _job(course, KERNELS[chosen.name], narrow, x, drive, write_mask)
        weights = bind(sharding.lattice, rule).step_weights(narrow, x)
        state, kept, taken = by_kernels.rollout(job, x, write_mask, drive, weights)
    state = state.contiguous() if steps else state.clone()
    if trajectory_every is None and tolerance is None:
        return state
    if tolerance is None:
        taken = torch.full_like(taken, steps)
    trajectory = torch.stack(kept) if kept else state.new_empty((0, *state.shape))
    return Rollout(state, trajectory if trajectory_every else None, taken)


def _job(
    course: Course,
    kernels: Kernels,
    parameters: RuleParameters,
    x: Tensor,
    drive: Tensor | None,
    write_mask: Tensor | None,
) -> by_kernels.Job:
    """With the backend that the block takes, in place of the whole lattice's.

    Raises:
        ValueError, TypeError, BackendError: as :func:`cube_kernels.rollout`, of the block.
    """
    lattice, rule, backend = course.block.lattice, course.rule, course.options.backend
    if lattice is None:
        return by_kernels.Job(course, kernels, None)
    automaton = bind(lattice, rule)
    door.check_given(x.new_empty((x.shape[0], *lattice.state_shape)), parameters, automaton, drive, write_mask)
    chosen = choose(backend, lattice, rule, x.dtype, x.device)
    return by_kernels.Job(course, KERNELS[chosen.name], automaton)


def _entered(parameters: RuleParameters, groups: list[dist.ProcessGroup]) -> RuleParameters:
    """The parameters; those that are trained as one that all ranks share."""
    trained = [p for p in parameters if p is not None and _trained(p)]
    entered = iter(shared(trained, groups) if trained else ())
    return RuleParameters(*(next(entered) if p is not None and _trained(p) else p for p in parameters))


def _trained(tensor: Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


def _shared_by_all(tensor: Tensor | None) -> Any:
    """What ranks must agree on, of a tensor that each has whole."""
    return None if tensor is None else [list(tensor.shape), str(tensor.dtype), tensor.requires_grad]


def _of_each(tensor: Tensor | None) -> Any:
    """The same of one of which each has its block."""
    if tensor is None:
        return None
    return [[tensor.shape[0], *tensor.shape[4:]], str(tensor.dtype), tensor.requires_grad]


def check_block(tensor: Tensor, name: str, sharding: Sharding, channels: tuple[int, ...], owner: str) -> None:
    """Raises unless it is ``[B, d, h, w, *channels]`` of this rank's block."""
    shape = (*sharding.block_shape, *channels)
    door.check_tensor(tensor, name, owner)
    if tensor.dim() != 1 + len(shape) or tensor.shape[1:] != shape:
        wanted = ", ".join(map(str, ("B", *shape)))
        raise ValueError(
            f"{owner}: {name} has shape {list(tensor.shape)}; the block of rank {dist.get_rank()} takes [{wanted}]"
        )
