"""Operands as functions of a machine: sources read the active threads' values, destinations write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UnsupportedError
from .formats import RAW, Array
from .parse import Address, Immediate, Instruction, Negated, Operand, Pair, Register, Sink, Special, Symbol, Vector

if TYPE_CHECKING:
    from .machine import Machine

Source = Callable[["Machine"], Array]
Destination = Callable[["Machine", Array], None]


def source(operand: Operand, bits: int, view: Any = None, narrow: bool = False) -> Source:
    """Reads the operand as bits, or as a view of them. With `narrow`, a wider register's low part.

    What is read of a whole register is the register itself: a new value is never written into it. An immediate is an
    array of one element.
    """
    raw = RAW[bits]
    dtype = np.dtype(view or raw)
    if isinstance(operand, Register):
        if operand.bits != bits:
            if not (narrow and operand.bits > bits > 1):
                raise UnsupportedError(f"a register of {operand.bits} bits, {operand.name}, where {bits} are due")
            wide = source(operand, operand.bits)
            return lambda m: wide(m).astype(raw).view(dtype)
        return _register(operand.slot, raw, dtype)
    if isinstance(operand, Negated):
        positive = source(operand.register, bits)
        return lambda m: ~positive(m)
    if isinstance(operand, Immediate):
        if operand.bits not in (None, bits):
            raise UnsupportedError(f"{operand.name} where a type of {bits} bits is due")
        if bits == 1:
            constant = np.array([operand.value != 0])
        else:
            constant = np.array([operand.value & (1 << bits) - 1], raw).view(dtype)
        return lambda m: constant
    if isinstance(operand, Special):
        name = operand.name
        if bits == 32:
            return lambda m: m.of(m.special[name]).view(dtype)
        return lambda m: m.of(m.special[name]).astype(raw).view(dtype)
    if isinstance(operand, Symbol):
        space, offset = operand.space, operand.offset
        if space in ("global", "const"):
            return lambda m: np.array([m.constants_at + offset], raw).view(dtype)
        constant = np.array([offset], raw).view(dtype)
        return lambda m: constant
    raise UnsupportedError(f"operand {operand}")


def _register(slot: int, raw: np.dtype[Any], dtype: np.dtype[Any]) -> Source:
    def whole(m: Machine) -> Array:
        value = m.registers[slot]
        if value is None:
            value = m.unwritten(slot, raw)
        return value if m.active is None else value[m.active]

    if dtype == raw:
        return whole
    return lambda m: whole(m).view(dtype)


def destination(operand: Operand, bits: int, extend: str = "") -> Destination:
    """Writes bits; into a wider register, if `extend` is not empty: by the sign if it is "s", else by zeros.

    The array written becomes the register: it must be nobody else's.
    """
    if isinstance(operand, Sink):
        return lambda m, value: None
    if not isinstance(operand, Register):
        raise UnsupportedError(f"destination {operand}")
    slot, raw = operand.slot, RAW[operand.bits]
    if operand.bits < bits or (operand.bits > bits and not extend):
        raise UnsupportedError(f"a register of {operand.bits} bits, {operand.name}, for a result of {bits}")
    if operand.bits == bits:

        def write(m: Machine, value: Array) -> None:
            value = value.view(raw)
            if m.active is None:
                m.registers[slot] = value if value.size == m.threads else np.full(m.threads, value)
            else:
                register = m.registers[slot]
                if register is None:
                    register = m.registers[slot] = m.poison(raw)
                register[m.active] = value

        return write

    exact = destination(operand, operand.bits)
    narrow, wide = (np.dtype(f"{'i' if extend == 's' else 'u'}{width // 8}") for width in (bits, operand.bits))
    return lambda m, value: exact(m, value.view(narrow).astype(wide))


def address(operand: Operand) -> Source:
    """``uint64[n]``: base and offset of ``[base + offset]``."""
    if not isinstance(operand, Address):
        raise UnsupportedError(f"{operand} where an address is due")
    base, offset = operand
    bits = base.bits if isinstance(base, Register) else 64
    read = source(base, bits)
    step = np.array([offset & (1 << bits) - 1], RAW[bits])

    def locate(m: Machine) -> Array:
        where = read(m) + step if offset else read(m)
        where = where.astype(np.uint64, copy=False)
        return where if where.size == m.size else np.full(m.size, where)

    return locate


def elements(operand: Operand, count: int) -> tuple[Operand, ...]:
    """Of a vector operand. One element may stand without braces."""
    found = operand.elements if isinstance(operand, Vector) else (operand,)
    if len(found) != count:
        raise UnsupportedError(f"{len(found)} elements where {count} are due")
    return found


def pair(operand: Operand) -> tuple[Operand, Operand]:
    """``a|b``, or ``a`` and a sink."""
    return (operand.first, operand.second) if isinstance(operand, Pair) else (operand, Sink())


def expect(instruction: Instruction, *counts: int) -> tuple[Operand, ...]:
    """The operands, as many as the instruction may have."""
    if len(instruction.operands) not in counts:
        raise UnsupportedError(f"{len(instruction.operands)} operands where {' or '.join(map(str, counts))} are due")
    return instruction.operands
