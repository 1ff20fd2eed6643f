"""How a shared rollout goes, whoever computes it: which steps between which exchanges, from which kept states."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from cube_kernels.call.options import Options
from cube_kernels.sharding.blocks import WideBlock
from cube_kernels.sharding.exchange import talking
from cube_kernels.torch_internals import all_reduce
from cube_kernels.update_rule import Rule


class Course:
    """All of a shared rollout but its tensors.

    Args:
        block: this rank's.
        rule, options: what was asked for.
        every: steps of a chunk, between two exchanges.
        checkpoint_every: at least so many steps of a segment, of which the backward pass keeps the first state.
        groups: the ranks that share each axis.
    """

    def __init__(
        self,
        block: WideBlock,
        rule: Rule,
        options: Options,
        every: int,
        checkpoint_every: int,
        groups: list[dist.ProcessGroup],
    ) -> None:
        self.block, self.rule, self.options, self._groups = block, rule, options, groups
        self.trajectory_every = options.trajectory_every
        self.segments = self._segments(options.steps, every, checkpoint_every)
        """Each as the steps at which its chunks begin, and the one at which it ends."""

    def _segments(self, steps: int, every: int, checkpoint_every: int) -> list[list[int]]:
        kept = self.trajectory_every or max(steps, 1)
        ends = sorted({steps, *range(0, steps, every), *range(0, steps, kept)})
        segments: list[list[int]] = []
        reached = [0]
        for end in ends[1:]:
            reached.append(end)
            if end - reached[0] >= checkpoint_every or end % kept == 0 or end == steps:
                segments.append(reached)
                reached = [end]
        return segments

    def shows(self, end: int) -> bool:
        """Whether the state after so many steps is one of the trajectory."""
        return bool(self.trajectory_every) and end % int(self.trajectory_every or 1) == 0

    def converged(self, before: Tensor, after: Tensor) -> Tensor:
        """Which samples a step changed by no more than the tolerance, over the whole lattice; a sample with a NaN did
        not."""
        before, after = (self.block.own(t).flatten(1).double() for t in (before, after))
        sums = torch.stack([(after - before).square().sum(1), before.square().sum(1)])
        for group in self._groups:
            with talking(group, "measuring how far a step went"):
                sums = all_reduce(sums, "sum", group)
        change, size = sums.sqrt()
        return change <= (self.options.tolerance or 0.0) * size
