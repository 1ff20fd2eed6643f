"""Which cell lies where: blocks of consecutive cells, their coordinates, their neighbors under every boundary.

Neighbors are computed, not looked up: a table would be as large as the lattice times the neighborhood. The offsets
themselves are a small table that a loop reads, so that 125 offsets compile as quickly as 7.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import triton
import triton.language as tl

from cube_kernels.lattice import Lattice, Offset
from cube_kernels.tracing import constant


def _normal(shift: int, size: int, boundary: str) -> int:
    """The shift that reads the same cells and leaves the axis so little that one wrap or mirror brings it back."""
    if boundary == "periodic":
        return shift % size
    if boundary == "replicate":
        return min(max(shift, 1 - size), size - 1)
    if boundary == "reflecting":
        period = max(2 * (size - 1), 1)
        return (shift + size - 1) % period - (size - 1)
    return min(max(shift, -size), size)


def _normalized(lattice: Lattice, offsets: tuple[Offset, ...]) -> list[list[int]]:
    return [[_normal(s, n, lattice.boundary) for s, n in zip(o, lattice.shape, strict=True)] for o in offsets]


@constant
def offset_table(lattice: Lattice, offsets: tuple[Offset, ...], mirrored: bool) -> np.ndarray[Any, Any]:
    """``[offsets, 3]``, int32: the shifts along each axis; ``mirrored``: of the cells that read a cell."""
    table = np.array(_normalized(lattice, offsets), dtype=np.int32)
    return -table if mirrored else table


def images(lattice: Lattice, offsets: tuple[Offset, ...]) -> tuple[int, int, int]:
    """How many positions along each axis, within the lattice and beyond its faces, may show one cell: itself first,
    then, mirrored, one beyond each face; replicated, one for each cell that an offset reaches beyond a face."""
    counts = {"reflecting": lambda reach: 3 if reach else 1, "replicate": lambda reach: 1 + 2 * reach}
    count = counts.get(lattice.boundary, lambda reach: 1)
    depth, height, width = (count(max(map(abs, shifts))) for shifts in zip(*_normalized(lattice, offsets), strict=True))
    return depth, height, width


class Cells(NamedTuple):
    """A block of consecutive cells of the batch, and the lattice they lie on."""

    sample: Any
    cell: Any  # of the sample
    row: Any  # of the batch
    inside: Any  # whether there is such a cell
    d: Any
    h: Any
    w: Any
    D: Any
    H: Any
    W: Any


@triton.jit
def block_of_cells(block, rows, D, H, W, BLOCK: tl.constexpr):
    """Rows ``block · BLOCK`` and on."""
    cells = D * H * W
    first = tl.cast(block, tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    sample = first // cells
    cell = (first - sample * cells).to(tl.int32) + lane
    ahead = cell // cells  # a block may hold several samples
    cell -= ahead * cells
    line = cell // W
    return Cells(sample + ahead, cell, first + lane, first + lane < rows, line // H, line % H, cell % W, D, H, W)


@triton.jit
def _folded(index, size, boundary: tl.constexpr):
    """Where an index one normal shift beyond the axis is read; those that are read nowhere stay outside."""
    if boundary == "periodic":
        index = tl.where(index < 0, index + size, index)
        index = tl.where(index >= size, index - size, index)
    elif boundary == "replicate":
        index = tl.minimum(tl.maximum(index, 0), size - 1)
    elif boundary == "reflecting":
        index = tl.abs(index)
        index = tl.where(index >= size, 2 * (size - 1) - index, index)
    return index


@triton.jit
def reach(at, d, h, w, offsets, o, boundary: tl.constexpr):
    """The row at offset ``o`` of positions ``(d, h, w)`` in the samples of ``at``, and whether there is one."""
    d = _folded(d + tl.load(offsets + 3 * o).to(tl.int32), at.D, boundary)
    h = _folded(h + tl.load(offsets + 3 * o + 1).to(tl.int32), at.H, boundary)
    w = _folded(w + tl.load(offsets + 3 * o + 2).to(tl.int32), at.W, boundary)
    there = at.inside & (d >= 0) & (d < at.D) & (h >= 0) & (h < at.H) & (w >= 0) & (w < at.W)
    return at.row - at.cell + tl.where(there, (d * at.H + h) * at.W + w, 0), there


@triton.jit
def neighbor(at, offsets, o, boundary: tl.constexpr):
    """The rows at offset ``o`` of the block's cells, and which of them there are."""
    return reach(at, at.d, at.h, at.w, offsets, o, boundary)


@triton.jit
def image_of(index, image, size, images: tl.constexpr, boundary: tl.constexpr):
    """A position that shows the cell at this index of an axis, and whether it does: see :func:`images`."""
    image += tl.zeros_like(index)
    position = index
    shows = (index >= 0) & (image == 0)
    if boundary == "reflecting":
        position = tl.where(image == 1, -index, tl.where(image == 2, 2 * (size - 1) - index, index))
        shows = shows | ((image == 1) & (index > 0)) | ((image == 2) & (index < size - 1))
    elif boundary == "replicate":
        reach: tl.constexpr = (images - 1) // 2
        below = (image > 0) & (image <= reach)
        above = image > reach
        position = tl.where(below, -image, tl.where(above, size - 1 + image - reach, index))
        shows = shows | (below & (index == 0)) | (above & (index == size - 1))
    return position, shows


@triton.jit
def load_rows(pointer, row, there, stride, start, count: tl.constexpr, COUNT: tl.constexpr):
    """``[rows, COUNT]`` in float32: ``count`` numbers from ``start`` on of each row, zero for the rest."""
    column = tl.arange(0, COUNT)
    mask = there[:, None] & (column < count)[None, :]
    return tl.load(pointer + row[:, None] * stride + start + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store_rows(pointer, row, there, stride, start, value, count: tl.constexpr, COUNT: tl.constexpr):
    """The reverse, rounded to what the pointer points to."""
    column = tl.arange(0, COUNT)
    mask = there[:, None] & (column < count)[None, :]
    address = pointer + row[:, None] * stride + start + column[None, :]
    tl.store(address, value.to(pointer.dtype.element_ty), mask=mask)
