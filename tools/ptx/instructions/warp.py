"""What the threads of a warp do together: shuffles, votes, reductions, and 8×8 matrices through shared memory.

Instructions with a mask of members need all of them at the same instruction, as PTX demands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import access
from ..errors import KernelError
from ..formats import Array
from ..operands import Source, address, destination, elements, expect, pair, source
from ..parse import Instruction
from .forms import Step, form

WARP = 32
LANE = np.arange(WARP)


def ballot(m: Any, holds: Array) -> Array:
    """For each active lane, one bit for each active lane of its warp for which something holds."""
    everyone = np.zeros(m.threads, bool)
    everyone[m.lanes()] = holds
    words = np.packbits(everyone, bitorder="little").view(np.uint32)
    return words[m.lanes() // WARP]


def check_members(m: Any, mask: Array) -> Array:
    """The masks, after a check that everybody in them is here, or has exited, and nobody else is."""
    mask = np.broadcast_to(mask, m.size)
    if m.active is None and (mask == 0xFFFFFFFF).all():
        return mask
    here = ballot(m, np.ones(m.size, bool))
    gone = np.packbits(m.exited | (m.thread >= m.block_threads), bitorder="little").view(np.uint32)[m.lanes() // WARP]
    missing = mask & ~(here | gone)
    if missing.any():
        lane = int(np.flatnonzero(missing)[0])
        raise KernelError(
            f"lanes {int(missing[lane]):#x} of mask {int(mask[lane]):#x} are not at this instruction", lane
        )
    own = np.uint32(1) << (m.lanes() % WARP).astype(np.uint32)
    if not (mask & own).all():
        lane = int(np.flatnonzero(~(mask & own).astype(bool))[0])
        raise KernelError(f"the thread itself is not in mask {int(mask[lane]):#x}", lane)
    return mask


@form("shfl .sync .mode=up|down|bfly|idx .b32")
def shuffle(instruction: Instruction, f: Any) -> Step:
    """``d|p, a, b, c, members``: a of another lane; p tells whether that lane is in range, else it is the own a.

    b is an offset, a mask or a lane; c holds a clamp in its low five bits and a segment mask in bits 8 to 12.
    """
    target, a, b, c, members = expect(instruction, 5)
    first, second = pair(target)
    write, tell = destination(first, 32), destination(second, 1)
    value, offset, limits, mask = source(a, 32), source(b, 32), source(c, 32), source(members, 32)

    def step(m: Any) -> None:
        check_members(m, mask(m))
        lanes = m.lanes()
        lane = lanes % WARP
        by, clamp, segment = offset(m) & 31, limits(m) & 31, limits(m) >> 8 & 31
        by, clamp, segment = by.astype(np.int64), clamp.astype(np.int64), segment.astype(np.int64)
        last = (lane & segment) | (clamp & ~segment)
        if f.mode == "up":
            other = lane - by
            inside = other >= last
        else:
            other = {
                "down": lane + by,
                "bfly": lane ^ by,
                "idx": (lane & segment) | (by & ~segment),
            }[f.mode]
            inside = other <= last
        other = np.where(inside, other, lane) + (lanes - lane)
        values = np.broadcast_to(value(m), m.size)
        if m.active is None:
            write(m, values[other])
        else:
            everyone, here = np.zeros(m.threads, np.uint32), np.zeros(m.threads, bool)
            everyone[lanes], here[lanes] = values, True
            if not here[other].all():
                raise KernelError("takes the value of a lane that is not here", int(np.argmin(here[other])))
            write(m, everyone[other])
        tell(m, inside)

    return step


@form("vote .sync .mode=all|any|uni .pred", "vote .sync .mode=ballot .b32")
def vote(instruction: Instruction, f: Any) -> Step:
    target, condition, members = expect(instruction, 3)
    holds, mask = source(condition, 1), source(members, 32)
    write = destination(target, 32 if f.mode == "ballot" else 1)
    outcome: dict[str, Callable[[Array, Array], Array]] = {
        "ballot": lambda yes, mask: yes,
        "any": lambda yes, mask: yes != 0,
        "all": lambda yes, mask: yes == mask,
        "uni": lambda yes, mask: (yes == 0) | (yes == mask),
    }

    def step(m: Any) -> None:
        named = check_members(m, mask(m)) & ballot(m, np.ones(m.size, bool))  # less those that have exited
        write(m, outcome[f.mode](ballot(m, holds(m)) & named, named))

    return step


@form("activemask .b32")
def active_mask(instruction: Instruction, f: Any) -> Step:
    (target,) = expect(instruction, 1)
    write = destination(target, 32)
    return lambda m: write(m, ballot(m, np.ones(m.size, bool)))


@form("elect .sync")
def elect(instruction: Instruction, f: Any) -> Step:
    """The lowest lane of the mask: its number, and whether it is the own one."""
    target, members = expect(instruction, 2)
    first, second = pair(target)
    write, tell, mask = destination(first, 32), destination(second, 1), source(members, 32)

    def step(m: Any) -> None:
        named = check_members(m, mask(m)) & ballot(m, np.ones(m.size, bool))
        lowest = np.log2((named & (~named + np.uint32(1))).astype(np.float64)).astype(np.uint32)
        write(m, lowest)
        tell(m, lowest == m.lanes() % WARP)

    return step


REDUCE: dict[str, Any] = {
    "add": (np.add, 0),
    "and": (np.bitwise_and, 0xFFFFFFFF),
    "or": (np.bitwise_or, 0),
    "xor": (np.bitwise_xor, 0),
}


@form(
    "redux .sync .operation=add|min|max .type=u32|s32",
    "redux .sync .operation=and|or|xor .type=b32",
    "redux .sync .operation=min|max .magnitude=abs? .nan=NaN? .type=f32",
)
def reduce_warp(instruction: Instruction, f: Any) -> Step:
    target, operand, members = expect(instruction, 3)
    dtype: Any = {"u": np.uint32, "s": np.int32, "b": np.uint32, "f": np.float32}[f.type[0]]
    read, mask, write = source(operand, 32, dtype), source(members, 32), destination(target, 32)
    magnitude, nan = getattr(f, "magnitude", None), getattr(f, "nan", None)
    if f.operation in REDUCE:
        function, neutral = REDUCE[f.operation]
    elif dtype == np.float32:
        neutral = np.nan
        function = {"min": np.minimum if nan else np.fmin, "max": np.maximum if nan else np.fmax}[f.operation]
    else:
        limits = np.iinfo(dtype)
        function, neutral = {"min": (np.minimum, limits.max), "max": (np.maximum, limits.min)}[f.operation]

    def step(m: Any) -> None:
        lanes = m.lanes()
        named = check_members(m, mask(m))
        everyone = np.full(m.threads, neutral, dtype)
        everyone[lanes] = np.abs(read(m)) if magnitude else read(m)
        rows = everyone.reshape(-1, WARP)[lanes // WARP]
        inside = (named[:, None] >> LANE.astype(np.uint32) & 1).astype(bool)
        rows = np.where(inside, rows, everyone[lanes][:, None] if nan else dtype(neutral))  # NaN is not neutral there
        write(m, np.ascontiguousarray(function.reduce(rows, axis=1)).astype(dtype))

    return step


@form("bar .warp .sync")
def synchronize_warp(instruction: Instruction, f: Any) -> Step:
    (members,) = expect(instruction, 1)
    mask = source(members, 32)

    def step(m: Any) -> None:
        check_members(m, mask(m))

    return step


# ---------------------------------------------------------------------------------------------------- 8×8 matrices

# Each lane holds two neighbors of a row: of row l/4, columns 2(l%4) and 2(l%4)+1. Row i of the j-th matrix lies where
# lane 8j+i says.
ROW, COLUMN = np.repeat(LANE[:, None] // 4, 2, axis=1), 2 * (LANE[:, None] % 4) + np.arange(2)


def _rows(m: Any, locate: Source, matrix: int) -> tuple[Array, Array]:
    """Addresses of a matrix's rows, eight a warp, and the positions of the lanes that say them."""
    positions = (np.arange(m.size).reshape(-1, WARP)[:, 8 * matrix : 8 * matrix + 8]).ravel()
    return locate(m)[positions], positions


@form("ldmatrix .sync .aligned .m8n8 .count=x1|x2|x4 .transposed=trans? .shared|shared::cta .b16")
def load_matrix(instruction: Instruction, f: Any) -> Step:
    target, place = expect(instruction, 2)
    writes = [destination(element, 32) for element in elements(target, int(f.count[1:]))]
    locate = address(place)
    row, column = (COLUMN, ROW) if f.transposed else (ROW, COLUMN)

    def step(m: Any) -> None:
        m.whole_warps()
        parts = []
        for matrix in range(len(writes)):
            where, positions = _rows(m, locate, matrix)
            matrices = access.load(m, "shared", where, 16, positions).view(np.uint16).reshape(-1, 8, 8)
            parts.append(matrices[:, row, column].reshape(-1, 2).view(np.uint32)[:, 0].copy())
        for write, part in zip(writes, parts, strict=True):  # after all reads: the address may be overwritten
            write(m, part)

    return step


@form("stmatrix .sync .aligned .m8n8 .count=x1|x2|x4 .transposed=trans? .shared|shared::cta .b16")
def store_matrix(instruction: Instruction, f: Any) -> Step:
    place, value = expect(instruction, 2)
    reads = [source(element, 32) for element in elements(value, int(f.count[1:]))]
    locate = address(place)
    row, column = (COLUMN, ROW) if f.transposed else (ROW, COLUMN)

    def step(m: Any) -> None:
        warps = m.whole_warps().shape[0]
        for matrix, read in enumerate(reads):
            where, positions = _rows(m, locate, matrix)
            matrices = np.empty((warps, 8, 8), np.uint16)
            matrices[:, row, column] = np.broadcast_to(read(m), m.size).copy().view(np.uint16).reshape(-1, WARP, 2)
            access.store(m, "shared", where, matrices.reshape(-1, 8).view(np.uint8), positions)

    return step


@form("movmatrix .sync .aligned .m8n8 .trans .b16")
def transpose_matrix(instruction: Instruction, f: Any) -> Step:
    target, operand = expect(instruction, 2)
    read, write = source(operand, 32), destination(target, 32)

    def step(m: Any) -> None:
        matrices = np.empty((m.whole_warps().shape[0], 8, 8), np.uint16)
        matrices[:, COLUMN, ROW] = np.broadcast_to(read(m), m.size).copy().view(np.uint16).reshape(-1, WARP, 2)
        write(m, matrices[:, ROW, COLUMN].reshape(-1, 2).view(np.uint32)[:, 0].copy())

    return step
