"""What the user of a rollout says and gets besides tensors and values."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import SymInt, Tensor

from cube_kernels.backends.contract import Schedule
from cube_kernels.philox import SEED_LIMIT, check_counts
from cube_kernels.update_rule import Rule
from cube_kernels.value import check_positive, check_range


class Options(NamedTuple):
    """The keywords of :func:`cube_kernels.rollout`."""

    steps: int
    drive: Tensor | None = None
    write_mask: Tensor | None = None
    seed: int | None = None
    checkpoint_every: int | None = None
    trajectory_every: int | None = None
    tolerance: float | None = None
    backend: str = "auto"
    first_step: int = 0
    first_sample: int = 0

    def schedule(self, rule: Rule) -> Schedule:
        """The plain numbers of the call.

        Raises:
            ValueError, TypeError: one does not fit the rule, or its kind.
        """
        steps, _, _, seed, checkpoint_every, trajectory_every, tolerance, _, *first = self
        if (seed is None) != (rule.fire_rate == 1):
            given = "no seed was given" if seed is None else f"seed is {seed}"
            raise ValueError(f"rollout: {given}, but the rule's fire_rate is {rule.fire_rate}; below 1 it takes a seed")
        # A compiler's number that is not known yet cannot be looked up.
        made = _schedule if SymInt in (type(steps), type(checkpoint_every), type(trajectory_every)) else _known
        seedless = made(steps, checkpoint_every, trajectory_every, tolerance)
        if first != _FIRST:
            first = check_counts("rollout", seedless.steps, *first)
        if seed is None:
            return seedless
        seed = check_positive("rollout", "seed", seed, least=0)
        if seed >= SEED_LIMIT:
            raise ValueError(f"rollout: seed is {seed}; it must be below 2^63")
        return seedless._replace(seed=seed, first_step=first[0], first_sample=first[1])


_FIRST = [0, 0]


def _schedule(
    steps: int, checkpoint_every: int | None, trajectory_every: int | None, tolerance: float | None
) -> Schedule:
    steps = check_positive("rollout", "steps", steps, least=0)
    if checkpoint_every is None:
        checkpoint_every = _root(steps - 1) + 1 if steps else 1  # ⌈√steps⌉
    return Schedule(
        steps,
        check_positive("rollout", "checkpoint_every", checkpoint_every),
        seed=0,
        trajectory_every=(
            0 if trajectory_every is None else check_positive("rollout", "trajectory_every", trajectory_every)
        ),
        tolerance=-1.0 if tolerance is None else check_range("rollout", "tolerance", tolerance, 0, math.inf),
    )


_known = lru_cache(maxsize=256, typed=True)(_schedule)  # typed: True is no number of steps, though it equals 1


def _root(number: int) -> int:
    return torch.sym_int(torch.sym_sqrt(number)) if isinstance(number, SymInt) else math.isqrt(number)


Reached = tuple[Tensor, Tensor | None, Tensor | None]
"""The last states, the trajectory if one was asked for, and the steps of each sample where it may stop early."""


class Rollout(NamedTuple):
    """What :func:`cube_kernels.rollout` returns when asked for more than the last state."""

    state: Tensor
    """The last states ``[B, D, H, W, C]``."""
    trajectory: Tensor | None
    """The states after steps ``k, 2k, ...``, ``[steps // k, B, D, H, W, C]``, with ``k = trajectory_every``. A sample
    that has stopped stays as it is. None if no trajectory was asked for."""
    steps: Tensor
    """How many steps each sample took: int64 ``[B]``."""
