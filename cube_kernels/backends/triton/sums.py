"""Sums that come out the same on every run: no atomics. A fixed number of programs, whatever the device, each add up
their own part of the cells in order; then the parts are added up in order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cube_kernels.backends.triton.launch import OPTIONS

PARTS = 512
PARTS_BYTES = 64 << 20
ROWS_A_PART = 64
COLUMNS = 128


def part_count(size: int, rows: int) -> int:
    """Into how many parts a sum of ``size`` float32 numbers over so many cells is split: enough for the largest GPUs,
    unless the parts would fill their memory."""
    return max(1, min(PARTS, rows // ROWS_A_PART, PARTS_BYTES // (4 * max(size, 1))))


@triton.jit
def add_to(pointer, value, mask):
    """Adds to what this program alone reads and writes. Load and store go through one address, so that each number
    stays with one thread and needs no barrier."""
    tl.store(pointer, tl.load(pointer, mask=mask, other=0.0).to(tl.float32) + value, mask=mask)


@triton.jit
def _sum_parts(partials, total, size: tl.int64, parts, COLUMNS: tl.constexpr):
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < size
    added = tl.zeros((COLUMNS,), tl.float32)
    for part in tl.range(0, parts):
        added += tl.load(partials + part * size + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(total + column, added.to(total.dtype.element_ty), mask=inside)


def sum_parts(partials: Tensor, dtype: torch.dtype) -> Tensor:
    """``[parts, ...]`` in float32 to the sum over parts, rounded once."""
    total = partials.new_empty(partials.shape[1:], dtype=dtype)
    if total.numel():
        grid = (triton.cdiv(total.numel(), COLUMNS),)
        _sum_parts[grid](partials, total, total.numel(), partials.shape[0], COLUMNS=COLUMNS, **OPTIONS)
    return total
