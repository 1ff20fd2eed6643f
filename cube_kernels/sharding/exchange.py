"""The exchange of halos along one axis, as a linear map that autograd differentiates any number of times.

One ``all_to_all_single`` carries the planes of all ranks. Axes go one after the other, each with the halos of those
before it: so corners come along. The adjoint sends the gradients of a halo home, where they are added.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cube_kernels.precision import wide
from cube_kernels.sharding.cuts import Planes, slab
from cube_kernels.torch_internals import all_reduce, all_to_all, default_store, timeout_of


class PeerError(RuntimeError):
    """A process that shares the lattice died, or did not answer within its group's timeout; the message names it."""


WAIT = 5.0
"""Seconds in which ranks that meet the same failure tell each other that they live."""


@contextlib.contextmanager
def talking(group: dist.ProcessGroup, doing: str) -> Iterator[None]:
    """What goes wrong in a collective of the group says which ranks it waited for."""
    try:
        yield
    except RuntimeError as error:
        rank, everyone = dist.get_rank(), dist.get_process_group_ranks(group)
        silent = _silent([other for other in everyone if other != rank])
        who = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}"
        raise PeerError(
            f"cube_kernels: rank {rank} was {doing}, together with the ranks {everyone}, when {who} died or did not "
            f"answer within the timeout of {timeout_of(group)}: {error}"
        ) from error


def _silent(others: list[int]) -> list[int]:
    """Those of the ranks that do not tell in time, by the store that the processes met at, that they failed as well;
    all of them where the store is gone with its process, or where all do."""
    store = default_store()
    missing = list(others)
    with contextlib.suppress(RuntimeError):  # of torch's, for a store that is gone
        store.set(f"cube_kernels/failed/{dist.get_rank()}", "1")
        until = time.monotonic() + WAIT
        while missing and time.monotonic() < until:
            missing = [rank for rank in missing if not store.check([f"cube_kernels/failed/{rank}"])]
            time.sleep(0.05)
    return missing or others


class Exchange:
    """Of the halos of one axis of ``[B, D, H, W, ...]``; made alike by all ranks of the group.

    Args:
        group: the ranks that share the axis, in the order of their slabs.
        axis: 0 for D, 1 for H, 2 for W.
        sizes: planes of each rank.
        halo: planes that each step of a chunk needs, times its steps.
        periodic: whether the last slab is beside the first.
    """

    def __init__(self, group: dist.ProcessGroup, axis: int, sizes: tuple[int, ...], halo: int, periodic: bool) -> None:
        self.group, self.axis, self.idle = group, axis, halo == 0
        here = dist.get_rank(group)
        slabs = [slab(sizes, rank, halo, periodic) for rank in range(len(sizes))]
        self.slab = slabs[here]
        lent = [planes for each in slabs for planes in each.borrowed]
        self.lent = [[p for p in lent if p.owner == here and p.borrower == rank] for rank in range(len(sizes))]
        self.borrowed = [[p for p in self.slab.borrowed if p.owner == rank] for rank in range(len(sizes))]

    @property
    def dim(self) -> int:
        """Of the axis in a state."""
        return self.axis + 1

    def own(self, wide: Tensor) -> Tensor:
        """The block without its halo, as a view."""
        return wide.narrow(self.dim, self.slab.low, self.slab.thickness)

    def fill(self, wide: Tensor) -> None:
        """Puts what its owners hold into the halo of a widened block."""
        there = self._swap(wide, [[self._lent_part(wide, p) for p in each] for each in self.lent], self.borrowed)
        for planes, part in there:
            self._borrowed_part(wide, planes).copy_(part)

    def give_back(self, gradient: Tensor) -> None:
        """The adjoint of :meth:`fill`: what lies in the halo is added to where it came from, rank by rank, and the halo
        becomes zero."""
        parts = [[self._borrowed_part(gradient, p) for p in each] for each in self.borrowed]
        there = self._swap(gradient, parts, self.lent)
        gradient.narrow(self.dim, 0, self.slab.low).zero_()
        gradient.narrow(self.dim, self.slab.low + self.slab.thickness, self.slab.high).zero_()
        for planes, part in there:
            self._lent_part(gradient, planes).add_(part)

    def _lent_part(self, wide: Tensor, planes: Planes) -> Tensor:
        return wide.narrow(self.dim, self.slab.low + planes.owned, planes.thickness)

    def _borrowed_part(self, wide: Tensor, planes: Planes) -> Tensor:
        return wide.narrow(self.dim, planes.place, planes.thickness)

    def _swap(
        self, wide: Tensor, parts: list[list[Tensor]], expected: list[list[Planes]]
    ) -> list[tuple[Planes, Tensor]]:
        """Sends parts to each rank and tells what came for the planes expected of each."""
        plane = wide.numel() // max(wide.shape[self.dim], 1)  # an empty block neither gives nor gets one
        coming = [sum(p.thickness for p in each) * plane for each in expected]
        going = [sum(part.numel() for part in each) for each in parts]
        flat = [part.reshape(-1) for each in parts for part in each]
        message = torch.cat(flat) if flat else wide.new_empty(0)
        with talking(self.group, f"exchanging halos along axis {'DHW'[self.axis]}"):
            came = all_to_all(message, coming, going, self.group)
        result, start = [], 0
        for planes in (p for each in expected for p in each):
            shape = list(wide.shape)
            shape[self.dim] = planes.thickness
            result.append((planes, came[start : start + planes.thickness * plane].view(shape)))
            start += planes.thickness * plane
        return result


class _Filled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wide: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        filled = wide.clone(memory_format=torch.contiguous_format)
        exchange.fill(filled)
        return filled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return _GivenBack.apply(gradient, ctx.exchange), None


class _GivenBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        given_back = gradient.clone(memory_format=torch.contiguous_format)
        exchange.give_back(given_back)
        return given_back

    @staticmethod
    def backward(ctx: Any, wide: Tensor) -> tuple[Any, ...]:
        return _Filled.apply(wide, ctx.exchange), None


def filled(wide: Tensor, exchanges: list[Exchange]) -> Tensor:
    """A widened block with its halos along every cut axis."""
    for exchange in exchanges:
        if not exchange.idle:
            wide = _Filled.apply(wide, exchange)
    return wide


class _Shared(torch.autograd.Function):
    """Tensors that all ranks hold, in float32 at least; their gradients are summed over the groups."""

    @staticmethod
    def forward(ctx: Any, groups: list[dist.ProcessGroup], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.groups, ctx.likes = groups, [(t.shape, t.dtype) for t in tensors]
        return tuple(wide(t).view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        for group in ctx.groups:
            with talking(group, "adding up the gradients of the parameters"):
                flat = all_reduce(flat, "sum", group)
        parts = flat.split([shape.numel() for shape, _ in ctx.likes])
        return None, *(part.view(shape).to(dtype) for part, (shape, dtype) in zip(parts, ctx.likes, strict=True))


def shared(tensors: list[Tensor], groups: list[dist.ProcessGroup]) -> tuple[Tensor, ...]:
    """Enters tensors that are alike on all ranks of the groups into a computation of which each rank does a part."""
    result: tuple[Tensor, ...] = _Shared.apply(groups, *tensors)
    return result
