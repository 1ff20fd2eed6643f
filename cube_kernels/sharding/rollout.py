"""Rollouts and perception on the blocks of a lattice that several ranks share.

A chunk of steps begins with an exchange of halos and is an ordinary rollout of the widened block, a window of the whole
lattice: so every backend works as it is. The backward pass keeps the states at every ``checkpoint_every``-th step; it
repeats the exchanges of a segment, and its steps.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cube_kernels import functional
from cube_kernels.automaton import bind
from cube_kernels.call.options import Options, Rollout
from cube_kernels.recompute import recomputed_to_the_end
from cube_kernels.sharding.agreement import agree
from cube_kernels.sharding.blocks import Sharding, WideBlock
from cube_kernels.sharding.exchange import shared, talking
from cube_kernels.torch_internals import all_reduce
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
    said = {"lattice": sharding.lattice, "filters": _shared_by_all(filters), "x": _of_each(x), "backend": backend}
    agree(said | {"operation": "perceive"} | _mode(), sharding.groups, x.device)
    if filters is not None and _trained(filters):
        (filters,) = (f.to(x.dtype) for f in shared([filters], sharding.groups))
    block = sharding.widened(1, 1)
    wide = block.filled(block.widen(x), True)
    if block.lattice is None:
        vectors = len(sharding.lattice.neighbors) if filters is None else filters.shape[0]
        percepts = wide.new_zeros((*wide.shape[:-1], vectors * sharding.lattice.channels))
        return block.own(percepts + _nothing([wide, filters]))
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
    }
    agree(said | _mode(), sharding.groups, x.device)

    chunk = 1 if tolerance is not None else every
    block = sharding.widened(chunk, rings)
    run = _Run(block, rule, options, sharding.groups)
    ends = sorted({steps, *range(0, steps, chunk), *range(0, steps, trajectory_every or max(steps, 1))})
    tensors = _entered(parameters, sharding.groups)
    if drive is not None:
        drive = block.filled(block.widen(drive), True)
    if write_mask is not None:
        with torch.no_grad():
            write_mask = block.filled(block.widen(write_mask.to(torch.uint8)[..., None]), True)[..., 0].bool()
    wide = block.widen(x)
    running = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
    taken = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    kept, start = [], 0
    while start < steps:
        reached = [start]
        for end in ends[ends.index(start) + 1 :]:
            reached.append(end)
            if end - start >= schedule.checkpoint_every or (trajectory_every and end % trajectory_every == 0):
                break
        given = wide, running, taken, write_mask, drive, *tensors
        wide, running, taken = recomputed_to_the_end(run.segment, reached, *given)
        start = reached[-1]
        if trajectory_every and start % trajectory_every == 0:
            kept.append(block.own(wide).clone())  # the next exchange changes its halo in place
    state = block.own(wide).contiguous()
    if trajectory_every is None and tolerance is None:
        return state if steps else state.clone()
    if tolerance is None:
        taken = torch.full_like(taken, steps)
    trajectory = torch.stack(kept) if kept else state.new_empty((0, *state.shape))
    return Rollout(state, trajectory if trajectory_every else None, taken)


class _Run:
    """All of a rollout but its tensors."""

    def __init__(self, block: WideBlock, rule: Rule, options: Options, groups: list[dist.ProcessGroup]) -> None:
        self.block, self.rule, self.options, self.groups = block, rule, options, groups

    def segment(
        self,
        ends: list[int],
        wide: Tensor,
        running: Tensor,
        taken: Tensor,
        write_mask: Tensor | None,
        drive: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the first of the ends to the last, with an exchange before each chunk."""
        for start, end in pairwise(ends):
            ours = start > ends[0] or not torch.is_grad_enabled()  # a checkpoint keeps what the segment begins with
            old = self.block.filled(wide, ours)
            new = self._steps(old, start, end, write_mask, drive, tensors)
            if self.options.tolerance is None:
                wide = new
                continue
            wide = torch.where(running[:, None, None, None, None], new, old)
            taken = taken + running
            running = running & ~self._converged(old.detach(), wide.detach())
        return wide, running, taken

    def _steps(
        self,
        wide: Tensor,
        start: int,
        end: int,
        write_mask: Tensor | None,
        drive: Tensor | None,
        tensors: tuple[Tensor | None, ...],
    ) -> Tensor:
        if self.block.lattice is None:
            return wide + _nothing([wide, drive, *tensors])
        result: Tensor = functional.rollout(
            wide,
            RuleParameters(*(None if t is None else t.to(wide.dtype) for t in tensors)),
            self.block.lattice,
            self.rule,
            steps=end - start,
            drive=drive,
            write_mask=write_mask,
            seed=self.options.seed,
            checkpoint_every=1,  # these states are kept for the backward pass of a segment alone
            backend=self.options.backend,
            first_step=self.options.first_step + start,
            first_sample=self.options.first_sample,
        )
        return result

    def _converged(self, before: Tensor, after: Tensor) -> Tensor:
        """Which samples the step changed by no more than the tolerance, over the whole lattice; a sample with a NaN
        did not."""
        before, after = (self.block.own(t).flatten(1).double() for t in (before, after))
        sums = torch.stack([(after - before).square().sum(1), before.square().sum(1)])
        for group in self.groups:
            with talking(group, "measuring how far a step went"):
                sums = all_reduce(sums, "sum", group)
        change, size = sums.sqrt()
        return change <= (self.options.tolerance or 0.0) * size


def _entered(parameters: RuleParameters, groups: list[dist.ProcessGroup]) -> list[Tensor | None]:
    """The parameters; those that are trained as one that all ranks share."""
    trained = [p for p in parameters if p is not None and _trained(p)]
    entered = iter(shared(trained, groups) if trained else ())
    return [next(entered) if p is not None and _trained(p) else p for p in parameters]


def _trained(tensor: Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


def _nothing(tensors: list[Tensor | None]) -> Any:
    """Zero, which depends on the tensors: a rank without cells goes backward through what the others do. The product
    keeps a factor, so that its checkpoint is computed again as theirs are."""
    return sum(((t * t.new_zeros(())).sum() for t in tensors if t is not None), start=0.0)


def _mode() -> dict[str, Any]:
    return {"gradients": torch.is_grad_enabled()}


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
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{owner}: {name} is {tensor!r}; it takes a tensor")
    if tensor.dim() != 1 + len(shape) or tensor.shape[1:] != shape:
        wanted = ", ".join(map(str, ("B", *shape)))
        raise ValueError(
            f"{owner}: {name} has shape {list(tensor.shape)}; the block of rank {dist.get_rank()} takes [{wanted}]"
        )
