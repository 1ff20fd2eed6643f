"""A lattice, a rule and tensors as the compiled modules take them, in plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from cube_kernels import philox
from cube_kernels.automaton import Automaton
from cube_kernels.lattice import Lattice


def lattice_plan(module: ModuleType, lattice: Lattice, filters: int) -> Any:
    """The lattice, with so many filters a channel; 0 for gathering."""
    return module.Plan(
        shape=lattice.shape,
        channels=lattice.channels,
        offsets=lattice.offsets if filters else lattice.neighbors,
        axis_targets=[[i for row in lattice.axis_targets(axis) for i in row] for axis in range(3)],
        filters=filters,
    )


def rule_plan(module: ModuleType, automaton: Automaton) -> Any:
    """The lattice and the rule."""
    lattice, rule = automaton.lattice, automaton.rule
    made = lattice_plan(module, lattice, rule.bank)
    made.set_rule(
        own_state=rule.own_state,
        drive=rule.drive,
        inputs=automaton.inputs,
        hidden=rule.hidden,
        activation=rule.activation,
        squash=rule.squash,
        # Replacing with another weight than one is leaking with that rate.
        update="leaky" if rule.update == "replace" and rule.fire_rescale else rule.update,
        step_size=rule.step_size,
    )
    if rule.fire_rate < 1:
        made.set_fire(
            threshold=philox.threshold(rule.fire_rate), scale=1 / rule.fire_rate if rule.fire_rescale else 1.0
        )
    if rule.clamp is not None:
        made.set_clamp(*rule.clamp)
    if lattice.boundary == "absorbing":
        made.set_retention([lattice.axis_retention(axis) for axis in range(3)])
    made.set_immutable(rule.immutable_channels)
    if rule.alive is not None:
        made.set_alive(
            channel=rule.alive.channel,
            threshold=rule.alive.threshold,
            before=rule.alive.when != "after",
            after=rule.alive.when != "before",
            dead_value=rule.alive.dead_value,
            offsets=lattice.offsets,
        )
    return made


def address(tensor: Tensor | None) -> int:
    """Where a tensor's numbers begin; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    """Of each."""
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
