"""The C++ kernels on the CPU: AVX-512, AVX2 or portable vectors, chosen at run time.

Saves the states of every ``checkpoint_every``-th step and recomputes the rest in the backward pass, a whole
sample at a time in one core's cache. Results are bitwise the same for any number of threads.
"""

from __future__ import annotations

import importlib
import os
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from cube_kernels.lattice import Lattice
from cube_kernels.options import check_choice
from cube_kernels.rule import Rule, RuleParameters

name = "native"

DTYPES = (torch.float32, torch.float64)
ISA_VARIABLE = "CUBE_KERNELS_ISA"

HOW_TO_BUILD = (
    "the native module is not built ({error}); install a C++17 compiler (Debian and Ubuntu: `apt install g++`; "
    "conda: `conda install cxx-compiler`) and run `pip install -e .` or `pip install --no-binary cube-kernels "
    "--force-reinstall --no-deps cube-kernels` again"
)


@lru_cache(maxsize=1)
def extension() -> tuple[ModuleType | None, str]:
    """The compiled module and "", or None and why there is none."""
    try:
        # Not `from . import`: with the file absent that reports a circular import.
        return importlib.import_module("cube_kernels._native"), ""
    except ImportError as error:
        return None, HOW_TO_BUILD.format(error=error)


def _module() -> ModuleType:
    """The compiled module, in a call that ``why_not`` has let through."""
    module, reason = extension()
    assert module is not None, reason
    return module


def isa() -> str:
    """The instruction set that CUBE_KERNELS_ISA asks for, or "auto"."""
    wanted = os.environ.get(ISA_VARIABLE, "auto")
    if wanted != "auto":
        check_choice("cube_kernels", ISA_VARIABLE, wanted, ["auto", *_module().supported_isas()])
    return wanted


def why_not(lattice: Lattice, rule: Rule, dtype: torch.dtype, device: torch.device) -> str | None:
    """None if this backend runs such a call, otherwise the reason."""
    module, reason = extension()
    if module is None:
        return reason
    if device.type != "cpu":
        return f"it runs on the CPU, and the state is on {device}"
    if dtype not in DTYPES:
        return f"it takes {' and '.join(map(str, DTYPES))}, and the state is {dtype}"
    return None


@lru_cache(maxsize=256)
def plan(lattice: Lattice, rule: Rule) -> Any:
    """The lattice and the rule as the C++ side sees them."""
    depthwise = rule.perception == "depthwise"
    return _module().Plan(
        shape=lattice.shape,
        channels=lattice.channels,
        offsets=lattice.offsets if depthwise else lattice.offsets[1:],
        axis_targets=[[i for row in lattice.axis_targets(axis) for i in row] for axis in range(3)],
        filters=rule.filters if depthwise else 0,
        own_state=rule.own_state,
        drive=rule.drive,
        inputs=rule.inputs(lattice),
        hidden=rule.hidden,
        activation=rule.activation,
        squash=rule.squash,
        update=rule.update,
        step_size=rule.step_size,
    )


def _pointers(tensors: RuleParameters) -> list[int]:
    return [0 if t is None else t.data_ptr() for t in tensors]


def _schedule(x: Tensor, drive: Tensor | None, steps: int, checkpoint_every: int) -> Any:
    shared_drive = drive is not None and drive.shape[0] == 1
    return _module().Schedule(len(x), shared_drive, steps, checkpoint_every, torch.get_num_threads())


def forward(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    drive: Tensor | None,
    steps: int,
    checkpoint_every: int,
    keep_checkpoints: bool,
) -> tuple[Tensor, Tensor | None]:
    """The last state ``[B, D, H, W, C]`` and, if kept, the states at steps ``k, 2k, ... < steps`` with
    ``k = checkpoint_every``, ``[n, B, D, H, W, C]``. Every tensor is contiguous."""
    result = torch.empty_like(x)
    kept = x.new_empty((max(steps - 1, 0) // checkpoint_every, *x.shape)) if keep_checkpoints else None
    plan(lattice, rule).forward(
        isa(),
        x.element_size(),
        _schedule(x, drive, steps, checkpoint_every),
        _pointers(parameters),
        x.data_ptr(),
        0 if drive is None else drive.data_ptr(),
        result.data_ptr(),
        0 if kept is None else kept.data_ptr(),
    )
    return result, kept


def backward(
    result_gradient: Tensor,
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    drive: Tensor | None,
    steps: int,
    checkpoint_every: int,
    checkpoints: Tensor,
) -> tuple[Tensor, RuleParameters, Tensor | None]:
    """Gradients of the state, the parameters and the drive. Every tensor is contiguous."""
    state_gradient = torch.empty_like(x)
    gradients = RuleParameters(*(None if p is None else torch.empty_like(p) for p in parameters))  # type: ignore[arg-type]
    drive_gradient = None if drive is None else torch.empty_like(drive)
    plan(lattice, rule).backward(
        isa(),
        x.element_size(),
        _schedule(x, drive, steps, checkpoint_every),
        _pointers(parameters),
        x.data_ptr(),
        0 if drive is None else drive.data_ptr(),
        checkpoints.data_ptr(),
        result_gradient.data_ptr(),
        state_gradient.data_ptr(),
        0 if drive_gradient is None else drive_gradient.data_ptr(),
        _pointers(gradients),
    )
    return state_gradient, gradients, drive_gradient
