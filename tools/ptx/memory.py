"""Address spaces, and the checks on every access: bounds, alignment, initialization, order.

Addresses are 64-bit. A generic address in the shared or the local window means that space; every other one is a
global address, which is the host's own: kernels run on the memory of the tensors they are given. An address of shared
memory has, above its offset, 0 for the thread's own block, or the rank in the cluster plus one.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import KernelError
from .formats import Array
from .ledger import (
    ATOMIC,
    ELSEWHERE,
    EPOCH,
    FIRST_BLOCK,
    GLOBAL_FLOOR,
    IN_FLIGHT,
    MANY,
    NEVER,
    ClusterLedger,
    Ledger,
    Standing,
    along,
    first_lane,
)

WINDOW_BITS = 60
WINDOWS = {"shared": 1 << WINDOW_BITS, "local": 2 << WINDOW_BITS}
RANK_SHIFT = np.uint64(24)  # so that it fits into the 32 bits of an address without a window

# A copy of elements keeps every bit, whatever numpy calls them; these are the types that it moves fastest.
UNITS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16", 32: "V32"}


class Bytes:
    """Memory that is read and written in aligned units of 1 to 32 bytes."""

    def __init__(self, data: Array):
        self.data = data

    def load(self, offsets: Array, width: int) -> Array:
        """``uint8[n, width]``"""
        return self._units(width).take(offsets // width).view(np.uint8).reshape(-1, width)

    def store(self, offsets: Array, values: Array) -> None:
        width = values.shape[1]
        self._units(width)[offsets // width] = np.ascontiguousarray(values).view(UNITS[width])[:, 0]

    def _units(self, width: int) -> Array:
        return self.data[: self.data.size // width * width].view(UNITS[width])


def extent(tensor: Any) -> tuple[int, int]:
    """First byte and length of what a torch tensor or a numpy array spans, strides included."""
    if hasattr(tensor, "data_ptr"):
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        items = 1 + sum((size - 1) * stride for size, stride in steps)
        return tensor.data_ptr(), items * tensor.element_size() if tensor.numel() else 0
    low, high = np.lib.array_utils.byte_bounds(tensor)
    return low, high - low if tensor.size else 0


def _lane(which: Any, wrong: Array) -> int:
    lane = first_lane(wrong)
    return lane if isinstance(which, slice) else int(which[lane])


def _check_cluster(what: str, others: tuple[Array, Array], which: Any = slice(None)) -> None:
    """Of what a :class:`ClusterLedger` returns."""
    block, race = others
    if race.any():
        raise KernelError(
            f"{what} block {int(block[race][0])} of the cluster, with no cluster barrier between", _lane(which, race)
        )


class Segment:
    """One stretch of global memory."""

    def __init__(self, start: int, size: int, granule: int, cluster: int, constant: bool):
        self.start, self.size, self.constant = start, size, constant
        self.base = start // 32 * 32  # so that units of every width are aligned in it as they are in memory
        span = -(-(start + size - self.base) // 32) * 32
        pointer = (ctypes.c_uint8 * span).from_address(self.base)
        self.bytes = Bytes(np.ctypeslib.as_array(pointer))
        self.ledger = Ledger(span, granule)
        self.blocks = ClusterLedger(self.ledger.writer.size, cluster) if cluster > 1 else None


class Global:
    """The tensors of a launch. Clusters (of one block, if the launch has none) are in no order: what one writes, no
    other may touch. The blocks of a cluster are in order across its barriers.

    Who accesses it is a cluster's number over the launch, counted from ``FIRST_BLOCK``, or ``ATOMIC``. Accesses other
    than atomic ones come with the threads' standing, if clusters have several blocks.
    """

    def __init__(self, tensors: Iterable[Any], constants: Array, granule: int, cluster: int):
        self.party = "block" if cluster == 1 else "cluster"
        stretches = [(*stretch, False) for stretch in _union(extent(tensor) for tensor in tensors)]
        if constants.size:
            stretches.append((*extent(constants), True))
        self.segments = [
            Segment(start, size, granule, cluster, constant) for start, size, constant in sorted(stretches)
        ]
        self.starts = [segment.start for segment in self.segments]

    def load(
        self, addresses: Array, width: int, who: Array, standing: Standing | None, constant: bool = False
    ) -> Array:
        """``uint8[n, width]``. `constant`: a load that may be served by a cache that sees no write of this launch."""
        out = None
        for segment, which, offsets in self.parts(addresses, width):
            granules = segment.ledger.granules(offsets, width)
            writer, race = segment.ledger.read(granules, who[which], GLOBAL_FLOOR)
            if race.any():
                raise self._race("reads what is written by", writer, race, which)
            if segment.blocks and standing:
                _check_cluster("reads what is written by", segment.blocks.read(granules, standing.of(which)), which)
            if constant and writer.any():
                raise KernelError("a non-coherent load of what this launch writes", _lane(which, writer != NEVER))
            values = segment.bytes.load(offsets, width)
            if isinstance(which, slice):
                return values
            out = np.empty((addresses.size, width), np.uint8) if out is None else out
            out[which] = values
        return np.empty((0, width), np.uint8) if out is None else out

    def store(self, addresses: Array, values: Array, who: Array, standing: Standing | None) -> None:
        width = values.shape[1]
        for segment, which, offsets in self.parts(addresses, width):
            if segment.constant:
                raise KernelError("writes a constant", _lane(which, np.ones(offsets.size, bool)))
            granules = segment.ledger.granules(offsets, width)
            before, written, read = segment.ledger.write(granules, who[which], GLOBAL_FLOOR)
            race = written | read
            if not race.any():
                before = segment.ledger.writer[granules]
                race = before != along(who[which] + GLOBAL_FLOOR, granules)  # by two at once
            if race.any():
                raise self._race("writes what is also touched by", before, race, which)
            if segment.blocks and standing:
                others = segment.blocks.write(granules, standing.of(which))
                _check_cluster("writes what is also touched by", others, which)
            segment.bytes.store(offsets, values[which])

    def _race(self, what: str, others: Array, race: Array, which: Any) -> KernelError:
        other = int(others[race][0]) - GLOBAL_FLOOR
        whom = {ATOMIC: "an atomic operation", MANY: f"several {self.party}s"}.get(
            other, f"{self.party} {other - FIRST_BLOCK}"
        )
        return KernelError(f"{what} {whom} of the same launch", _lane(which, race))

    def parts(self, addresses: Array, width: int) -> Iterable[tuple[Segment, Any, Array]]:
        """``(segment, which of the addresses, their offsets)``, checked."""
        if not addresses.size:
            return
        low, high = int(addresses.min()), int(addresses.max())
        segment = self._segment(low)
        if segment and high + width <= segment.start + segment.size:
            yield segment, slice(None), addresses.view(np.int64) - segment.base
            return
        which = np.searchsorted(np.array(self.starts, np.uint64), addresses, side="right") - 1
        for index in np.unique(which).tolist():
            lanes = np.flatnonzero(which == index)
            segment = self.segments[max(index, 0)] if self.segments else None
            inside = addresses[lanes]
            end = segment.start + segment.size - width if segment else 0
            outside = (inside > end) | (index < 0)
            if not segment or outside.any():
                lane = int(lanes[np.argmax(outside)])
                raise KernelError(self._outside(int(addresses[lane]), width, segment), lane)
            yield segment, lanes, inside.view(np.int64) - segment.base

    def _segment(self, address: int) -> Segment | None:
        index = bisect_right(self.starts, address) - 1
        return self.segments[index] if index >= 0 else None

    def _outside(self, address: int, width: int, segment: Segment | None) -> str:
        if not segment:
            return f"{width} bytes at {address:#x} lie in no tensor of the launch"
        where = (
            f"{address - segment.start - segment.size} bytes past the end"
            if address > segment.start
            else f"{segment.start - address} bytes before the start"
        )
        return f"{width} bytes at {address:#x} lie outside of every tensor, {where} of one of {segment.size} bytes"


def _union(extents: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping stretches (views of one storage) as one."""
    merged: list[list[int]] = []
    for start, size in sorted(set(extents)):
        if not size:
            continue
        if merged and start < merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], start + size)
        else:
            merged.append([start, start + size])
    return [(start, end - start) for start, end in merged]


class Shared:
    """Each block's shared memory. Warps of a block are in order only across a barrier; lanes of a warp always are.
    Blocks of a cluster are in order only across a barrier of the cluster.

    Who accesses it is a warp's number in its block, ``ATOMIC``, or ``None``: threads of another block of the cluster.
    Accesses come with the threads' standing, if clusters have several blocks.
    """

    def __init__(self, blocks: int, size: int, granule: int, cluster: int):
        self.size = size
        self.stride = -(-size // 32) * 32
        self.bytes = Bytes(np.full(blocks * self.stride, 0xFF, np.uint8))
        self.ledger = Ledger(blocks * self.stride, granule)
        self.epoch = np.ones(blocks, np.int32)
        self.blocks = ClusterLedger(self.ledger.writer.size, cluster) if cluster > 1 else None

    def load(self, addresses: Array, width: int, block: Array, who: Array | None, standing: Standing | None) -> Array:
        """``uint8[n, width]``"""
        offsets = self.offsets(addresses, width, block)
        granules = self.ledger.granules(offsets, width)
        if self.blocks and standing:
            _check_cluster("reads shared memory that is written by", self.blocks.read(granules, standing))
        if who is None:
            writer = self.ledger.writer[granules]
            race = writer == IN_FLIGHT
        else:
            writer, race = self.ledger.read(granules, who, self.epoch[block] * EPOCH)
        if race.any():
            raise self._race("reads", writer, race, addresses)
        unwritten = writer == NEVER
        if unwritten.any():
            lane = first_lane(unwritten)
            raise KernelError(f"reads shared memory that nobody has written, at offset {int(addresses[lane])}", lane)
        return self.bytes.load(offsets, width)

    def store(
        self, addresses: Array, values: Array, block: Array, who: Array | None, standing: Standing | None
    ) -> None:
        """Two warps may write to one place if they write the same: compilers let each that holds a value store it."""
        offsets = self.offsets(addresses, values.shape[1], block)
        before, written, read = self._claim(offsets, values.shape[1], block, who, standing)
        if written.any():
            different = (self.bytes.load(offsets, values.shape[1]) != values).any(axis=1)
            written &= along(different, written) | (before == IN_FLIGHT)
        self._refuse_race(before, written | read, addresses)
        self.bytes.store(offsets, values)
        lost = (self.bytes.load(offsets, values.shape[1]) != values).any(axis=1)
        if lost.any():
            lane = first_lane(lost)
            where = int(addresses[lane])
            raise KernelError(f"another thread writes another value to shared memory at offset {where} at once", lane)

    def begin_copy(self, addresses: Array, width: int, block: Array, who: Array, standing: Standing | None) -> Array:
        """Of an asynchronous copy to there: until it ends, nobody may touch the place. Returns offsets."""
        offsets = self.offsets(addresses, width, block)
        before, written, read = self._claim(offsets, width, block, who, standing, IN_FLIGHT)
        self._refuse_race(before, written | read, addresses)
        return offsets

    def end_copy(self, offsets: Array, values: Array, block: Array, who: Array, standing: Standing | None) -> None:
        self._claim(offsets, values.shape[1], block, who, standing)
        self.bytes.store(offsets, values)

    def guests(self, block: int, rank: int, waits: int) -> list[int]:
        """The other blocks of the cluster that have been at a block's memory since so many waits."""
        first = block * self.stride // self.ledger.granule
        granules = slice(first, first + self.stride // self.ledger.granule)
        return self.blocks.guests(granules, rank, waits) if self.blocks else []

    def offsets(self, addresses: Array, width: int, block: Array) -> Array:
        outside = addresses > self.size - width if self.size >= width else np.ones(addresses.size, bool)
        if outside.any():
            lane = first_lane(outside)
            raise KernelError(
                f"{width} bytes at offset {int(addresses[lane])} of {self.size} bytes of shared memory", lane
            )
        return addresses.astype(np.int64) + block * self.stride

    def _claim(
        self,
        offsets: Array,
        width: int,
        block: Array,
        who: Array | None,
        standing: Standing | None,
        note: int | None = None,
    ) -> tuple[Array, Array, Array]:
        granules = self.ledger.granules(offsets, width)
        if self.blocks and standing:
            _check_cluster("writes shared memory that is also touched by", self.blocks.write(granules, standing))
        if who is not None:
            return self.ledger.write(granules, who, self.epoch[block] * EPOCH, note)
        before = self.ledger.writer[granules]
        self.ledger.writer[granules] = ELSEWHERE
        return before, before == IN_FLIGHT, np.zeros_like(before, bool)

    def _refuse_race(self, before: Array, race: Array, addresses: Array) -> None:
        if race.any():
            raise self._race("writes", before, race, addresses)

    def _race(self, what: str, others: Array, race: Array, addresses: Array) -> KernelError:
        lane = first_lane(race)
        other = int(others[race][0])
        if other == IN_FLIGHT:
            whom = "while an asynchronous copy to there has not been waited for"
        else:
            names = {MANY: "several warps have", ATOMIC: "an atomic operation has"}
            party = other % EPOCH
            whom = f"which {names.get(party, f'warp {party} has')} touched since the last barrier"
        return KernelError(f"{what} shared memory at offset {int(addresses[lane])}, {whom}", lane)


class Local:
    """Each thread's own memory."""

    def __init__(self, threads: int, size: int):
        self.size = size
        self.stride = -(-size // 32) * 32
        self.bytes = Bytes(np.full(threads * self.stride, 0xFF, np.uint8))

    def load(self, addresses: Array, width: int, thread: Array) -> Array:
        """``uint8[n, width]``"""
        return self.bytes.load(self._offsets(addresses, width, thread), width)

    def store(self, addresses: Array, values: Array, thread: Array) -> None:
        self.bytes.store(self._offsets(addresses, values.shape[1], thread), values)

    def _offsets(self, addresses: Array, width: int, thread: Array) -> Array:
        outside = addresses > self.size - width if self.size >= width else np.ones(addresses.size, bool)
        if outside.any():
            lane = first_lane(outside)
            raise KernelError(
                f"{width} bytes at offset {int(addresses[lane])} of {self.size} bytes of local memory", lane
            )
        return addresses.astype(np.int64) + thread * self.stride


def check_alignment(addresses: Array, width: int) -> None:
    wrong = addresses & np.uint64(width - 1)
    if wrong.any():
        lane = first_lane(wrong != 0)
        raise KernelError(f"address {int(addresses[lane]):#x} is not a multiple of the access's {width} bytes", lane)


def sectors(addresses: Array, warps: int, lanes: Array | None) -> int:
    """Different 32-byte sectors within each warp, summed over warps. `lanes`: whose addresses they are, None: all."""
    sector = addresses >> np.uint64(5)
    if lanes is not None:
        everyone = np.zeros(warps * 32, np.uint64)  # no tensor lies at address 0
        everyone[lanes] = sector
        sector = everyone
    rows = sector.reshape(warps, 32)
    if (rows[:, 1:] < rows[:, :-1]).any():
        rows = np.sort(rows, axis=1)
    return int(np.count_nonzero(rows[:, 1:] != rows[:, :-1]) + np.count_nonzero(rows[:, 0]))
