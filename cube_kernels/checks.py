"""Checks of the tensors of a call against the lattice and the rule, and against each other.

:func:`check_call` is the only door to the backends: no pointer leaves Python before it has agreed.
"""

from __future__ import annotations

import torch
from torch import Size, Tensor

from cube_kernels.automaton import Automaton
from cube_kernels.lattice import Lattice
from cube_kernels.rule import RuleParameters

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_state(x: Tensor, lattice: Lattice, owner: str) -> None:
    """A state of this lattice: ``[B, D, H, W, C]`` in one of :data:`DTYPES`."""
    if x.dim() != 5 or x.shape[1:] != lattice.state_shape:
        wanted = ", ".join(map(str, ("B", *lattice.state_shape)))
        raise ValueError(f"{owner}: x has shape {list(x.shape)}; this lattice takes [{wanted}]")
    if x.dtype not in DTYPES:
        raise TypeError(f"{owner}: x is {x.dtype}; valid: {', '.join(map(str, DTYPES))}")


def check_like(tensor: Tensor, name: str, shape: tuple[int, ...], x: Tensor, owner: str) -> None:
    """A tensor of this shape, in the dtype and on the device of ``x``."""
    if tensor.shape != shape:
        raise ValueError(f"{owner}: {name} has shape {list(tensor.shape)}; expected {list(shape)}")
    if tensor.dtype is not x.dtype:
        raise TypeError(f"{owner}: {name} is {tensor.dtype}, but x is {x.dtype}; they must agree")
    if tensor.device != x.device:
        raise ValueError(f"{owner}: {name} is on {tensor.device}, but x is on {x.device}; they must agree")


def check_call(
    x: Tensor, parameters: RuleParameters, bound: Automaton, drive: Tensor | None, write_mask: Tensor | None
) -> None:
    """Raises ValueError or TypeError unless the tensors fit the lattice, the rule and each other."""
    owner, rule = "rollout", bound.rule
    check_state(x, bound.lattice, owner)
    dtype, device = x.dtype, x.device
    for name, tensor, shape in zip(RuleParameters._fields, parameters, bound.expected, strict=True):
        if tensor is not None and shape is not None:
            # The comparisons of check_like, without a call for each parameter: most calls are short.
            if tensor.shape != shape or tensor.dtype is not dtype or tensor.device != device:
                check_like(tensor, name, shape, x, owner)
        elif shape is not None:
            raise ValueError(f"{owner}: {name} is None; this rule takes one of shape {list(shape)}")
        elif tensor is not None:
            raise ValueError(f"{owner}: {name} was given, but this rule has none; pass None")
    if (drive is None) != (rule.drive == 0):
        given = "no drive was given" if drive is None else "a drive was given"
        raise ValueError(f"{owner}: {given}, but the rule has {rule.drive} drive channels")
    if drive is not None:
        check_like(drive, "drive", _per_sample(drive, x, (*bound.lattice.shape, rule.drive)), x, owner)
    if write_mask is not None:
        shape = _per_sample(write_mask, x, bound.lattice.shape)
        if write_mask.shape != shape:
            raise ValueError(f"{owner}: write_mask has shape {list(write_mask.shape)}; expected {list(shape)}")
        if write_mask.dtype is not torch.bool:
            raise TypeError(
                f"{owner}: write_mask is {write_mask.dtype}; it takes torch.bool, True where cells may change"
            )
        if write_mask.device != x.device:
            raise ValueError(f"{owner}: write_mask is on {write_mask.device}, but x is on {x.device}; they must agree")


def _per_sample(tensor: Tensor, x: Tensor, shape: tuple[int, ...]) -> Size:
    """``[B or 1, *shape]``, whichever the tensor comes nearer to."""
    shared = tensor.dim() == len(shape) + 1 and tensor.shape[0] == 1
    return Size((1 if shared else x.shape[0], *shape))
