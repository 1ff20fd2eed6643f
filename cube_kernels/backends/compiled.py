"""A lattice and a rule as the compiled modules take them, in plain numbers."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

from cube_kernels import philox
from cube_kernels.automaton import Automaton
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import ALIVE_WHEN, Rule


@lru_cache(maxsize=256)
def unknown_name(module: ModuleType, lattice: Lattice, rule: Rule | None) -> str | None:
    """Why a module cannot run a call that names what it was made without; None if it knows all names. Its ``names``
    are those it knows, by the option that takes them."""
    for option, names in module.names.items():
        for value in (lattice, rule):
            given = getattr(value, option, None)
            if given is not None and given not in names:
                return f"it knows no {option} {given!r}; valid: {', '.join(map(repr, names))}"
    return None


def lattice_plan(module: ModuleType, lattice: Lattice, filters: int | None) -> Any:
    """The lattice, with so many filters a channel; None for gathering."""
    return module.Plan(
        shape=lattice.shape,
        channels=lattice.channels,
        offsets=lattice.neighbors if filters is None else lattice.offsets,
        axis_targets=[[i for row in lattice.axis_targets(axis) for i in row] for axis in range(3)],
        perception="gather" if filters is None else "depthwise",
        filters=filters or 0,
    )


def rule_plan(module: ModuleType, automaton: Automaton) -> Any:
    """The lattice and the rule."""
    lattice, rule = automaton.lattice, automaton.rule
    made = lattice_plan(module, lattice, automaton.filters)
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
    if lattice.window is not None:
        made.set_window(
            places=[lattice.axis_places(axis) for axis in range(3)],
            lifetimes=[lattice.axis_lifetimes(axis, automaton.rings) for axis in range(3)],
            whole=lattice.whole,
        )
    made.set_immutable(rule.immutable_channels)
    if rule.alive is not None:
        before, after = ALIVE_WHEN[rule.alive.when]
        made.set_alive(
            channel=rule.alive.channel,
            threshold=rule.alive.threshold,
            before=before,
            after=after,
            dead_value=rule.alive.dead_value,
            offsets=lattice.offsets,
        )
    return made
