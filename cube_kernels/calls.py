"""A whole call on plain tensors: checked, cast, bound, handed to its backend."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from cube_kernels import autograd, dispatch, operators
from cube_kernels.automaton import bind
from cube_kernels.backends import reference
from cube_kernels.checks import check_call, check_like, check_state
from cube_kernels.lattice import Lattice
from cube_kernels.options import check_positive, check_range
from cube_kernels.philox import SEED_LIMIT
from cube_kernels.rule import Rule, RuleParameters
from cube_kernels.schedule import Rollout, Schedule
from cube_kernels.tracing import transforming


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None, backend: str) -> Tensor:
    """See :func:`cube_kernels.perceive`."""
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
    return (operators if transforming() else autograd).perceive(chosen, x, lattice, filters)


def absorb(x: Tensor, lattice: Lattice) -> Tensor:
    """See :func:`cube_kernels.functional.absorb`."""
    return x * reference.retention(lattice, device=x.device, dtype=x.dtype)


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
    """See :func:`cube_kernels.rollout`; ``steps`` of the result is None where every sample takes all of them."""
    bound = bind(lattice, rule)
    schedule = _schedule(rule, steps, seed, checkpoint_every, trajectory_every, tolerance)
    narrow = _autocast_dtype(x)
    if narrow is not None:
        x, drive, *rest = (None if t is None else t.to(narrow) for t in (x, drive, *parameters))  # type: ignore[assignment]
        parameters = RuleParameters(*rest)
    check_call(x, parameters, bound, drive, write_mask)
    weights = bound.step_weights(parameters, x)
    chosen = dispatch.choose(backend, lattice, rule, x.dtype, x.device)
    if chosen is reference:
        return reference.rollout(x, weights, bound, schedule, drive, write_mask)
    return (operators if transforming() else autograd).rollout(chosen, x, weights, bound, schedule, drive, write_mask)


def _schedule(
    rule: Rule,
    steps: int,
    seed: int | None,
    checkpoint_every: int | None,
    trajectory_every: int | None,
    tolerance: float | None,
) -> Schedule:
    if (seed is None) != (rule.fire_rate == 1):
        given = "no seed was given" if seed is None else f"seed is {seed}"
        raise ValueError(f"rollout: {given}, but the rule's fire_rate is {rule.fire_rate}; below 1 it takes a seed")
    seedless = _seedless(steps, checkpoint_every, trajectory_every, tolerance)
    if seed is None:
        return seedless
    check_positive("rollout", "seed", seed, least=0)
    if seed >= SEED_LIMIT:
        raise ValueError(f"rollout: seed is {seed}; it must be below 2^63")
    return seedless._replace(seed=seed)


@lru_cache(maxsize=256, typed=True)  # typed: True is no number of steps, though it equals 1
def _seedless(
    steps: int, checkpoint_every: int | None, trajectory_every: int | None, tolerance: float | None
) -> Schedule:
    check_positive("rollout", "steps", steps, least=0)
    if checkpoint_every is None:
        checkpoint_every = math.isqrt(max(steps - 1, 0)) + 1  # ⌈√steps⌉
    check_positive("rollout", "checkpoint_every", checkpoint_every)
    if trajectory_every is not None:
        check_positive("rollout", "trajectory_every", trajectory_every)
    if tolerance is not None:
        check_range("rollout", "tolerance", tolerance, 0, math.inf)
    return Schedule(steps, checkpoint_every, 0, trajectory_every or 0, -1.0 if tolerance is None else float(tolerance))


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Under autocast, the dtype that a call's tensors are cast to, unless they are float64: a rule is matrix
    products."""
    if not torch._C._is_any_autocast_enabled():
        return None
    device = x.device.type
    if x.dtype is torch.float64 or not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)
