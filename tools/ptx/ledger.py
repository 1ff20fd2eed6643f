"""Who touched what since when: what is kept beside a memory to find two accesses that nothing orders."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .formats import Array

# Tokens of a ledger. A party's is its number added to the floor, which leaves the ones below the first floor for
NEVER = 0  # nobody yet,
ELSEWHERE = 1  # another block of the cluster, and the last of all for
IN_FLIGHT = 2**31 - 1  # an asynchronous copy that nobody has waited for.
# Parties are the warps of a block, 32 at most, in shared memory, and blocks from FIRST_BLOCK on in global memory, where
# the floor stays; beside them:
ATOMIC = 62  # every atomic operation
MANY = 63  # more than one reader
FIRST_BLOCK = 64
EPOCH = 64  # from one floor of shared memory to the next
GLOBAL_FLOOR = 1


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
        token, floor = along(who + floor, granules), along(floor, granules)
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
        token, floor = along(who + floor, granules), along(floor, granules)
        writer, reader = self.writer[granules], self.reader[granules]
        self.writer[granules] = token if note is None else note
        return (
            np.maximum(writer, reader),
            (writer >= floor) & (writer != token),
            (reader >= floor) & (reader != token),
        )


def along(value: Any, granules: Array) -> Any:
    return value[:, None] if granules.ndim == 2 and np.ndim(value) else value


def first_lane(wrong: Array) -> int:
    """Index of the first access of which a part is wrong."""
    return int(np.flatnonzero(wrong if wrong.ndim == 1 else wrong.any(axis=1))[0])


class Standing(NamedTuple):
    """Of threads in their cluster."""

    rank: Array  # of their block
    arrivals: Array  # at the cluster's barriers, and
    waits: Array  # how many of these they have waited for; both begin at 1

    def of(self, which: Any) -> Standing:
        return Standing(*(part[which] for part in self))


class ClusterLedger:
    """When each block of a cluster last wrote and last read each granule, in arrivals at the cluster's barriers.

    A thread's access is in order with those of another block that were followed by an arrival for which it has waited:
    with what is noted below its waits. What a thread does between an arrival and its wait counts to the next arrival.
    """

    def __init__(self, granules: int, blocks: int):
        self.writes = np.zeros((blocks, granules), np.int32)
        self.reads = np.zeros_like(self.writes)

    def read(self, granules: Array, standing: Standing) -> tuple[Array, Array]:
        """Notes it. Returns a block that is out of order with it, and where there is one."""
        self._note(self.reads, granules, standing)
        return self._others(self.writes[:, granules], granules, standing)

    def write(self, granules: Array, standing: Standing) -> tuple[Array, Array]:
        """The same of a write."""
        self._note(self.writes, granules, standing)
        return self._others(np.maximum(self.writes[:, granules], self.reads[:, granules]), granules, standing)

    def _note(self, noted: Array, granules: Array, standing: Standing) -> None:
        place = along(standing.rank, granules), granules
        noted[place] = np.maximum(noted[place], along(standing.arrivals, granules))

    def _others(self, noted: Array, granules: Array, standing: Standing) -> tuple[Array, Array]:
        since = noted >= along(standing.waits, granules)
        since[standing.rank, np.arange(standing.rank.size)] = False
        return since.argmax(axis=0), since.any(axis=0)

    def guests(self, granules: slice, rank: int, waits: int) -> list[int]:
        """The blocks, apart from one, that have been at a stretch of granules since so many waits."""
        since = [(noted[:, granules] >= waits).any(axis=1) for noted in (self.writes, self.reads)]
        return [int(block) for block in np.flatnonzero(since[0] | since[1]) if block != rank]
