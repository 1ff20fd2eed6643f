"""The operators on plain tensors."""

from __future__ import annotations

import math
from typing import overload

import torch
from torch import Tensor

from cube_kernels import autograd, dispatch
from cube_kernels.automaton import bind
from cube_kernels.backends import reference
from cube_kernels.checks import check_call, check_like, check_state
from cube_kernels.lattice import Lattice
from cube_kernels.options import check_positive, check_range
from cube_kernels.philox import SEED_LIMIT
from cube_kernels.rule import Rule, RuleParameters
from cube_kernels.schedule import Rollout, Schedule


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """What each cell sees of its neighborhood: the linear part of a step, for rules of one's own.

    With a bank of ``P`` filters ``w[P, offsets, C]``: ``p[i,k,c] = Σ_o w[k,o,c]·x[π(i+o),c]``, where ``π`` is the
    boundary map and the offsets are ``lattice.offsets``. Without: the states at ``lattice.neighbors``, in that
    order. Fixed banks: :func:`cube_kernels.fixed_filters`.

    Args:
        x: states ``[B, D, H, W, C]``, of a floating-point dtype; half-width ones are summed in float32.
        lattice: what ``x`` lives on.
        filters: ``[P, offsets, C]`` in the dtype and on the device of ``x``, or None.
        backend: see :func:`rollout`.

    Returns:
        ``[B, D, H, W, P·C]``, or ``[B, D, H, W, neighbors·C]`` without filters. Differentiable any number of times
        on every backend.

    Raises:
        ValueError, TypeError: a shape, dtype or device that does not fit; the message names the right one.
        BackendError: the named backend cannot run this call; the message says why.
    """
    narrow = _autocast_dtype(x)
    if narrow is not None:
        x, filters = x.to(narrow), None if filters is None else filters.to(narrow)
    check_state(x, lattice, "perceive")
    if filters is not None:
        bank = filters.shape[0] if filters.dim() else 1
        check_like(filters, "filters", (bank, len(lattice.offsets), lattice.channels), x, "perceive")
    chosen = dispatch.choose(backend, lattice, None, x.dtype, x.device)
    if chosen is reference:
        return reference.perceive(x, lattice, filters)
    return autograd.perceive(chosen, x, lattice, filters)


@overload
def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    *,
    steps: int,
    drive: Tensor | None = None,
    write_mask: Tensor | None = None,
    seed: int | None = None,
    checkpoint_every: int | None = None,
    trajectory_every: None = None,
    tolerance: None = None,
    backend: str = "auto",
) -> Tensor: ...


@overload
def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    *,
    steps: int,
    drive: Tensor | None = None,
    write_mask: Tensor | None = None,
    seed: int | None = None,
    checkpoint_every: int | None = None,
    trajectory_every: int | None = None,
    tolerance: float | None = None,
    backend: str = "auto",
) -> Tensor | Rollout: ...


def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    *,
    steps: int,
    drive: Tensor | None = None,
    write_mask: Tensor | None = None,
    seed: int | None = None,
    checkpoint_every: int | None = None,
    trajectory_every: int | None = None,
    tolerance: float | None = None,
    backend: str = "auto",
) -> Tensor | Rollout:
    """``steps`` steps of ``rule`` on every cell of ``lattice``.

    Args:
        x: states ``[B, D, H, W, C]`` in float64, float32, bfloat16 or float16; ``B`` may be 0. Half-width states
            are computed in float32 and rounded after every step. Under autocast, float32 tensors become the
            autocast dtype.
        parameters: the rule's tensors, in the dtype and on the device of ``x``; shapes:
            ``bind(lattice, rule).parameter_shapes``.
        lattice: size, neighborhood and boundary.
        rule: what each cell computes.
        steps: how many steps ``T``; 0 returns a copy.
        drive: ``[B or 1, D, H, W, rule.drive]``, held constant over the steps; None for a rule without.
        write_mask: bool ``[B or 1, D, H, W]``, False for cells that never change; None if all may.
        seed: of the fire mask, in ``[0, 2⁶³)``; for a rule whose ``fire_rate`` is below 1, and no other. Steps and
            samples are counted from 0 in every call: take another seed for each call and for each process.
        checkpoint_every: the backward pass keeps every k-th state and replays the steps between; None takes
            ``⌈√T⌉``. It trades memory for time and changes no result.
        trajectory_every: return every k-th state too.
        tolerance: stop a sample after the step that changes it by no more than this share of its size,
            ``‖x' − x‖ ≤ tolerance · ‖x‖`` in the Euclidean norm over its cells and channels.
        backend: ``"auto"``, ``"native"`` or ``"reference"``; ``"auto"`` takes the fastest that can, or the one
            that the variable ``CUBE_KERNELS_BACKEND`` names.

    Returns:
        The last states, ``[B, D, H, W, C]``; with ``trajectory_every`` or ``tolerance`` a :class:`Rollout` of the
        last states, the trajectory and the steps that each sample took. Differentiable in ``x``, ``drive`` and
        every parameter; twice with ``backend="reference"``.

    Raises:
        ValueError, TypeError: a shape, dtype, device or option that does not fit; the message names it and the
            right ones.
        BackendError: the named backend cannot run this call; the message says why.
    """
    bound = bind(lattice, rule)
    schedule = _schedule(rule, steps, seed, checkpoint_every, trajectory_every, tolerance)
    narrow = _autocast_dtype(x)
    if narrow is not None:
        x, drive, *rest = (None if t is None else t.to(narrow) for t in (x, drive, *parameters))  # type: ignore[assignment]
        parameters = RuleParameters(*rest)  # type: ignore[arg-type]
    check_call(x, parameters, bound, drive, write_mask)
    weights = bound.step_weights(parameters)
    chosen = dispatch.choose(backend, lattice, rule, x.dtype, x.device)
    if chosen is reference:
        result = reference.rollout(x, weights, bound, schedule, drive, write_mask)
    else:
        result = autograd.rollout(chosen, x, weights, bound, schedule, drive, write_mask)
    if trajectory_every is None and tolerance is None:
        return result.state
    if result.steps is None:
        result = result._replace(steps=torch.full((len(x),), steps, device=x.device))
    return result


def _schedule(
    rule: Rule,
    steps: int,
    seed: int | None,
    checkpoint_every: int | None,
    trajectory_every: int | None,
    tolerance: float | None,
) -> Schedule:
    check_positive("rollout", "steps", steps, least=0)
    if checkpoint_every is None:
        checkpoint_every = math.isqrt(max(steps - 1, 0)) + 1  # ⌈√steps⌉
    check_positive("rollout", "checkpoint_every", checkpoint_every)
    if trajectory_every is not None:
        check_positive("rollout", "trajectory_every", trajectory_every)
    if tolerance is not None:
        check_range("rollout", "tolerance", tolerance, 0, math.inf)
    if (seed is None) != (rule.fire_rate == 1):
        given = "no seed was given" if seed is None else f"seed is {seed}"
        raise ValueError(f"rollout: {given}, but the rule's fire_rate is {rule.fire_rate}; below 1 it takes a seed")
    if seed is not None:
        check_positive("rollout", "seed", seed, least=0)
        if seed >= SEED_LIMIT:
            raise ValueError(f"rollout: seed is {seed}; it must be below 2^63")
    return Schedule(
        steps, checkpoint_every, seed or 0, trajectory_every or 0, -1.0 if tolerance is None else float(tolerance)
    )


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Under autocast, the dtype that a call's tensors are cast to, unless they are float64: a rule is matrix
    products."""
    device = x.device.type
    if x.dtype is torch.float64 or not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)
