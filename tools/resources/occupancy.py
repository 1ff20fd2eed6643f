"""Occupancy by NVIDIA's own calculator, ``cuda_occupancy.h``, which Triton's wheel carries."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import triton.backends.nvidia


class Multiprocessor(NamedTuple):
    """Compute capability and shared memory in bytes, of CUDA's programming guide (table of technical
    specifications)."""

    major: int
    minor: int
    shared: int
    block_shared: int
    warps: int = 64


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(8, 0, 167936, 166912),
    "sm_90": Multiprocessor(9, 0, 233472, 232448),
    "sm_100": Multiprocessor(10, 0, 233472, 232448),
}


@lru_cache(maxsize=1)
def _calculator() -> ctypes.CDLL:
    include = Path(triton.backends.nvidia.__file__).parent / "include"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "occupancy.so"
        source = Path(__file__).with_name("occupancy.cpp")
        subprocess.run(["g++", "-shared", "-fPIC", "-O1", f"-I{include}", str(source), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def occupancy(target: str, threads: int, registers: int, shared: int) -> float:
    """Share of a multiprocessor's warps that may run at once, of blocks with so many threads, registers a thread and
    bytes of shared memory."""
    mp = MULTIPROCESSORS[target]
    blocks = _calculator().blocks_per_multiprocessor(
        mp.major, mp.minor, mp.shared, mp.block_shared, threads, registers, 0, shared
    )
    if blocks < 0:
        raise ValueError(f"the calculator refuses {threads} threads, {registers} registers, {shared} bytes on {target}")
    return blocks * threads / 32 / mp.warps
