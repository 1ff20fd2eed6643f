"""One batch out of those of several processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All rows of all processes, in the order of their ranks. The gradient of a process's rows is the sum of what all
    processes have for them: each computes the same loss, and where an average over processes follows, as in
    ``DistributedDataParallel``, that average is the gradient of this one loss."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        ctx.count = len(rows)
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.count, ctx.count)


def gather(rows: Tensor) -> Tensor:
    """The rows of all processes, ``[processes · n, ...]``, with gradient; just the rows where there is one process.

    Args:
        rows: ``[n, ...]``, of the same shape in every process.
    """
    if not dist.is_available() or not dist.is_initialized():
        return rows
    return _Gather.apply(rows)
