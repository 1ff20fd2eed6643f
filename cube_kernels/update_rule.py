"""The rule: what a cell computes from its neighborhood, and the parameters that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from cube_kernels.filters import FILTERS
from cube_kernels.value import Value, check_choice, check_flag, check_positive, check_range, check_tuple

PERCEPTIONS = ("depthwise", "gather")
ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
SQUASHES = ("identity", "tanh")
# Each update with the squash ψ it usually has: neural cellular automata add a raw change, the others move
# towards a bounded target.
UPDATES = {"residual": "identity", "replace": "tanh", "gated": "tanh", "leaky": "tanh"}
# Those that a step size scales.
SCALED = ("residual", "leaky")
# Whether life is measured on the state before the update, and on the one after it.
ALIVE_WHEN = {"before": (True, False), "after": (False, True), "both": (True, True)}


class RuleParameters(NamedTuple):
    """The tensors of a rule, shared by all cells. Shapes: :meth:`Automaton.parameter_shapes`."""

    filters: Tensor | None = None
    hidden_weight: Tensor | None = None
    hidden_bias: Tensor | None = None
    head_weight: Tensor | None = None
    head_bias: Tensor | None = None
    log_time_constant: Tensor | None = None


@dataclass(frozen=True)
class Alive(Value):
    """A cell lives if the largest value of one channel over its neighborhood exceeds a threshold; a dead cell is
    set to a value (Mordvintsev et al., 2020). The comparison has no gradient, and what a write mask protects,
    death does not change either.

    Args:
        channel: the channel that says so.
        threshold: what it must exceed.
        when: measured on the state ``"before"`` the update, ``"after"`` it, or ``"both"``: alive in both.
        dead_value: what a dead cell's channels become.

    Raises:
        ValueError, TypeError: a negative channel, an unknown ``when``.
    """

    channel: int
    threshold: float = 0.1
    when: str = "both"
    dead_value: float = 0.0

    __hash__ = Value.__hash__

    def __post_init__(self) -> None:
        self._set(
            channel=check_positive("Alive", "channel", self.channel, least=0),
            threshold=check_range("Alive", "threshold", self.threshold, -math.inf, math.inf),
            when=check_choice("Alive", "when", self.when, ALIVE_WHEN),
            dead_value=check_range("Alive", "dead_value", self.dead_value, -math.inf, math.inf),
        )
        self._seal()


def _ends(clamp: Any) -> tuple[float, ...]:
    ends = check_tuple("Rule", "clamp", clamp)
    ends = tuple(check_range("Rule", "each end of clamp", end, -math.inf, math.inf) for end in ends)
    if len(ends) != 2 or not ends[0] <= ends[1]:
        raise ValueError(f"Rule: clamp is {ends}; it takes (low, high) with low <= high, or None")
    return ends


@dataclass(frozen=True)
class Rule(Value):
    """One step of a cell, the same for all cells.

    ::

        p = perceive(x)                       what the neighborhood shows
        z = [x (own_state); p; u]             the input: own state, percepts, drive
        a = φ(W1 z + b1)                      hidden layer
        Δ = W2 a + b2,   g = Wg a + bg        heads; g for "gated" only
        residual:  x ← x + m·s·ψ(Δ)           neural cellular automata (Mordvintsev et al., 2020)
        replace:   x ← x + m·(ψ(Δ) − x)       the classic cell
        gated:     x ← x + m·σ(g)·(ψ(Δ) − x)  contractive
        leaky:     x ← x + m·s/τ·(ψ(Δ) − x)   leaky integration, τ = exp(log_time_constant) a channel

    and then, in this order: clamp; the absorbing boundary's factor ``η``; what the write mask or
    ``immutable_channels`` protect keeps its old value; dead cells take the dead value. ``m`` is the fire mask.

    Args:
        perception: ``"depthwise"``: weighted sums over the neighborhood for each channel,
            ``p[k,c] = Σ_o w[k,o,c]·x[i+o,c]``, of ``fixed_filters`` first and ``filters`` learned ones after
            them; ``"gather"``: the neighbors' states themselves, in offset order, without the cell's own.
        filters: learned filters a channel for ``"depthwise"``; 0 for none beside fixed ones. Leave it at 1 for
            ``"gather"``, which has none.
        fixed_filters: names from :data:`cube_kernels.filters.FILTERS`: ``"identity"``, ``"sobel_d"``,
            ``"sobel_h"``, ``"sobel_w"``, ``"laplacian"``.
        own_state: whether the cell's own state is part of the input.
        drive: channels ``U`` of a drive ``u`` held constant over the steps; 0 for none.
        hidden: width of the hidden layer. 0 for a bare stencil, without layers: the first percept of a channel is its
            ``Δ``, the second its ``g``. That takes depthwise perception with as many filters, and neither own state
            nor drive.
        activation: φ, one of ``"relu"``, ``"gelu"`` (tanh form), ``"silu"``, ``"tanh"``.
        update: ``"residual"``, ``"replace"``, ``"gated"`` or ``"leaky"``.
        squash: ψ, ``"identity"`` or ``"tanh"``; None takes identity for residual and tanh for the others.
        step_size: ``s`` of the residual update, the time step of the leaky one.
        fire_rate: probability with which a cell updates in a step. Below 1 a call takes a seed; the draws are
            those of :mod:`cube_kernels.philox`.
        fire_rescale: whether ``m`` is ``1 / fire_rate`` where a cell fires, which keeps the expected change,
            instead of 1.
        clamp: ``(low, high)`` that a new state is clamped to, before it is rounded to the state's dtype; None for
            none.
        immutable_channels: channels that never change.
        alive: which cells live; None for all.

    Raises:
        ValueError, TypeError: an unknown option (the message names the valid ones), a size below its least, or
            options that contradict each other.
    """

    perception: str = "depthwise"
    filters: int = 1
    fixed_filters: tuple[str, ...] = ()
    own_state: bool = True
    drive: int = 0
    hidden: int = 64
    activation: str = "gelu"
    update: str = "residual"
    squash: str | None = None
    step_size: float = 1.0
    fire_rate: float = 1.0
    fire_rescale: bool = False
    clamp: tuple[float, float] | None = None
    immutable_channels: tuple[int, ...] = ()
    alive: Alive | None = None

    __hash__ = Value.__hash__

    def __post_init__(self) -> None:
        update = check_choice("Rule", "update", self.update, UPDATES)
        fixed = check_tuple("Rule", "fixed_filters", self.fixed_filters)
        immutable = check_tuple("Rule", "immutable_channels", self.immutable_channels)
        self._set(
            perception=check_choice("Rule", "perception", self.perception, PERCEPTIONS),
            filters=check_positive("Rule", "filters", self.filters, least=0 if fixed else 1),
            fixed_filters=tuple(check_choice("Rule", "fixed_filters", name, FILTERS) for name in fixed),
            own_state=check_flag("Rule", "own_state", self.own_state),
            drive=check_positive("Rule", "drive", self.drive, least=0),
            hidden=check_positive("Rule", "hidden", self.hidden, least=0),
            activation=check_choice("Rule", "activation", self.activation, ACTIVATIONS),
            update=update,
            squash=check_choice("Rule", "squash", UPDATES[update] if self.squash is None else self.squash, SQUASHES),
            step_size=check_range("Rule", "step_size", self.step_size, -math.inf, math.inf),
            fire_rate=check_range("Rule", "fire_rate", self.fire_rate, 0, 1),
            fire_rescale=check_flag("Rule", "fire_rescale", self.fire_rescale),
            clamp=None if self.clamp is None else _ends(self.clamp),
            immutable_channels=tuple(
                check_positive("Rule", "every one of immutable_channels", channel, least=0) for channel in immutable
            ),
        )
        if self.perception == "gather" and (self.filters != 1 or self.fixed_filters):
            given = f"fixed_filters is {self.fixed_filters}" if self.fixed_filters else f"filters is {self.filters}"
            raise ValueError(f"Rule: {given}, but perception 'gather' has no filters")
        if self.hidden == 0 and (self.bank != self.heads or self.own_state or self.drive):
            raise ValueError(
                f"Rule: hidden is 0, but perception is {self.perception!r} with {self.bank} filters, own_state is "
                f"{self.own_state} and drive is {self.drive}; a bare stencil takes 'depthwise' with {self.heads} for "
                f"update {self.update!r}, own_state=False and drive=0"
            )
        if self.update not in SCALED and self.step_size != 1.0:
            raise ValueError(f"Rule: step_size is {self.step_size}, but update {self.update!r} has no step size")
        if self.fire_rescale and not 0 < self.fire_rate < 1:
            raise ValueError(
                f"Rule: fire_rescale divides by fire_rate, which is {self.fire_rate}; it takes one in (0, 1)"
            )
        if self.alive is not None and not isinstance(self.alive, Alive):
            raise TypeError(f"Rule: alive is {self.alive!r}; it takes an Alive or None")
        self._seal()

    @classmethod
    def _read(cls, named: dict[str, Any]) -> dict[str, Any]:
        alive = named["alive"]
        return named | {"alive": None if alive is None else Alive(**alive)}

    @property
    def heads(self) -> int:
        """Outputs a channel: 2 for the gated update (change and gate), otherwise 1."""
        return 2 if self.update == "gated" else 1

    @property
    def bank(self) -> int:
        """Filters of the depthwise perception, fixed and learned; 0 for gather."""
        return len(self.fixed_filters) + self.filters if self.perception == "depthwise" else 0
