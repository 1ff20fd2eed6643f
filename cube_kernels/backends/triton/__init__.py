"""Tiled kernels in Triton, for large lattices on NVIDIA and AMD GPUs: a step is one kernel, forward and backward.

Keeps the states of every ``checkpoint_every``-th step and recomputes the rest in the backward pass. There are no
atomics, so results are bitwise the same on every run with one configuration. Triton is imported by the first call that
asks for it.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import torch
from torch import Tensor

from cube_kernels.backends.compiled import unknown_name
from cube_kernels.backends.contract import Call, Gradients, Outputs
from cube_kernels.backends.triton import plan
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import Rule

name = "triton"

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CHANNEL_LIMIT = 256
CELL_LIMIT = 2**31 - 2**16
"""A sample's cells are counted in 32 bits, and a block may overshoot the last."""
LEAST_ARCHITECTURE = 80


@lru_cache(maxsize=1)
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def why_not(lattice: Lattice, rule: Rule | None, dtype: torch.dtype, device: torch.device) -> str | None:
    """None if this backend runs such a call, otherwise the reason."""
    if not _installed():
        return "Triton is not installed; run `pip install triton`"
    if dtype not in DTYPES:
        return f"it computes in float32, and the state is {dtype}; valid: {', '.join(map(str, DTYPES))}"
    if lattice.channels > CHANNEL_LIMIT:
        return f"it holds a cell's channels in registers, up to {CHANNEL_LIMIT}, and the lattice has {lattice.channels}"
    if lattice.cells > CELL_LIMIT:
        return f"it counts a sample's cells in 32 bits, and the lattice has {lattice.cells}"
    return unknown_name(plan, lattice, rule) or _missing_driver(device)


def _missing_driver(device: torch.device) -> str | None:
    import triton

    if triton.knobs.runtime.interpret:
        runs_on, where = "cpu", "in Triton's interpreter (TRITON_INTERPRET is set), "
    else:
        try:
            driver = triton.runtime.driver.active
            runs_on, where = driver.get_active_torch_device().type, ""
        except RuntimeError:
            return "Triton finds no GPU with a driver"
        target = driver.get_current_target()
        if target.backend == "cuda" and target.arch < LEAST_ARCHITECTURE:
            return f"it takes GPUs of sm_{LEAST_ARCHITECTURE} (Ampere) and later, and this one is sm_{target.arch}"
    if device.type != runs_on:
        return f"it runs {where}on {runs_on}, and the state is on {device}"
    return None


def forward(call: Call, keep_checkpoints: bool) -> Outputs:
    """See :class:`cube_kernels.backends.contract.Kernels`."""
    from cube_kernels.backends.triton import rollout

    return rollout.forward(call, keep_checkpoints)


def backward(
    call: Call,
    checkpoints: Tensor | None,
    taken: Tensor | None,
    state_gradient: Tensor,
    trajectory_gradient: Tensor | None,
) -> Gradients:
    """See :class:`cube_kernels.backends.contract.Kernels`."""
    from cube_kernels.backends.triton import rollout

    return rollout.backward(call, checkpoints, taken, state_gradient, trajectory_gradient)


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """See :func:`cube_kernels.perceive`."""
    from cube_kernels.backends.triton import perception

    return perception.perceive(x, lattice, filters)


def perceive_adjoint(percepts: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """The transpose of perception in the state: ``[B, D, H, W, P·C]`` to ``[B, D, H, W, C]``."""
    from cube_kernels.backends.triton import perception

    return perception.perceive_adjoint(percepts, lattice, filters)


def filter_gradient(x: Tensor, lattice: Lattice, percepts: Tensor) -> Tensor:
    """The transpose of perception in the filters: ``[P, offsets, C]``."""
    from cube_kernels.backends.triton import perception

    return perception.filter_gradient(x, lattice, percepts)
