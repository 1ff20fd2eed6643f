"""Whether all ranks that share a lattice call alike, asked before anything else is exchanged.

Ranks that do not would exchange messages of other lengths, or in another order, and die of it or wait for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from cube_kernels.sharding.exchange import talking
from cube_kernels.torch_internals import all_reduce, tracing


class DisagreementError(ValueError):
    """The ranks that share a lattice were called differently; the message says in what."""


def agree(said: Mapping[str, Any], groups: list[dist.ProcessGroup], device: torch.device) -> None:
    """Raises unless ``said`` is the same on all ranks of the groups' grid: on every one of them. A compiled program is
    not asked when it runs: it is the same on all ranks, or was not compiled alike.

    Raises:
        DisagreementError: what differs, and what each rank says.
    """
    if tracing():
        return
    text = json.dumps(said, default=str, sort_keys=True)
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
    ends = torch.tensor([number, -number], device=device)
    for group in groups:
        with talking(group, "comparing its call"):
            ends = all_reduce(ends, "max", group)
    largest, smallest = ends.tolist()
    if largest == -smallest:
        return
    everyone: dict[int, Any] = {dist.get_rank(): dict(said)}
    for group in groups:
        parts: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(parts, everyone, group=group)
        everyone = {rank: call for part in parts for rank, call in part.items()}
    first = next(iter(everyone.values()))
    differing = [name for name in first if len({str(call.get(name)) for call in everyone.values()}) > 1]
    lines = [
        f"{name} is {', '.join(f'{call.get(name)!r} on rank {rank}' for rank, call in sorted(everyone.items()))}"
        for name in differing
    ]
    raise DisagreementError(f"cube_kernels: ranks that share a lattice must be called alike, but {'; '.join(lines)}")
