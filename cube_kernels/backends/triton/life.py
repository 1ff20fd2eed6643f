"""Death after the update: which cells live is measured on whole states, so the dead are buried by a second kernel."""

from __future__ import annotations

import triton
import triton.language as tl

from cube_kernels.backends.triton.geometry import block_of_cells, load_rows, store_rows
from cube_kernels.backends.triton.launch import PERCEPTION, Launcher
from cube_kernels.backends.triton.step import Inputs, Numbers, keeps, lives


@triton.jit
def measure_life(
    state, new, pool, living, alive_threshold, rows: tl.int64, D, H, W, plan: tl.constexpr, BLOCK: tl.constexpr
):
    """``living[cell]``: 1 where it lives in the new state and, if that counts, lived in the old one."""
    at = block_of_cells(tl.program_id(0), rows, D, H, W, BLOCK)
    lived = lives(new, at, pool, alive_threshold, plan)
    if plan.alive_before:
        lived = lived & lives(state, at, pool, alive_threshold, plan)
    tl.store(living + at.row, lived.to(tl.uint8), mask=at.inside)


@triton.jit
def bury_kernel(
    new,
    living,
    write_mask,
    taken,
    lifetime,
    mask_stride: tl.int64,
    step: tl.int32,
    dead_value,
    rows: tl.int64,
    D,
    H,
    W,
    plan: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Dead cells of the new state take the dead value, in place."""
    inputs = Inputs(None, None, write_mask, taken, None, None, lifetime, None, None, 0, mask_stride)
    numbers = Numbers(None, step, None, None, None, None, None, None, None, None, dead_value)
    at = block_of_cells(tl.program_id(0), rows, D, H, W, BLOCK)
    y = load_rows(new, at.row, at.inside, plan.channels, 0, plan.channels, plan.width)
    lived = tl.load(living + at.row, mask=at.inside, other=0).to(tl.int32) != 0
    y = tl.where(lived[:, None] | keeps(inputs, at, numbers, plan), y, dead_value)
    store_rows(new, at.row, at.inside, plan.channels, 0, y, plan.channels, plan.width)


launch_measure = Launcher(measure_life, PERCEPTION)
launch_bury = Launcher(bury_kernel, PERCEPTION, changed=["new"])
