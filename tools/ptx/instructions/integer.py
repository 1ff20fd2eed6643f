"""Integer arithmetic, logic, shifts, bit fields and predicates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import KernelError, UnsupportedError
from ..formats import RAW, Array, integer
from ..operands import destination, expect, pair, source
from ..parse import Immediate, Instruction
from .forms import Step, form

Function = Callable[..., Array]


def elementwise(instruction: Instruction, function: Function, types: list[str], result: str) -> Step:
    """`function` of sources of these integer types."""
    target, *operands = expect(instruction, len(types) + 1)
    dtypes = [integer(name) for name in types]
    sources = [source(operand, dtype.itemsize * 8, dtype) for operand, dtype in zip(operands, dtypes, strict=True)]
    write = destination(target, integer(result).itemsize * 8)
    if len(sources) == 1:
        (only,) = sources
        return lambda m: write(m, function(only(m)))
    if len(sources) == 2:
        first, second = sources
        return lambda m: write(m, function(first(m), second(m)))
    return lambda m: write(m, function(*[read(m) for read in sources]))


# ------------------------------------------------------------------------------------------------------ arithmetic


def _absolute(a: Array) -> Array:
    return np.where(a < 0, -a, a)  # the most negative number stays itself


UNARY: dict[str, Function] = {"neg": np.negative, "abs": _absolute, "not": np.bitwise_not}
BINARY: dict[str, Function] = {
    "add": np.add,
    "sub": np.subtract,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


@form("neg .type=s16|s32|s64", "abs .type=s16|s32|s64", "not .type=b16|b32|b64")
def unary(instruction: Instruction, f: Any) -> Step:
    return elementwise(instruction, UNARY[instruction.opcode], [f.type], f.type)


@form(
    *(f"{name} .type=s16|u16|s32|u32|s64|u64" for name in ("add", "sub", "min", "max")),
    *(f"{name} .type=b16|b32|b64" for name in ("and", "or", "xor")),
)
def binary(instruction: Instruction, f: Any) -> Step:
    return elementwise(instruction, BINARY[instruction.opcode], [f.type, f.type], f.type)


@form(*(f"{name} .type=s16x2|u16x2" for name in ("add", "min", "max")))
def binary_packed(instruction: Instruction, f: Any) -> Step:
    """Two 16-bit numbers in each register, which do not meet."""
    function, half = BINARY[instruction.opcode], integer(f.type.removesuffix("x2"))

    def apart(a: Array, b: Array) -> Array:
        return function(a.view(half), b.view(half)).view(np.uint32)

    return elementwise(instruction, apart, ["b32", "b32"], "b32")


def high_product(a: Array, b: Array) -> Array:
    """The upper half of the product of two arrays of one type."""
    if a.dtype.itemsize < 8:
        wide = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
        product = a.astype(wide) * b.astype(wide)
        return (product >> wide.type(8 * a.dtype.itemsize)).astype(a.dtype)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    ua, ub = a.astype(np.uint64), b.astype(np.uint64)
    first, second = (ua >> half) * (ub & low), (ua & low) * (ub >> half)
    middle = ((ua & low) * (ub & low) >> half) + (first & low) + (second & low)
    high = (ua >> half) * (ub >> half) + (first >> half) + (second >> half) + (middle >> half)
    if a.dtype.kind == "i":  # as unsigned, a negative factor is too large by 2⁶⁴
        high = high - np.where(a < 0, ub, np.uint64(0)) - np.where(b < 0, ua, np.uint64(0))
    return high.astype(a.dtype)


def widened(name: str) -> str:
    return f"{name[0]}{2 * int(name[1:])}"


@form("mul .part=lo|hi|wide .type=s16|u16|s32|u32", "mul .part=lo|hi .type=s64|u64")
def multiply(instruction: Instruction, f: Any) -> Step:
    if f.part != "wide":
        function = np.multiply if f.part == "lo" else high_product
        return elementwise(instruction, function, [f.type, f.type], f.type)
    wide = integer(widened(f.type))
    product: Function = lambda a, b: a.astype(wide) * b.astype(wide)  # noqa: E731
    return elementwise(instruction, product, [f.type, f.type], widened(f.type))


@form("mad .part=lo|hi|wide .type=s16|u16|s32|u32", "mad .part=lo|hi .type=s64|u64")
def multiply_add(instruction: Instruction, f: Any) -> Step:
    if f.part == "lo":
        return elementwise(instruction, lambda a, b, c: a * b + c, [f.type] * 3, f.type)
    if f.part == "hi":
        return elementwise(instruction, lambda a, b, c: high_product(a, b) + c, [f.type] * 3, f.type)
    wide = integer(widened(f.type))
    function: Function = lambda a, b, c: a.astype(wide) * b.astype(wide) + c  # noqa: E731
    return elementwise(instruction, function, [f.type, f.type, widened(f.type)], widened(f.type))


@form("div .type=s16|u16|s32|u32|s64|u64", "rem .type=s16|u16|s32|u32|s64|u64")
def divide(instruction: Instruction, f: Any) -> Step:
    remainder = instruction.opcode == "rem"

    def function(a: Array, b: Array) -> Array:
        if not b.all():
            raise KernelError("division by zero", int(np.argmin(np.broadcast_to(b, np.broadcast(a, b).shape))))
        floor = a // b  # numpy rounds down, the hardware towards zero
        quotient = floor + ((floor < 0) & (floor * b != a)).astype(a.dtype)
        return a - quotient * b if remainder else quotient

    return elementwise(instruction, function, [f.type, f.type], f.type)


@form(
    *(f"{name} .out=cc? .type=s32|u32|s64|u64" for name in ("addc", "subc")),
    *(f"{name} .out=cc .type=s32|u32|s64|u64" for name in ("add", "sub")),
    "mad .part=lo|hi .out=cc .type=s32|u32|s64|u64",
    "madc .part=lo|hi .out=cc? .type=s32|u32|s64|u64",
)
def with_carry(instruction: Instruction, f: Any) -> Step:
    """Arithmetic in more than one register: the carry (or the borrow) is read by ``c``, written by ``.cc``."""
    opcode, bits = instruction.opcode, int(f.type[1:])
    target, *operands = expect(instruction, 4 if opcode.startswith("mad") else 3)
    dtype, raw = integer(f.type), RAW[bits]
    sources = [source(operand, bits, dtype) for operand in operands]
    write = destination(target, bits)
    carries, subtracts = opcode.endswith("c"), opcode.startswith("sub")

    def step(m: Any) -> None:
        values: list[Any] = [read(m) for read in sources]
        if len(values) == 3:
            values[:2] = [(np.multiply if f.part == "lo" else high_product)(*values[:2])]
        a, b = (value.view(raw) for value in values)
        incoming: Array = m.of(m.carry).astype(raw) if carries else np.zeros(1, raw)
        if subtracts:
            difference = a - b
            result, outgoing = difference - incoming, (a < b) | (difference < incoming)
        else:
            total = a + b
            result = total + incoming
            outgoing = (total < a) | (result < total)
        if f.out:
            m.carry[m.lanes()] = outgoing
        write(m, result)

    return step


# ------------------------------------------------------------------------------------------------ shifts and fields


@form("shl .type=b16|b32|b64", "shr .type=b16|b32|b64|u16|u32|u64|s16|s32|s64")
def shift(instruction: Instruction, f: Any) -> Step:
    bits, dtype = int(f.type[1:]), integer(f.type)
    left, signed = instruction.opcode == "shl", f.type[0] == "s"
    operation = np.left_shift if left else np.right_shift

    def function(a: Array, count: Array) -> Array:
        shifted = operation(a, np.minimum(count, bits - 1).astype(dtype))
        if signed:
            return shifted
        return np.where(count < bits, shifted, dtype.type(0))

    return elementwise(instruction, function, [f.type, "u32"], f.type)


@form("shf .to=l|r .over=wrap|clamp .b32")
def funnel_shift(instruction: Instruction, f: Any) -> Step:
    """The upper (left) or the lower (right) half of ``b:a``, shifted."""

    def function(a: Array, b: Array, count: Array) -> Array:
        count = (count & np.uint32(31) if f.over == "wrap" else np.minimum(count, 32)).astype(np.uint64)
        both = b.astype(np.uint64) << np.uint64(32) | a.astype(np.uint64)
        shifted = (both << count) >> np.uint64(32) if f.to == "l" else both >> count
        return shifted.astype(np.uint32)

    return elementwise(instruction, function, ["u32"] * 3, "u32")


@form("bfe .type=u32|s32|u64|s64")
def bit_field_extract(instruction: Instruction, f: Any) -> Step:
    bits, dtype, signed = int(f.type[1:]), integer(f.type), f.type[0] == "s"

    def function(a: Array, position: Array, length: Array) -> Array:
        position, length = position & np.uint32(255), length & np.uint32(255)
        start, end = np.minimum(position, bits - 1), np.minimum(position + length, bits)
        left = np.where(length == 0, 0, bits - end).astype(dtype)
        right = np.minimum(left + start.astype(dtype), bits - 1).astype(dtype)
        value = (a << left) >> right  # up against the left end and back, the field's top bit extended
        beyond = a >> dtype.type(bits - 1) if signed else dtype.type(0)
        return np.where(length == 0, dtype.type(0), np.where(position < bits, value, beyond))

    return elementwise(instruction, function, [f.type, "u32", "u32"], f.type)


@form("bfi .type=b32|b64")
def bit_field_insert(instruction: Instruction, f: Any) -> Step:
    bits, dtype = int(f.type[1:]), integer(f.type)

    def function(a: Array, b: Array, position: Array, length: Array) -> Array:
        position, length = (position & np.uint32(255)).astype(np.uint64), (length & np.uint32(255)).astype(np.uint64)
        ones = np.where(length < 64, (np.uint64(1) << np.minimum(length, 63)) - np.uint64(1), ~np.uint64(0))
        mask = np.where(position < bits, ones << np.minimum(position, 63), np.uint64(0)).astype(dtype)
        return (b & ~mask) | ((a << np.minimum(position, bits - 1).astype(dtype)) & mask)

    return elementwise(instruction, function, [f.type, f.type, "u32", "u32"], f.type)


@form("popc .type=b32|b64", "clz .type=b32|b64")
def count_bits(instruction: Instruction, f: Any) -> Step:
    bits, leading = int(f.type[1:]), instruction.opcode == "clz"

    def function(a: Array) -> Array:
        each = (a[:, None] >> np.arange(bits).astype(a.dtype)) & a.dtype.type(1)
        if not leading:
            return each.sum(axis=1).astype(np.uint32)
        return np.where(each.any(axis=1), each[:, ::-1].argmax(axis=1), bits).astype(np.uint32)

    return elementwise(instruction, function, [f.type], "u32")


@form("brev .type=b32|b64")
def reverse_bits(instruction: Instruction, f: Any) -> Step:
    def function(a: Array) -> Array:
        bits = np.unpackbits(a.view(np.uint8).reshape(a.size, -1), axis=1, bitorder="little")
        return np.packbits(bits[:, ::-1], axis=1, bitorder="little").view(a.dtype)[:, 0]

    return elementwise(instruction, function, [f.type], f.type)


@form("prmt .b32")
def permute(instruction: Instruction, f: Any) -> Step:
    """Each nibble of the third operand picks one of the eight bytes of ``b:a``, or, with its top bit, that byte's
    sign."""

    def function(a: Array, b: Array, selector: Array) -> Array:
        both = b.astype(np.uint64) << np.uint64(32) | a.astype(np.uint64)
        result = np.zeros(np.broadcast(both, selector).shape, np.uint32)
        for byte in range(4):
            nibble = selector >> np.uint32(4 * byte)
            value = (both >> (np.uint64(8) * (nibble & np.uint32(7)))) & np.uint64(0xFF)
            sign = np.where(value & np.uint64(0x80), np.uint64(0xFF), np.uint64(0))
            picked = np.where(nibble & np.uint32(8), sign, value)
            result |= picked.astype(np.uint32) << np.uint32(8 * byte)
        return result

    return elementwise(instruction, function, ["u32"] * 3, "u32")


@form("lop3 .b32")
def logic_of_three(instruction: Instruction, f: Any) -> Step:
    """Bit ``4a + 2b + c`` of the last operand is the result for bits a, b, c."""
    *_, table = expect(instruction, 5)
    if not isinstance(table, Immediate):
        raise UnsupportedError("a truth table that is no constant")

    def function(a: Array, b: Array, c: Array, _: Array) -> Array:
        result = np.zeros(np.broadcast(a, b, c).shape, np.uint32)
        for row in range(8):
            if table.value >> row & 1:
                result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return result

    return elementwise(instruction, function, ["u32"] * 4, "u32")


# ------------------------------------------------------------------------------------------- comparison, predicates

COMPARE: dict[str, Function] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
LOGIC: dict[str, Function] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def set_predicate(instruction: Instruction, combine: str | None, compare: Function, read: Callable[..., Any]) -> Step:
    """``p|q = a compare b``, both combined with a predicate c if there is one: q is that of the opposite."""
    target, a, b, *third = expect(instruction, 4 if combine else 3)
    first, second = (destination(part, 1) for part in pair(target))
    left, right = read(a), read(b)
    with_ = source(third[0], 1) if combine else None

    def step(m: Any) -> None:
        holds = compare(left(m), right(m))
        opposite = ~holds
        if with_ and combine:
            other = with_(m)
            holds, opposite = LOGIC[combine](holds, other), LOGIC[combine](opposite, other)
        first(m, holds)
        second(m, opposite)

    return step


@form(
    "setp .compare=eq|ne .combine=and|or|xor? .type=b16|b32|b64",
    "setp .compare=eq|ne|lt|le|gt|ge|lo|ls|hi|hs .combine=and|or|xor? .type=u16|s16|u32|s32|u64|s64",
)
def compare_integers(instruction: Instruction, f: Any) -> Step:
    bits, dtype = int(f.type[1:]), integer(f.type)
    return set_predicate(instruction, f.combine, COMPARE[f.compare], lambda operand: source(operand, bits, dtype))


@form("and .pred", "or .pred", "xor .pred")
def combine_predicates(instruction: Instruction, f: Any) -> Step:
    target, a, b = expect(instruction, 3)
    left, right, write = source(a, 1), source(b, 1), destination(target, 1)
    function = LOGIC[instruction.opcode]
    return lambda m: write(m, function(left(m), right(m)))


@form("not .pred")
def negate_predicate(instruction: Instruction, f: Any) -> Step:
    target, a = expect(instruction, 2)
    read, write = source(a, 1), destination(target, 1)
    return lambda m: write(m, ~read(m))
