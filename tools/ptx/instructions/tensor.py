"""``mma.sync``: a warp multiplies a 16×K by a K×8 matrix, whose elements lie spread over the registers of its lanes.

Products and sums are computed in double and rounded once to f32; hardware keeps fewer bits of the sum. Of a tf32
operand the low 13 bits count as zero: that is what hardware reads, and what compilers rely on when they pass an f32
without converting it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..formats import FORMATS, Array
from ..operands import Source, destination, elements, expect, source
from ..parse import Instruction
from .conversion import TF32_LOW
from .forms import Work, form
from .warp import LANE, WARP

M, N = 16, 8
GROUP, MEMBER = LANE[:, None, None] // 4, LANE[:, None, None] % 4


class Fragment(NamedTuple):
    """Where the elements of a matrix lie: row and column of each, by lane, register and place in the register."""

    row: Array
    column: Array

    def gather(self, values: Array, shape: tuple[int, int]) -> Array:
        """``[warps, lanes, registers, places]`` to ``[warps, *shape]``"""
        matrices = np.empty((values.shape[0], *shape), values.dtype)
        matrices[:, self.row, self.column] = values
        return matrices


def _fragment(row: Array, column: Array) -> Fragment:
    return Fragment(*np.broadcast_arrays(row, column))


def fragments(k: int, places: int) -> tuple[Fragment, Fragment, Fragment]:
    """A, B and C for `places` elements in a register: two of 16 bits or one of 32."""
    place = np.arange(places)
    span = 4 * places  # columns of A that four lanes hold
    registers = np.arange(2 * k // span)[:, None]
    a = _fragment(GROUP + 8 * (registers % 2), places * MEMBER + place + span * (registers // 2))
    registers = np.arange(k // span)[:, None]
    b = _fragment(places * MEMBER + place + span * registers, GROUP)
    registers = np.arange(4)[:, None]
    c = _fragment(GROUP + 8 * (registers // 2), 2 * MEMBER + registers % 2 + 0 * place[:1])
    return a, b, c


@form(
    "mma .sync .aligned .shape=m16n8k8|m16n8k16 .row .col .f32 .type=bf16 .bf16 .f32",
    "mma .sync .aligned .shape=m16n8k8|m16n8k16 .row .col .f32 .type=f16 .f16 .f32",
    "mma .sync .aligned .shape=m16n8k4|m16n8k8 .row .col .f32 .type=tf32 .tf32 .f32",
)
def multiply(instruction: Instruction, f: Any) -> Work:
    """D = A·B + C"""
    operands = expect(instruction, 4)
    k, places = int(f.shape.removeprefix("m16n8k")), 1 if f.type == "tf32" else 2
    a, b, c = fragments(k, places)
    counts = (4, a.row.shape[1], b.row.shape[1], 4)
    d, *sources = (elements(operand, count) for operand, count in zip(operands, counts, strict=True))
    writes = [destination(element, 32) for element in d]
    left, right, addend = ([source(element, 32) for element in group] for group in sources)

    def numbers(m: Any, reads: list[Source]) -> Array:
        raw = np.stack([np.broadcast_to(read(m), m.size) for read in reads], axis=1).reshape(-1, WARP, len(reads), 1)
        if f.type == "tf32":
            return (raw & ~TF32_LOW).view(np.float32)
        return FORMATS[f.type].decode(raw.view(np.uint16))

    def step(m: Any) -> None:
        m.whole_warps()
        product = a.gather(numbers(m, left), (M, k)).astype(np.float64) @ b.gather(numbers(m, right), (k, N))
        result = product[:, c.row[..., 0], c.column[..., 0]].reshape(-1, 4)
        for i, (read, write) in enumerate(zip(addend, writes, strict=True)):
            write(m, (result[:, i] + read(m).view(np.float32)).astype(np.float32))

    return Work(step, 2 * M * N * k // WARP)
