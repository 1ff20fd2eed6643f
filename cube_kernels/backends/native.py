"""The C++ kernels on the CPU: AVX-512, AVX2 or portable vectors, chosen at run time.

Saves the states of every ``checkpoint_every``-th step and recomputes the rest in the backward pass, a whole
sample at a time in one core's cache. Results are bitwise the same for any number of threads.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from cube_kernels.automaton import Automaton
from cube_kernels.backends.compiled import lattice_plan, rule_plan, unknown_name
from cube_kernels.backends.contract import Call, Gradients, Outputs, Schedule, empty_gradients, empty_outputs
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import Rule
from cube_kernels.value import check_choice

name = "native"

STORAGE = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
ISA_VARIABLE = "CUBE_KERNELS_ISA"
# Waking a thread takes some tens of microseconds; for less work than this none is.
OPERATIONS_A_THREAD = 5_000_000

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
        module = importlib.import_module("cube_kernels._native")
    except ImportError as error:
        return None, HOW_TO_BUILD.format(error=error)
    module.use_openmp(_openmp_parallel())
    return module, ""


def _openmp_runtimes(maps: str) -> set[str]:
    """The paths of the OpenMP runtimes in a process's ``/proc/self/maps``: all that follows the fifth field, spaces and
    all. The file of a deleted one is gone, or another."""
    mapped = (line.split(maxsplit=5) for line in maps.splitlines())
    paths = {fields[5] for fields in mapped if len(fields) == 6}
    return {p for p in paths if re.search(r"/lib(gomp|iomp5|omp)\b[^/]*$", p) and not p.endswith(" (deleted)")}


def _openmp_parallel() -> int:
    """The address of ``GOMP_parallel`` in the OpenMP runtime that torch computes with, 0 if there is none: the threads
    of a pool of our own would have to share the cores with those that torch leaves spinning."""
    maps = Path("/proc/self/maps")
    if not torch.backends.openmp.is_available() or not maps.exists():
        return 0
    home = str(Path(torch.__file__).parent)
    for path in sorted(_openmp_runtimes(maps.read_text()), key=lambda path: not path.startswith(home)):
        runtime = ctypes.CDLL(path)
        if hasattr(runtime, "GOMP_parallel"):
            # A team may then turn out smaller than the one before it, and a sample's threads wait for each other.
            may_shrink = runtime.omp_get_dynamic() or runtime.omp_get_thread_limit() < 2**31 - 1
            return 0 if may_shrink else ctypes.cast(runtime.GOMP_parallel, ctypes.c_void_p).value or 0
    return 0


def _module() -> ModuleType:
    """The compiled module, in a call that ``why_not`` has let through."""
    module, reason = extension()
    assert module is not None, reason
    return module


@lru_cache(maxsize=1)  # reading the environment takes as long as a tenth of a short call
def isa() -> str:
    """The instruction set that CUBE_KERNELS_ISA asked for at the first call, or "auto"."""
    wanted = os.environ.get(ISA_VARIABLE, "auto")
    if wanted != "auto":
        check_choice("cube_kernels", ISA_VARIABLE, wanted, ["auto", *_module().supported_isas()])
    return wanted


def why_not(lattice: Lattice, rule: Rule | None, dtype: torch.dtype, device: torch.device) -> str | None:
    """None if this backend runs such a call, otherwise the reason."""
    module, reason = extension()
    if module is None:
        return reason
    if device.type != "cpu":
        return f"it runs on the CPU, and the state is on {device}"
    return unknown_name(module, lattice, rule)


@lru_cache(maxsize=256)
def perception_plan(lattice: Lattice, filters: int | None) -> Any:
    """The lattice as the C++ side sees it, with so many filters a channel; None for gathering."""
    return lattice_plan(_module(), lattice, filters)


@lru_cache(maxsize=256)
def plan(automaton: Automaton) -> Any:
    """The lattice and the rule as the C++ side sees them."""
    return rule_plan(_module(), automaton)


def _threads(operations: int, most: int) -> tuple[int, int]:
    """How many threads a call takes of so many, and how many microseconds it waits for them to wake up: a tenth of the
    time that it takes with them, at 100 GFLOP/s each."""
    threads = max(1, min(most, operations // OPERATIONS_A_THREAD))
    return threads, max(100, operations // threads // 1_000_000)


@lru_cache(maxsize=256)
def _schedule(
    automaton: Automaton,
    schedule: Schedule,
    dtype: torch.dtype,
    batch: int,
    shared_drive: bool,
    shared_write_mask: bool,
    most_threads: int,
) -> Any:
    threads = _threads(automaton.step_operations * schedule.steps * batch, most_threads)
    return _module().Schedule(STORAGE[dtype], batch, shared_drive, shared_write_mask, *schedule, *threads)


def _begin(call: Call) -> tuple[Any, ...]:
    """The arguments that both directions begin with."""
    automaton, schedule, x, _, drive, write_mask = call
    shared_drive = drive is not None and len(drive) == 1
    shared_write_mask = write_mask is not None and len(write_mask) == 1
    plain = _schedule(automaton, schedule, x.dtype, len(x), shared_drive, shared_write_mask, torch.get_num_threads())
    return isa(), plain, *call[2:]


def forward(call: Call, keep_checkpoints: bool) -> Outputs:
    """See :class:`cube_kernels.backends.contract.Kernels`."""
    outputs = empty_outputs(call.x, call.schedule, keep_checkpoints)
    plan(call.automaton).forward(*_begin(call), *outputs)
    return outputs


def backward(
    call: Call,
    checkpoints: Tensor | None,
    taken: Tensor | None,
    state_gradient: Tensor,
    trajectory_gradient: Tensor | None,
) -> Gradients:
    """See :class:`cube_kernels.backends.contract.Kernels`."""
    gradients = empty_gradients(call, state_gradient.dtype)
    given = checkpoints, taken, state_gradient, trajectory_gradient
    plan(call.automaton).backward(STORAGE[state_gradient.dtype], *_begin(call), *given, *gradients)
    return gradients


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """See :func:`cube_kernels.perceive`."""
    vectors = len(lattice.neighbors) if filters is None else filters.shape[0]
    percepts = x.new_empty((x.shape[0], *lattice.shape, vectors * lattice.channels))
    _perception("forward", lattice, vectors, filters, x, None, percepts)
    return percepts


def perceive_adjoint(percepts: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """The transpose of perception in the state: ``[B, D, H, W, P·C]`` to ``[B, D, H, W, C]``."""
    vectors = len(lattice.neighbors) if filters is None else filters.shape[0]
    x = percepts.new_empty((percepts.shape[0], *lattice.shape, lattice.channels))
    _perception("adjoint", lattice, vectors, filters, None, percepts, x)
    return x


def filter_gradient(x: Tensor, lattice: Lattice, percepts: Tensor) -> Tensor:
    """The transpose of perception in the filters: ``[P, offsets, C]``."""
    vectors = percepts.shape[-1] // lattice.channels
    filters = x.new_empty((vectors, len(lattice.offsets), lattice.channels))
    _perception("bank_gradient", lattice, vectors, filters, x, percepts, filters)
    return filters


def _perception(
    which: str,
    lattice: Lattice,
    vectors: int,
    filters: Tensor | None,
    x: Tensor | None,
    percepts: Tensor | None,
    result: Tensor,
) -> None:
    operations = 2 * len(lattice.offsets) * (x if percepts is None else percepts).numel()  # type: ignore[union-attr]
    perception_plan(lattice, None if filters is None else vectors).perception(
        which,
        isa(),
        STORAGE[result.dtype],
        result.shape[0] if x is None else x.shape[0],
        *_threads(operations, torch.get_num_threads()),
        None if which == "bank_gradient" else filters,
        x,
        None if which == "forward" else percepts,
        result,
    )
