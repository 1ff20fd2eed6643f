"""How a kernel is launched: with which of a few configurations.

The autotuner times those that fit a plan once, on the sizes at hand, and remembers the best on disk. Where results must
not depend on such a choice (``torch.use_deterministic_algorithms``) and in the interpreter, the first that fits is
taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton

from cube_kernels.backends.triton.plan import DOT_MINIMUM, Plan, power_of_two
from cube_kernels.tables import refuse_capture

TUNED = 4
"""At most so many configurations are timed: each takes seconds to compile."""
OPTIONS = {"enable_fp_fusion": False}
"""Of every kernel. LLVM would fuse a product into the first addition of a sum across lanes, which then differ in their
last bits, and which of them is stored is the hardware's choice."""


class Configurations(NamedTuple):
    """What a family of kernels may be compiled with, the largest blocks first, and how many numbers of a program's
    tiles a thread may hold: measured, as what compiles without spilling on every target."""

    choices: Sequence[triton.Config]
    held: Callable[[Plan, dict[str, int]], int]  # by a program
    limit: int
    half_limit: int  # where tensor cores multiply half-width numbers, they take them from shared memory
    registers: int | None = None  # a thread's, on NVIDIA; None: the assembler's choice, which now and then spills a few

    def fitting(self, plan: Plan) -> list[triton.Config]:
        """Those that a thread's registers hold, else the one that needs the fewest; of these, those in which a thread
        has 16 bytes of the state to load at once, if there are any."""
        limit = self.half_limit if plan.product == "half" else self.limit
        widest = power_of_two(plan.hidden, DOT_MINIMUM)
        choices = [c for c in self.choices if c.kwargs.get("HIDDEN", 0) <= widest]
        held = [self.held(plan, c.kwargs) / (32 * c.num_warps) for c in choices]
        fitting = [c for c, count in zip(choices, held, strict=True) if count <= limit]
        fitting = fitting or [choices[held.index(min(held))]]
        loaded = [c.kwargs["BLOCK"] * plan.width // (32 * c.num_warps) for c in fitting]
        least = next(n for n in (8, 4, 0) if n <= max(loaded))  # of half-width numbers, of float32
        return [self._at_home(c) for c, count in zip(fitting, loaded, strict=True) if count >= least][:TUNED]

    def _at_home(self, config: triton.Config) -> triton.Config:
        """On the GPU at hand. Where warps have 64 lanes, as AMD's, with as many threads: a block of twice as many would
        have half the registers for each."""
        if triton.knobs.runtime.interpret:
            return config
        target = triton.runtime.driver.active.get_current_target()
        warps = 32 * config.num_warps // target.warp_size
        registers = self.registers if target.backend == "cuda" else None
        return triton.Config(config.kwargs, num_warps=warps, num_stages=config.num_stages, maxnreg=registers)


def _held_by_perception(plan: Plan, sizes: dict[str, int]) -> int:
    return sizes["BLOCK"] * plan.width * (max(plan.filters, 1) + 1)


def _passing(plan: Plan) -> int:
    """Vectors of the hidden layer's input that are held one after the other: a neighbor's state, the drive."""
    drive = math.ceil(plan.drive_width / plan.width) if plan.drive else 0
    return int(plan.gathers) + drive


def _held_by_step(plan: Plan, sizes: dict[str, int]) -> int:
    return sizes["BLOCK"] * (plan.width * (plan.tiles + _passing(plan) + 1 + plan.heads) + sizes["HIDDEN"])


def _held_by_gradient(plan: Plan, sizes: dict[str, int]) -> int:
    tiles = plan.tiles + 2 * _passing(plan)  # with their gradients
    rows = sizes["BLOCK"] * (plan.width * (tiles + 2 + 2 * plan.heads) + 3 * sizes["HIDDEN"])
    return rows + sizes["HIDDEN"] * plan.width


def _layers(*choices: tuple[int, int, int]) -> list[triton.Config]:
    return [triton.Config({"BLOCK": b, "HIDDEN": h}, num_warps=warps, num_stages=1) for b, h, warps in choices]


PERCEPTION = Configurations(
    [triton.Config({"BLOCK": block}, num_warps=4, num_stages=1) for block in (256, 128, 64, 32, 16)],
    _held_by_perception,
    limit=40,
    half_limit=40,
    registers=128,
)
STEP = Configurations(
    _layers(
        (64, 64, 4),
        (32, 64, 4),
        (32, 32, 4),
        (32, 32, 8),
        (16, 32, 4),
        (128, 16, 8),  # with half the threads, sm_100's code keeps two registers in memory
        (32, 16, 4),
        (16, 16, 4),
        (16, 16, 8),
    ),
    _held_by_step,
    limit=34,
    half_limit=128,
)
GRADIENT = Configurations(
    _layers((64, 32, 4), (32, 32, 4), (32, 32, 8), (16, 32, 4), (64, 16, 4), (32, 16, 4), (16, 16, 8)),
    _held_by_gradient,
    limit=60,
    half_limit=128,
)


def _time(call: Callable[[], None], quantiles: Sequence[float]) -> Any:
    """As the autotuner by itself, which asks no one whether it may wait for the GPU."""
    refuse_capture("a kernel has not been tuned for this rule and lattice yet")
    return triton.runtime.driver.active.get_benchmarker()(call, quantiles=quantiles)


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
            do_bench=_time,
            cache_results=True,
        )(kernel)

    def __call__(self, rows: int, *arguments: Any, plan: Plan, parts: int | None = None, **constants: Any) -> None:
        """Over so many rows of the batch: a program for each block of them, or so many programs in all."""
        if rows == 0:
            return

        def grid(sizes: dict[str, int]) -> tuple[int]:
            return (triton.cdiv(rows, sizes["BLOCK"]) if parts is None else parts,)

        options = {"plan": plan, **OPTIONS, **constants}
        if triton.knobs.runtime.interpret or torch.are_deterministic_algorithms_enabled():
            config = self.configurations.fitting(plan)[0]
            self.kernel[grid](*arguments, **options, **config.all_kwargs())
        else:
            self.tuned[grid](*arguments, **options)
