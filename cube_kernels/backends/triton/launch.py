"""How a kernel is launched: with which of a few configurations, on which device.

The autotuner times those that fit a plan once and remembers the best on disk. Where results must not depend on such a
choice (``torch.use_deterministic_algorithms``) and in the interpreter, the first that fits is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton

from cube_kernels.backends.triton.plan import Plan


class Configurations(NamedTuple):
    """What a family of kernels may be compiled with, the usual choice first, and the float32 numbers that a program
    then holds."""

    choices: Sequence[triton.Config]
    numbers: Callable[[Plan, dict[str, int]], int]

    def fitting(self, plan: Plan) -> list[triton.Config]:
        """Those whose numbers fit the registers; else the one that needs the fewest."""
        held = [self.numbers(plan, c.kwargs) / (32 * c.num_warps) for c in self.choices]
        fitting = [c for c, count in zip(self.choices, held, strict=True) if count <= NUMBERS_A_THREAD]
        return fitting or [self.choices[held.index(min(held))]]


NUMBERS_A_THREAD = 64


def _perception_numbers(plan: Plan, sizes: dict[str, int]) -> int:
    return sizes["BLOCK"] * plan.width * (max(plan.filters, 1) + 1)


def _step_numbers(plan: Plan, sizes: dict[str, int]) -> int:
    return sizes["BLOCK"] * (plan.width * (plan.tiles + 1 + plan.heads) + sizes["HIDDEN"])


def _gradient_numbers(plan: Plan, sizes: dict[str, int]) -> int:
    rows = sizes["BLOCK"] * (plan.width * (plan.tiles + 2 + 2 * plan.heads) + 3 * sizes["HIDDEN"])
    return rows + sizes["HIDDEN"] * plan.width


def _configurations(sizes: Sequence[dict[str, int]], warps: Sequence[int]) -> list[triton.Config]:
    return [triton.Config(s, num_warps=w, num_stages=1) for s in sizes for w in warps]


PERCEPTION = Configurations(_configurations([{"BLOCK": n} for n in (64, 128, 32, 16)], (4, 8)), _perception_numbers)
_LAYERS = [{"BLOCK": b, "HIDDEN": h} for b, h in ((64, 64), (32, 64), (32, 32), (16, 32), (16, 16))]
STEP = Configurations(_configurations(_LAYERS, (4, 8)), _step_numbers)
GRADIENT = Configurations(_configurations(_LAYERS, (4, 8)), _gradient_numbers)


class Launcher:
    """Launches one kernel over the cells of a batch.

    Args:
        kernel: takes ``plan`` and the sizes of its configurations as constants.
        configurations: which to choose from.
        changed: names of tensors that it reads and changes: tuning puts them back.
    """

    def __init__(self, kernel: Any, configurations: Configurations, changed: Sequence[str] = ()) -> None:
        self.kernel, self.configurations = kernel, configurations
        self.tuned = triton.autotune(
            configs=list(configurations.choices),
            key=["plan", "D", "H", "W"],
            prune_configs_by={"early_config_prune": lambda _, given, **rest: configurations.fitting(rest["plan"])},
            restore_value=list(changed),
            cache_results=True,
        )(kernel)

    def __call__(self, rows: int, *arguments: Any, plan: Plan, parts: int | None = None, **constants: Any) -> None:
        """Over so many rows of the batch: a program for each block of them, or so many programs in all."""
        if rows == 0:
            return

        def grid(sizes: dict[str, int]) -> tuple[int]:
            return (triton.cdiv(rows, sizes["BLOCK"]) if parts is None else parts,)

        options = {"plan": plan, "enable_fp_fusion": True, **constants}
        if triton.knobs.runtime.interpret or torch.are_deterministic_algorithms_enabled():
            config = self.configurations.fitting(plan)[0]
            self.kernel[grid](*arguments, **options, **config.all_kwargs())
        else:
            self.tuned[grid](*arguments, **options)
