"""What is measured: the full grid, the rows that run by default, and how much work a row is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from cube_kernels import Lattice, Rule, RuleParameters, bind

SHAPES = {(8, 8, 12): (8, 32), (16, 16, 16): (16, 32), (32, 32, 32): (16, 32)}
LATTICES = [(shape, channels) for shape, widths in SHAPES.items() for channels in widths]
NEIGHBORHOODS = [("von_neumann", 1), ("moore", 4)]
STEPS = [8, 64]
BATCHES = [1, 16]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DIRECTIONS = ["forward", "forward+backward"]


@dataclass(frozen=True)
class Problem:
    """The tensors of a case, the same in every process."""

    lattice: Lattice
    rule: Rule
    steps: int
    x: Tensor
    parameters: RuleParameters

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The parameters that this rule has, by name."""
        return {name: tensor for name, tensor in self.parameters._asdict().items() if tensor is not None}


@dataclass(frozen=True)
class Case:
    """One row: a learned rule (hidden 128, relu, residual update with step size 0.1) between walls, or with
    ``heat`` the bare stencil ``x_i ← 0.4·x_i + 0.1·(the six neighbors)``."""

    shape: tuple[int, int, int]
    channels: int
    neighborhood: str
    filters: int
    steps: int
    batch: int = 1
    dtype: str = "fp32"
    direction: str = "forward"
    heat: bool = False

    def __str__(self) -> str:
        kind = "heat" if self.heat else f"{self.neighborhood} P{self.filters}"
        shape = "x".join(map(str, self.shape))
        return f"{shape} C{self.channels} {kind} T{self.steps} B{self.batch} {self.dtype} {self.direction}"

    @property
    def lattice(self) -> Lattice:
        return Lattice(self.shape, self.channels, self.neighborhood)

    @property
    def rule(self) -> Rule:
        if self.heat:
            return Rule(own_state=False, hidden=0, update="replace", squash="identity")
        return Rule(filters=self.filters, hidden=128, activation="relu", step_size=0.1)

    @property
    def backward(self) -> bool:
        return self.direction == "forward+backward"

    @property
    def cell_steps(self) -> int:
        return self.lattice.cells * self.batch * self.steps

    @property
    def flops(self) -> int:
        """Of the rule: multiplications and additions of perception and of the two layers. Heat counts its
        perception alone. Forward and backward is three times forward; what a backend recomputes does not count."""
        lattice, rule = self.lattice, self.rule
        a_cell = rule.filters * len(lattice.offsets) * self.channels
        if not self.heat:
            a_cell += bind(lattice, rule).inputs * rule.hidden + rule.hidden * self.channels
        return 2 * a_cell * self.cell_steps * (3 if self.backward else 1)

    @property
    def state_bytes(self) -> int:
        return self.lattice.cells * self.batch * self.channels * DTYPES[self.dtype].itemsize

    @property
    def compulsory_bytes(self) -> int:
        """Each step reads a state and writes one: what a stencil moves if steps are not blocked in time."""
        return 2 * self.state_bytes * self.steps

    @property
    def taped_bytes(self) -> int:
        """About what a peer without checkpoints holds: input, hidden layer and change, before and after each is
        used, of every step for a backward pass and of one step otherwise."""
        widths = 2 * (bind(self.lattice, self.rule).inputs + self.rule.hidden + self.channels)
        steps = self.steps if self.backward else 1
        return steps * self.lattice.cells * self.batch * widths * DTYPES[self.dtype].itemsize

    def problem(self) -> Problem:
        """Weights are scaled by their fan-in: the rollout moves the state by about its own size, so that a wrong
        tap or weight shows, and does not explode."""
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int, fan_in: int = 1) -> Tensor:
            return (torch.randn(shape, generator=generator) * fan_in**-0.5).to(DTYPES[self.dtype])

        lattice, rule = self.lattice, self.rule
        x = draw(self.batch, *lattice.shape, lattice.channels)
        if self.heat:
            filters = torch.full((1, len(lattice.offsets), self.channels), 0.1)
            filters[:, 0] = 0.4  # offsets begin with the cell itself
            parameters = RuleParameters(filters)
        else:
            shapes = bind(lattice, rule).parameter_shapes
            drawn = {n: draw(*shape, fan_in=shape[1] if len(shape) > 1 else 4) for n, shape in shapes.items()}
            parameters = RuleParameters(**drawn)
        return Problem(lattice, rule, self.steps, x, parameters)


FULL = [
    Case(shape, channels, neighborhood, filters, steps, batch, dtype, direction)
    for (shape, channels), (neighborhood, filters), steps, batch, dtype, direction in itertools.product(
        LATTICES, NEIGHBORHOODS, STEPS, BATCHES, DTYPES, DIRECTIONS
    )
]

HEAT = [
    Case((16, 16, 16), 16, "von_neumann", 1, 64, heat=True),
    Case((32, 32, 32), 1, "von_neumann", 1, 64, heat=True),
    Case((32, 32, 32), 16, "von_neumann", 1, 64, heat=True),
]

DEFAULT = [
    Case((8, 8, 12), 8, "von_neumann", 1, 8, 1, "fp32", "forward"),
    Case((8, 8, 12), 8, "von_neumann", 1, 64, 1, "fp32", "forward+backward"),
    Case((8, 8, 12), 32, "von_neumann", 1, 8, 16, "fp32", "forward"),
    Case((8, 8, 12), 32, "von_neumann", 1, 8, 16, "fp32", "forward+backward"),
    Case((8, 8, 12), 32, "moore", 4, 64, 1, "fp32", "forward"),
    Case((16, 16, 16), 16, "moore", 4, 8, 1, "fp32", "forward"),
    Case((16, 16, 16), 16, "moore", 4, 8, 1, "fp32", "forward+backward"),
    Case((16, 16, 16), 32, "von_neumann", 1, 64, 1, "fp32", "forward"),
    Case((16, 16, 16), 32, "von_neumann", 1, 8, 1, "fp32", "forward+backward"),
    Case((32, 32, 32), 16, "von_neumann", 1, 8, 1, "fp32", "forward"),
    Case((32, 32, 32), 32, "moore", 4, 8, 1, "fp32", "forward"),
    Case((32, 32, 32), 16, "von_neumann", 1, 8, 1, "fp32", "forward+backward"),
    Case((8, 8, 12), 32, "von_neumann", 1, 8, 16, "bf16", "forward"),
    Case((16, 16, 16), 16, "moore", 4, 8, 1, "bf16", "forward+backward"),
]  # fmt: skip
"""Every value of every dimension, in minutes."""


def select(everything: bool, substring: str) -> tuple[list[Case], list[Case]]:
    """The rows to run, and those of the full grid and the heat rows that are left out."""
    chosen = [case for case in (FULL if everything else DEFAULT) + HEAT if substring in str(case)]
    return chosen, [case for case in FULL + HEAT if case not in chosen]
