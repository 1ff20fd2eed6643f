"""CUDA kernels for small lattices on NVIDIA GPUs: a block of threads keeps a whole sample in shared memory for all
steps of a call, which is one launch. Where a block is too small and the GPU has clusters of them, up to eight share it.

Saves the states of every ``checkpoint_every``-th step; the backward pass is a launch of its own that replays each
segment. Weight gradients are summed in an order that the batch alone decides, so results are bitwise the same on every
run, and for every ``checkpoint_every``. Products are IEEE float32, or TF32 where
``torch.backends.cuda.matmul.fp32_precision`` says so; half-width states go through tensor cores. A call neither waits
nor copies, so it may be captured in a CUDA graph, once an earlier call has brought the lattice's tables to the device.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cube_kernels.automaton import Automaton, bind
from cube_kernels.backends.compiled import lattice_plan, rule_plan, unknown_name
from cube_kernels.backends.contract import Call, Gradients, Outputs, empty_gradients, empty_outputs
from cube_kernels.lattice import Lattice
from cube_kernels.tables import kept_for_graphs, refuse_capture
from cube_kernels.update_rule import Rule

name = "cuda"

STORAGE = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
DEVICE_TYPE = "cuda"
PERCEPTION_CELLS = 1 << 16
"""The largest lattice that perception alone takes; tables list the neighbors of every cell."""

HOW_TO_BUILD = (
    "the CUDA module is not built ({error}); install nvcc 12.8 or later (the CUDA toolkit, or `pip install "
    "nvidia-cuda-nvcc nvidia-cuda-cccl`) and run `CUBE_KERNELS_BUILD_CUDA=1 pip install -e .` again"
)


@lru_cache(maxsize=1)
def extension() -> tuple[ModuleType | None, str]:
    """The compiled module and "", or None and why there is none."""
    try:
        return importlib.import_module("cube_kernels._cuda"), ""
    except ImportError as error:
        return None, HOW_TO_BUILD.format(error=error)


def _module() -> ModuleType:
    """The compiled module, in a call that ``why_not`` has let through."""
    module, reason = extension()
    assert module is not None, reason
    return module


def stream(device: torch.device) -> int:
    """The address of the stream that a call on this device is queued on."""
    return torch.cuda.current_stream(device).cuda_stream


@lru_cache(maxsize=64)
def _device_problem(module: ModuleType, index: int) -> str:
    return module.device_problem(index)


@lru_cache(maxsize=64)
def _limits(module: ModuleType, index: int) -> Any:
    return module.limits(index)


@lru_cache(maxsize=1024)
def _least_shared_bytes(module: ModuleType, automaton: Automaton, dtype: torch.dtype, blocks: int) -> int:
    return rule_plan(module, automaton).least_shared_bytes(STORAGE[dtype], blocks)


def why_not(lattice: Lattice, rule: Rule | None, dtype: torch.dtype, device: torch.device) -> str | None:
    """None if this backend runs such a call, otherwise the reason."""
    module, reason = extension()
    if module is None:
        return reason
    if device.type != DEVICE_TYPE:
        return f"it runs on NVIDIA GPUs, and the state is on {device}"
    if dtype not in STORAGE:
        return f"it computes in float32, and the state is {dtype}"
    index = device.index or 0
    problem = _device_problem(module, index) or unknown_name(module, lattice, rule)
    if problem:
        return problem
    if rule is None:
        if lattice.cells > PERCEPTION_CELLS:
            return f"it is for small lattices, of up to {PERCEPTION_CELLS} cells, and this one has {lattice.cells}"
        return None
    limits = _limits(module, index)
    needed = _least_shared_bytes(module, bind(lattice, rule), dtype, limits.blocks)
    if needed > limits.shared_bytes:
        where = f"in each of {limits.blocks} blocks" if limits.blocks > 1 else "in one block"
        return (
            f"a sample's state and one tile of cells take {needed} bytes of shared memory {where}, and a block of this "
            f"GPU has {limits.shared_bytes}"
        )
    return None


class Resident(NamedTuple):
    """A plan, and its tables on one device."""

    plan: Any
    tables: Tensor


def _resident(plan: Any, device: torch.device) -> Resident:
    refuse_capture("a lattice's tables are not on the GPU yet")
    return Resident(plan, torch.frombuffer(bytearray(plan.tables()), dtype=torch.uint8).to(device, copy=True))


@kept_for_graphs
def _resident_rule(module: ModuleType, automaton: Automaton, device: torch.device) -> Resident:
    return _resident(rule_plan(module, automaton), device)


@kept_for_graphs
def _resident_perception(module: ModuleType, lattice: Lattice, filters: int | None, device: torch.device) -> Resident:
    return _resident(lattice_plan(module, lattice, filters), device)


def _aligned(tensor: Any) -> Any:
    """Kernels move 16 bytes at once, which a view into another tensor may not allow."""
    return tensor.clone() if tensor is not None and tensor.data_ptr() % 16 else tensor


def _scratch(like: Tensor, size: int) -> Tensor:
    """So many bytes on the same device."""
    return like.new_empty(size // 4, dtype=torch.float32)


def _execution(device: torch.device, scratch: Tensor | None) -> Any:
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return _module().Execution(device.index or 0, stream(device), tf32, scratch)


def _begin(call: Call) -> tuple[Any, Any, tuple[Any, ...]]:
    """The plan, the schedule, and the arguments that both directions begin with after the execution."""
    automaton, schedule, x, _, drive, write_mask = call
    plan, tables = _resident_rule(_module(), automaton, x.device)
    shared = (tensor is not None and len(tensor) == 1 for tensor in (drive, write_mask))
    plain = _module().Schedule(STORAGE[x.dtype], len(x), *shared, *schedule)
    return plan, plain, (tables, plain, *call[2:])


def forward(call: Call, keep_checkpoints: bool) -> Outputs:
    """See :class:`cube_kernels.backends.contract.Kernels`."""
    x = _aligned(call.x)
    outputs = empty_outputs(x, call.schedule, keep_checkpoints)
    plan, plain, arguments = _begin(call._replace(x=x))
    scratch = _scratch(x, plan.forward_scratch_bytes(plain, _limits(_module(), x.device.index or 0)))
    plan.forward(_execution(x.device, scratch), *arguments, *outputs)
    return outputs


def backward(
    call: Call,
    checkpoints: Tensor | None,
    taken: Tensor | None,
    state_gradient: Tensor,
    trajectory_gradient: Tensor | None,
) -> Gradients:
    """See :class:`cube_kernels.backends.contract.Kernels`."""
    wanted, state_gradient = state_gradient.dtype, state_gradient.to(call.x.dtype)
    x, state_gradient, trajectory_gradient = map(_aligned, (call.x, state_gradient, trajectory_gradient))
    call = call._replace(x=x)
    gradients = empty_gradients(call, x.dtype)
    plan, plain, arguments = _begin(call)
    scratch = _scratch(x, plan.backward_scratch_bytes(plain, _limits(_module(), x.device.index or 0)))
    given = checkpoints, taken, state_gradient, trajectory_gradient
    plan.backward(_execution(x.device, scratch), *arguments, *given, *gradients)
    return gradients._replace(state=gradients.state.to(wanted))


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """See :func:`cube_kernels.perceive`."""
    vectors = len(lattice.neighbors) if filters is None else filters.shape[0]
    percepts = x.new_empty((x.shape[0], *lattice.shape, vectors * lattice.channels))
    x, filters = _aligned(x), _aligned(filters)
    plan, tables = _resident_perception(_module(), lattice, None if filters is None else vectors, x.device)
    arguments = STORAGE[x.dtype], x.shape[0], filters, x, None, percepts
    plan.perceive(_execution(x.device, None), tables, *arguments)
    return percepts


def perceive_adjoint(percepts: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """The transpose of perception in the state: ``[B, D, H, W, P·C]`` to ``[B, D, H, W, C]``."""
    x = percepts.new_empty((percepts.shape[0], *lattice.shape, lattice.channels))
    percepts, filters = _aligned(percepts), _aligned(filters)
    count = None if filters is None else filters.shape[0]
    plan, tables = _resident_perception(_module(), lattice, count, x.device)
    arguments = STORAGE[x.dtype], x.shape[0], filters, None, percepts, x
    plan.perceive_adjoint(_execution(x.device, None), tables, *arguments)
    return x


def filter_gradient(x: Tensor, lattice: Lattice, percepts: Tensor) -> Tensor:
    """The transpose of perception in the filters: ``[P, offsets, C]``."""
    vectors = percepts.shape[-1] // lattice.channels
    filters = x.new_empty((vectors, len(lattice.offsets), lattice.channels))
    x, percepts = _aligned(x), _aligned(percepts)
    plan, tables = _resident_perception(_module(), lattice, vectors, x.device)
    scratch = _scratch(x, plan.bank_gradient_scratch_bytes(x.shape[0]))
    arguments = STORAGE[x.dtype], x.shape[0], None, x, percepts, filters
    plan.bank_gradient(_execution(x.device, scratch), tables, *arguments)
    return filters
