"""Every private name of torch that this package uses, as it was in torch 2.13.0. Each says what it is for; none has a
public equal."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

SingleLevelFunction: Any = _SingleLevelFunction
"""The node that functorch makes for its own functions; to be applied within :data:`on_its_own_level`. What
``torch.library.register_autograd`` makes refuses to run inside ``torch.func.grad`` (pytorch issue 170834)."""

on_its_own_level = enable_single_level_autograd_function


def below_autograd() -> AbstractContextManager[None]:
    """Operators run as if nothing were differentiated."""
    return torch._C._AutoDispatchBelowAutograd()


def tracing() -> bool:
    """Whether a compiler or ``torch.jit.trace`` writes down what is called, instead of running it."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def transformed() -> bool:
    """Whether a function transform (``torch.func``), a dispatch mode, such as that of fake tensors, or a level of
    ``torch.autograd.forward_ad`` is active."""
    return torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack() > 0 or forward_mode()


def forward_mode() -> bool:
    """Whether derivatives are carried forward now: ``torch.func.jvp``, ``torch.autograd.forward_ad``."""
    return forward_ad._current_level >= 0


def transforming() -> bool:
    """Whether an operation may do something else than compute."""
    return tracing() or transformed()


autocasting = torch._C._is_any_autocast_enabled
"""Whether autocast is on for any device: a quick look before the slow one."""

dispatch_keys = torch._C._dispatch_keys
"""What decides which code an operator runs for a tensor."""

_DENSE = ["Dense", "CPU", "CUDA", "ADInplaceOrView", "AutogradCPU", "AutogradCUDA", "AutocastCPU", "AutocastCUDA"]
SPECIAL = ~reduce(or_, (DispatchKeySet(getattr(DispatchKey, key)).raw_repr() for key in _DENSE))
"""Bits of ``dispatch_keys(tensor).raw_repr()`` none of which is set for a dense tensor with memory of its own: no class
that dispatches for itself, no wrapper of a transform, no stand-in for zeros, no negation or conjugation, not sparse."""


is_zero_tensor = Tensor._is_zerotensor
"""Whether a tensor stands for zeros, without memory."""


def applied(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """``function.apply`` of one without ``setup_context`` where no transform is active; the rest of its Python code
    takes a third of the time."""
    return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]


def all_to_all(message: Tensor, coming: list[int], going: list[int], group: Any) -> Tensor:
    """Sends a part of so many numbers to each rank of the group, and returns what came from each, so many numbers. A
    compiler sees it as one node; ``torch.distributed``'s own, in place, it does not differentiate through."""
    from torch.distributed import _functional_collectives as collectives  # some builds have no torch.distributed

    return collectives.wait_tensor(collectives.all_to_all_single(message, coming, going, group))


def all_reduce(tensor: Tensor, operation: str, group: Any) -> Tensor:
    """The sum (or ``"max"``) over the group, likewise."""
    from torch.distributed import _functional_collectives as collectives

    return collectives.wait_tensor(collectives.all_reduce(tensor, operation, group))


def first_index(tensor: Any, dim: int) -> int:
    """Where the local part of a DTensor begins along a dimension."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    return int(compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)[1][dim])


def default_store() -> Any:
    """Where the processes of the default group met."""
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def timeout_of(group: Any) -> Any:
    """How long a collective of the group waits for its ranks."""
    from torch.distributed import distributed_c10d

    device = distributed_c10d._get_pg_default_device(group)
    return group._get_backend(device).options._timeout
