"""Whole calls as operators, for ``torch.compile`` and ``torch.export``: compilers see one node and read none of the
Python below it. When a compiler lowers it, it dissolves into the operators of :mod:`cube_kernels.operators`, or into
plain PyTorch on the reference backend; in a loaded program it is an eager call, with its checks.

Lattices and rules are text here too, so that a program carries all that it needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cube_kernels import calls
from cube_kernels.lattice import Lattice
from cube_kernels.operators import read_lattice, read_rule
from cube_kernels.rule import Rule, RuleParameters
from cube_kernels.schedule import Rollout

_library = torch.library.Library("cube_kernels", "FRAGMENT")
_library.define("absorb(Tensor x, str lattice) -> Tensor")
_library.define("perceive(Tensor x, Tensor? filters, str lattice, str backend) -> Tensor")
_library.define(
    "rollout(Tensor x, Tensor? filters, Tensor? hidden_weight, Tensor? hidden_bias, Tensor? head_weight, "
    "Tensor? head_bias, Tensor? log_time_constant, Tensor? drive, Tensor? write_mask, str lattice, str rule, "
    "int steps, SymInt? seed, int? checkpoint_every, int? trajectory_every, float? tolerance, str backend) "
    "-> (Tensor, Tensor, Tensor)"
)


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None, backend: str) -> Tensor:
    """:func:`cube_kernels.calls.perceive` as one operator."""
    return torch.ops.cube_kernels.perceive(x, filters, lattice.key, backend)


def absorb(x: Tensor, lattice: Lattice) -> Tensor:
    """:func:`cube_kernels.calls.absorb` as one operator."""
    return torch.ops.cube_kernels.absorb(x, lattice.key)


def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    steps: int,
    drive: Tensor | None,
    write_mask: Tensor | None,
    seed: int | None,
    checkpoint_every: int | None,
    trajectory_every: int | None,
    tolerance: float | None,
    backend: str,
) -> Rollout:
    """:func:`cube_kernels.calls.rollout` as one operator."""
    state, trajectory, taken = torch.ops.cube_kernels.rollout(
        x,
        *parameters,
        drive,
        write_mask,
        lattice.key,
        rule.key,
        steps,
        seed,
        checkpoint_every,
        trajectory_every,
        tolerance,
        backend,
    )
    reached: Any = None if tolerance is None else taken
    return Rollout(state, None if trajectory_every is None else trajectory, reached)


def _absorb(x: Tensor, lattice: str) -> Tensor:
    return calls.absorb(x, read_lattice(lattice))


def _perceive(x: Tensor, filters: Tensor | None, lattice: str, backend: str) -> Tensor:
    return calls.perceive(x, read_lattice(lattice), filters, backend)


def _rollout(
    x: Tensor,
    filters: Tensor | None,
    hidden_weight: Tensor | None,
    hidden_bias: Tensor | None,
    head_weight: Tensor | None,
    head_bias: Tensor | None,
    log_time_constant: Tensor | None,
    drive: Tensor | None,
    write_mask: Tensor | None,
    lattice: str,
    rule: str,
    steps: int,
    seed: int | None,
    checkpoint_every: int | None,
    trajectory_every: int | None,
    tolerance: float | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    parameters = RuleParameters(filters, hidden_weight, hidden_bias, head_weight, head_bias, log_time_constant)
    state, trajectory, taken = calls.rollout(
        x,
        parameters,
        read_lattice(lattice),
        read_rule(rule),
        steps,
        drive,
        write_mask,
        seed,
        checkpoint_every,
        trajectory_every,
        tolerance,
        backend,
    )
    return (
        state,
        x.new_empty(0) if trajectory is None else trajectory,
        x.new_empty(0, dtype=torch.int64) if taken is None else taken,
    )


_library.impl("absorb", _absorb, "CompositeImplicitAutograd")
_library.impl("perceive", _perceive, "CompositeImplicitAutograd")
_library.impl("rollout", _rollout, "CompositeImplicitAutograd")
