"""What every Triton kernel needs on every target: the table in ``docs/resources.json``.

    python -m tools.resources --write     # measure again
    python -m tools.resources             # compare with the table; fails where code got worse

A row is one kernel of one case in one configuration on one target. ``limits`` fail whatever the table says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from cube_kernels import Alive, CubeLayer, Lattice, Rule, perceive
from tools.resources.code import Usage, amd_usage, nvidia_usage
from tools.resources.occupancy import MULTIPROCESSORS, occupancy
from tools.resources.recording import TARGETS, Compiled, recording


class Case(NamedTuple):
    lattice: Lattice
    rule: Rule
    precisions: tuple[str, ...] = ("fp32",)

    def run(self, dtype: torch.dtype, aligned: bool) -> None:
        """Launches every kernel of a rollout, its backward pass and perception once."""
        layer = CubeLayer(self.lattice, self.rule, steps=2, backend="triton", checkpoint_every=1).to(dtype)
        seed = 1 if self.rule.fire_rate < 1 else None
        drive = _tensor((1, *self.lattice.shape, self.rule.drive), dtype, aligned) if self.rule.drive else None
        state = _tensor((2, *self.lattice.state_shape), dtype, aligned).requires_grad_()
        layer(state, drive=drive, seed=seed).sum().backward()
        filters = None
        if self.rule.bank:
            filters = _tensor((self.rule.bank, len(self.lattice.offsets), self.lattice.channels), dtype, aligned)
            filters.requires_grad_()
        perceive(state, self.lattice, filters, backend="triton").sum().backward()


def _tensor(shape: tuple[int, ...], dtype: torch.dtype, aligned: bool) -> Tensor:
    """Of ones; unaligned ones start one element past a 16-byte boundary."""
    count = torch.Size(shape).numel()
    return torch.ones(count + 8, dtype=dtype)[0 if aligned else 1 :][:count].view(shape)


CASES = {
    "moore C16 P4 hidden 128 residual": Case(
        Lattice((8, 8, 8), 16, "moore"),
        Rule(filters=4, hidden=128, activation="relu", fire_rate=0.5, alive=Alive(3)),
        ("fp32", "tf32", "bf16"),
    ),
    "von Neumann C32 P1 hidden 128 gated": Case(
        Lattice((8, 8, 12), 32, boundary="periodic"),
        Rule(hidden=128, update="gated"),
        ("fp32", "bf16"),
    ),
    "gather C8 hidden 16 drive 12": Case(
        Lattice((8, 8, 8), 8, boundary="replicate"),
        Rule(perception="gather", drive=12, hidden=16, activation="tanh", update="replace"),
    ),
    "stencil C16": Case(Lattice((8, 8, 8), 16, boundary="reflecting"), Rule(hidden=0, own_state=False)),
}


def usage(compiled: Compiled) -> Usage:
    if ".cubin" in compiled.files:
        (found,) = nvidia_usage(compiled.files[".cubin"]).values()
        return found
    return amd_usage(compiled.files[".amdgcn"].decode())


def _row(target: str, compiled: Compiled) -> dict[str, float]:
    used = usage(compiled)
    row: dict[str, float] = {
        "registers": used.registers,
        "spills": used.spills,
        "shared bytes": compiled.shared,
        "widest load bits": max(used.load_bits, default=0),
        "widest store bits": max(used.store_bits, default=0),
        "tensor instructions": used.tensor_instructions,
        "instructions": used.instructions,
    }
    if target in MULTIPROCESSORS:
        row["occupancy"] = occupancy(target, compiled.threads, used.registers, compiled.shared)
    return row


VARIANTS = [
    *((name, precision, True) for name, case in CASES.items() for precision in case.precisions),
    (next(iter(CASES)), "fp32", False),
]
"""Name, precision, and whether tensors begin on 16-byte boundaries."""


def measured(target: str, every_configuration: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """Rows by name: of the configurations that a deterministic call takes, or of all that the autotuner would try."""
    torch.use_deterministic_algorithms(not every_configuration)
    for name, precision, aligned in VARIANTS:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        with tempfile.TemporaryDirectory() as cache:
            triton.knobs.cache.dir = cache  # what was compiled before is compiled again, and seen
            with recording(target) as compiled:
                CASES[name].run(torch.bfloat16 if precision == "bf16" else torch.float32, aligned)
        for kernel in compiled:
            variant = f"{name}, {precision}{'' if aligned else ', unaligned'}"
            yield f"{target} | {variant} | {kernel.label}", _row(target, kernel)
