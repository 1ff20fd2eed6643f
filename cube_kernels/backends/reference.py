"""The truth: the step in plain PyTorch, short and readable, on any device and dtype.

Every other backend is measured against it. Autograd differentiates it, as often as asked.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cube_kernels.automaton import Automaton, StepWeights
from cube_kernels.backends.contract import Call, Outputs, Schedule
from cube_kernels.lattice import OUTSIDE, Lattice, Offset
from cube_kernels.philox import cell_numbers, fires
from cube_kernels.precision import wide
from cube_kernels.recompute import recomputed
from cube_kernels.tables import constant
from cube_kernels.update_rule import ALIVE_WHEN, Alive, Rule

name = "reference"

ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": lambda h: F.gelu(h, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
}
SQUASHES = {"identity": lambda delta: delta, "tanh": torch.tanh}


def why_not(lattice: Lattice, rule: Rule | None, dtype: torch.dtype, device: torch.device) -> str | None:
    """Runs everything."""
    return None


@constant
def neighbor_table(lattice: Lattice, offsets: tuple[Offset, ...]) -> np.ndarray[Any, Any]:
    """``[offsets, cells]``: the cell that each cell reads at each offset; ``cells`` for one outside."""
    shifts = np.array(offsets, dtype=np.int64).reshape(-1, 3) + lattice.reach
    d, h, w = (np.array(lattice.axis_targets(axis))[shifts[:, axis]] for axis in range(3))  # [offsets, size] each
    d, h, w = d[:, :, None, None], h[:, None, :, None], w[:, None, None, :]
    height, width = lattice.shape[1:]
    outside = (d == OUTSIDE) | (h == OUTSIDE) | (w == OUTSIDE)
    return np.where(outside, lattice.cells, (d * height + h) * width + w).reshape(len(offsets), lattice.cells)


@constant
def retention(lattice: Lattice) -> np.ndarray[Any, Any]:
    """``[D, H, W, 1]`` in float64: the absorbing boundary's factor of each cell."""
    return np.einsum("d,h,w->dhw", *(lattice.axis_retention(axis) for axis in range(3)))[..., None]


@constant
def lifetimes(lattice: Lattice, rings: int) -> np.ndarray[Any, Any]:
    """``[D, H, W, 1]``, int32: how many steps of a call compute each cell; see :meth:`Lattice.axis_lifetimes`."""
    d, h, w = (np.array(lattice.axis_lifetimes(axis, rings), dtype=np.int32) for axis in range(3))
    return np.minimum(np.minimum(d[:, None, None], h[:, None]), w)[..., None]


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """See :func:`cube_kernels.perceive`. The products are summed in float32 at least."""
    table = neighbor_table(lattice, lattice.neighbors if filters is None else lattice.offsets, device=x.device)
    cells = F.pad(x.flatten(1, 3), (0, 0, 0, 1))  # one more cell, of zeros: what lies outside
    if filters is None:
        percepts = cells[:, table].transpose(1, 2)  # [B, cells, neighbors, C]
    else:
        percepts = torch.einsum("bonc,poc->bnpc", wide(cells)[:, table], wide(filters)).to(x.dtype)
    return percepts.flatten(2).unflatten(1, lattice.shape)


def lives(x: Tensor, lattice: Lattice, alive: Alive) -> Tensor:
    """Bool ``[B, D, H, W, 1]``."""
    table = neighbor_table(lattice, lattice.offsets, device=x.device)
    channel = F.pad(wide(x.detach())[..., alive.channel].flatten(1), (0, 1), value=-torch.inf)
    # Not the largest value: beside a NaN there is none, and yet a neighbor above the threshold.
    return (channel[:, table] > alive.threshold).any(1).unflatten(1, lattice.shape)[..., None]


def step(
    x: Tensor,
    weights: StepWeights,
    automaton: Automaton,
    drive: Tensor | None,
    write_mask: Tensor | None,
    schedule: Schedule,
    index: int,
) -> Tensor:
    """Step number ``index`` of the call for every cell, as :class:`cube_kernels.Rule` writes it down. Half-width
    numbers are computed with in float32; the operands of the matrix products and the new state are rounded, as
    hardware multiplies them."""
    lattice, rule, dtype = automaton.lattice, automaton.rule, x.dtype
    old = wide(x)
    weights = StepWeights(*(None if w is None else wide(w) for w in weights))
    heads = perceive(old, lattice, weights.bank)
    left_out = None
    if lattice.window is not None:
        left_out = lifetimes(lattice, automaton.rings, device=x.device) <= index
        # Beside a cut it sees what is not there; what might overflow of that would make NaN of a gradient of zero.
        heads = heads.masked_fill(left_out, 0)
    if weights.hidden_weight is not None and weights.head_weight is not None:
        parts = [heads.to(dtype)]
        if rule.own_state:
            parts.insert(0, x)
        if drive is not None:
            parts.append(drive.expand(x.shape[0], -1, -1, -1, -1))
        z = wide(torch.cat(parts, dim=-1))
        a = ACTIVATIONS[rule.activation](F.linear(z, weights.hidden_weight, weights.hidden_bias)).to(dtype)
        heads = F.linear(wide(a), weights.head_weight, weights.head_bias)
    target = SQUASHES[str(rule.squash)](heads[..., : lattice.channels])
    if rule.update == "residual":
        change = rule.step_size * target
    elif rule.update == "gated":
        change = torch.sigmoid(heads[..., lattice.channels :]) * (target - old)
    elif rule.update == "leaky":
        change = weights.rate * (target - old)
    elif rule.update == "replace":
        change = target - old
    else:
        raise NotImplementedError(f"reference: it knows no update {rule.update!r}")
    if rule.update == "replace" and not rule.fire_rescale:
        new = target  # exactly
    else:
        new = old + change / (rule.fire_rate if rule.fire_rescale else 1)
    if rule.fire_rate < 1:
        numbers = cell_numbers(lattice, device=x.device).flatten()
        number, sample = schedule.first_step + index, schedule.first_sample
        fired = fires(numbers, x.shape[0], number, schedule.seed, rule.fire_rate, sample)
        new = torch.where(fired.unflatten(1, lattice.shape)[..., None], new, old)
    if rule.clamp is not None:
        new = new.clamp(*rule.clamp)
    if lattice.boundary == "absorbing":
        new = new * retention(lattice, device=x.device, dtype=new.dtype)
    new = new.to(dtype)

    kept = torch.zeros(lattice.channels, dtype=torch.bool, device=x.device)
    kept[list(rule.immutable_channels)] = True
    if write_mask is not None:
        kept = kept | ~write_mask[..., None]
    if left_out is not None:
        kept = kept | left_out
    new = torch.where(kept, x, new)
    if rule.alive is not None:
        measured = zip((x, new), ALIVE_WHEN[rule.alive.when], strict=True)
        living = torch.stack([lives(state, lattice, rule.alive) for state, counts in measured if counts]).all(0)
        new = torch.where(living | kept, new, rule.alive.dead_value)
    return new


def rollout(call: Call) -> Outputs:
    """See :func:`cube_kernels.rollout`. Steps between two kept states are one checkpoint of
    ``torch.utils.checkpoint``."""
    automaton, schedule, x, weights, drive, write_mask = call
    # A compiler's graph is one of so many steps.
    steps, checkpoint_every, trajectory_every = map(
        int, (schedule.steps, schedule.checkpoint_every, schedule.trajectory_every)
    )
    trajectory = []
    running = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
    taken = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)

    def segment(
        start: int, end: int, x: Tensor, running: Tensor, taken: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Hooks on saved tensors may lay them out otherwise, and a checkpoint wants every step as it was.
        x, *rest, drive = (None if t is None else t.contiguous() for t in (x, *tensors))  # type: ignore[assignment]
        for index in range(start, end):
            new = step(x, StepWeights(*rest), automaton, drive, write_mask, schedule, index)
            taken = taken + running
            if schedule.tolerance < 0:
                x = new
                continue
            new = torch.where(running[:, None, None, None, None], new, x)
            before, after = x.detach().flatten(1).double(), new.detach().flatten(1).double()
            # Negated, so that a sample with a NaN goes on: it has not converged.
            running = running & ~((after - before).norm(dim=1) <= schedule.tolerance * before.norm(dim=1))
            x = new
        return x, running, taken

    ends = {steps, *range(0, steps, checkpoint_every)}
    if trajectory_every:
        ends.update(range(0, steps, trajectory_every))
    bounds = sorted(ends | {0})
    first = x
    for start, end in pairwise(bounds):
        x, running, taken = recomputed(segment, start, end, x, running, taken, *weights, drive)
        if trajectory_every and end % trajectory_every == 0:
            trajectory.append(x)
    kept = torch.stack(trajectory) if trajectory else x.new_empty((0, *x.shape))
    return Outputs(x.clone() if x is first else x, kept if trajectory_every else None, taken, None)
