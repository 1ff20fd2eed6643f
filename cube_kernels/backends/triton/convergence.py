"""When a sample stops: after the step that changes it by no more than a share of its size.

Nothing comes back to the host: ``taken`` begins at all steps, and a sample's becomes the number of those it took. So a
sample takes a step as long as its entry is larger, forward and backward alike.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cube_kernels.backends.triton.launch import OPTIONS

SLAB = 4096
"""Numbers of a sample that one program measures."""
LANES = 1024


@triton.jit
def measure_movement(state, new, movement, size: tl.int64, SLAB: tl.constexpr, LANES: tl.constexpr):
    """``movement[sample, slab]``: the squared sizes of the change and of the old state, in float64."""
    sample, slab = tl.program_id(0).to(tl.int64), tl.program_id(1)
    change = tl.zeros((LANES,), tl.float64)
    length = tl.zeros((LANES,), tl.float64)
    for pass_ in tl.static_range(SLAB // LANES):
        index = slab.to(tl.int64) * SLAB + pass_ * LANES + tl.arange(0, LANES)
        inside = index < size
        x = tl.load(state + sample * size + index, mask=inside, other=0.0).to(tl.float32).to(tl.float64)
        y = tl.load(new + sample * size + index, mask=inside, other=0.0).to(tl.float32).to(tl.float64)
        change += (y - x) * (y - x)
        length += x * x
    at = movement + (sample * tl.num_programs(1) + slab) * 2
    tl.store(at, tl.sum(change, axis=0))
    tl.store(at + 1, tl.sum(length, axis=0))


@triton.jit
def note_settled(movement, taken, slabs, step: tl.int32, tolerance):
    """Samples that have converged in this step take none after it."""
    sample = tl.program_id(0).to(tl.int64)
    change = tl.zeros((), tl.float64)
    length = tl.zeros((), tl.float64)
    for slab in tl.range(0, slabs):
        at = movement + (sample * slabs + slab) * 2
        change += tl.load(at).to(tl.float64)
        length += tl.load(at + 1).to(tl.float64)
    last = tl.load(taken + sample).to(tl.int64)
    # A NaN compares false, so that its sample goes on: it has not converged.
    converged = tl.sqrt(change) <= tolerance * tl.sqrt(length)
    tl.store(taken + sample, tl.where((last > step) & converged, step + 1, last))


def settle(state: Tensor, new: Tensor, taken: Tensor, step: int, tolerance: float) -> None:
    """Notes in ``taken`` which samples this step was the last of."""
    batch, size = state.shape[0], state[0].numel()
    slabs = triton.cdiv(size, SLAB)
    movement = state.new_empty((batch, slabs, 2), dtype=torch.float64)
    measure_movement[(batch, slabs)](state, new, movement, size, SLAB=SLAB, LANES=LANES, **OPTIONS)
    note_settled[(batch,)](movement, taken, slabs, step, tolerance, **OPTIONS)
