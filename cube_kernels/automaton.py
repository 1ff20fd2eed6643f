"""A lattice and a rule bound together: checked against each other once, with what every call derives from them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cube_kernels.filters import filter_bank
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import ALIVE_WHEN, Rule, RuleParameters
from cube_kernels.value import check_kind


class StepWeights(NamedTuple):
    """A rule's tensors as the backends take them: fixed filters joined to the learned ones, time constants turned
    into the share of the way that a leaky cell goes in a step."""

    bank: Tensor | None  # [P, offsets, C]
    hidden_weight: Tensor | None  # [hidden, inputs]
    hidden_bias: Tensor | None  # [hidden]
    head_weight: Tensor | None  # [heads·C, hidden]
    head_bias: Tensor | None  # [heads·C]
    rate: Tensor | None  # [C]


class Automaton:
    """What :func:`bind` returns; equal lattices and rules share one."""

    def __init__(self, lattice: Lattice, rule: Rule) -> None:
        check_kind(lattice, Lattice)
        check_kind(rule, Rule)
        self.lattice, self.rule = lattice, rule
        channels = lattice.channels
        filter_bank(rule.fixed_filters, lattice, device=torch.device("cpu"))  # raises where a tap is missing
        if rule.perception == "gather" and not lattice.neighbors:
            raise ValueError("Rule: perception 'gather' sees no neighbor: the lattice's only offset is the cell itself")
        for channel in rule.immutable_channels:
            if channel >= channels:
                raise ValueError(f"Rule: immutable_channels holds {channel}, but the lattice has {channels} channels")
        if rule.alive is not None and rule.alive.channel >= channels:
            raise ValueError(f"Rule: alive.channel is {rule.alive.channel}, but the lattice has {channels} channels")
        # A channel, of depthwise perception, fixed and learned; None where the neighbors' states are gathered.
        self.filters: int | None = {"depthwise": rule.bank, "gather": None}[rule.perception]
        percepts = len(lattice.neighbors) if self.filters is None else self.filters
        self.inputs = (int(rule.own_state) + percepts) * channels + rule.drive
        percept_work = max(rule.bank, 1) * len(lattice.offsets) * channels
        layer_work = (self.inputs + rule.heads * channels) * rule.hidden
        # Cells beside a cut face, in neighborhoods, that a step cannot compute.
        self.rings = 2 if rule.alive is not None and ALIVE_WHEN[rule.alive.when][1] else 1
        self.step_operations = 2 * lattice.cells * (percept_work + layer_work)  # of one sample
        shapes: dict[str, tuple[int, ...]] = {}
        if rule.perception == "depthwise" and rule.filters:
            shapes["filters"] = (rule.filters, len(lattice.offsets), channels)
        if rule.hidden:
            shapes["hidden_weight"] = (rule.hidden, self.inputs)
            shapes["hidden_bias"] = (rule.hidden,)
            shapes["head_weight"] = (rule.heads * channels, rule.hidden)
            shapes["head_bias"] = (rule.heads * channels,)
        if rule.update == "leaky":
            shapes["log_time_constant"] = (channels,)
        self.parameter_shapes = {name: torch.Size(shape) for name, shape in shapes.items()}
        given = [self.parameter_shapes.get(name) for name in RuleParameters._fields]
        bank = (rule.bank, len(lattice.offsets), channels) if rule.perception == "depthwise" else None
        rate = (channels,) if rule.update == "leaky" else None
        drive = (-1, *lattice.shape, rule.drive) if rule.drive else None
        state, write_mask = (-1, *lattice.state_shape), (-1, *lattice.shape)
        self.given_shapes: tuple[Any, ...] = (state, *given, drive, write_mask)
        """Of states, parameters, drive and write mask; None for those that there are not, -1 for the batch."""
        self.call_shapes: tuple[Any, ...] = (state, bank, *given[1:5], rate, drive, write_mask)
        """The same with :class:`StepWeights` in the parameters' place."""

    def step_weights(self, parameters: RuleParameters, like: Tensor) -> StepWeights:
        """On the device and in the dtype of ``like``; differentiable in the parameters."""
        rule, bank = self.rule, parameters.filters
        if rule.fixed_filters:
            fixed = filter_bank(rule.fixed_filters, self.lattice, device=like.device, dtype=like.dtype)
            bank = fixed if bank is None else torch.cat([fixed, bank])
        log_tau = parameters.log_time_constant
        rate = None if log_tau is None else rule.step_size * torch.exp(-log_tau)
        return StepWeights(bank, *parameters[1:5], rate)


@lru_cache(maxsize=256)
def bind(lattice: Lattice, rule: Rule) -> Automaton:
    """The two bound together.

    Raises:
        ValueError: they contradict each other: a fixed filter without its offsets, a channel that is not there,
            a gather without neighbors.
    """
    return Automaton(lattice, rule)
