"""What the threads of a cluster's blocks do together; waiting for a cluster's barrier ends a basic block."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import KernelError
from ..memory import RANK_SHIFT, WINDOWS
from ..operands import destination, expect, source
from ..parse import Instruction
from .forms import Step, form


@form("barrier .cluster .arrive .release? .aligned?")
def arrive(instruction: Instruction, f: Any) -> Step:
    expect(instruction, 0)

    def step(m: Any) -> None:
        lanes = m.lanes()
        again = m.arrivals[lanes] != m.waits[lanes]
        if again.any():
            raise KernelError("arrives at a cluster barrier once more without a wait between", int(np.argmax(again)))
        m.arrivals[lanes] += 1

    return step


@form("mapa .space=shared::cluster .type=u32|u64", "mapa .type=u64")
def map_address(instruction: Instruction, f: Any) -> Step:
    """The same place in shared memory of the cluster's block of a rank."""
    target, place, rank = expect(instruction, 3)
    bits = int(f.type[1:])
    read, which, write = source(place, bits), source(rank, 32), destination(target, bits)
    window = np.uint64(0 if getattr(f, "space", None) else WINDOWS["shared"])

    def step(m: Any) -> None:
        inside = np.broadcast_to(read(m).astype(np.uint64) - window, m.size)
        ranks = np.broadcast_to(which(m), m.size).astype(np.uint64)
        if (inside >> RANK_SHIFT).any():
            lane = int(np.argmax(inside >> RANK_SHIFT != 0))
            raise KernelError(f"{int(inside[lane] + window):#x} is no address of the block's own shared memory", lane)
        if (ranks >= m.cluster).any():
            lane = int(np.argmax(ranks >= m.cluster))
            raise KernelError(f"block {int(ranks[lane])} of a cluster of {m.cluster}", lane)
        write(m, ((ranks + np.uint64(1) << RANK_SHIFT) + inside + window).astype(f"u{bits // 8}"))

    return step
