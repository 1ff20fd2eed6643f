"""A whole call on plain tensors: checked, cast, bound, handed to its backend."""

from __future__ import annotations

import torch
from torch import Tensor

from cube_kernels.automaton import bind
from cube_kernels.backends import reference
from cube_kernels.backends.contract import Call
from cube_kernels.call import door
from cube_kernels.call.derivatives import PERCEIVE, ROLLOUT, PerceptionJob, RolloutJob, apply
from cube_kernels.call.dispatch import KERNELS, choose
from cube_kernels.call.options import Options, Reached
from cube_kernels.lattice import Lattice
from cube_kernels.precision import autocasts
from cube_kernels.torch_internals import autocasting, forward_mode
from cube_kernels.update_rule import Rule, RuleParameters


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None, backend: str) -> Tensor:
    """See :func:`cube_kernels.perceive`."""
    narrow = _autocast_dtype(x) if autocasting() else None
    if narrow is not None:
        x, filters = x.to(narrow), None if filters is None else filters.to(narrow)
    kind = door.look_at_perception(PERCEIVE.name, lattice, x, filters)
    if not kind:
        door.check_perception("perceive", lattice, x, filters)
    chosen = choose(backend, lattice, None, x.dtype, x.device)
    if chosen is reference or forward_mode():
        return reference.perceive(x, lattice, filters)
    result: Tensor = apply(PERCEIVE, PerceptionJob(KERNELS[chosen.name], lattice), x, filters, kind=kind)
    return result


def absorb(x: Tensor, lattice: Lattice) -> Tensor:
    """See :func:`cube_kernels.functional.absorb`."""
    door.check_state(x, lattice, "absorb")
    return x * reference.retention(lattice, device=x.device, dtype=x.dtype)


def rollout(x: Tensor, parameters: RuleParameters, lattice: Lattice, rule: Rule, options: Options) -> Reached:
    """See :func:`cube_kernels.rollout`."""
    automaton = bind(lattice, rule)
    schedule = options.schedule(rule)
    drive, write_mask = options.drive, options.write_mask
    if autocasting():
        x, parameters, drive = autocast(x, parameters, drive)
    kind = door.look((x, *parameters, drive, write_mask), automaton.given_shapes)
    if not kind:
        door.check_given(x, parameters, automaton, drive, write_mask)
    weights = automaton.step_weights(parameters, x)
    chosen = choose(options.backend, lattice, rule, x.dtype, x.device)
    if chosen is reference or forward_mode():
        result = reference.rollout(Call(automaton, schedule, x, weights, drive, write_mask))
    else:
        job = RolloutJob(KERNELS[chosen.name], automaton, schedule)
        result = apply(ROLLOUT, job, x, *weights, drive, write_mask, kind=kind)  # weights are new or as given
    return result[:3]


def autocast(
    x: Tensor, parameters: RuleParameters, drive: Tensor | None
) -> tuple[Tensor, RuleParameters, Tensor | None]:
    """A rollout's tensors as autocast takes them."""
    narrow = _autocast_dtype(x)
    if narrow is None:
        return x, parameters, drive
    cast = RuleParameters(*(None if p is None else p.to(narrow) for p in parameters))
    return x.to(narrow), cast, None if drive is None else drive.to(narrow)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Under autocast, the dtype that a call's tensors are cast to, unless they are float64: a rule is matrix
    products."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if x.dtype is not torch.float64 and autocasts(device) else None
