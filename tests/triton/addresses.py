"""Rows of a batch too large for any memory here: the kernels' own arithmetic, without their loads."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from cube_kernels.backends.triton import CELL_LIMIT
from cube_kernels.backends.triton.geometry import block_of_cells, neighbor

BLOCK = 64


@triton.jit
def rows_kernel(block, rows: tl.int64, D, H, W, offsets, out, BLOCK: tl.constexpr):
    """The block's rows, and those of their neighbors."""
    at = block_of_cells(block, rows, D, H, W, BLOCK)
    near, there = neighbor(at, offsets, 0, "periodic")
    lane = tl.arange(0, BLOCK)
    tl.store(out + lane, tl.where(at.inside, at.row, -1))
    tl.store(out + BLOCK + lane, tl.where(there, near, -1))


def check_the_last_rows() -> None:
    """Of five samples of the largest lattice that there may be, nearly."""
    shape, shift = (1024, 1024, 2047), (1, -1, 2)
    cells = int(np.prod(shape, dtype=np.int64))
    rows = 5 * cells
    block = -(-rows // BLOCK) - 2
    assert CELL_LIMIT - 2**20 < cells <= CELL_LIMIT
    row = block * BLOCK + np.arange(BLOCK, dtype=np.int64)
    moved = [(i + s) % n for i, s, n in zip(np.unravel_index(row % cells, shape), shift, shape, strict=True)]
    near = row // cells * cells + np.ravel_multi_index(moved, shape)
    out = torch.zeros(2, BLOCK, dtype=torch.int64)
    rows_kernel[(1,)](block, rows, *shape, torch.tensor([shift], dtype=torch.int32), out, BLOCK=BLOCK)
    assert out.tolist() == [row.tolist(), near.tolist()], "wrong rows"
