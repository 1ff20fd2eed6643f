"""The threads of a launch, run together: one numpy operation is one instruction of every thread that is there.

Threads that stand at the same instruction form a front. The front that is furthest behind runs first, up to the end of
its basic block; fronts that meet become one. A front that reaches a barrier waits until nothing else can run, and
blocks whose threads have all arrived go on. Blocks are independent, so a launch runs in batches of as many blocks as
numpy handles well at once. Blocks of a cluster are in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .errors import KernelError
from .formats import RAW, Array
from .instructions import Barrier, Branch, ClusterWait, Exit, Program
from .ledger import FIRST_BLOCK, Standing
from .memory import Global, Local, Shared
from .operands import Source
from .parse import Instruction
from .statistics import Statistics

WARP = 32
BATCH = 16384  # threads: their registers stay in a core's cache
MOST_BLOCK_THREADS = 1024
CLUSTERS = (1, 2, 4, 8)


def launch(
    program: Program,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: bytes,
    tensors: Iterable[Any] = (),
    dynamic_shared_bytes: int = 0,
    most_steps: int = 1_000_000,
    cluster: int = 1,
) -> Statistics:
    """Runs a kernel to its end.

    Args:
        program: what :func:`tools.ptx.load` returns.
        grid, block: three numbers each, of blocks and of threads.
        arguments: the kernel's parameters as they lie in memory (``Program.pack`` makes them of numbers).
        tensors: torch or numpy arrays in host memory, all that the kernel may touch.
        dynamic_shared_bytes: shared memory beyond what the module declares.
        most_steps: instructions run (for any number of threads) before the launch counts as hung.
        cluster: blocks of a cluster, neighbors along x: 1, 2, 4 or 8.

    Raises:
        KernelError: a check failed; says which, where, and in which thread.
    """
    threads = int(np.prod(block))
    if not 0 < threads <= MOST_BLOCK_THREADS:
        raise ValueError(f"{threads} threads a block; 1 to {MOST_BLOCK_THREADS} are possible")
    if len(arguments) != program.argument_bytes:
        raise ValueError(f"{len(arguments)} bytes of arguments; {program.kernel.name} takes {program.argument_bytes}")
    if cluster not in CLUSTERS or grid[0] % cluster:
        raise ValueError(
            f"clusters of {cluster} blocks in a grid of {grid[0]} along x; "
            f"{', '.join(map(str, CLUSTERS))} are possible where they divide it"
        )
    constants = np.frombuffer(program.kernel.constants, np.uint8)
    memory = Global(tensors, constants, program.granules["global"], cluster)
    statistics = Statistics()
    blocks = int(np.prod(grid))
    at_once = max(1, BATCH // (-(-threads // WARP) * WARP * cluster)) * cluster
    for first in range(0, blocks, at_once):
        numbers = np.arange(first, min(first + at_once, blocks))
        machine = Machine(program, grid, block, cluster, numbers, arguments, memory, dynamic_shared_bytes, statistics)
        machine.constants_at = constants.ctypes.data
        with np.errstate(all="ignore"):
            machine.run(most_steps)
    for segment in memory.segments:
        statistics.global_load_unique_bytes += segment.ledger.granule * int(np.count_nonzero(segment.ledger.reader))
        statistics.global_store_unique_bytes += segment.ledger.granule * int(np.count_nonzero(segment.ledger.writer))
    return statistics


class Machine:
    """Some of a launch's blocks. Lanes are numbered through all of them; a block's last warp is filled up with lanes
    that never run.

    Attributes:
        registers: bits of every lane, one array a register; ``None`` until it is written.
        active: the lanes that execute now, in order; ``None`` means all.
        block, warp, thread: of every lane, its block (in this batch), its warp in the block, its thread in the block.
        cluster: blocks of each cluster.
        rank, arrivals, waits: of every lane, see :class:`Standing`.
        party: of every lane, who it is in global memory.
        exited, ended: which lanes are through, and which blocks with all of theirs.
    """

    constants_at = 0

    def __init__(
        self,
        program: Program,
        grid: Sequence[int],
        block: Sequence[int],
        cluster: int,
        numbers: Array,
        arguments: bytes,
        memory: Global,
        dynamic_shared_bytes: int,
        statistics: Statistics,
    ):
        kernel = program.kernel
        self.program, self.grid, self.block_shape, self.memory, self.statistics = (
            program,
            grid,
            block,
            memory,
            statistics,
        )
        self.arguments = np.frombuffer(arguments, np.uint8)
        self.block_threads = int(np.prod(block))
        padded = -(-self.block_threads // WARP) * WARP
        self.threads = numbers.size * padded
        lanes = np.arange(self.threads)
        self.block, self.thread = lanes // padded, lanes % padded
        self.warp = self.thread // WARP
        self.number = numbers[self.block]
        self.everyone = None if padded == self.block_threads else np.flatnonzero(self.thread < self.block_threads)
        self.active = self.everyone
        self.cluster, self.rank, self.party = cluster, self.block % cluster, self.number // cluster + FIRST_BLOCK
        self.arrivals, self.waits = np.ones((2, self.threads), np.int32)
        self.exited, self.ended = np.zeros(self.threads, bool), np.zeros(numbers.size, bool)
        self.registers: list[Array | None] = [None] * len(kernel.registers)
        self.carry = np.zeros(self.threads, np.uint64)  # the condition code register's one flag
        self.special = self._special()
        # Dynamic shared memory begins at a multiple of 16, where the parser puts its symbols.
        static = -(-kernel.shared_bytes // 16) * 16 if dynamic_shared_bytes else kernel.shared_bytes
        self.shared = Shared(numbers.size, static + dynamic_shared_bytes, program.granules["shared"], cluster)
        self.local = Local(self.threads, kernel.local_bytes)
        self.copies: list[Any] = []  # asynchronous ones under way
        self.committed = np.zeros(self.threads, np.int64)  # groups of them, by each lane

    @property
    def size(self) -> int:
        """Of active lanes."""
        return self.threads if self.active is None else self.active.size

    def of(self, values: Array) -> Array:
        """The active lanes' part."""
        return values if self.active is None else values[self.active]

    def lanes(self) -> Array:
        """The active lanes, also if they are all."""
        return np.arange(self.threads) if self.active is None else self.active

    def standing(self, lanes: Array | None) -> Standing | None:
        """Of some lanes, if clusters have several blocks."""
        if self.cluster == 1:
            return None
        return Standing(self.rank, self.arrivals, self.waits).of(slice(None) if lanes is None else lanes)

    def poison(self, raw: np.dtype[Any]) -> Array:
        """A register that was never written: all ones, a NaN in every floating-point format."""
        return np.full(self.threads, -1).astype(raw)

    def unwritten(self, slot: int, raw: np.dtype[Any]) -> Array:
        """LLVM does read registers that were never written, and drops what it read; a predicate decides too much."""
        if raw == RAW[1]:
            raise KernelError(f"predicate {self.program.kernel.registers[slot].name} was never written")
        return self.poison(raw)

    def _special(self) -> dict[str, Array]:
        def coordinates(number: Array, shape: Sequence[int]) -> list[Array]:
            return [number % shape[0], number // shape[0] % shape[1], number // (shape[0] * shape[1])]

        def everywhere(value: int) -> Array:
            return np.full(self.threads, value)

        special = {}
        clusters = (self.grid[0] // self.cluster, *self.grid[1:])
        for name, extents, shape, number in (
            ("tid", "ntid", self.block_shape, self.thread),
            ("ctaid", "nctaid", self.grid, self.number),
            ("clusterid", "nclusterid", clusters, self.number // self.cluster),
            ("cluster_ctaid", "cluster_nctaid", (self.cluster, 1, 1), self.rank),
        ):
            for axis, extent, coordinate in zip("xyz", shape, coordinates(number, shape), strict=True):
                special[f"%{name}.{axis}"] = coordinate
                special[f"%{extents}.{axis}"] = everywhere(extent)
        lane = self.thread % WARP
        bit = np.uint64(1) << lane.astype(np.uint64)
        special |= {
            "%laneid": lane,
            "%warpid": self.warp,
            "%nwarpid": everywhere(-(-self.block_threads // WARP)),
            "%cluster_ctarank": self.rank,
            "%cluster_nctarank": everywhere(self.cluster),
            "%lanemask_eq": bit,
            "%lanemask_lt": bit - np.uint64(1),
            "%lanemask_le": 2 * bit - np.uint64(1),
            "%lanemask_ge": ~(bit - np.uint64(1)),
            "%lanemask_gt": ~(2 * bit - np.uint64(1)),
        }
        return {name: values.astype(np.uint32) for name, values in special.items()}

    # -------------------------------------------------------------------------------------------------- control

    def run(self, most_steps: int) -> None:
        self.fronts: dict[int, Array | None] = {0: self.everyone}  # block of the program -> lanes about to run it
        self.waiting: dict[int, Array] = {}  # the same, behind a barrier
        steps = 0
        while self.fronts or self.waiting:
            if not self.fronts:
                self._pass_barriers()
            index = min(self.fronts)
            self.active = self.fronts.pop(index)
            self._run_block(index)
            steps += len(self.program.blocks[index].steps) + 1
            if steps > most_steps:
                raise KernelError(f"kernel {self.program.kernel.name} still runs after {most_steps} instructions")

    def _run_block(self, index: int) -> None:
        block = self.program.blocks[index]
        instruction = None
        self.statistics.instructions += self.size * (len(block.steps) + (block.end is not None))
        self.statistics.flops += self.size * block.flops
        try:
            for step, instruction in block.steps:  # noqa: B007 (the except clause names it)
                step(self)
            if block.end is None:
                self._go(index + 1, self.active)
                return
            instruction = block.end.instruction
            lanes, others = self.split(block.end.guard)
            if others is None or others.size:
                self._go(index + 1, others)
            if lanes is not None and not lanes.size:
                return
            match block.end:
                case Branch(target=target):
                    self._go(target, lanes)
                case Barrier():
                    self._wait(index + 1, lanes)
                case ClusterWait():
                    self._wait_for_cluster(index + 1, lanes)
                case Exit():
                    self._exit(lanes)
        except KernelError as fault:
            raise self._located(fault, instruction) from None

    def split(self, guard: Source | None) -> tuple[Array | None, Array | None]:
        """The active lanes for which a guard holds, and the others. No guard holds always."""
        nobody = np.empty(0, np.int64)
        if guard is None:
            return self.active, nobody
        holds = guard(self)
        if holds.all():
            return self.active, nobody
        if not holds.any():
            return nobody, self.active
        lanes = self.lanes()
        return lanes[holds], lanes[~holds]

    def _go(self, index: int, lanes: Array | None) -> None:
        if index >= len(self.program.blocks):
            self._exit(lanes)
            return
        others = self.fronts.get(index)
        if others is not None and lanes is not None:
            lanes = np.union1d(others, lanes)
            if lanes.size == self.threads:
                lanes = None
        self.fronts[index] = lanes

    def _exit(self, lanes: Array | None) -> None:
        """A block's shared memory goes with its last thread, so the rest of the cluster must be through with it."""
        self.exited[slice(None) if lanes is None else lanes] = True
        if self.cluster == 1:
            return
        self.active = lanes
        last = self.lanes()
        ended = np.bincount(self.block[self.exited], minlength=self.ended.size) == self.block_threads
        for block in np.flatnonzero(ended & ~self.ended).tolist():
            lane = int(np.flatnonzero(self.block[last] == block)[0])
            waits = int(self.waits[self.block == block].max())
            if guests := self.shared.guests(block, block % self.cluster, waits):
                raise KernelError(
                    f"exits while block {guests[0]} of the cluster may still touch its shared memory: there is no "
                    "cluster barrier between",
                    lane,
                )
        self.ended = ended

    def _wait(self, index: int, lanes: Array | None) -> None:
        lanes = np.arange(self.threads) if lanes is None else lanes
        self.waiting[index] = np.union1d(self.waiting[index], lanes) if index in self.waiting else lanes

    def _wait_for_cluster(self, index: int, lanes: Array | None) -> None:
        self.active = lanes
        absent = self.of(self.arrivals == self.waits)
        if absent.any():
            raise KernelError("waits for a cluster barrier at which it has not arrived", int(np.argmax(absent)))
        self._wait(index, lanes)

    def _pass_barriers(self) -> None:
        """Everybody waits or has exited. At a barrier, a block goes on if all of its threads wait there; behind its
        arrival at the cluster's, a thread goes on if all of the cluster's have arrived as often."""
        waiting, self.waiting = self.waiting, {}
        blocks = self.ended.size
        for index, lanes in waiting.items():
            if isinstance(self._barrier(index), ClusterWait):
                arrivals = self.arrivals.reshape(-1, self.cluster, self.threads // blocks)[:, :, : self.block_threads]
                passes = self.arrivals[lanes] == arrivals.min(axis=(1, 2))[self.block[lanes] // self.cluster]
                self.waits[lanes[passes]] += 1
            else:
                passes = (np.bincount(self.block[lanes], minlength=blocks) == self.block_threads)[self.block[lanes]]
            passing, rest = (lanes, lanes[:0]) if passes.all() else (lanes[passes], lanes[~passes])
            if passing.size:
                through = np.bincount(self.block[passing], minlength=blocks) > 0
                self.statistics.barriers += int(np.count_nonzero(through))
                self.shared.epoch += through
                self._go(index, None if passing.size == self.threads else passing)
            if rest.size:
                self.waiting[index] = rest
        if not self.fronts:
            raise self._divergent()

    def _divergent(self) -> KernelError:
        """Nobody can go on. The fault is at a barrier of a block, if anybody waits there."""
        inner = [index for index in self.waiting if isinstance(self._barrier(index), Barrier)]
        index = (inner or list(self.waiting))[0]
        first = self.waiting[index][0]
        members = self.thread < self.block_threads
        if inner:
            members &= self.block == self.block[first]
            present = np.isin(np.arange(self.threads), self.waiting[index])
            fault, where = "threads wait here", ""
        else:
            members &= self.party == self.party[first]
            present = self.arrivals >= self.arrivals[first]
            fault = "threads of the cluster have arrived"
            where = f", of block {', '.join(map(str, np.unique(self.rank[members & ~present])))} of the cluster"
        missing = members & ~present
        rest = [
            f"{np.count_nonzero(missing[lanes])} wait at {self._barrier(other).instruction}"
            for other, lanes in self.waiting.items()
            if missing[lanes].any()
        ]
        gone = np.count_nonzero(missing & self.exited)
        rest += [f"{gone} have exited"] if gone else []
        here = self.waiting[index]
        self.active = here[members[here]]
        counts = f"{np.count_nonzero(members & present)} of {np.count_nonzero(members)}"
        reason = f"divergent barrier: {counts} {fault}, {', '.join(rest)}{where}"
        return self._located(KernelError(reason, 0), self._barrier(index).instruction)

    def _barrier(self, index: int) -> Barrier | ClusterWait:
        """The one in front of a basic block."""
        end = self.program.blocks[index - 1].end
        assert isinstance(end, (Barrier, ClusterWait))
        return end

    def _located(self, fault: KernelError, instruction: Instruction | None) -> KernelError:
        where = f"kernel {self.program.kernel.name}, {instruction}"
        if fault.lane is not None:
            lane = int(self.lanes()[fault.lane])
            names = ("%ctaid", "%tid")
            block, thread = (tuple(int(self.special[f"{name}.{axis}"][lane]) for axis in "xyz") for name in names)
            where += f": block {block}, thread {thread}"
        return KernelError(f"{where}: {fault.reason}")

    # --------------------------------------------------------------------------------------------------- warps

    def whole_warps(self) -> Array:
        """The active lanes as ``[warps, 32]``, for instructions that a warp executes as one.

        Raises :class:`KernelError` where lanes of a warp are missing.
        """
        lanes = self.lanes()
        if self.active is not None:
            present = np.bincount(lanes // WARP, minlength=self.threads // WARP)
            partial = (present > 0) & (present < WARP)
            if partial.any():
                lane = int(np.argmax(partial[lanes // WARP]))
                raise KernelError("some lanes of the warp are elsewhere, and this takes them all", lane)
        return lanes.reshape(-1, WARP)
