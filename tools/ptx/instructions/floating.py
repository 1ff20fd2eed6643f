"""Floating-point arithmetic and comparison, rounded to nearest even, ties to even.

Approximate instructions (``ex2.approx``, ``div.full``, ``tanh.approx``, ...) give the exact result, rounded: hardware
is a few units in the last place off it. ``fma`` computes in double and rounds again, which differs from a single
rounding about once in 2²⁹ operations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from ..formats import FORMATS, Array, flush
from ..operands import Source, destination, expect, source
from ..parse import Instruction, Operand
from .forms import Work, form
from .integer import set_predicate

Function = Callable[..., Array]


def read_numbers(operand: Operand, name: str, ftz: str | bool | None = None) -> Source:
    """The operand as an array to compute with."""
    format_ = FORMATS[name]
    if name in ("f32", "f64"):
        read = source(operand, format_.bits, np.float32 if name == "f32" else np.float64)
    else:
        raw = source(operand, format_.bits)
        read = lambda m: format_.decode(raw(m))  # noqa: E731
    return (lambda m: flush(read(m))) if ftz else read


def elementwise(
    instruction: Instruction, function: Function, types: list[str], result: str, f: Any, flops: int = 1
) -> Work:
    """`function` of sources of these types; `f.ftz` and `f.saturate` where the form has them."""
    target, *operands = expect(instruction, len(types) + 1)
    ftz, saturate = getattr(f, "ftz", None), getattr(f, "saturate", None)
    sources = [read_numbers(operand, name, ftz) for operand, name in zip(operands, types, strict=True)]
    encode, write = FORMATS[result].encode, destination(target, FORMATS[result].bits)

    def step(m: Any) -> None:
        value = function(*[read(m) for read in sources])
        if saturate:
            value = np.clip(np.nan_to_num(value, nan=0.0), 0, 1)
        write(m, encode(flush(value) if ftz else value))

    return Work(step, flops * FORMATS[result].lanes)


# ------------------------------------------------------------------------------------------------------ arithmetic

BINARY: dict[str, Function] = {"add": np.add, "sub": np.subtract, "mul": np.multiply}


def fused(a: Array, b: Array, c: Array) -> Array:
    return a.astype(np.float64) * b + c


SPLIT = 2.0**27 + 1


def fused_double(a: Array, b: Array, c: Array) -> Array:
    """With the product's and the sum's rounding errors added back (Dekker 1971, Knuth), where they do not overflow."""
    product, total = a * b, a * b + c
    high_a, high_b = (SPLIT * x - (SPLIT * x - x) for x in (a, b))
    low_a, low_b = a - high_a, b - high_b
    of_product = low_a * low_b - (((product - high_a * high_b) - low_a * high_b) - high_a * low_b)
    part = total - product
    of_sum = (product - (total - part)) + (c - part)
    exact = total + (of_product + of_sum)
    return np.where(np.isfinite(exact), exact, total)


@form(
    *(f"{name} .rn? .ftz=ftz? .saturate=sat? .type=f32" for name in BINARY),
    *(f"{name} .rn? .type=f64|bf16|bf16x2" for name in BINARY),
    *(f"{name} .rn? .ftz=ftz? .type=f32x2|f16|f16x2" for name in BINARY),
)
def binary(instruction: Instruction, f: Any) -> Work:
    return elementwise(instruction, BINARY[instruction.opcode], [f.type] * 2, f.type, f)


@form(*(f"{name} .rn? .saturate=sat? .type=f32 .narrow=bf16|f16" for name in ("add", "sub")))
def binary_mixed(instruction: Instruction, f: Any) -> Work:
    """The first operand is narrow."""
    return elementwise(instruction, BINARY[instruction.opcode], [f.narrow, f.type], f.type, f)


@form(
    "fma .rn .ftz=ftz? .saturate=sat? .type=f32|f16|f16x2", "fma .rn .ftz=ftz? .type=f32x2", "fma .rn .type=bf16|bf16x2"
)
def multiply_add(instruction: Instruction, f: Any) -> Work:
    return elementwise(instruction, fused, [f.type] * 3, f.type, f, flops=2)


def fused_down(a: Array, b: Array, c: Array) -> Array:
    """Rounded down, to float32: the product is exact in double, the error of its sum known (Knuth)."""
    product = a.astype(np.float64) * b
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    near = total.astype(np.float32)
    above = (near > total) | ((near == total) & (error < 0))
    return np.where(above, np.nextafter(near, np.float32(-np.inf)), near)


@form("fma .rm .ftz=ftz? .type=f32")
def multiply_add_down(instruction: Instruction, f: Any) -> Work:
    return elementwise(instruction, fused_down, [f.type] * 3, f.type, f, flops=2)


@form("fma .rn .type=f64")
def multiply_add_double(instruction: Instruction, f: Any) -> Work:
    return elementwise(instruction, fused_double, [f.type] * 3, f.type, f, flops=2)


@form("fma .rn .saturate=sat? .type=f32 .narrow=bf16|f16")
def multiply_add_mixed(instruction: Instruction, f: Any) -> Work:
    """The factors are narrow."""
    return elementwise(instruction, fused, [f.narrow, f.narrow, f.type], f.type, f, flops=2)


@form("div .full|approx|rn .ftz=ftz? .type=f32", "div .rn .type=f64")
def divide(instruction: Instruction, f: Any) -> Work:
    return elementwise(instruction, np.divide, [f.type] * 2, f.type, f)


def _exactly(function: Function) -> Function:
    return lambda x: function(x.astype(np.float64))


UNARY: dict[str, Function] = {
    "neg": np.negative,
    "abs": np.abs,
    "ex2": _exactly(np.exp2),
    "lg2": _exactly(np.log2),
    "sin": _exactly(np.sin),
    "cos": _exactly(np.cos),
    "tanh": _exactly(np.tanh),
    "rcp": _exactly(np.reciprocal),
    "sqrt": _exactly(np.sqrt),
    "rsqrt": _exactly(lambda x: 1 / np.sqrt(x)),
}


@form(
    *(f"{name} .ftz=ftz? .type=f32|f16|f16x2" for name in ("neg", "abs")),
    *(f"{name} .type=f64|bf16|bf16x2" for name in ("neg", "abs")),
)
def change_sign(instruction: Instruction, f: Any) -> Work:
    return elementwise(instruction, UNARY[instruction.opcode], [f.type], f.type, f, flops=0)


@form(
    *(f"{name} .approx .ftz=ftz? .type=f32" for name in ("ex2", "lg2", "sin", "cos", "rcp", "sqrt", "rsqrt")),
    *(f"{name} .rn .ftz=ftz? .type=f32" for name in ("rcp", "sqrt")),
    *(f"{name} .rn .type=f64" for name in ("rcp", "sqrt")),
    "ex2 .approx .ftz? .type=f16|f16x2|bf16|bf16x2",
    "tanh .approx .type=f32|f16|f16x2|bf16|bf16x2",
)
def unary(instruction: Instruction, f: Any) -> Work:
    return elementwise(instruction, UNARY[instruction.opcode], [f.type], f.type, f)


@form("copysign .type=f32|f64")
def copy_sign(instruction: Instruction, f: Any) -> Work:
    return elementwise(instruction, lambda a, b: np.copysign(b, a), [f.type] * 2, f.type, f, flops=0)


@form(
    *(f"{name} .ftz=ftz? .nan=NaN? .type=f32|f16|f16x2" for name in ("min", "max")),
    *(f"{name} .nan=NaN? .type=bf16|bf16x2" for name in ("min", "max")),
)
def extremum(instruction: Instruction, f: Any) -> Work:
    """Of two or three numbers. A NaN loses, and with ``.NaN`` wins; -0 is below +0."""
    larger = instruction.opcode == "max"
    names = ("minimum", "maximum") if f.nan else ("fmin", "fmax")
    choose = getattr(np, names[larger])

    def function(*values: Array) -> Array:
        return reduce(two, values)

    def two(a: Array, b: Array) -> Array:
        signs = np.signbit(a) & np.signbit(b) if larger else np.signbit(a) | np.signbit(b)
        zero = np.copysign(a.dtype.type(0), np.where(signs, np.float32(-1), np.float32(1)))
        return np.where((a == 0) & (b == 0), zero, choose(a, b))

    return elementwise(instruction, function, [f.type] * (len(instruction.operands) - 1), f.type, f)


# ------------------------------------------------------------------------------------------------------ comparison

ORDERED: dict[str, Function] = {
    "eq": np.equal,
    "ne": lambda a, b: (a < b) | (a > b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}
OPPOSITE = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt", "nan": "num"}
COMPARE = ORDERED | {name: (lambda a, b, o=ORDERED[o]: ~o(a, b)) for name, o in OPPOSITE.items()}


@form(f"setp .compare={'|'.join(COMPARE)} .combine=and|or|xor? .ftz=ftz? .type=f32|f64|f16|bf16")
def compare(instruction: Instruction, f: Any) -> Work:
    """A comparison with a NaN is false, and with ``u`` at its end true."""

    def read(operand: Operand) -> Source:
        return read_numbers(operand, f.type, f.ftz)

    return Work(set_predicate(instruction, f.combine, COMPARE[f.compare], read), 0)
