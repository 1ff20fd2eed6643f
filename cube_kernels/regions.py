"""Where an embedding enters a lattice and where it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cube_kernels.lattice import Lattice
from cube_kernels.value import check_choice

Region = tuple[slice, slice, slice]


def _middle(rows: int, proportion: float) -> slice:
    """The middle rows of a face."""
    taken = proportion * rows
    count = round(taken)
    if count < 1 or not math.isclose(taken, count):
        valid = ", ".join(f"{k / rows:.4g}" for k in range(1, rows + 1))
        raise ValueError(f"EmbeddingCube: proportion is {proportion}; of a face with {rows} rows, valid: {valid}")
    start = (rows - count) // 2
    return slice(start, start + count)


def _ends(size: int) -> slice:
    return slice(0, size, max(1, size - 1))


# Each region as a block of cells, possibly with strides, so that a state is read and written without index tables.
REGIONS: dict[str, Callable[[tuple[int, int, int], float], Region]] = {
    "volume": lambda shape, proportion: (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])),
    "front": lambda shape, proportion: (slice(0, 1), _middle(shape[1], proportion), slice(0, shape[2])),
    "back": lambda shape, proportion: (
        slice(shape[0] - 1, shape[0]),
        _middle(shape[1], proportion),
        slice(0, shape[2]),
    ),
    "corners": lambda shape, proportion: (_ends(shape[0]), _ends(shape[1]), _ends(shape[2])),
}


def find_region(name: str, lattice: Lattice, proportion: float) -> Region:
    """The cells of a region.

    Args:
        name: ``"volume"``, ``"front"`` (the first slice along D), ``"back"`` (the last) or ``"corners"``.
        proportion: share of a face that is taken, in whole rows along H around its middle.

    Raises:
        ValueError: an unknown name, or a share that is no number of rows.
    """
    check_choice("EmbeddingCube", "region", name, REGIONS)
    return REGIONS[name](lattice.shape, proportion)


def block_shape(region: Region, lattice: Lattice) -> tuple[int, int, int]:
    """How many cells a region has along each axis."""
    depth, height, width = (len(range(*s.indices(n))) for s, n in zip(region, lattice.shape, strict=True))
    return depth, height, width


def steps_to_reach(lattice: Lattice, source: Region, target: Region) -> int | None:
    """The least number of steps after which every cell of the target has heard of a cell of the source; None if
    some never does."""
    heard = np.zeros(lattice.shape, dtype=bool)
    heard[source] = True
    targets = [lattice.axis_targets(axis) for axis in range(3)]
    steps = 0
    while not heard[target].all():
        # A neighbor that does not exist has index -1: the last of an axis that is one longer.
        padded = np.pad(heard, (0, 1))
        grown = heard.copy()
        for offset in lattice.offsets:
            grown |= padded[np.ix_(*(targets[axis][offset[axis] + lattice.reach[axis]] for axis in range(3)))]
        if (grown == heard).all():
            return None
        heard, steps = grown, steps + 1
    return steps
