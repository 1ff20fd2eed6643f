"""Reads and writes of a machine's active threads in any address space, checked and counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .errors import KernelError
from .formats import Array
from .ledger import ATOMIC, first_lane
from .memory import RANK_SHIFT, WINDOW_BITS, WINDOWS, check_alignment, sectors

if TYPE_CHECKING:
    from .machine import Machine

IN_WINDOW = np.uint64((1 << WINDOW_BITS) - 1)
IN_BLOCK = (np.uint64(1) << RANK_SHIFT) - np.uint64(1)


def load(
    m: Machine,
    space: str | None,
    addresses: Array,
    width: int,
    which: Array | None = None,
    constant: bool = False,
    atomic: bool = False,
) -> Array:
    """``uint8[n, width]`` at the addresses of the active lanes, or of those at the positions `which` among them.

    `space`: global, shared, shared::cluster, local, or ``None`` for generic addresses; the third and the last divide
    into the others and into remote, shared memory of another block. `constant`: by the path that sees no write of this
    launch. `atomic`: a part of an atomic operation, which is in order with every other one.
    """
    if space in (None, "shared::cluster"):
        out = np.empty((addresses.size, width), np.uint8)
        for part, inside, positions in _spaces(m, space, addresses, which):
            out[positions] = load(m, part, inside, width, _compose(which, positions), constant, atomic)
        return out
    lanes = _lanes(m, which)
    standing = m.standing(lanes)
    try:
        check_alignment(addresses, width)
        if space == "global":
            if not atomic:
                m.statistics.global_load_bytes += addresses.size * width
                m.statistics.global_load_sectors += sectors(addresses, m.threads // 32, lanes)
            return m.memory.load(addresses, width, _who(m.party, lanes, atomic), None if atomic else standing, constant)
        if space == "shared":
            m.statistics.shared_load_bytes += 0 if atomic else addresses.size * width
            return m.shared.load(addresses, width, _of(m.block, lanes), _who(m.warp, lanes, atomic), standing)
        if space == "remote":
            m.statistics.shared_load_bytes += addresses.size * width
            return m.shared.load(addresses & IN_BLOCK, width, _host(m, addresses, lanes, atomic), None, standing)
        if atomic:
            raise KernelError("an atomic operation on local memory", 0)
        return m.local.load(addresses, width, m.lanes() if lanes is None else lanes)
    except KernelError as fault:
        raise _among_active(fault, which) from None


def store(
    m: Machine,
    space: str | None,
    addresses: Array,
    values: Array,
    which: Array | None = None,
    atomic: bool = False,
) -> None:
    """The opposite of :func:`load`: values are ``uint8[n, width]``."""
    if space in (None, "shared::cluster"):
        for part, inside, positions in _spaces(m, space, addresses, which):
            store(m, part, inside, values[positions], _compose(which, positions), atomic)
        return
    lanes = _lanes(m, which)
    standing = m.standing(lanes)
    try:
        check_alignment(addresses, values.shape[1])
        if space == "global":
            if not atomic:
                m.statistics.global_store_bytes += values.size
                m.statistics.global_store_sectors += sectors(addresses, m.threads // 32, lanes)
            m.memory.store(addresses, values, _who(m.party, lanes, atomic), None if atomic else standing)
        elif space == "shared":
            m.statistics.shared_store_bytes += 0 if atomic else values.size
            m.shared.store(addresses, values, _of(m.block, lanes), _who(m.warp, lanes, atomic), standing)
        elif space == "remote":
            m.statistics.shared_store_bytes += values.size
            m.shared.store(addresses & IN_BLOCK, values, _host(m, addresses, lanes, atomic), None, standing)
        else:
            m.local.store(addresses, values, m.lanes() if lanes is None else lanes)
    except KernelError as fault:
        raise _among_active(fault, which) from None


def begin_copy(m: Machine, addresses: Array, width: int) -> Array:
    """Of an asynchronous copy by the active lanes to shared memory; see :meth:`Shared.begin_copy`."""
    check_alignment(addresses, width)
    m.statistics.shared_store_bytes += addresses.size * width
    return m.shared.begin_copy(addresses, width, m.of(m.block), m.of(m.warp), m.standing(m.active))


def _who(parties: Array, lanes: Array | None, atomic: bool) -> Array:
    parties = _of(parties, lanes)
    return np.full_like(parties, ATOMIC) if atomic else parties


def _of(values: Array, lanes: Array | None) -> Array:
    return values if lanes is None else values[lanes]


def _lanes(m: Machine, which: Array | None) -> Array | None:
    return m.active if which is None else m.lanes()[which]


def _compose(which: Array | None, positions: Array) -> Array:
    return positions if which is None else which[positions]


def _among_active(fault: KernelError, which: Array | None) -> KernelError:
    return fault if which is None or fault.lane is None else KernelError(fault.reason, int(which[fault.lane]))


def _spaces(m: Machine, space: str | None, addresses: Array, which: Array | None) -> Iterator[tuple[str, Array, Array]]:
    """``(space, addresses in it, positions)`` of generic addresses, or of those of a cluster's shared memory, which is
    the thread's own (shared) or another block's (remote)."""
    if space is None:
        windows = addresses >> np.uint64(WINDOW_BITS)
        for name, start in {"global": 0, "local": WINDOWS["local"]}.items():
            positions = np.flatnonzero(windows == start >> WINDOW_BITS)
            if positions.size:
                yield name, addresses[positions] & IN_WINDOW, positions
        shared, inside = windows == WINDOWS["shared"] >> WINDOW_BITS, addresses & IN_WINDOW
    else:
        shared, inside = np.ones(addresses.size, bool), addresses
    rank = inside >> RANK_SHIFT
    own = (rank == 0) | (rank == _of(m.rank, _lanes(m, which)) + 1)
    positions = np.flatnonzero(shared & own)
    if positions.size:
        yield "shared", inside[positions] & IN_BLOCK, positions
    positions = np.flatnonzero(shared & ~own)
    if positions.size:
        yield "remote", inside[positions], positions


def _host(m: Machine, addresses: Array, lanes: Array | None, atomic: bool) -> Array:
    """The blocks (of this batch) in whose shared memory remote addresses lie."""
    if atomic:
        raise KernelError("an atomic operation on shared memory of another block, which is not modelled", 0)
    rank = (addresses >> RANK_SHIFT).astype(np.int64) - 1
    nowhere = rank >= m.cluster
    if nowhere.any():
        lane = first_lane(nowhere)
        raise KernelError(f"address {int(addresses[lane]):#x} lies in the shared memory of no block", lane)
    early = _of(m.waits, lanes) == 1
    if early.any():
        raise KernelError(
            "touches shared memory of another block before any cluster barrier: that block may not have started",
            first_lane(early),
        )
    block = _of(m.block - m.rank, lanes) + rank
    gone = m.ended[block]
    if gone.any():
        lane = first_lane(gone)
        raise KernelError(f"touches shared memory of block {int(rank[lane])} of the cluster, which has exited", lane)
    return block
