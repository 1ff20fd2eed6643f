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
from cube_kernels.tables import constant


def _normal(shift: int, size: int, boundary: str) -> int:
    """The shift that reads the same cells and leaves the axis so little that one wrap or mirror brings it back."""
    if boundary == "periodic":
        return shift % size
    if boundary == "replicate":
        return min(max(shift, 1 - size), size - 1)
    if boundary == "reflecting":
        period = max(2 * (size - 1), 1)
        return (shift + size - 1) % period - (size - 1)
    if boundary in ("walls", "absorbing"):
        return min(max(shift, -size), size)
    raise NotImplementedError(f"triton: it knows no boundary {boundary!r}")


def _normalized(lattice: Lattice, offsets: tuple[Offset, ...]) -> np.ndarray[Any, Any]:
    """``[offsets, 3]``"""
    shifts = [[_normal(s, n, lattice.boundary) for s, n in zip(o, lattice.shape, strict=True)] for o in offsets]
    return np.array(shifts, dtype=np.int32).reshape(-1, 3)


@constant
def offset_table(lattice: Lattice, offsets: tuple[Offset, ...], mirrored: bool) -> np.ndarray[Any, Any]:
    """``[offsets, 3]``, int32: the shifts along each axis; ``mirrored``: of the cells that read a cell."""
    table = _normalized(lattice, offsets)
    return -table if mirrored else table


def has_images(boundary: str) -> bool:
    """Whether positions beyond a face show cells that :func:`reach` does not find there by going the other way."""
    if boundary in ("replicate", "reflecting"):
        return True
    if boundary in ("walls", "periodic", "absorbing"):
        return False
    raise NotImplementedError(f"triton: it knows no adjoint of boundary {boundary!r}")


@constant
def image_table(lattice: Lattice, offsets: tuple[Offset, ...]) -> np.ndarray[Any, Any]:
    """``[images, 3]``, int32: how far beyond the faces offsets reach, past the low ones if negative; ``(0, 0, 0)`` is
    the cell itself. Mirrored, all positions up to there are one image, as each shows another cell; replicated, each is
    one."""
    table = _normalized(lattice, offsets)
    reaches = np.abs(table).max(axis=0, initial=0)
    mirrored = lattice.boundary == "reflecting"
    if mirrored:
        table = np.sign(table) * reaches
    seen = np.zeros(2 * reaches + 1, dtype=bool)
    seen[tuple((table + reaches).T)] = True
    for axis, reach in enumerate(reaches):  # an offset looks past every position up to its own
        along = np.moveaxis(seen, axis, 0)
        for inwards in (along[: reach + 1], along[::-1][: reach + 1]):
            inwards |= np.logical_or.accumulate(inwards)
    images = np.argwhere(seen) - reaches
    if mirrored:
        images = images[((images == 0) | (np.abs(images) == reaches)).all(axis=1)]
    return np.ascontiguousarray(images, dtype=np.int32)


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
    else:
        tl.static_assert(boundary == "walls" or boundary == "absorbing")
    return index


@triton.jit
def entry(table, index):
    """A row of a table ``[..., 3]``."""
    at = table + 3 * index
    return tl.load(at).to(tl.int32), tl.load(at + 1).to(tl.int32), tl.load(at + 2).to(tl.int32)


@triton.jit
def reach(at, wanted, d, h, w, boundary: tl.constexpr):
    """The row of positions ``(d, h, w)`` in the samples of ``at``, and whether it is wanted and there is one."""
    d = _folded(d, at.D, boundary)
    h = _folded(h, at.H, boundary)
    w = _folded(w, at.W, boundary)
    there = wanted & (d >= 0) & (d < at.D) & (h >= 0) & (h < at.H) & (w >= 0) & (w < at.W)
    return at.row - at.cell + tl.where(there, (d * at.H + h) * at.W + w, 0), there


@triton.jit
def neighbor(at, offsets, o, boundary: tl.constexpr):
    """The rows at offset ``o`` of the block's cells, and which of them there are."""
    d, h, w = entry(offsets, o)
    return reach(at, at.inside, at.d + d, at.h + h, at.w + w, boundary)


@triton.jit
def _image_along(index, beyond, size, boundary: tl.constexpr):
    """The position, and whether it is one of the image's that shows the cell."""
    first = tl.where(beyond > 0, size, beyond)
    last = tl.where(beyond < 0, -1, size - 1 + beyond)
    if boundary == "reflecting":
        position = tl.where(beyond > 0, 2 * (size - 1), 0) + tl.where(beyond == 0, index, -index)
        return position, (position >= first) & (position <= last)
    else:
        tl.static_assert(boundary == "replicate")
        position = tl.where(beyond == 0, index, tl.where(beyond > 0, last, first))
        return position, _folded(position, size, boundary) == index


@triton.jit
def image_of(at, images, image, boundary: tl.constexpr):
    """A position for each of the block's cells, its own or that of its image in a row of :func:`image_table`; how far
    beyond the faces that is, and whether it shows the cell."""
    if images is None:
        return (at.d, at.h, at.w), (0, 0, 0), at.inside
    else:
        beyond = entry(images, image)
        d, shows_d = _image_along(at.d, beyond[0], at.D, boundary)
        h, shows_h = _image_along(at.h, beyond[1], at.H, boundary)
        w, shows_w = _image_along(at.w, beyond[2], at.W, boundary)
        return (d, h, w), beyond, at.inside & shows_d & shows_h & shows_w


@triton.jit
def leads_back(beyond, shift):
    """Whether a shift from so far beyond a face may end in the lattice."""
    return (beyond == 0) | (beyond * shift < 0)


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
