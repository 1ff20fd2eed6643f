"""The lattice and the rule as the kernels see them: what is known when they are compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from cube_kernels.automaton import Automaton
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import ALIVE_WHEN

names = {
    "boundary": ("walls", "periodic", "replicate", "reflecting", "absorbing"),
    "perception": ("depthwise", "gather"),
    "activation": ("relu", "gelu", "silu", "tanh"),
    "squash": ("identity", "tanh"),
    "update": ("residual", "replace", "gated", "leaky"),
}
"""What the kernels are written for: a name that is not here is refused, since they hold no tables to follow."""

DOT_MINIMUM = 16
"""``tl.dot`` takes no smaller tiles."""

PRODUCTS = {
    "ieee": "float32",
    "tf32": "float32, rounded to TF32",
    "half": "half-width numbers, with sums in float32",
    "widened": "the same numbers in float32: the interpreter cannot compute with bfloat16",
}
"""What a plan's ``product`` may be."""


def power_of_two(size: int, least: int = 1) -> int:
    """The smallest power of two that is no smaller than either."""
    return max(least, 1 << max(size - 1, 0).bit_length())


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Plan(str):
    """Handed to a kernel as one compile-time value. Perception alone takes the rule's fields as they stand here.

    It is also the text of its fields: by that Triton tells compile-time values apart, in memory and on disk.
    """

    def __new__(cls, **fields: Any) -> Plan:
        return super().__new__(cls, fields)

    channels: int
    boundary: str
    offsets: int  # of perception
    gathers: bool  # the neighbors' states, without weights
    filters: int  # a channel; 0 where it gathers
    own_state: bool = False
    drive: int = 0
    hidden: int = 0
    activation: str = ""
    update: str = ""
    squash: str = ""
    fires: bool = False
    clamps: bool = False
    immutable: tuple[int, ...] = ()  # channels
    alive_before: bool = False  # life is measured before the update
    alive_after: bool = False
    alive_channel: int = 0
    pool_offsets: int = 0  # over which life is measured
    product: str = "ieee"  # how matrices are multiplied: see PRODUCTS

    @property
    def width(self) -> int:
        """Channels as the kernels hold them."""
        return power_of_two(self.channels, DOT_MINIMUM if self.hidden else 1)

    @property
    def drive_width(self) -> int:
        return power_of_two(self.drive, DOT_MINIMUM)

    @property
    def percepts(self) -> int:
        """Vectors of ``channels`` numbers that perception makes."""
        return self.offsets if self.gathers else self.filters

    @property
    def tiles(self) -> int:
        """Vectors of the hidden layer's input that are held at once: own state and weighted sums. Gathered ones pass
        by one at a time."""
        return int(self.own_state) + self.filters

    @property
    def inputs(self) -> int:
        """Width of the hidden layer's input."""
        return (int(self.own_state) + self.percepts) * self.channels + self.drive

    @property
    def own_tiles(self) -> int:
        return int(self.own_state)

    @property
    def heads(self) -> int:
        return 2 if self.update == "gated" else 1

    @property
    def immutable_count(self) -> int:
        return len(self.immutable)

    @property
    def heads_matter(self) -> bool:
        """Whether the gradient of a step depends on the values of the heads."""
        return self.update != "residual" or self.squash != "identity" or self.clamps

    # Where each weight's gradient begins in a part of the partial sums, on vector boundaries.
    @property
    def hidden_bias_start(self) -> int:
        return _whole_vectors(self.hidden * self.inputs)

    @property
    def head_weight_start(self) -> int:
        return self.hidden_bias_start + _whole_vectors(self.hidden)

    @property
    def head_bias_start(self) -> int:
        return self.head_weight_start + _whole_vectors(self.heads * self.channels * self.hidden)

    @property
    def rate_start(self) -> int:
        return self.head_bias_start + _whole_vectors(self.heads * self.channels)

    @property
    def weights(self) -> int:
        """Numbers of one part."""
        return self.rate_start + _whole_vectors(self.channels)


def _whole_vectors(size: int) -> int:
    return math.ceil(size / 4) * 4


@lru_cache(maxsize=256)
def perception_plan(lattice: Lattice, filters: int | None) -> Plan:
    """Of perception alone, with so many filters a channel; None for gathering."""
    offsets = lattice.neighbors if filters is None else lattice.offsets
    return Plan(
        channels=lattice.channels,
        boundary=lattice.boundary,
        offsets=len(offsets),
        gathers=filters is None,
        filters=filters or 0,
    )


@lru_cache(maxsize=256)
def rule_plan(automaton: Automaton, product: str) -> Plan:
    """Of a step; ``product``: one of :data:`PRODUCTS`."""
    rule, lattice = automaton.rule, automaton.lattice
    before, after = (False, False) if rule.alive is None else ALIVE_WHEN[rule.alive.when]
    return replace(
        perception_plan(lattice, automaton.filters),
        own_state=rule.own_state,
        drive=rule.drive,
        hidden=rule.hidden,
        activation=rule.activation,
        # Replacing with another weight than one is leaking with that rate.
        update="leaky" if rule.update == "replace" and rule.fire_rescale else rule.update,
        squash=str(rule.squash),
        fires=rule.fire_rate < 1,
        clamps=rule.clamp is not None,
        immutable=rule.immutable_channels,
        alive_before=before,
        alive_after=after,
        alive_channel=0 if rule.alive is None else rule.alive.channel,
        pool_offsets=0 if rule.alive is None else len(lattice.offsets),
        product=product,
    )
