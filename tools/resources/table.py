"""What every Triton kernel needs on every target, and which of them ``tools/ptx`` executes: rows of the table."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from cube_kernels import Alive, CubeLayer, Lattice, Rule, perceive
from tools.host_driver import TARGETS
from tools.ptx import UnsupportedError, load
from tools.resources.code import Usage, amd_usage, nvidia_usage, row_of
from tools.resources.occupancy import MULTIPROCESSORS, occupancy
from tools.resources.recording import Compiled, recording

BATCH = 2


class Case(NamedTuple):
    lattice: Lattice
    rule: Rule
    precisions: tuple[str, ...] = ("fp32",)
    tolerance: float | None = None

    @property
    def cells(self) -> int:
        """Of the batch."""
        return BATCH * self.lattice.cells

    def run(self, dtype: torch.dtype, aligned: bool) -> None:
        """Launches every kernel of a rollout, its backward pass and perception once."""
        layer = CubeLayer(self.lattice, self.rule, steps=2, backend="triton", checkpoint_every=1).to(dtype)
        seed = 1 if self.rule.fire_rate < 1 else None
        drive = _tensor((1, *self.lattice.shape, self.rule.drive), dtype, aligned) if self.rule.drive else None
        state = _tensor((BATCH, *self.lattice.state_shape), dtype, aligned).requires_grad_()
        result = layer(state, drive=drive, seed=seed, tolerance=self.tolerance)
        (result if isinstance(result, Tensor) else result.state).sum().backward()
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
    "stencil C16, until it settles": Case(
        Lattice((8, 8, 8), 16, boundary="reflecting"), Rule(hidden=0, own_state=False), tolerance=1e-3
    ),
}


def usage(compiled: Compiled) -> Usage:
    if ".cubin" in compiled.files:
        (found,) = nvidia_usage(compiled.files[".cubin"]).values()
        return found
    return amd_usage(compiled.files[".amdgcn"].decode())


def _row(target: str, compiled: Compiled) -> dict[str, Any]:
    used = usage(compiled)
    row = row_of(used, compiled.shared)
    if target in MULTIPROCESSORS:
        threads = TARGETS[target].gpu.warp_size * compiled.warps
        row["occupancy"] = occupancy(target, threads, used.registers, compiled.shared)
    if ".ptx" in compiled.files:
        row |= _execution(compiled.files[".ptx"].decode(), compiled.kernel)
    return row


_WARPGROUP = re.compile(r"\b(?:wgmma|tcgen05)\.[a-z][\w.:]*")


def _execution(ptx: str, kernel: str) -> dict[str, Any]:
    """Whether the tests can run this code on the CPU, and if not, the instruction that is in the way."""
    try:
        load(ptx, kernel)
    except UnsupportedError as error:
        products = _WARPGROUP.search(ptx)
        return {"executed": False, "because of": products[0] if products else str(error)}
    return {"executed": True}


class Variant(NamedTuple):
    case: str
    precision: str
    aligned: bool  # whether tensors begin on 16-byte boundaries

    def __str__(self) -> str:
        return f"{self.case}, {self.precision}{'' if self.aligned else ', unaligned'}"

    def run(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        CASES[self.case].run(torch.bfloat16 if self.precision == "bf16" else torch.float32, self.aligned)


VARIANTS = [
    *(Variant(name, precision, aligned=True) for name, case in CASES.items() for precision in case.precisions),
    Variant(next(iter(CASES)), "fp32", aligned=False),
]


def measured(target: str, every_configuration: bool, variants: list[Variant]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows by name: of the configurations that a deterministic call takes, or of all that the autotuner would try."""
    torch.use_deterministic_algorithms(not every_configuration)
    for variant in variants:
        with tempfile.TemporaryDirectory() as cache:
            triton.knobs.cache.dir = cache  # what was compiled before is compiled again, and seen
            with recording(target) as compiled:
                variant.run()
        for kernel in compiled:
            yield f"{target} | {variant} | {kernel.label}", _row(target, kernel)


if __name__ == "__main__":
    chosen = VARIANTS[:1] if "--sample" in sys.argv else VARIANTS
    print(json.dumps(dict(measured(sys.argv[1], "--every-configuration" in sys.argv, chosen))))
