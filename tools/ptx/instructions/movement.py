"""Moves between registers and memory, atomics, address conversions, and what only orders or hints."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import access
from ..errors import KernelError
from ..formats import FORMATS, RAW, Array, integer
from ..memory import WINDOWS
from ..operands import Source, address, destination, elements, expect, source
from ..parse import Address, Immediate, Instruction, Symbol, Vector
from .forms import Step, form

# ------------------------------------------------------------------------------------------------------- registers


@form("mov .type=b16|u16|s16|b32|u32|s32|f32|b64|u64|s64|f64")
def move(instruction: Instruction, f: Any) -> Step:
    """Also of a register into several narrower ones, and of several into one: the first is the lowest."""
    target, operand = expect(instruction, 2)
    bits = int(f.type[1:])
    if isinstance(target, Vector):
        part = RAW[bits // len(target.elements)]
        read, writes = source(operand, bits), [destination(e, part.itemsize * 8) for e in target.elements]

        def split(m: Any) -> None:
            halves = read(m).view(part).reshape(-1, len(writes))
            for i, write in enumerate(writes):
                write(m, halves[:, i].copy())

        return split
    write = destination(target, bits)
    if isinstance(operand, Vector):
        part = RAW[bits // len(operand.elements)]
        reads = [source(element, part.itemsize * 8) for element in operand.elements]
        return lambda m: write(m, _columns(m, reads, part).view(RAW[bits])[:, 0])
    only = source(operand, bits)
    return lambda m: write(m, only(m).copy())


def _columns(m: Any, reads: Sequence[Source], dtype: Any) -> Array:
    """``[n, len(reads)]``"""
    values = np.empty((m.size, len(reads)), dtype)
    for i, read in enumerate(reads):
        values[:, i] = read(m)
    return values


@form("mov .pred")
def move_predicate(instruction: Instruction, f: Any) -> Step:
    target, operand = expect(instruction, 2)
    read, write = source(operand, 1), destination(target, 1)
    return lambda m: write(m, read(m).copy())


@form("selp .type=b16|u16|s16|b32|u32|s32|f32|b64|u64|s64|f64")
def select(instruction: Instruction, f: Any) -> Step:
    target, a, b, condition = expect(instruction, 4)
    bits = int(f.type[1:])
    first, second, chosen, write = source(a, bits), source(b, bits), source(condition, 1), destination(target, bits)
    return lambda m: write(m, np.where(chosen(m), first(m), second(m)))


@form("cvta .direction=to? .space=global|shared|shared::cta|shared::cluster|local|const .type=u64")
def convert_address(instruction: Instruction, f: Any) -> Step:
    target, operand = expect(instruction, 2)
    read, write = source(operand, 64), destination(target, 64)
    window = np.uint64(WINDOWS.get(f.space.split("::")[0], 0))
    if f.direction:
        return lambda m: write(m, read(m) - window)
    return lambda m: write(m, read(m) + window)


# ---------------------------------------------------------------------------------------------------------- memory

CACHE = ".L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate?"
FETCH = ".L2::64B|L2::128B|L2::256B?"
MEMORY_TYPE = ".type=b8|u8|s8|b16|u16|s16|b32|u32|s32|f32|b64|u64|s64|f64"
ORDER = ".weak|volatile|relaxed|acquire|release? .cta|cluster|gpu|sys?"
SPACE = ".space=global|shared|shared::cta|shared::cluster|local?"


def _space(f: Any) -> str | None:
    return f.space and f.space.removesuffix("::cta")


@form(
    f"ld {ORDER} {SPACE} .ca|cg|cs|lu|cv? .constant=nc? {CACHE} .policy=L2::cache_hint? {FETCH} .vec=v2|v4|v8? "
    f"{MEMORY_TYPE}",
    f"ld .space=const .vec=v2|v4? {MEMORY_TYPE}",
)
def load(instruction: Instruction, f: Any) -> Step:
    target, place = expect(instruction, 3 if getattr(f, "policy", None) else 2)[:2]
    bits, count = int(f.type[1:]), int((f.vec or "v1")[1:])
    space = "global" if f.space == "const" else _space(f)
    locate, width, raw = address(place), bits // 8 * count, RAW[bits]
    constant = bool(getattr(f, "constant", None))
    writes = [destination(e, bits, extend=f.type[0]) for e in elements(target, count)]

    def step(m: Any) -> None:
        values = access.load(m, space, locate(m), width, constant=constant).view(raw)
        for i, write in enumerate(writes):
            write(m, values[:, i].copy())

    return step


@form(f"ld .param .vec=v2|v4? {MEMORY_TYPE}")
def load_parameter(instruction: Instruction, f: Any) -> Step:
    target, place = expect(instruction, 2)
    assert isinstance(place, Address)
    bits, count = int(f.type[1:]), int((f.vec or "v1")[1:])
    writes = [destination(e, bits, extend=f.type[0]) for e in elements(target, count)]
    width, raw = bits // 8 * count, RAW[bits]
    if isinstance(place.base, Symbol):
        start = place.base.offset + place.offset

        def uniform(m: Any) -> None:
            values = m.arguments[start : start + width].copy().view(raw)
            for i, write in enumerate(writes):
                write(m, values[i : i + 1])

        return uniform
    locate = address(place)

    def step(m: Any) -> None:
        values = m.arguments[locate(m).astype(np.int64)[:, None] + np.arange(width)].view(raw)
        for i, write in enumerate(writes):
            write(m, values[:, i].copy())

    return step


@form(f"st {ORDER} {SPACE} .wb|cg|cs|wt? {CACHE} .policy=L2::cache_hint? .vec=v2|v4|v8? {MEMORY_TYPE}")
def store(instruction: Instruction, f: Any) -> Step:
    place, value = expect(instruction, 3 if f.policy else 2)[:2]
    bits, count = int(f.type[1:]), int((f.vec or "v1")[1:])
    space, locate, raw = _space(f), address(place), RAW[bits]
    reads = [source(element, bits, narrow=True) for element in elements(value, count)]
    return lambda m: access.store(m, space, locate(m), _columns(m, reads, raw).view(np.uint8))


# --------------------------------------------------------------------------------------------------------- atomics

UPDATE: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, new: np.asarray(new),
    "cas": lambda old, expected, new: np.asarray(np.where(old == expected, new, old)),
}
SCOPES = (
    ".relaxed|acquire|release|acq_rel? .cta|cluster|gpu|sys? .space=global|shared|shared::cta?",
    ".space=global|shared .cta|cluster|gpu|sys .relaxed|acquire|release|acq_rel",  # Triton's order
)
UPDATES = (
    ".update=add .noftz? .type=u32|s32|u64|f32|f64|f16|bf16|f16x2|bf16x2",
    ".update=min|max .type=u32|s32|u64|s64",
    ".update=and|or|xor .type=b32|b64",
)


@form(
    *(f"{name} {scope} {update}" for name in ("atom", "red") for scope in SCOPES for update in UPDATES),
    *(f"atom {scope} .update=exch|cas .type=b32|b64" for scope in SCOPES),
)
def atomic(instruction: Instruction, f: Any) -> Step:
    """One thread after the other, in order of their numbers: hardware promises no order."""
    returns, update = instruction.opcode == "atom", UPDATE[f.update]
    operands = expect(instruction, 2 + returns + (f.update == "cas"))
    write = (
        destination(operands[0], FORMATS[f.type].bits if f.type in FORMATS else int(f.type[1:])) if returns else None
    )
    place, *values = operands[returns:]
    if f.type in FORMATS:
        bits, decode, encode, _ = FORMATS[f.type]
    else:
        bits, dtype = int(f.type[1:]), integer(f.type)
        decode, encode = (lambda raw: raw.view(dtype)), (lambda value: value.view(RAW[bits]))
    locate, reads, space = address(place), [source(value, bits) for value in values], _space(f)

    def step(m: Any) -> None:
        addresses = locate(m)
        new = [np.broadcast_to(read(m), m.size) for read in reads]
        old = np.empty(m.size, RAW[bits])
        m.statistics.atomics += m.size
        for which in _turns(addresses):
            before = access.load(m, space, addresses[which], bits // 8, which, atomic=True).view(RAW[bits])[:, 0]
            after = encode(
                np.ascontiguousarray(update(decode(before), *(decode(value[which].copy()) for value in new)))
            )
            access.store(m, space, addresses[which], after.view(np.uint8).reshape(which.size, -1), which, atomic=True)
            old[which] = before
        if write:
            write(m, old)

    return step


def _turns(addresses: Array) -> list[Array]:
    """Positions, in groups within which all addresses differ: the first at each address, the second, ..."""
    order = np.argsort(addresses, kind="stable")
    ordered = addresses[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    turn = np.arange(order.size) - np.repeat(starts, np.diff(np.r_[starts, order.size]))
    return [order[turn == number] for number in range(int(turn.max()) + 1)]


# ---------------------------------------------------------------------------------------------- order, hints, traps


@form(
    "membar .cta|gl|sys",
    "fence .sc|acq_rel .cta|cluster|gpu|sys",
    "fence .proxy .async|alias .global|shared::cta?",
    "prefetch .global .L1|L2",
    "createpolicy .fractional .L2::evict_first|L2::evict_last|L2::evict_normal|L2::evict_unchanged .b64",
)
def nothing(instruction: Instruction, f: Any) -> Step:
    """Memory is always in order here, and nothing is cached."""
    return lambda m: None


@form("trap")
def trap(instruction: Instruction, f: Any) -> Step:
    def step(m: Any) -> None:
        raise KernelError("trap", 0)

    return step


def narrowest(code: Sequence[Instruction], space: str) -> int:
    """Bytes of the narrowest access to global or shared memory among instructions."""
    widths = [16]
    for instruction in code:
        opcode, modifiers = instruction.opcode, f"{instruction.modifiers}."
        if opcode in ("ld", "st", "atom", "red"):
            elsewhere = {".global", ".shared", ".local", ".param"} - {f".{space}"}
            if any(f"{other}." in re.sub("::(cta|cluster)", "", modifiers) for other in elsewhere):
                continue
            bits = re.findall(r"\.[busf]+(\d+)(?=(?:x2)?\.)", modifiers)
            vector = re.search(r"\.v([248])\.", modifiers)
            widths.append(int(bits[-1]) // 8 * int(vector[1] if vector else 2 if "x2." in modifiers else 1))
        elif opcode == "cp":
            size = instruction.operands[2:3]
            widths += [size.value for size in size if isinstance(size, Immediate)]
    return min(widths)
