"""The lattice: its size, its neighborhood and what lies beyond its faces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from cube_kernels.options import check_choice, check_positive

Offset = tuple[int, int, int]

OUTSIDE = -1
"""Index of a neighbor that does not exist: it reads as zero."""

# What each boundary makes of index i + shift on an axis of `size` cells. One line a boundary: every backend
# follows the tables built from these.
BOUNDARIES: dict[str, Callable[[int, int], int]] = {
    "walls": lambda index, size: index if 0 <= index < size else OUTSIDE,
    "periodic": lambda index, size: index % size,
    "replicate": lambda index, size: min(max(index, 0), size - 1),
}

# Which offsets within the radius belong to each neighborhood.
NEIGHBORHOODS: dict[str, Callable[[Offset, int], bool]] = {
    "von_neumann": lambda offset, radius: sum(map(abs, offset)) <= radius,
    "moore": lambda offset, radius: max(map(abs, offset)) <= radius,
}


@dataclass(frozen=True)
class Lattice:
    """``D×H×W`` cells of ``channels`` numbers each.

    Args:
        shape: cells along each axis, ``(D, H, W)``, each at least 1.
        channels: numbers ``C`` a cell. A state is a tensor ``[B, D, H, W, C]``.
        neighborhood: ``"von_neumann"`` (cells within ``radius`` steps along the axes: 7 for radius 1, itself
            included) or ``"moore"`` (the surrounding block: 27).
        radius: how far a cell looks, in cells.
        boundary: what a cell reads beyond a face: ``"walls"`` (zeros), ``"periodic"`` (the opposite face) or
            ``"replicate"`` (the nearest cell: zero flux). It applies at every step.

    Raises:
        ValueError: a size below 1, or an unknown neighborhood or boundary; the message names the valid ones.
    """

    shape: tuple[int, int, int]
    channels: int
    neighborhood: str = "von_neumann"
    radius: int = 1
    boundary: str = "walls"

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        if len(shape) != 3:
            raise ValueError(f"Lattice: shape is {shape}; it takes three sizes (D, H, W)")
        for size in shape:
            check_positive("Lattice", "every size of shape", size)
        object.__setattr__(self, "shape", shape)  # a list is as good, but only a tuple can be hashed
        check_positive("Lattice", "channels", self.channels)
        check_positive("Lattice", "radius", self.radius)
        check_choice("Lattice", "neighborhood", self.neighborhood, NEIGHBORHOODS)
        check_choice("Lattice", "boundary", self.boundary, BOUNDARIES)

    @property
    def cells(self) -> int:
        """Number of cells, ``D·H·W``."""
        return math.prod(self.shape)

    @cached_property
    def offsets(self) -> tuple[Offset, ...]:
        """Offsets ``(d, h, w)`` of the neighborhood: the cell itself first, the rest in ascending order."""
        reach = range(-self.radius, self.radius + 1)
        belongs = NEIGHBORHOODS[self.neighborhood]
        around = (o for o in itertools.product(reach, reach, reach) if any(o) and belongs(o, self.radius))
        return ((0, 0, 0), *around)

    def axis_targets(self, axis: int) -> list[list[int]]:
        """The boundary map of one axis: ``[shift + radius][i]`` is the index that cell ``i`` reads at
        ``i + shift`` for shifts ``-radius..radius``, or :data:`OUTSIDE`."""
        size, beyond = self.shape[axis], BOUNDARIES[self.boundary]
        return [[beyond(i + shift, size) for i in range(size)] for shift in range(-self.radius, self.radius + 1)]
