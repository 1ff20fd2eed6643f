"""``cp.async``: copies from global to shared memory that end when the thread that began them waits for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import access
from ..errors import KernelError, UnsupportedError
from ..formats import Array
from ..operands import address, expect, source
from ..parse import Immediate, Instruction, Register
from .forms import Step, form


class Copy(NamedTuple):
    """One instruction's copies: their lanes, the group of each, where they go, and what."""

    lanes: Array
    groups: Array
    offsets: Array
    values: Array

    def of(self, which: Array) -> Copy:
        return Copy(*(part[which] for part in self))


@form("cp .async .cache=ca|cg .shared|shared::cta .global .L2::64B|L2::128B|L2::256B?")
def begin(instruction: Instruction, f: Any) -> Step:
    """``[to], [from], bytes, filled``: of the bytes, all come from memory or, if `filled` is 0, are zeros."""
    to, from_, size, *rest = expect(instruction, 3, 4)
    if not isinstance(size, Immediate) or size.value not in ((16,) if f.cache == "cg" else (4, 8, 16)):
        raise UnsupportedError(f"a copy of {size} bytes")
    width, target, origin = size.value, address(to), address(from_)
    if rest and isinstance(rest[0], Register) and rest[0].bits == 1:
        raise UnsupportedError("a copy that a predicate turns into zeros")
    filled = source(rest[0], 32) if rest else None

    def step(m: Any) -> None:
        lanes, places = m.lanes(), target(m)
        values = np.zeros((m.size, width), np.uint8)
        bytes_ = np.broadcast_to(filled(m), m.size) if filled else np.full(m.size, width)
        partial = (bytes_ != 0) & (bytes_ != width)
        if partial.any():
            lane = int(np.argmax(partial))
            raise KernelError(f"{int(bytes_[lane])} of {width} bytes from memory: only all or none are modelled", lane)
        read = np.flatnonzero(bytes_)
        if read.size:
            values[read] = access.load(m, "global", origin(m)[read], width, read)
        offsets = access.begin_copy(m, places, width)
        m.copies.append(Copy(lanes, m.committed[lanes], offsets, values))

    return step


@form("cp .async .commit_group")
def commit(instruction: Instruction, f: Any) -> Step:
    def step(m: Any) -> None:
        m.committed[m.lanes()] += 1

    return step


@form("cp .async .what=wait_group|wait_all")
def wait(instruction: Instruction, f: Any) -> Step:
    """For all groups but the youngest few; ``wait_all`` for every copy."""
    latest = 0
    if f.what == "wait_group":
        (count,) = expect(instruction, 1)
        if not isinstance(count, Immediate):
            raise UnsupportedError(f"a count that is no constant, {count}")
        latest = count.value

    def step(m: Any) -> None:
        waits = np.zeros(m.threads, bool)
        waits[m.lanes()] = True
        if f.what == "wait_all":
            m.committed[m.lanes()] += 1
        before = m.committed - latest
        pending = []
        for copy in m.copies:
            done = waits[copy.lanes] & (copy.groups < before[copy.lanes])
            if done.any():
                ended = copy.of(done)
                who = m.block[ended.lanes], m.warp[ended.lanes], m.standing(ended.lanes)
                m.shared.end_copy(ended.offsets, ended.values, *who)
            if not done.all():
                pending.append(copy.of(~done))
        m.copies = pending

    return step
