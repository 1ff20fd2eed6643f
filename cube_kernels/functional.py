"""The operators on plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, overload

import torch
from torch import Tensor

from cube_kernels.call import distributed, operators, whole
from cube_kernels.call.options import Options, Rollout
from cube_kernels.lattice import Lattice
from cube_kernels.torch_internals import tracing
from cube_kernels.update_rule import Rule, RuleParameters

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _way(x: Tensor) -> Any:
    """The module that a call on these states goes by."""
    if tracing():
        return operators
    return whole if type(x) is Tensor or not distributed.is_distributed(x) else distributed


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """What each cell sees of its neighborhood: the linear part of a step, for rules of one's own.

    With a bank of ``P`` filters ``w[P, offsets, C]``: ``p[i,k,c] = Σ_o w[k,o,c]·x[π(i+o),c]``, where ``π`` is the
    boundary map and the offsets are ``lattice.offsets``. Without: the states at ``lattice.neighbors``, in that
    order. Fixed banks: :func:`cube_kernels.fixed_filters`.

    >>> from cube_kernels import fixed_filters
    >>> line = Lattice((1, 1, 5), channels=1, neighborhood="line")
    >>> bump = torch.tensor([0.0, 0, 1, 0, 0]).view(1, 1, 1, 5, 1)
    >>> perceive(bump, line, fixed_filters(("laplacian",), line)).flatten().tolist()
    [0.0, 1.0, -2.0, 1.0, 0.0]

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
    percepts: Tensor = _way(x).perceive(x, lattice, filters, backend)
    return percepts


def absorb(x: Tensor, lattice: Lattice) -> Tensor:
    """What an absorbing boundary leaves of the states ``[B, D, H, W, C]`` after a step: ``η·x``."""
    left: Tensor = _way(x).absorb(x, lattice)
    return left


class _Others(TypedDict, total=False):
    """Keywords of a rollout that say nothing of what is returned."""

    drive: Tensor | None
    write_mask: Tensor | None
    seed: int | None
    checkpoint_every: int | None
    backend: str
    first_step: int
    first_sample: int


@overload
def rollout(
    x: Tensor, parameters: RuleParameters, lattice: Lattice, rule: Rule, *, steps: int, **others: Unpack[_Others]
) -> Tensor: ...


@overload
def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    *,
    steps: int,
    trajectory_every: int,
    tolerance: float | None = None,
    **others: Unpack[_Others],
) -> Rollout: ...


@overload
def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    *,
    steps: int,
    trajectory_every: None = None,
    tolerance: float,
    **others: Unpack[_Others],
) -> Rollout: ...


@overload
def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    *,
    steps: int,
    trajectory_every: int | None = None,
    tolerance: float | None = None,
    **others: Unpack[_Others],
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
    first_step: int = 0,
    first_sample: int = 0,
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
        seed: of the fire mask, in ``[0, 2⁶³)``; for a rule whose ``fire_rate`` is below 1, and no other. Take another
            for each call and for each process, unless they count on.
        checkpoint_every: the backward pass keeps every k-th state and replays the steps between; None takes
            ``⌈√T⌉``. It trades memory for time and changes no result.
        trajectory_every: return every k-th state too.
        tolerance: stop a sample after the step that changes it by no more than this share of its size,
            ``‖x' − x‖ ≤ tolerance · ‖x‖`` in the Euclidean norm over its cells and channels.
        backend: ``"auto"``, ``"native"``, ``"cuda"``, ``"triton"`` or ``"reference"``; ``"auto"`` takes the fastest
            that can, or the one that the variable ``CUBE_KERNELS_BACKEND`` names.
        first_step, first_sample: where the fire mask's counting of steps and samples begins. Calls that count
            on with one seed are one rollout: ``steps=1, first_step=t`` is its step ``t``.

    Returns:
        The last states, ``[B, D, H, W, C]``; with ``trajectory_every`` or ``tolerance`` a :class:`Rollout` of the
        last states, the trajectory and the steps that each sample took. Differentiable in ``x``, ``drive`` and
        every parameter; twice with ``backend="reference"``.

    Raises:
        ValueError, TypeError: a shape, dtype, device or option that does not fit; the message names it and the
            right ones.
        BackendError: the named backend cannot run this call; the message says why.
    """
    options = Options(
        steps,
        drive,
        write_mask,
        seed,
        checkpoint_every,
        trajectory_every,
        tolerance,
        backend,
        first_step,
        first_sample,
    )
    state, trajectory, taken = _way(x).rollout(x, parameters, lattice, rule, options)
    if trajectory_every is None and tolerance is None:
        return state
    return Rollout(state, trajectory, torch.full((x.shape[0],), steps, device=x.device) if taken is None else taken)
