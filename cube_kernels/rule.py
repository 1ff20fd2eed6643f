"""The rule: what a cell computes from its neighborhood, and the parameters that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from cube_kernels.lattice import Lattice
from cube_kernels.options import check_choice, check_positive

PERCEPTIONS = ("depthwise", "gather")
ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
SQUASHES = ("identity", "tanh")
# Each update with the squash ψ it usually has: neural cellular automata add a raw change, the others move
# towards a bounded target.
UPDATES = {"residual": "identity", "replace": "tanh", "gated": "tanh"}


class RuleParameters(NamedTuple):
    """The tensors of a rule, shared by all cells. Shapes: :meth:`Rule.parameter_shapes`."""

    filters: Tensor | None
    hidden_weight: Tensor
    hidden_bias: Tensor
    head_weight: Tensor
    head_bias: Tensor


@dataclass(frozen=True)
class Rule:
    """One step of a cell, the same for all cells.

    ::

        p = perceive(x)                       what the neighborhood shows
        z = [x (own_state); p; u]             the input: own state, percepts, drive
        a = φ(W1 z + b1)                      hidden layer
        Δ = W2 a + b2,   g = Wg a + bg        heads; g for "gated" only
        residual:  x ← x + s·ψ(Δ)             neural cellular automata (Mordvintsev et al., 2020)
        replace:   x ← ψ(Δ)                   the classic cell
        gated:     x ← x + σ(g)·(ψ(Δ) − x)    contractive

    Args:
        perception: ``"depthwise"``: ``filters`` weighted sums over the neighborhood for each channel,
            ``p[k,c] = Σ_o w[k,o,c]·x[i+o,c]``; ``"gather"``: the neighbors' states themselves, in offset order,
            without the cell's own.
        filters: filters a channel for ``"depthwise"``; leave it at 1 for ``"gather"``, which has none.
        own_state: whether the cell's own state is part of the input.
        drive: channels ``U`` of a drive ``u`` held constant over the steps; 0 for none.
        hidden: width of the hidden layer.
        activation: φ, one of ``"relu"``, ``"gelu"`` (tanh form), ``"silu"``, ``"tanh"``.
        update: ``"residual"``, ``"replace"`` or ``"gated"``.
        squash: ψ, ``"identity"`` or ``"tanh"``; None takes identity for residual and tanh for the others.
        step_size: ``s`` of the residual update.

    Raises:
        ValueError: an unknown option (the message names the valid ones), a size below 1, or options that
            contradict each other.
    """

    perception: str = "depthwise"
    filters: int = 1
    own_state: bool = True
    drive: int = 0
    hidden: int = 64
    activation: str = "gelu"
    update: str = "residual"
    squash: str | None = None
    step_size: float = 1.0

    def __post_init__(self) -> None:
        check_choice("Rule", "perception", self.perception, PERCEPTIONS)
        check_choice("Rule", "activation", self.activation, ACTIVATIONS)
        check_choice("Rule", "update", self.update, UPDATES)
        if self.squash is None:
            object.__setattr__(self, "squash", UPDATES[self.update])
        check_choice("Rule", "squash", self.squash, SQUASHES)
        check_positive("Rule", "filters", self.filters)
        check_positive("Rule", "hidden", self.hidden)
        check_positive("Rule", "drive", self.drive, least=0)
        if self.perception == "gather" and self.filters != 1:
            raise ValueError(f"Rule: filters is {self.filters}, but perception 'gather' has no filters")
        if self.update != "residual" and self.step_size != 1.0:
            raise ValueError(f"Rule: step_size is {self.step_size}, but only update 'residual' has a step size")

    @property
    def heads(self) -> int:
        """Outputs a channel: 2 for the gated update (change and gate), otherwise 1."""
        return 2 if self.update == "gated" else 1

    def inputs(self, lattice: Lattice) -> int:
        """Width of ``z``."""
        percepts = self.filters if self.perception == "depthwise" else len(lattice.offsets) - 1
        return (int(self.own_state) + percepts) * lattice.channels + self.drive

    def parameter_shapes(self, lattice: Lattice) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of :class:`RuleParameters` on this lattice, in its order; no entry for
        ``filters`` where there are none. ``filters`` is ``[P, offsets, C]``; weights are ``[out, in]`` as in
        ``nn.Linear``; the gate's rows follow the change's in the heads."""
        channels = lattice.channels
        shapes: dict[str, tuple[int, ...]] = {}
        if self.perception == "depthwise":
            shapes["filters"] = (self.filters, len(lattice.offsets), channels)
        shapes["hidden_weight"] = (self.hidden, self.inputs(lattice))
        shapes["hidden_bias"] = (self.hidden,)
        shapes["head_weight"] = (self.heads * channels, self.hidden)
        shapes["head_bias"] = (self.heads * channels,)
        return shapes
