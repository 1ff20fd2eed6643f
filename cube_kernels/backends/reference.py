"""The truth: the step in plain PyTorch, short and readable, on any device and dtype.

Every other backend is measured against it. Autograd differentiates it, as often as asked.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cube_kernels.lattice import OUTSIDE, Lattice
from cube_kernels.rule import Rule, RuleParameters

name = "reference"

ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": lambda h: F.gelu(h, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
}
SQUASHES = {"identity": lambda delta: delta, "tanh": torch.tanh}


def why_not(lattice: Lattice, rule: Rule, dtype: torch.dtype, device: torch.device) -> str | None:
    """Runs everything."""
    return None


@lru_cache(maxsize=64)
def neighbor_table(lattice: Lattice, device: torch.device) -> Tensor:
    """``[offsets, cells]``: the cell that each cell reads at each offset; ``cells`` for one outside."""
    height, width = lattice.shape[1:]
    targets = [lattice.axis_targets(axis) for axis in range(3)]
    table = []
    for offset in lattice.offsets:
        rows = (targets[axis][shift + lattice.radius] for axis, shift in enumerate(offset))
        table.append(
            [lattice.cells if OUTSIDE in (z, y, x) else (z * height + y) * width + x for z, y, x in product(*rows)]
        )
    return torch.tensor(table, device=device)


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """See :func:`cube_kernels.perceive`."""
    table = neighbor_table(lattice, x.device)
    cells = F.pad(x.flatten(1, 3), (0, 0, 0, 1))  # one more cell, of zeros: what lies outside
    if filters is None:
        percepts = cells[:, table[1:]].transpose(1, 2)  # [B, cells, offsets - 1, C]
    else:
        percepts = torch.einsum("bonc,poc->bnpc", cells[:, table], filters)
    return percepts.flatten(2).unflatten(1, lattice.shape)


def step(x: Tensor, parameters: RuleParameters, lattice: Lattice, rule: Rule, drive: Tensor | None) -> Tensor:
    """One step of every cell, as :class:`cube_kernels.Rule` writes it down."""
    parts = [perceive(x, lattice, parameters.filters)]
    if rule.own_state:
        parts.insert(0, x)
    if drive is not None:
        parts.append(drive.expand(len(x), -1, -1, -1, -1))
    z = torch.cat(parts, dim=-1)
    a = ACTIVATIONS[rule.activation](F.linear(z, parameters.hidden_weight, parameters.hidden_bias))
    heads = F.linear(a, parameters.head_weight, parameters.head_bias)
    target = SQUASHES[str(rule.squash)](heads[..., : lattice.channels])
    if rule.update == "residual":
        return x + rule.step_size * target
    if rule.update == "replace":
        return target
    return x + torch.sigmoid(heads[..., lattice.channels :]) * (target - x)


def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    drive: Tensor | None,
    steps: int,
    checkpoint_every: int,
) -> Tensor:
    """See :func:`cube_kernels.rollout`. Each segment of ``checkpoint_every`` steps is one checkpoint of
    ``torch.utils.checkpoint``."""

    def segment(x: Tensor, count: int, *tensors: Tensor | None) -> Tensor:
        *weights, drive = tensors
        for _ in range(count):
            x = step(x, RuleParameters(*weights), lattice, rule, drive)  # type: ignore[arg-type]
        return x

    for start in range(0, steps, checkpoint_every):
        count = min(checkpoint_every, steps - start)
        x = checkpoint(segment, x, count, *parameters, drive, use_reentrant=False, preserve_rng_state=False)
    return x.clone() if steps == 0 else x
