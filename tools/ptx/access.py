"""Reads and writes of a machine's active threads in any address space, checked and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import KernelError
from .formats import Array
from .memory import ATOMIC, FIRST_BLOCK, WINDOW_BITS, WINDOWS, check_alignment, sectors

if TYPE_CHECKING:
    from .machine import Machine

IN_WINDOW = np.uint64((1 << WINDOW_BITS) - 1)


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

    `space`: global, shared, local, or ``None`` for generic addresses. `constant`: by the path that sees no write of
    this launch. `atomic`: a part of an atomic operation, which is in order with every other one.
    """
    if space is None:
        out = np.empty((addresses.size, width), np.uint8)
        for part, inside, positions in _spaces(addresses):
            out[positions] = load(m, part, inside, width, _compose(which, positions), constant, atomic)
        return out
    lanes = _lanes(m, which)
    try:
        check_alignment(addresses, width)
        if space == "global":
            if not atomic:
                m.statistics.global_load_bytes += addresses.size * width
                m.statistics.global_load_sectors += sectors(addresses, m.threads // 32, lanes)
            return m.memory.load(addresses, width, _who(m.number + FIRST_BLOCK, lanes, atomic), constant)
        if space == "shared":
            m.statistics.shared_load_bytes += 0 if atomic else addresses.size * width
            return m.shared.load(addresses, width, _of(m.block, lanes), _who(m.warp, lanes, atomic))
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
    if space is None:
        for part, inside, positions in _spaces(addresses):
            store(m, part, inside, values[positions], _compose(which, positions), atomic)
        return
    lanes = _lanes(m, which)
    try:
        check_alignment(addresses, values.shape[1])
        if space == "global":
            if not atomic:
                m.statistics.global_store_bytes += values.size
                m.statistics.global_store_sectors += sectors(addresses, m.threads // 32, lanes)
            m.memory.store(addresses, values, _who(m.number + FIRST_BLOCK, lanes, atomic))
        elif space == "shared":
            m.statistics.shared_store_bytes += 0 if atomic else values.size
            m.shared.store(addresses, values, _of(m.block, lanes), _who(m.warp, lanes, atomic))
        else:
            m.local.store(addresses, values, m.lanes() if lanes is None else lanes)
    except KernelError as fault:
        raise _among_active(fault, which) from None


def begin_copy(m: Machine, addresses: Array, width: int) -> Array:
    """Of an asynchronous copy by the active lanes to shared memory; see :meth:`Shared.begin_copy`."""
    check_alignment(addresses, width)
    m.statistics.shared_store_bytes += addresses.size * width
    return m.shared.begin_copy(addresses, width, m.of(m.block), m.of(m.warp))


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


def _spaces(addresses: Array) -> list[tuple[str, Array, Array]]:
    """``(space, addresses in it, positions)`` of generic addresses."""
    window = addresses >> np.uint64(WINDOW_BITS)
    parts = []
    for space, start in {"global": 0, **WINDOWS}.items():
        positions = np.flatnonzero(window == start >> WINDOW_BITS)
        if positions.size:
            parts.append((space, addresses[positions] & IN_WINDOW, positions))
    return parts
