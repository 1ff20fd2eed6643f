"""A kernel, decoded: basic blocks of steps, and the memory that it takes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from ..errors import UnsupportedError
from ..operands import Source, source
from ..parse import Instruction, Kernel, Label, parse
from . import asynchronous, cluster, conversion, floating, integer, movement, tensor, warp  # noqa: F401 (they register forms)
from .forms import Step, Work, decode
from .movement import narrowest

if TYPE_CHECKING:
    from ..machine import Machine


@dataclass(frozen=True)
class Branch:
    target: int  # a basic block
    guard: Source | None
    instruction: Instruction


@dataclass(frozen=True)
class Barrier:
    """All threads of a block wait for each other; the next basic block begins behind it."""

    guard: Source | None
    instruction: Instruction


@dataclass(frozen=True)
class ClusterWait:
    """A thread waits until all of the cluster's have arrived; the next basic block begins behind it."""

    guard: Source | None
    instruction: Instruction


@dataclass(frozen=True)
class Exit:
    guard: Source | None
    instruction: Instruction


End: TypeAlias = Branch | Barrier | ClusterWait | Exit


@dataclass(frozen=True)
class Block:
    """Steps in a row, and how they end; `None`: in the next block."""

    steps: list[tuple[Step, Instruction]]
    flops: int  # of a thread, guarded steps apart
    end: End | None


@dataclass(frozen=True)
class Program:
    kernel: Kernel
    blocks: list[Block]
    granules: dict[str, int]  # the narrowest access to global and shared memory, in bytes

    @property
    def argument_bytes(self) -> int:
        return max((p.offset + p.bytes for p in self.kernel.parameters), default=0)

    def pack(self, values: Sequence[int | float | bytes]) -> bytes:
        """Arguments in order as bytes: an int or a float32 is as wide as the parameter, bytes are taken as they are.
        Parameters beyond the last value are zeros."""
        packed = bytearray(self.argument_bytes)
        if len(values) > len(self.kernel.parameters):
            raise ValueError(f"{len(values)} arguments for {len(self.kernel.parameters)} parameters")
        for parameter, value in zip(self.kernel.parameters, values, strict=False):
            if isinstance(value, int):
                value = (value & (1 << 8 * parameter.bytes) - 1).to_bytes(parameter.bytes, "little")
            elif isinstance(value, float):
                value = struct.pack("<f", value)
            if len(value) != parameter.bytes:
                raise ValueError(f"{len(value)} bytes for the {parameter.bytes} bytes of {parameter.name}")
            packed[parameter.offset : parameter.offset + parameter.bytes] = value
        return bytes(packed)


@cache
def load(text: str, name: str | None = None) -> Program:
    """The kernel of that name in PTX text, or the only one.

    Raises :class:`UnsupportedError`, with every instruction that is not executed.
    """
    kernel = parse(text, name)
    code = kernel.instructions
    leaders = {operand.target for instruction in code for operand in instruction.operands if isinstance(operand, Label)}
    leaders |= {0, *(at + 1 for at, instruction in enumerate(code) if _name(instruction) in ENDS)}
    starts = sorted(leader for leader in leaders if leader < len(code))
    block_at = {at: index for index, at in enumerate([*starts, len(code)])}
    blocks, refused = [], []
    for first, last in zip(starts, [*starts[1:], len(code)], strict=True):
        steps, flops, end = [], 0, None
        for instruction in code[first:last]:
            try:
                if _name(instruction) in ENDS:
                    end = _end(instruction, block_at)
                else:
                    step, work = _step(instruction)
                    steps.append((step, instruction))
                    flops += work
            except UnsupportedError as error:
                refused.append(f"{error}, in {instruction}")
        blocks.append(Block(steps, flops, end))
    if refused:
        lines = "".join(f"\n  {line}" for line in refused)
        raise UnsupportedError(f"kernel {kernel.name}, compiled for {kernel.target}, is not executed:{lines}")
    return Program(kernel, blocks, {space: narrowest(code, space) for space in ("global", "shared")})


ENDS = {
    **dict.fromkeys(("bra", "bra.uni"), Branch),
    **dict.fromkeys(("ret", "ret.uni", "exit"), Exit),
    **dict.fromkeys(("bar.sync", "bar.cta.sync", "barrier.sync", "barrier.cta.sync"), Barrier),
    **dict.fromkeys(("barrier.sync.aligned", "barrier.cta.sync.aligned"), Barrier),
    **{f"barrier.cluster.wait{rest}": ClusterWait for rest in ("", ".acquire", ".aligned", ".acquire.aligned")},
}


def _name(instruction: Instruction) -> str:
    return instruction.opcode + instruction.modifiers


def _guard(instruction: Instruction) -> Source | None:
    return source(instruction.guard, 1) if instruction.guard else None


def _end(instruction: Instruction, block_at: dict[int, int]) -> End:
    kind, guard, operands = ENDS[_name(instruction)], _guard(instruction), instruction.operands
    if kind is Branch:
        (label,) = operands
        assert isinstance(label, Label)
        return Branch(block_at[label.target], guard, instruction)
    if len(operands) > 1:
        raise UnsupportedError("a barrier of some of a block's threads")
    return kind(guard, instruction)


def _step(instruction: Instruction) -> tuple[Step, int]:
    """The instruction for the threads whose guard holds, and the FLOPs that every thread spends on it."""
    decoded = decode(instruction)
    step, flops = (decoded.step, decoded.flops) if isinstance(decoded, Work) else (decoded, 0)
    guard = _guard(instruction)
    if guard is None:
        return step, flops

    def guarded(m: Machine) -> None:
        active = m.active
        chosen, _ = m.split(guard)
        if chosen is None or chosen.size:
            m.active = chosen
            m.statistics.flops += flops * m.size
            step(m)
            m.active = active

    return guarded, 0
