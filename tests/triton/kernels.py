"""Every kernel as the launchers would compile it: for tests that compile ahead of time, with no GPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cube_kernels import Alive, Lattice, Rule, bind
from cube_kernels.backends.triton import convergence, gradient, launch, life, perception, step, sums
from cube_kernels.backends.triton.plan import Plan, perception_plan, rule_plan

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
STORAGE = ("fp32", "bf16", "fp16")

# What each pointer of the kernels points to; the others point to numbers of the storage.
POINTERS = {
    "write_mask": "u8",
    "living": "u8",
    "taken": "i64",
    "retention": "fp32",
    "offsets": "i32",
    "pool": "i32",
    "readers": "i32",
    "percept_gradient": "fp32",
    "drive_gradient": "fp32",
    "partials": "fp32",
    "movement": "fp64",
}
NUMBERS = {"pace", "low", "high", "alive_threshold", "dead_value", "tolerance"}
INTEGERS = {"D", "H", "W", "parts", "slabs"}


@dataclass(frozen=True)
class Compilation:
    """One kernel with all that is known when it is compiled."""

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, int]
    absent: frozenset[str] = frozenset()

    def compile(self, target: GPUTarget, aligned: bool = True) -> Any:
        """``aligned``: every address is a multiple of 16 bytes, as torch allocates; else of its element."""
        names = self.kernel.arg_names
        signature = {name: self.signature.get(name, "constexpr") for name in names}
        pointers = [(names.index(name),) for name, type_ in signature.items() if type_.startswith("*")]
        source = ASTSource(
            fn=self.kernel,
            signature=signature,
            constexprs={(names.index(name),): value for name, value in self.constants.items()},
            attrs={pointer: [["tt.divisibility", 16]] for pointer in pointers} if aligned else {},
        )
        return triton.compile(source, target=target, options={"enable_fp_fusion": True, **self.options})


def compilation(
    name: str, kernel: Any, storage: str, constants: dict[str, Any], warps: int = 4, narrow: dict[str, str] | None = None
) -> Compilation:
    """``constants`` holds None for each tensor that such a call leaves out."""
    signature = {}
    for argument, parameter in inspect.signature(kernel.fn).parameters.items():
        annotation = str(parameter.annotation)
        if argument in constants:
            continue
        if "int64" in annotation or "int32" in annotation:
            signature[argument] = "i64" if "int64" in annotation else "i32"
        elif argument in NUMBERS:
            signature[argument] = "fp32"
        elif argument in INTEGERS:
            signature[argument] = "i32"
        else:
            signature[argument] = "*" + (narrow or {}).get(argument, POINTERS.get(argument, storage))
    return Compilation(name, kernel, signature, constants, {"num_warps": warps, "num_stages": 1})


def _configured(
    name: str, launcher: Any, storage: str, plan: Plan, constants: dict[str, Any], narrow: dict[str, str] | None = None
) -> Iterator[Compilation]:
    for config in launcher.configurations.fitting(plan):
        sizes = {k: v for k, v in config.kwargs.items() if k in launcher.kernel.arg_names}
        label = "-".join([name, storage, *(f"{k}{v}" for k, v in sizes.items()), f"warps{config.num_warps}"])
        yield compilation(
            label, launcher.kernel, storage, {"plan": plan, **constants, **sizes}, config.num_warps, narrow
        )
