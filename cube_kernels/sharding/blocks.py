"""How the ranks of a mesh share a lattice, and the block of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from cube_kernels.lattice import Lattice, Window
from cube_kernels.sharding.cuts import even_sizes
from cube_kernels.sharding.exchange import Exchange, filled, talking
from cube_kernels.torch_internals import all_to_all
from cube_kernels.value import check_choice, check_kind, check_positive

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

AXES = "DHW"

Entry = TypeVar("Entry")


class Cut:
    """One axis, cut into a slab for each rank of a group."""

    def __init__(self, name: str, ranks: Any, size: int, sizes: Sequence[int] | None) -> None:
        self.axis = AXES.index(check_choice("Sharding", "axis", name, AXES))
        self.group: dist.ProcessGroup = ranks if isinstance(ranks, dist.ProcessGroup) else _group(name, ranks)
        count = dist.get_world_size(self.group)
        rank = dist.get_rank(self.group)
        if rank < 0:
            raise ValueError(f"Sharding: rank {dist.get_rank()} is none of those that share axis {name}")
        self.sizes = (
            even_sizes(size, count)
            if sizes is None
            else tuple(check_positive("Sharding", f"every one of sizes[{name!r}]", planes, least=0) for planes in sizes)
        )
        if len(self.sizes) != count or sum(self.sizes) != size:
            raise ValueError(
                f"Sharding: sizes[{name!r}] is {self.sizes}; it takes {count} sizes, one a rank, that add up to {size}"
            )
        self.first, self.count = sum(self.sizes[:rank]), self.sizes[rank]


def _group(name: str, mesh: DeviceMesh) -> dist.ProcessGroup:
    if getattr(mesh, "ndim", None) != 1:
        raise TypeError(
            f"Sharding: axis {name} is given {mesh!r}; it takes a DeviceMesh of one dimension, as mesh['name'] of a "
            "larger one, or a ProcessGroup"
        )
    return mesh.get_group()


class Sharding:
    """How ranks share a lattice: each holds a block, cut along one, two or three axes.

    Args:
        lattice: the whole.
        axes: of each axis that is cut (``"D"``, ``"H"``, ``"W"``) the ranks that share it, in the order of their
            slabs: a ``DeviceMesh`` of one dimension or a process group. The ranks of all axes together make a grid,
            as those of a mesh do.
        sizes: planes of each rank along an axis, in any numbers that add up to its size, 0 as well; as
            ``torch.chunk`` cuts where none are given.

    Raises:
        ValueError, TypeError: an axis that there is not, sizes that do not add up, no mesh.

    Example::

        mesh = init_device_mesh("cuda", (4, 2), mesh_dim_names=("d", "h"))
        sharding = Sharding(Lattice((512, 512, 512), 16), {"D": mesh["d"], "H": mesh["h"]})
        x = torch.randn(1, *sharding.block_shape, 16, device="cuda")
    """

    def __init__(
        self, lattice: Lattice, axes: Mapping[str, Any], sizes: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        check_kind(lattice, Lattice)
        if lattice.window is not None:
            raise ValueError("Sharding: the lattice is a window itself; it takes a whole one")
        sizes = sizes or {}
        for name in sizes:
            check_choice("Sharding", "axis of sizes", name, axes)
        if not axes:
            raise ValueError("Sharding: axes is empty; it takes the ranks of at least one of 'D', 'H', 'W'")
        self.lattice = lattice
        self.cuts = [
            Cut(name, ranks, lattice.shape[AXES.find(name)], sizes.get(name)) for name, ranks in sorted(axes.items())
        ]
        self.groups = [cut.group for cut in self.cuts]
        shape, starts = list(lattice.shape), [0, 0, 0]
        for cut in self.cuts:
            shape[cut.axis], starts[cut.axis] = cut.count, cut.first
        self.block_shape = tuple(shape)
        """Cells of this rank's block along each axis."""
        self.ranges = tuple(zip(starts, shape, strict=True))
        """Of each axis, the first cell of the block in the whole lattice, and how many it has."""
        self._widened: dict[tuple[int, int], WideBlock] = {}

    def take(self, tensor: Tensor, dim: int = 1) -> Tensor:
        """This rank's part of a whole tensor whose dimensions from ``dim`` on are those of the lattice."""
        for cut in self.cuts:
            tensor = tensor.narrow(dim + cut.axis, cut.first, cut.count)
        return tensor.contiguous()

    def gather(self, block: Tensor, dim: int = 1) -> Tensor:
        """The whole tensor, on every rank, of each one's part; without gradients."""
        whole = block.detach()
        for cut in self.cuts:
            at = dim + cut.axis
            moved = whole.movedim(at, 0).contiguous()
            unit = torch.Size(moved.shape[1:])
            sizes = [planes * unit.numel() for planes in cut.sizes]
            with talking(cut.group, "gathering a lattice"):
                message = moved.reshape(-1).repeat(len(sizes))
                came = all_to_all(message, sizes, [moved.numel()] * len(sizes), cut.group)
            whole = came.view(sum(cut.sizes), *unit).movedim(0, at)
        return whole.contiguous()

    def widened(self, steps: int, rings: int) -> WideBlock:
        """This rank's block with what so many steps need of the others'; each step takes ``rings`` neighborhoods."""
        key = steps, rings
        if key not in self._widened:
            self._widened[key] = WideBlock(self, steps, rings)
        return self._widened[key]


class WideBlock:
    """A block with halos: its lattice, a window of the whole, and how its halos are filled."""

    def __init__(self, sharding: Sharding, steps: int, rings: int) -> None:
        lattice, periodic = sharding.lattice, sharding.lattice.boundary == "periodic"
        self.exchanges = []
        shape, origin, faces = list(lattice.shape), [0, 0, 0], [(False, False)] * 3
        for cut in sharding.cuts:
            around = periodic and len(cut.sizes) > 1
            halo = steps * rings * lattice.reach[cut.axis]
            exchange = Exchange(cut.group, cut.axis, cut.sizes, halo, around)
            slab, axis = exchange.slab, cut.axis
            shape[axis], first = slab.widened, slab.first - slab.low
            origin[axis] = first % lattice.shape[axis]
            faces[axis] = (around or first > 0, around or first + slab.widened < lattice.shape[axis])
            self.exchanges.append(exchange)
        # A block without cells has no lattice: its rank only takes part in the exchanges.
        self.lattice: Lattice | None = None
        if all(shape):
            window = Window(lattice.shape, _triple(origin), _triple(faces)) if any(map(any, faces)) else None
            self.lattice = replace(lattice, shape=_triple(shape), window=window)

    def widen(self, block: Tensor) -> Tensor:
        """``[B, d, h, w, ...]`` with halos of zeros, to be filled."""
        margins = [0] * 2 * (block.dim() - 1)
        for exchange in self.exchanges:
            at = 2 * (block.dim() - 1 - exchange.dim)  # F.pad counts dimensions from the last
            margins[at : at + 2] = exchange.slab.low, exchange.slab.high
        return F.pad(block.contiguous(), margins)  # whose result is strided as it is

    def filled(self, wide: Tensor) -> Tensor:
        """With the halos of the neighbors' blocks; differentiable any number of times."""
        return filled(wide, self.exchanges)

    def fill(self, wide: Tensor) -> None:
        """The same in place, without gradients."""
        for exchange in self.exchanges:
            if not exchange.idle:
                exchange.fill(wide)

    def give_back(self, gradient: Tensor) -> None:
        """Its adjoint, in place."""
        for exchange in reversed(self.exchanges):
            if not exchange.idle:
                exchange.give_back(gradient)

    def own(self, wide: Tensor) -> Tensor:
        """The block without its halos."""
        for exchange in self.exchanges:
            wide = exchange.own(wide)
        return wide


def _triple(entries: list[Entry]) -> tuple[Entry, Entry, Entry]:
    d, h, w = entries
    return d, h, w
