"""Calls on ``torch.distributed.tensor.DTensor``: every process computes its samples, as ``nn.Linear`` does. The lattice
itself stays whole.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Size, Tensor

from cube_kernels.call import whole
from cube_kernels.call.options import Options, Reached
from cube_kernels.lattice import Lattice
from cube_kernels.torch_internals import first_index
from cube_kernels.update_rule import Rule, RuleParameters

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Placement


def is_distributed(tensor: Tensor) -> bool:
    """Whether it is a DTensor; nobody has one who has not imported the module."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def assembled(local: Tensor, mesh: DeviceMesh, placements: Sequence[Placement], shape: Size) -> Tensor:
    """The contiguous DTensor of this shape of which each process has a part."""
    from torch.distributed.tensor import DTensor

    stride = local.new_empty(shape, device="meta").stride()
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)


def perceive(x: DTensor, lattice: Lattice, filters: Tensor | None, backend: str) -> Tensor:
    """See :func:`cube_kernels.call.whole.perceive`."""
    spread = _Samples(x, "perceive")
    percepts = whole.perceive(spread.of_each(x), lattice, spread.of_all(filters, "filters"), backend)
    return spread.gather(percepts, 0)


def absorb(x: DTensor, lattice: Lattice) -> Tensor:
    """See :func:`cube_kernels.call.whole.absorb`."""
    spread = _Samples(x, "absorb")
    return spread.gather(whole.absorb(spread.of_each(x), lattice), 0)


def rollout(x: DTensor, parameters: RuleParameters, lattice: Lattice, rule: Rule, options: Options) -> Reached:
    """See :func:`cube_kernels.call.whole.rollout`."""
    spread = _Samples(x, "rollout")
    state, trajectory, taken = whole.rollout(
        spread.of_each(x),
        RuleParameters(*(spread.of_all(p, n) for n, p in zip(RuleParameters._fields, parameters, strict=True))),
        lattice,
        rule,
        options._replace(
            drive=spread.of_each_or_all(options.drive, "drive"),
            write_mask=spread.of_each_or_all(options.write_mask, "write_mask"),
            first_sample=options.first_sample + first_index(x, 0) if rule.fire_rate < 1 else 0,
        ),
    )
    return (
        spread.gather(state, 0),
        None if trajectory is None else spread.gather(trajectory, 1),
        None if taken is None else spread.gather(taken, 0),
    )


class _Samples:
    """How the samples of a batch are spread over a mesh: whole on each device, or in shards.

    Raises:
        ValueError: anything else.
    """

    def __init__(self, x: DTensor, owner: str) -> None:
        from torch.distributed.tensor import Partial, Replicate, Shard

        self._owner, self._mesh, self._placements, self._batch = owner, x.device_mesh, x.placements, x.shape[0]
        for placement in x.placements:
            if not (placement.is_replicate() or placement.is_shard(0)):
                raise ValueError(f"{owner}: x has the placement {placement}; valid: Replicate(), Shard(0)")
        self.sharded = any(placement.is_shard() for placement in x.placements)
        self._whole = [Replicate() for _ in x.placements]
        self._summed = [Partial() if placement.is_shard() else Replicate() for placement in x.placements]
        self._shards = {
            dim: [Shard(dim) if placement.is_shard() else Replicate() for placement in x.placements] for dim in (0, 1)
        }

    def of_each(self, tensor: DTensor) -> Tensor:
        """A tensor with a row for each sample, as this process has it."""
        return tensor.to_local(grad_placements=self._placements)

    def of_all(self, tensor: Any, name: str) -> Tensor | None:
        """A tensor that all samples share; None stays None."""
        if tensor is None:
            return None
        self._check(tensor, name, self._whole)
        local: Tensor = tensor.to_local(grad_placements=self._summed)
        return local

    def of_each_or_all(self, tensor: Any, name: str) -> Tensor | None:
        """One of the two, as it is placed."""
        if tensor is None or not is_distributed(tensor) or tensor.shape[0] != self._batch or not self.sharded:
            return self.of_all(tensor, name)
        self._check(tensor, name, self._placements)
        return self.of_each(tensor)

    def gather(self, local: Tensor, dim: int) -> Tensor:
        """A result whose dimension counts samples, of the whole batch."""
        shape = Size((*local.shape[:dim], self._batch, *local.shape[dim + 1 :]))
        return assembled(local, self._mesh, self._shards[dim], shape)

    def _check(self, tensor: Any, name: str, placements: Any) -> None:
        if not is_distributed(tensor):
            raise TypeError(f"{self._owner}: x is a DTensor, but {name} is a {type(tensor).__name__}; they must agree")
        if tensor.device_mesh != self._mesh:
            raise ValueError(f"{self._owner}: {name} is on {tensor.device_mesh}, but x is on {self._mesh}")
        if list(tensor.placements) != list(placements):
            raise ValueError(
                f"{self._owner}: {name} has the placements {list(tensor.placements)}; expected {list(placements)}"
            )
