"""Address spaces, and the checks on every access: bounds, alignment, initialization, order.

Addresses are 64-bit. A generic address in the shared or the local window means that space; every other one is a
global address, which is the host's own: kernels run on the memory of the tensors they are given.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import KernelError
from .formats import Array

WINDOW_BITS = 60
WINDOWS = {"shared": 1 << WINDOW_BITS, "local": 2 << WINDOW_BITS}

# A copy of elements keeps every bit, whatever numpy calls them; these are the types that it moves fastest.
UNITS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16", 32: "V32"}

# Tokens of a ledger. A party's is its number added to the floor, which leaves the ones below the first floor for
NEVER = 0  # nobody yet, and the last of all for
IN_FLIGHT = 2**31 - 1  # an asynchronous copy that nobody has waited for.
# Parties are the warps of a block, 32 at most, in shared memory, and blocks from FIRST_BLOCK on in global memory, where
# the floor stays; beside them:
ATOMIC = 62  # every atomic operation
MANY = 63  # more than one reader
FIRST_BLOCK = 64
EPOCH = 64  # from one floor of shared memory to the next
GLOBAL_FLOOR = 1


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


class Ledger:
    """Who last wrote and who last read each granule of a memory, to find two accesses that nothing orders.

    Who is a token: a number that grows with every barrier and tells warps (or blocks) apart. Tokens below a floor
    lie before the last barrier and are in order with everything now. A granule is the narrowest access of the kernel.
    """

    def __init__(self, size: int, granule: int):
        self.granule = granule
        self.writer = np.zeros(-(-size // granule), np.int32)
        self.reader = np.zeros_like(self.writer)

    def granules(self, offsets: Array, width: int) -> Array:
        first = offsets // self.granule
        count = width // self.granule
        return first if count == 1 else first[:, None] + np.arange(count)

    def read(self, granules: Array, who: Array, floor: Any) -> tuple[Array, Array]:
        """Notes it. Returns the last writers, and where they are out of order with this read."""
        token, floor = _along(who + floor, granules), _along(floor, granules)
        writer = self.writer[granules]
        reader = self.reader[granules]
        now = np.where((reader >= floor) & (reader != token), floor + MANY, token).astype(np.int32)
        self.reader[granules] = now
        also = self.reader[granules] != now  # by another in the same instruction
        if also.any():
            self.reader[granules[also]] = np.broadcast_to(floor + MANY, granules.shape)[also]
        return writer, (writer >= floor) & (writer != token)

    def write(self, granules: Array, who: Array, floor: Any, note: int | None = None) -> tuple[Array, Array, Array]:
        """Notes it, as a token of its own if there is one. Returns who was there last, and where this write is out of
        order with an earlier write, and with a read."""
        token, floor = _along(who + floor, granules), _along(floor, granules)
        writer, reader = self.writer[granules], self.reader[granules]
        self.writer[granules] = token if note is None else note
        return (
            np.maximum(writer, reader),
            (writer >= floor) & (writer != token),
            (reader >= floor) & (reader != token),
        )


def _along(value: Any, granules: Array) -> Any:
    return value[:, None] if granules.ndim == 2 and np.ndim(value) else value


def first_lane(wrong: Array) -> int:
    """Index of the first access of which a part is wrong."""
    return int(np.flatnonzero(wrong if wrong.ndim == 1 else wrong.any(axis=1))[0])


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


class Segment:
    """One stretch of global memory."""

    def __init__(self, start: int, size: int, granule: int, constant: bool = False):
        self.start, self.size, self.constant = start, size, constant
        self.base = start // 32 * 32  # so that units of every width are aligned in it as they are in memory
        span = -(-(start + size - self.base) // 32) * 32
        pointer = (ctypes.c_uint8 * span).from_address(self.base)
        self.bytes = Bytes(np.ctypeslib.as_array(pointer))
        self.ledger = Ledger(span, granule)


class Global:
    """The tensors of a launch. Blocks are in no order: what one writes, no other may touch.

    Who accesses it is a block's number over the launch, counted from ``FIRST_BLOCK``, or ``ATOMIC``.
    """

    def __init__(self, tensors: Iterable[Any], constants: Array, granule: int):
        stretches = [(*stretch, False) for stretch in _union(extent(tensor) for tensor in tensors)]
        if constants.size:
            stretches.append((*extent(constants), True))
        self.segments = [Segment(start, size, granule, constant) for start, size, constant in sorted(stretches)]
        self.starts = [segment.start for segment in self.segments]

    def load(self, addresses: Array, width: int, who: Array, constant: bool = False) -> Array:
        """``uint8[n, width]``. `constant`: a load that may be served by a cache that sees no write of this launch."""
        out = None
        for segment, which, offsets in self.parts(addresses, width):
            granules = segment.ledger.granules(offsets, width)
            writer, race = segment.ledger.read(granules, who[which], GLOBAL_FLOOR)
            if race.any():
                raise self._race("reads what is written by", writer, race, which)
            if constant and writer.any():
                raise KernelError("a non-coherent load of what this launch writes", _lane(which, writer != NEVER))
            values = segment.bytes.load(offsets, width)
            if isinstance(which, slice):
                return values
            out = np.empty((addresses.size, width), np.uint8) if out is None else out
            out[which] = values
        return np.empty((0, width), np.uint8) if out is None else out

    def store(self, addresses: Array, values: Array, who: Array) -> None:
        width = values.shape[1]
        for segment, which, offsets in self.parts(addresses, width):
            if segment.constant:
                raise KernelError("writes a constant", _lane(which, np.ones(offsets.size, bool)))
            granules = segment.ledger.granules(offsets, width)
            before, written, read = segment.ledger.write(granules, who[which], GLOBAL_FLOOR)
            race = written | read
            if not race.any():
                before = segment.ledger.writer[granules]
                race = before != _along(who[which] + GLOBAL_FLOOR, granules)  # by two at once
            if race.any():
                raise self._race("writes what is also touched by", before, race, which)
            segment.bytes.store(offsets, values[which])

    def _race(self, what: str, others: Array, race: Array, which: Any) -> KernelError:
        other = int(others[race][0]) - GLOBAL_FLOOR
        whom = {ATOMIC: "an atomic operation", MANY: "several blocks"}.get(other, f"block {other - FIRST_BLOCK}")
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

    Who accesses it is a warp's number in its block, or ``ATOMIC``.
    """

    def __init__(self, blocks: int, size: int, granule: int):
        self.size = size
        self.stride = -(-size // 32) * 32
        self.bytes = Bytes(np.full(blocks * self.stride, 0xFF, np.uint8))
        self.ledger = Ledger(blocks * self.stride, granule)
        self.epoch = np.ones(blocks, np.int32)

    def load(self, addresses: Array, width: int, block: Array, who: Array) -> Array:
        """``uint8[n, width]``"""
        offsets = self.offsets(addresses, width, block)
        floor = self.epoch[block] * EPOCH
        granules = self.ledger.granules(offsets, width)
        writer, race = self.ledger.read(granules, who, floor)
        if race.any():
            raise self._race("reads", writer, race, addresses)
        unwritten = writer == NEVER
        if unwritten.any():
            lane = first_lane(unwritten)
            raise KernelError(f"reads shared memory that nobody has written, at offset {int(addresses[lane])}", lane)
        return self.bytes.load(offsets, width)

    def store(self, addresses: Array, values: Array, block: Array, who: Array) -> None:
        """Two may write to one place if they write the same: compilers let every warp that holds a value store it."""
        offsets = self.offsets(addresses, values.shape[1], block)
        before, written, read = self._claim(offsets, values.shape[1], block, who)
        if written.any():
            different = (self.bytes.load(offsets, values.shape[1]) != values).any(axis=1)
            written &= _along(different, written) | (before == IN_FLIGHT)
        self._refuse_race(before, written | read, addresses)
        self.bytes.store(offsets, values)
        lost = (self.bytes.load(offsets, values.shape[1]) != values).any(axis=1)
        if lost.any():
            lane = first_lane(lost)
            where = int(addresses[lane])
            raise KernelError(f"another thread writes another value to shared memory at offset {where} at once", lane)

    def begin_copy(self, addresses: Array, width: int, block: Array, who: Array) -> Array:
        """Of an asynchronous copy to there: until it ends, nobody may touch the place. Returns offsets."""
        offsets = self.offsets(addresses, width, block)
        before, written, read = self._claim(offsets, width, block, who, IN_FLIGHT)
        self._refuse_race(before, written | read, addresses)
        return offsets

    def end_copy(self, offsets: Array, values: Array, block: Array, who: Array) -> None:
        granules = self.ledger.granules(offsets, values.shape[1])
        self.ledger.writer[granules] = _along(self.epoch[block] * EPOCH + who, granules)
        self.bytes.store(offsets, values)

    def offsets(self, addresses: Array, width: int, block: Array) -> Array:
        outside = addresses > self.size - width if self.size >= width else np.ones(addresses.size, bool)
        if outside.any():
            lane = first_lane(outside)
            raise KernelError(
                f"{width} bytes at offset {int(addresses[lane])} of {self.size} bytes of shared memory", lane
            )
        return addresses.astype(np.int64) + block * self.stride

    def _claim(
        self, offsets: Array, width: int, block: Array, who: Array, note: int | None = None
    ) -> tuple[Array, Array, Array]:
        return self.ledger.write(self.ledger.granules(offsets, width), who, self.epoch[block] * EPOCH, note)

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
