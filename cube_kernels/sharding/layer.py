"""A CubeLayer on a lattice that several ranks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Size, Tensor, nn

from cube_kernels.automaton import bind
from cube_kernels.call.distributed import assembled, is_distributed
from cube_kernels.call.options import Rollout
from cube_kernels.layer import CubeLayer
from cube_kernels.sharding.blocks import AXES, Sharding
from cube_kernels.sharding.rollout import rollout
from cube_kernels.torch_internals import first_index
from cube_kernels.value import check_kind, check_positive


class ShardedCubeLayer(nn.Module):
    """A layer whose lattice ranks share: each holds a block of the states, and all of the parameters.

    Args:
        layer: made alike on all ranks (the same seed, or a checkpoint that all load).
        axes, sizes: which ranks share which axes, and how many planes each takes: see :class:`Sharding`.
        every: steps from one exchange to the next.

    Calls take and give this rank's block ``[B, d, h, w, C]``, or DTensors that are sharded along their space as the
    lattice is. Gradients of the parameters are summed over the ranks that share the lattice; over those that have
    other samples, DDP or FSDP2 on the other dimensions of the mesh sum or average them as ever.

    Raises:
        ValueError, TypeError: axes or sizes that do not fit.

    Example::

        mesh = init_device_mesh("cuda", (2, 4), mesh_dim_names=("data", "d"))
        layer = ShardedCubeLayer(CubeLayer(lattice, rule, steps=64), {"D": mesh["d"]})
        y = layer(layer.sharding.take(x))
    """

    def __init__(
        self,
        layer: CubeLayer,
        axes: Mapping[str, Any],
        every: int = 1,
        sizes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        check_kind(layer, CubeLayer)
        self.layer = layer
        self.sharding = Sharding(layer.lattice, axes, sizes)
        self.every = check_positive("ShardedCubeLayer", "every", every)
        rings = bind(layer.lattice, layer.rule).rings
        for chunk in {1, self.every}:  # compilers find them made, and cannot make them
            self.sharding.widened(chunk, rings)

    def forward(
        self,
        x: Tensor,
        drive: Tensor | None = None,
        steps: int | None = None,
        seed: int | None = None,
        write_mask: Tensor | None = None,
        trajectory_every: int | None = None,
        tolerance: float | None = None,
        first_step: int = 0,
        first_sample: int = 0,
    ) -> Tensor | Rollout:
        """As :meth:`CubeLayer.forward`, of this rank's block; see :func:`cube_kernels.sharding.rollout`."""
        spread = _Spread(x, self.sharding) if is_distributed(x) else None
        if spread is not None:
            x, drive, write_mask = (spread.local(t) for t in (x, drive, write_mask))
            first_sample += spread.first_sample
        result = rollout(
            x,
            self.layer.rule_parameters,
            self.sharding,
            self.layer.rule,
            steps=self.layer.steps if steps is None else steps,
            every=self.every,
            drive=drive,
            write_mask=write_mask,
            seed=seed,
            checkpoint_every=self.layer.checkpoint_every,
            trajectory_every=trajectory_every,
            tolerance=tolerance,
            backend=self.layer.backend,
            first_step=first_step,
            first_sample=first_sample,
        )
        if spread is None:
            return result
        if isinstance(result, Tensor):
            return spread.whole(result, 0)
        state, trajectory, taken = result
        return Rollout(spread.whole(state, 0), None if trajectory is None else spread.whole(trajectory, 1), taken)

    def extra_repr(self) -> str:
        cut = {AXES[cut.axis]: cut.sizes for cut in self.sharding.cuts}
        return f"axes={cut}, every={self.every}"


class _Spread:
    """How a DTensor of states is spread over its mesh: along its samples, if at all, and along its space as the lattice
    is cut.

    Raises:
        ValueError: otherwise.
    """

    def __init__(self, x: Any, sharding: Sharding) -> None:
        self._mesh, self._placements, self._shape = x.device_mesh, x.placements, x.shape
        ranks = {cut.axis: dist.get_process_group_ranks(cut.group) for cut in sharding.cuts if len(cut.sizes) > 1}
        placed = {}
        for place, placement in enumerate(x.placements):
            if placement.is_shard() and placement.dim in (1, 2, 3):
                placed[placement.dim - 1] = dist.get_process_group_ranks(x.device_mesh.get_group(place))
            elif not (placement.is_replicate() or placement.is_shard(0)):
                raise ValueError(
                    f"ShardedCubeLayer: x has the placement {placement}; valid: Replicate(), Shard(0 to 3)"
                )
        placed = {axis: group for axis, group in placed.items() if len(group) > 1}
        if placed != ranks:
            raise ValueError(
                f"ShardedCubeLayer: x is sharded along its space over the ranks {_named(placed)}, but the lattice over "
                f"{_named(ranks)}; they must agree"
            )
        self.first_sample = first_index(x, 0)

    def local(self, tensor: Any) -> Any:
        """What this rank has of it; None and plain tensors as they are."""
        if tensor is None or not is_distributed(tensor):
            return tensor
        return tensor.to_local(grad_placements=tensor.placements)

    def whole(self, block: Tensor, dim: int) -> Tensor:
        """A result whose dimension ``dim`` counts samples, as a DTensor."""
        from torch.distributed.tensor import Shard

        placements = [Shard(p.dim + dim) if p.is_shard() else p for p in self._placements]
        return assembled(block, self._mesh, placements, Size((*block.shape[:dim], *self._shape)))


def _named(ranks: Mapping[int, list[int]]) -> dict[str, list[int]]:
    return {AXES[axis]: group for axis, group in sorted(ranks.items())}
