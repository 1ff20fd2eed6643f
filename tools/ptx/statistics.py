"""What a launch did, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Statistics:
    """Of one launch, over all of its threads.

    A thread whose guard is false executes an instruction without effect: it counts as an instruction, and as no
    bytes and no FLOPs. A fused multiply-add is two FLOPs; ``mma`` is its full matrix product.
    """

    instructions: int = 0  # executed by threads
    flops: int = 0
    barriers: int = 0  # passed by blocks, a cluster's included
    global_load_bytes: int = 0  # asked for by threads, asynchronous copies included
    global_store_bytes: int = 0
    global_load_sectors: int = 0  # of 32 bytes, different ones within a warp's instruction
    global_store_sectors: int = 0
    global_load_unique_bytes: int = 0  # over the whole launch, in units of the narrowest access of the kernel
    global_store_unique_bytes: int = 0
    atomics: int = 0  # by threads, counted in no other line
    shared_load_bytes: int = 0  # of other blocks of the cluster too
    shared_store_bytes: int = 0
