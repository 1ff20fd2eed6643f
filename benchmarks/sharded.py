"""``python -m benchmarks.sharded``: one lattice over two processes of one thread each, beside the same halves without
exchange, and beside one process that has it whole.

Each process computes its half in turns, as a lattice of its own and as a part of the whole: the difference is what
sharing costs, in CPU seconds, which a busy machine distorts less than the clock. Beside it what that is made of: cells
that are computed twice, and bytes that are sent, counted. Memory is the peak of fresh processes above what they held
before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.compare import LOUD, machine
from benchmarks.runners import added_bytes
from cube_kernels import CubeLayer, Lattice, Rule
from cube_kernels.sharding import ShardedCubeLayer

RANKS = 2
M_MMAP_THRESHOLD = -3  # of glibc's mallopt
TURNS = 7
HALF, SHARED, WHOLE = "the half alone", "the half, shared", "the whole in one process"


@dataclass
class Job:
    """What is run: ``size``³ cells of ``channels``, a rule of 128 hidden units, ``steps``, ``every`` of them between
    two exchanges; with the backward pass, or without."""

    size: int
    channels: int
    steps: int
    every: int
    trained: bool

    def __str__(self) -> str:
        direction = "forward + backward" if self.trained else "forward"
        return f"{self.size}³ C{self.channels} T{self.steps}, an exchange every {self.every}: {direction}"

    def layers(self) -> tuple[CubeLayer, ShardedCubeLayer | None]:
        """That of the whole, and where there are ranks the shared one."""
        torch.manual_seed(0)
        lattice = Lattice((self.size,) * 3, self.channels)
        layer = CubeLayer(lattice, Rule(hidden=128, activation="relu"), self.steps, backend="native")
        shared = ShardedCubeLayer(layer, {"D": dist.group.WORLD}, self.every) if dist.is_initialized() else None
        return layer, shared

    def call(self, layer: torch.nn.Module, x: torch.Tensor) -> None:
        with torch.set_grad_enabled(self.trained):
            y = layer(x)
        if self.trained:
            y.sum().backward()


def _timed(rank: int, job: Job) -> dict[str, Any]:
    layer, shared = job.layers()
    assert shared is not None
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank % len(os.sched_getaffinity(0))]})
    half = CubeLayer(Lattice(shared.sharding.block_shape, job.channels), layer.rule, job.steps, backend="native")
    x = torch.randn(1, *shared.sharding.block_shape, job.channels)
    samples: dict[str, list[tuple[float, float]]] = {HALF: [], SHARED: []}
    for turn in range(TURNS + 1):
        for name, module in ((HALF, half), (SHARED, shared)):
            dist.barrier()
            cpu, wall = time.process_time(), time.perf_counter()
            job.call(module, x)
            if turn:  # the first is for warming up
                samples[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {"samples": samples, **counted(job, shared)}


def counted(job: Job, shared: ShardedCubeLayer) -> dict[str, float]:
    """By arithmetic: cells that a rank computes beyond its own, as a share, and megabytes that it sends forward."""
    block = shared.sharding.widened(job.every, 1)
    (exchange,) = block.exchanges
    assert block.lattice is not None
    planes = sum(min(job.every, lifetime) for lifetime in block.lattice.axis_lifetimes(0, 1))
    own = exchange.slab.thickness * job.every
    plane_bytes = job.size * job.size * job.channels * 4
    sent = sum(planes.thickness for each in exchange.lent for planes in each) * plane_bytes
    return {"computed twice": planes / own - 1, "sent": sent * math.ceil(job.steps / job.every) / 1e6}


def _peak(rank: int, job: Job) -> int:
    # Blocks that are freed go back to the system at once: glibc would keep those below 32 MiB, a half's and not the
    # whole's, in a heap with holes.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
    layer, shared = job.layers()
    x = torch.randn(1, *(layer.lattice.shape if shared is None else shared.sharding.block_shape), job.channels)
    job.call(layer if shared is None else shared, x)  # what is imported and made once does not count
    return added_bytes(lambda: job.call(layer if shared is None else shared, x))


def _rank(function: Any, rank: int, ranks: int, store: str, job: Job, answers: Any) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    answers.put((rank, function(rank, job)))


def on_ranks(function: Any, ranks: int, job: Job) -> list[Any]:
    """What each of so many fresh processes returns."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        given = [(function, rank, ranks, f"{folder}/store", job, answers) for rank in range(ranks)]
        processes = [context.Process(target=_rank, args=arguments) for arguments in given]
        for process in processes:
            process.start()
        found = dict(answers.get() for _ in processes)
        for process in processes:
            process.join()
    return [found[rank] for rank in range(ranks)]


def time_row(job: Job) -> dict[str, Any]:
    """Prints and returns the row of one job."""
    ranks = on_ranks(_timed, RANKS, job)
    medians = {
        name: [
            statistics.median(rank["samples"][name][i][clock] for rank in ranks for i in range(TURNS))
            for clock in (0, 1)
        ]
        for name in (HALF, SHARED)
    }
    ratios = [
        shared[0] / half[0]
        for rank in ranks
        for half, shared in zip(*(rank["samples"][n] for n in (HALF, SHARED)), strict=True)
    ]
    (cpu, wall), (shared_cpu, shared_wall) = medians[HALF], medians[SHARED]
    print(
        f"{job}\n  a rank's CPU seconds: {cpu:.3f} alone, {shared_cpu:.3f} shared: "
        f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"by the clock {wall:.3f} and {shared_wall:.3f}\n"
        f"  of its cells computed twice: {ranks[0]['computed twice']:.1%}; sent forward: {ranks[0]['sent']:.1f} MB",
        flush=True,
    )
    return {"job": asdict(job), "ranks": ranks}


def memory_row(job: Job) -> dict[str, Any]:
    """The same of memory."""
    (whole,), ranks = on_ranks(_peak, 1, job), on_ranks(_peak, RANKS, job)
    print(
        f"{job}\n  peak memory: {whole / 2**20:.0f} MiB in one process, {max(ranks) / 2**20:.0f} MiB a rank: "
        f"{RANKS * max(ranks) / whole:.2f} times an equal share",
        flush=True,
    )
    return {"job": asdict(job), "whole": whole, "ranks": ranks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="cells along each axis")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 4], help="steps from one exchange to the next")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--out", type=Path, help="write the machine and every sample as JSON")
    options = parser.parse_args()
    facts = machine() | {"threads": f"{RANKS} processes of 1"}
    for key, value in facts.items():
        print(f"{key}: {value}")
    if os.getloadavg()[0] > 0.3:
        print(LOUD)
    jobs = [
        Job(options.size, options.channels, options.steps, every, trained)
        for trained in (False, True)
        for every in options.every
    ]
    rows = [memory_row(job) if options.memory else time_row(job) for job in jobs]
    if options.out is not None:
        options.out.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
