"""Checks of the tensors of a call against the lattice and the rule, and against each other.

:func:`check_call` is the only door to the backends: no pointer leaves Python before it has agreed.
"""

from __future__ import annotations

from torch import Tensor

from cube_kernels.lattice import Lattice
from cube_kernels.rule import Rule, RuleParameters


def check_state(x: Tensor, lattice: Lattice, owner: str) -> None:
    """A state of this lattice: a floating-point ``[B, D, H, W, C]``."""
    expected = (*lattice.shape, lattice.channels)
    if x.dim() != 5 or tuple(x.shape[1:]) != expected:
        wanted = ", ".join(map(str, ("B", *expected)))
        raise ValueError(f"{owner}: x has shape {list(x.shape)}; this lattice takes [{wanted}]")
    if not x.dtype.is_floating_point:
        raise TypeError(f"{owner}: x is {x.dtype}; it takes a floating-point dtype")


def _check_like(tensor: Tensor, name: str, shape: tuple[int, ...], x: Tensor, owner: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{owner}: {name} has shape {list(tensor.shape)}; expected {list(shape)}")
    if tensor.dtype != x.dtype:
        raise TypeError(f"{owner}: {name} is {tensor.dtype}, but x is {x.dtype}; they must agree")
    if tensor.device != x.device:
        raise ValueError(f"{owner}: {name} is on {tensor.device}, but x is on {x.device}; they must agree")


def check_filters(filters: Tensor | None, shape: tuple[int, ...] | None, x: Tensor, owner: str) -> None:
    """The filter bank of a depthwise perception, or None where nothing is weighted."""
    if shape is None and filters is not None:
        raise ValueError(f"{owner}: filters were given, but perception 'gather' has none; pass None")
    if shape is not None:
        if filters is None:
            raise ValueError(f"{owner}: filters is None; perception 'depthwise' takes a bank of shape {list(shape)}")
        _check_like(filters, "filters", shape, x, owner)


def check_call(x: Tensor, parameters: RuleParameters, lattice: Lattice, rule: Rule, drive: Tensor | None) -> None:
    """Raises ValueError or TypeError unless the tensors fit the lattice, the rule and each other."""
    owner = "rollout"
    check_state(x, lattice, owner)
    shapes = rule.parameter_shapes(lattice)
    check_filters(parameters.filters, shapes.pop("filters", None), x, owner)
    for name, shape in shapes.items():
        _check_like(getattr(parameters, name), name, shape, x, owner)
    if (drive is None) != (rule.drive == 0):
        given = "no drive was given" if drive is None else "a drive was given"
        raise ValueError(f"{owner}: {given}, but the rule has {rule.drive} drive channels")
    if drive is not None:
        batch = drive.shape[0] if drive.dim() == 5 and drive.shape[0] in (1, x.shape[0]) else x.shape[0]
        _check_like(drive, "drive", (batch, *lattice.shape, rule.drive), x, owner)
