"""``cvt``: between integers, between floating-point formats, and from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..formats import FORMATS, Array, flush, integer
from ..operands import destination, expect, source
from ..parse import Instruction
from .floating import read_numbers
from .forms import Step, form

INTEGERS = "u8|u16|u32|u64|s8|s16|s32|s64"
TO_INTEGER: dict[str, Callable[[Array], Array]] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@form(f"cvt .saturate=sat? .to={INTEGERS} .type={INTEGERS}")
def between_integers(instruction: Instruction, f: Any) -> Step:
    target, operand = expect(instruction, 2)
    given, wanted = integer(f.type), integer(f.to)
    read = source(operand, given.itemsize * 8, given, narrow=True)
    write = destination(target, wanted.itemsize * 8, extend=f.to[0])
    if not f.saturate:
        return lambda m: write(m, read(m).astype(wanted))
    low, high = (max(np.iinfo(t).min for t in (given, wanted)), min(np.iinfo(t).max for t in (given, wanted)))
    return lambda m: write(m, np.clip(read(m), given.type(low), given.type(high)).astype(wanted))


@form(f"cvt .rn .to=f16|f32|f64 .type={INTEGERS}")
def integer_to_float(instruction: Instruction, f: Any) -> Step:
    target, operand = expect(instruction, 2)
    given = integer(f.type)
    read = source(operand, given.itemsize * 8, given, narrow=True)
    format_ = FORMATS[f.to]
    write = destination(target, format_.bits)
    return lambda m: write(m, format_.encode(read(m)))


@form(
    f"cvt .round=rni|rzi|rmi|rpi .ftz=ftz? .saturate=sat? .to={INTEGERS} .type=f32|f16|f64",
    f"cvt .round=rni|rzi|rmi|rpi .to={INTEGERS} .type=bf16",
)
def float_to_integer(instruction: Instruction, f: Any) -> Step:
    """Out of range gives the nearest integer that there is, a NaN gives 0."""
    target, operand = expect(instruction, 2)
    wanted = integer(f.to)
    read = read_numbers(operand, f.type, getattr(f, "ftz", None))
    write = destination(target, wanted.itemsize * 8, extend=f.to[0])
    round_, limits = TO_INTEGER[f.round], np.iinfo(wanted)

    def step(m: Any) -> None:
        value = round_(read(m).astype(np.float64))
        inside = np.where(np.isnan(value), 0.0, value)
        result = np.where(inside < limits.max, inside, 0.0).clip(limits.min).astype(wanted)
        write(m, np.where(inside < limits.max, result, wanted.type(limits.max)))

    return step


@form(
    "cvt .round=rni|rzi|rmi|rpi .ftz=ftz? .saturate=sat? .to=f32 .type=f32",
    "cvt .round=rni|rzi|rmi|rpi .to=f16 .type=f16",
)
def float_to_whole(instruction: Instruction, f: Any) -> Step:
    target, operand = expect(instruction, 2)
    format_, round_ = FORMATS[f.to], TO_INTEGER[f.round]
    read = read_numbers(operand, f.type, getattr(f, "ftz", None))
    write = destination(target, format_.bits)
    if getattr(f, "saturate", None):
        return lambda m: write(m, format_.encode(np.clip(np.nan_to_num(round_(read(m)), nan=0.0), 0, 1)))
    return lambda m: write(m, format_.encode(round_(read(m))))


@form(
    "cvt .ftz=ftz? .to=f32 .type=f16",
    "cvt .to=f32 .type=bf16",
    "cvt .to=f64 .type=f32|f16",
    "cvt .saturate=sat .to=f32 .type=f32",
)
def to_wider(instruction: Instruction, f: Any) -> Step:
    target, operand = expect(instruction, 2)
    read, write, encode = read_numbers(operand, f.type), destination(target, FORMATS[f.to].bits), FORMATS[f.to].encode
    if getattr(f, "saturate", None):
        return lambda m: write(m, encode(np.clip(np.nan_to_num(read(m), nan=0.0), 0, 1)))
    return lambda m: write(m, encode(read(m).astype(np.float64)))


def narrow(values: Array, name: str, towards_zero: bool, relu: bool, finite: bool) -> Array:
    """The bits of numbers in a narrower format."""
    format_ = FORMATS[name]
    if relu:
        values = np.where(np.isnan(values), values, np.maximum(values, 0))
    raw = format_.encode(values)
    rounded = format_.decode(raw)
    if towards_zero:
        raw = raw - (np.abs(rounded) > np.abs(values)).astype(raw.dtype)  # one step down in magnitude
    if finite:
        raw = raw - (np.isinf(format_.decode(raw))).astype(raw.dtype)  # below infinity lies the largest number
    return raw


@form(
    "cvt .round=rn|rz .ftz=ftz? .saturate=sat? .to=f32 .type=f64",
    "cvt .round=rn|rz .ftz=ftz? .saturate=sat? .to=f16 .type=f32",
    "cvt .round=rn|rz .relu=relu? .finite=satfinite? .to=f16|bf16 .type=f32",
    "cvt .round=rn .to=f16 .type=f64",
)
def to_narrower(instruction: Instruction, f: Any) -> Step:
    target, operand = expect(instruction, 2)
    options = vars(f)
    read, write = read_numbers(operand, f.type), destination(target, FORMATS[f.to].bits)

    def step(m: Any) -> None:
        values = flush(read(m)) if options.get("ftz") else read(m)
        if options.get("saturate"):
            values = np.clip(np.nan_to_num(values, nan=0.0), 0, 1)
        write(m, narrow(values, f.to, f.round == "rz", bool(options.get("relu")), bool(options.get("finite"))))

    return step


@form("cvt .round=rn|rz .relu=relu? .finite=satfinite? .to=f16x2|bf16x2 .type=f32")
def two_to_narrower(instruction: Instruction, f: Any) -> Step:
    """The first source becomes the high half."""
    target, high, low = expect(instruction, 3)
    reads, write = [read_numbers(operand, "f32") for operand in (low, high)], destination(target, 32)
    name = f.to.removesuffix("x2")

    def step(m: Any) -> None:
        low, high = (
            narrow(read(m), name, f.round == "rz", bool(f.relu), bool(f.finite)).astype(np.uint32) for read in reads
        )
        write(m, high << np.uint32(16) | low)

    return step


TF32_LOW = np.uint32(0x1FFF)  # the bits of an f32's fraction that a tf32 lacks


@form("cvt .round=rna .finite=satfinite? .tf32 .f32", "cvt .round=rn|rz .relu=relu? .finite=satfinite? .tf32 .f32")
def to_tf32(instruction: Instruction, f: Any) -> Step:
    """An f32 of which the low 13 bits of the fraction are zero. ``rna``: to nearest, ties away from zero."""
    target, operand = expect(instruction, 2)
    read, write = source(operand, 32), destination(target, 32)
    relu, finite = getattr(f, "relu", None), f.finite

    def step(m: Any) -> None:
        bits = read(m)
        values = bits.view(np.float32)
        half = {"rna": 0x1000, "rn": 0xFFF, "rz": 0}[f.round]
        tie: Any = bits >> np.uint32(13) & np.uint32(1) if f.round == "rn" else np.uint32(0)
        rounded = (bits + np.uint32(half) + tie) & ~TF32_LOW
        if finite:
            rounded = rounded - np.isinf(rounded.view(np.float32)).astype(np.uint32) * np.uint32(0x2000)
        if relu:
            rounded = np.where(values > 0, rounded, np.uint32(0))
        write(m, np.where(np.isnan(values), np.uint32(0x7FFFFFFF), rounded))

    return step
