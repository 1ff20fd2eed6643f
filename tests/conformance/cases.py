"""The cases that every backend runs, and how two results are compared."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from cube_kernels import Lattice, Rule, RuleParameters, rollout
from cube_kernels.backends import reference
from cube_kernels.lattice import BOUNDARIES, NEIGHBORHOODS
from cube_kernels.rule import ACTIVATIONS, PERCEPTIONS, SQUASHES, UPDATES

STEPS = 4


@dataclass(frozen=True)
class Case:
    lattice: Lattice
    rule: Rule
    drive_batch: str  # "none", "each" sample its own, or "shared" by the batch
    batch: int = 3

    def __str__(self) -> str:
        a, r = self.lattice, self.rule
        shape = "x".join(map(str, a.shape))
        filters = r.filters if r.perception == "depthwise" else ""
        own = "" if r.own_state else "-no_own"
        return (
            f"{shape}x{a.channels}-{a.neighborhood}{a.radius}-{a.boundary}-{r.perception}{filters}{own}"
            f"-drive_{self.drive_batch}-{r.hidden}{r.activation}-{r.update}_{r.squash}"
        )


# Odd, thin and tiny lattices; channels below, at and above a vector; a lattice of several cell blocks.
LATTICES = [((3, 4, 5), 5), ((1, 2, 7), 8), ((1, 1, 1), 3), ((4, 4, 4), 16), ((2, 5, 3), 20), ((5, 5, 6), 1)]
HIDDEN = [19, 32, 1]


def all_cases() -> list[Case]:
    grid = itertools.product(
        LATTICES, NEIGHBORHOODS, (1, 2), BOUNDARIES, PERCEPTIONS, (True, False), ("none", "each", "shared"),
        ACTIVATIONS, UPDATES, SQUASHES,
    )  # fmt: skip
    cases = []
    for i, ((shape, channels), near, radius, edge, perception, own, drive, activation, update, squash) in enumerate(
        grid
    ):
        rule = Rule(
            perception=perception,
            filters=1 + i % 5 if perception == "depthwise" else 1,
            own_state=own,
            drive=0 if drive == "none" else 3,
            hidden=HIDDEN[i % len(HIDDEN)],
            activation=activation,
            update=update,
            squash=squash,
            step_size=0.5 if update == "residual" else 1.0,
        )
        cases.append(Case(Lattice(shape, channels, near, radius, edge), rule, drive))
    return cases


def short_cases(count: int = 150) -> list[Case]:
    """A fixed sample of the grid in which every value of every switch occurs often."""
    return random.Random(0).sample(all_cases(), count)


@dataclass
class Inputs:
    x: Tensor
    parameters: RuleParameters
    drive: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        named = {"x": self.x, "drive": self.drive, **self.parameters._asdict()}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def map(self, change) -> Inputs:
        of = {name: change(tensor).detach().requires_grad_() for name, tensor in self.tensors().items()}
        return Inputs(of["x"], RuleParameters(*(of.get(n) for n in RuleParameters._fields)), of.get("drive"))


def kink_distance(case: Case, inputs: Inputs) -> float:
    """How near a hidden value comes to the kink of relu, where a rounding turns into another gradient."""
    nearest = math.inf

    def watched(h: Tensor) -> Tensor:
        nonlocal nearest
        nearest = min(nearest, h.abs().min().item()) if h.numel() else nearest
        return torch.relu(h)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setitem(reference.ACTIVATIONS, "relu", watched)
        exact = inputs.map(Tensor.double)
        rollout(exact.x, exact.parameters, case.lattice, case.rule, steps=STEPS, drive=exact.drive, backend="reference")
    return nearest


def make_inputs(case: Case, dtype: torch.dtype) -> Inputs:
    """Random inputs that stay clear of relu's kink."""
    draws = (draw_inputs(case, dtype, seed) for seed in itertools.count())
    return next(inputs for inputs in draws if kink_distance(case, inputs) > 1e-5)


def draw_inputs(case: Case, dtype: torch.dtype, seed: int = 0) -> Inputs:
    """Random inputs; weights are scaled by their fan-in, so that a rollout neither dies nor explodes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype).requires_grad_()

    shapes = case.rule.parameter_shapes(case.lattice)
    scales = {name: (shape[1] if len(shape) > 1 else 4) ** -0.5 for name, shape in shapes.items()}
    parameters = RuleParameters(
        *(draw(*shapes[name], scale=scales[name]) if name in shapes else None for name in RuleParameters._fields)
    )
    drive_batch = {"none": None, "each": case.batch, "shared": 1}[case.drive_batch]
    drive = None if drive_batch is None else draw(drive_batch, *case.lattice.shape, case.rule.drive)
    return Inputs(draw(case.batch, *case.lattice.shape, case.lattice.channels), parameters, drive)


def run(case: Case, inputs: Inputs, backend: str, steps: int = STEPS, **options) -> dict[str, Tensor]:
    """The result and the gradient of every input, under a fixed cotangent."""
    result = rollout(
        inputs.x,
        inputs.parameters,
        case.lattice,
        case.rule,
        steps=steps,
        drive=inputs.drive,
        backend=backend,
        **options,
    )
    # Of one sign: gradients that nearly cancel would have no digits to compare.
    cotangent = torch.linspace(0.5, 1.5, result.numel(), dtype=torch.float64).to(result.dtype).view_as(result)
    tensors = inputs.tensors()
    gradients = torch.autograd.grad(result, list(tensors.values()), cotangent, allow_unused=True)
    named = {f"gradient of {name}": g for name, g in zip(tensors, gradients, strict=True) if g is not None}
    return {"result": result.detach(), **named}


def assert_close(actual: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor's error, as an L2 norm, is below the tolerance times the truth's. Inputs and cotangents are of
    size one, so what nearly vanishes is measured against 0.01 an element: it carries the rounding of the rest."""
    assert actual.keys() == truth.keys()
    for name, right in truth.items():
        assert actual[name].shape == right.shape, name
        size = max(right.double().norm().item(), 0.01 * right.numel() ** 0.5)
        error = (actual[name].double() - right.double()).norm().item() / max(size, 1e-300)
        assert error <= tolerance, f"{name}: relative error {error:.2e}, allowed {tolerance:.0e}"
