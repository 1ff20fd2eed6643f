"""The operators on plain tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cube_kernels import dispatch
from cube_kernels.autograd import Rollout
from cube_kernels.backends import reference
from cube_kernels.checks import check_call, check_filters, check_state
from cube_kernels.lattice import Lattice
from cube_kernels.options import check_positive
from cube_kernels.rule import Rule, RuleParameters


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None = None) -> Tensor:
    """What each cell sees of its neighborhood: the linear part of a step, for rules of one's own.

    With a bank of ``P`` filters ``w[P, offsets, C]``: ``p[i,k,c] = Σ_o w[k,o,c]·x[π(i+o),c]``, where ``π`` is the
    boundary map and the offsets are ``lattice.offsets``, the cell itself included. Without: the neighbors'
    states, in offset order, without the cell's own.

    Args:
        x: states ``[B, D, H, W, C]``, any floating-point dtype and device.
        lattice: what ``x`` lives on.
        filters: ``[P, offsets, C]`` in the dtype and on the device of ``x``, or None.

    Returns:
        ``[B, D, H, W, P·C]``, or ``[B, D, H, W, (offsets - 1)·C]`` without filters. Differentiable any number
        of times; computed by the reference backend.

    Raises:
        ValueError, TypeError: a shape, dtype or device that does not fit; the message names the right one.
    """
    check_state(x, lattice, "perceive")
    if filters is not None:
        bank = filters.shape[0] if filters.dim() else 1
        check_filters(filters, (bank, len(lattice.offsets), lattice.channels), x, "perceive")
    return reference.perceive(x, lattice, filters)


def rollout(
    x: Tensor,
    parameters: RuleParameters,
    lattice: Lattice,
    rule: Rule,
    *,
    steps: int,
    drive: Tensor | None = None,
    checkpoint_every: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """``steps`` steps of ``rule`` on every cell of ``lattice``.

    Args:
        x: states ``[B, D, H, W, C]``; ``B`` may be 0.
        parameters: the rule's tensors, in the dtype and on the device of ``x``; shapes:
            :meth:`Rule.parameter_shapes`.
        lattice: size, neighborhood and boundary.
        rule: what each cell computes.
        steps: how many steps ``T``; 0 returns a copy.
        drive: ``[B or 1, D, H, W, rule.drive]``, held constant over the steps; None for a rule without.
        checkpoint_every: the backward pass keeps every k-th state and replays the steps between; None takes
            ``⌈√T⌉``. It trades memory for time and changes no result.
        backend: ``"auto"``, ``"native"`` or ``"reference"``; ``"auto"`` takes the fastest that can, or the one
            that the variable ``CUBE_KERNELS_BACKEND`` names.

    Returns:
        The last states, ``[B, D, H, W, C]``. Differentiable in ``x``, ``drive`` and every parameter; twice with
        ``backend="reference"``.

    Raises:
        ValueError, TypeError: a shape, dtype, device or option that does not fit; the message names it and the
            right ones.
        BackendError: the named backend cannot run this call; the message says why.
    """
    check_positive("rollout", "steps", steps, least=0)
    if checkpoint_every is None:
        checkpoint_every = math.isqrt(max(steps - 1, 0)) + 1  # ⌈√steps⌉
    check_call(x, parameters, lattice, rule, drive)
    check_positive("rollout", "checkpoint_every", checkpoint_every)
    chosen = dispatch.choose(backend, lattice, rule, x.dtype, x.device)
    if chosen is reference:
        return reference.rollout(x, parameters, lattice, rule, drive, steps, checkpoint_every)
    tensors = (x, drive, *parameters)
    for_backward = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return Rollout.apply(chosen, lattice, rule, steps, checkpoint_every, for_backward, *tensors)
