"""The cases that every backend runs, and how two results are compared."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cube_kernels import Alive, Lattice, Rollout, Rule, RuleParameters, bind, rollout
from cube_kernels.backends import reference
from cube_kernels.lattice import BOUNDARIES, NEIGHBORHOODS, Window
from cube_kernels.update_rule import ACTIVATIONS, ALIVE_WHEN, PERCEPTIONS, SCALED, SQUASHES, UPDATES

STEPS = 4

# A value is a few hundred rounded operations deep, and a bias gradient sums a few hundred terms. The whole grid
# passes at 1024 units of rounding; at 512 one case fails (624, hidden 1, portable vectors without fused
# multiply-adds, float32). A wrong tap, mask or index is off by a tenth or more.
TOLERANCE = {dtype: 1024 * torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32)}


@dataclass(frozen=True)
class Case:
    lattice: Lattice
    rule: Rule
    drive_batch: str = "none"  # or "each" sample its own, or "shared" by the batch
    mask_batch: str = "none"  # of the write mask, likewise
    trajectory_every: int | None = None
    tolerance: float | None = None
    batch: int = 3
    first_step: int = 0
    first_sample: int = 0

    @property
    def seed(self) -> int | None:
        return 0x123456789AB if self.rule.fire_rate < 1 else None

    def __str__(self) -> str:
        """The values that are not the default's, for the name of a test."""
        parts = []
        for owner in (self.lattice, self.rule, self):
            for field in fields(owner):
                value = getattr(owner, field.name)
                if field.init and value != field.default and field.name not in ("lattice", "rule", "batch"):
                    parts.append(f"{field.name}={value}")
        return "-".join(parts).replace(" ", "")


# What each switch may be; a case draws one value of each. Odd, thin and tiny lattices; channels below, at and above a
# vector; a lattice of several blocks of cells.
SWITCHES: dict[str, list] = {
    "lattice": [((3, 4, 5), 5), ((1, 2, 7), 8), ((1, 1, 1), 3), ((4, 4, 4), 16), ((2, 5, 3), 20), ((5, 5, 6), 1)],
    "neighborhood": [*NEIGHBORHOODS, ((0, 0, 0), (-1, 1, 0), (0, 0, 2), (1, 0, -1)), ((0, 2, 1), (0, -1, 0))],
    "radius": [1, 2],
    "boundary": list(BOUNDARIES),
    "perception": list(PERCEPTIONS),
    "filters": [1, 2, 3, 5],
    # The last twice: of the neighborhoods, one alone has all its taps.
    "fixed_filters": [(), (), ("identity",), *[("laplacian", "sobel_h", "sobel_w", "sobel_d")] * 2],
    "own_state": [True, False],
    "drive_batch": ["none", "each", "shared"],
    "hidden": [19, 32, 1, 19, 32, 1, 0],
    "activation": list(ACTIVATIONS),
    "update": list(UPDATES),
    "squash": list(SQUASHES),
    "fire_rate": [1.0, 1.0, 0.5],
    "fire_rescale": [False, True],
    "clamp": [None, None, (-0.7, 0.9)],
    "immutable": [False, False, True],
    "mask_batch": ["none", "none", "each", "shared"],
    "alive": [None, None, *ALIVE_WHEN],
    "trajectory_every": [None, None, 1, 3],
    "tolerance": [None, None, 0.3],
    # Whether the lattice goes on beyond each axis's low and high face, as a window of a larger one.
    "cut": [None, None, None, *itertools.product(itertools.product((False, True), repeat=2), repeat=3)][::9],
    "first_step": [0, 5],
    "first_sample": [0, 2**31 - 7],
}


def draw_case(seed: int) -> Case | None:
    """The case of this number, or None where its switches contradict each other."""
    generator = random.Random(seed)
    s = {name: generator.choice(values) for name, values in SWITCHES.items()}
    if s["hidden"] == 0:  # a bare stencil leaves no choice
        bare = {"perception": "depthwise", "filters": 2 if s["update"] == "gated" else 1, "fixed_filters": ()}
        s.update(bare, own_state=False, drive_batch="none")
    (shape, channels), named = s["lattice"], isinstance(s["neighborhood"], str)
    depthwise = s["perception"] == "depthwise"
    try:
        lattice = Lattice(shape, channels, s["neighborhood"], s["radius"] if named else 1, s["boundary"])
        if s["cut"] is not None:
            lattice = windowed(lattice, s["cut"])
        rule = Rule(
            perception=s["perception"],
            filters=s["filters"] if depthwise else 1,
            fixed_filters=s["fixed_filters"] if depthwise else (),
            own_state=s["own_state"],
            drive=0 if s["drive_batch"] == "none" else 3,
            hidden=s["hidden"],
            activation=s["activation"],
            update=s["update"],
            squash=s["squash"],
            step_size=0.5 if s["update"] in SCALED else 1.0,
            fire_rate=s["fire_rate"],
            fire_rescale=s["fire_rescale"] and s["fire_rate"] < 1,
            clamp=s["clamp"],
            immutable_channels=(channels - 1,) if s["immutable"] else (),
            alive=None if s["alive"] is None else Alive(channels // 2, 0.5, s["alive"], -0.3),
        )
        bind(lattice, rule)
    except ValueError:
        return None
    counts = {"first_step": s["first_step"], "first_sample": s["first_sample"]}
    return Case(lattice, rule, s["drive_batch"], s["mask_batch"], s["trajectory_every"], s["tolerance"], **counts)


def windowed(lattice: Lattice, cut: tuple[tuple[bool, bool], ...]) -> Lattice:
    """The lattice as a block of one with two more planes beyond each low face that is cut, three beyond each high one.
    What is periodic is cut at both or at none."""
    if lattice.boundary == "periodic":
        cut = tuple((low and high, low and high) for low, high in cut)
    whole = tuple(size + 2 * low + 3 * high for size, (low, high) in zip(lattice.shape, cut, strict=True))
    return replace(lattice, window=Window(whole, tuple(2 * low for low, _ in cut), cut))


def cases(count: int) -> list[Case]:
    """The first ``count`` cases: a fixed sequence, each value of each switch coming up often."""
    drawn = (draw_case(seed) for seed in itertools.count())
    return list(itertools.islice((case for case in drawn if case is not None), count))


def sweep(count: int, check: Callable[..., None], *arguments: Any) -> None:
    """Checks the first ``count`` cases with these arguments; what goes wrong names its case."""
    for case in cases(count):
        try:
            check(case, *arguments)
        except Exception as wrong:
            raise AssertionError(f"{case}: {wrong}") from wrong


def short_cases(count: int = 200) -> list[Case]:
    return cases(count)


@dataclass
class Inputs:
    x: Tensor
    parameters: RuleParameters
    drive: Tensor | None
    write_mask: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        named = {"x": self.x, "drive": self.drive, **self.parameters._asdict()}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def map(self, change) -> Inputs:
        of = {name: change(tensor).detach().requires_grad_() for name, tensor in self.tensors().items()}
        parameters = RuleParameters(*(of.get(n) for n in RuleParameters._fields))
        return Inputs(of["x"], parameters, of.get("drive"), self.write_mask)


def kink_distance(case: Case, inputs: Inputs) -> float:
    """How near a value comes to where a rounding turns into another result or gradient: the kink of relu, the ends
    of the clamp, the threshold of life, the tolerance of convergence."""
    nearest = math.inf

    def watch(values: Tensor, *kinks: float) -> None:
        nonlocal nearest
        for kink in kinks:
            distances = (values - kink).abs()
            nearest = min([nearest, *distances[distances.isfinite()].tolist()])

    def watched_relu(h: Tensor) -> Tensor:
        watch(h, 0.0)
        return torch.relu(h)

    def watched_lives(x: Tensor, lattice: Lattice, alive: Alive) -> Tensor:
        watch(x[..., alive.channel], alive.threshold)
        return lives(x, lattice, alive)

    def watched_clamp(v: Tensor, low: float, high: float) -> Tensor:
        watch(v[(v != low) & (v != high)], low, high)  # clamped before, and not fired since: exactly there
        return clamp(v, low, high)

    def watched_norm(v: Tensor, **options) -> Tensor:
        norms.append(norm(v, **options))
        return norms[-1]

    norms: list[Tensor] = []
    lives, clamp, norm = reference.lives, Tensor.clamp, Tensor.norm
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setitem(reference.ACTIVATIONS, "relu", watched_relu)
        patch.setattr(reference, "lives", watched_lives)
        patch.setattr(Tensor, "clamp", watched_clamp)
        patch.setattr(Tensor, "norm", watched_norm)
        call(case, inputs.map(Tensor.double), "reference")
    for change, size in zip(norms[::2], norms[1::2], strict=True):
        watch(change / size, float(case.tolerance or 0))
    return nearest


def make_inputs(case: Case, dtype: torch.dtype) -> Inputs:
    """Random inputs that stay clear of every kink."""
    draws = (draw_inputs(case, dtype, seed) for seed in range(100))
    return next(inputs for inputs in draws if kink_distance(case, inputs) > 1e-5)


def draw_inputs(case: Case, dtype: torch.dtype, seed: int = 0) -> Inputs:
    """Random inputs; weights are scaled by their fan-in, so that a rollout neither dies nor explodes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype).requires_grad_()

    shapes = bind(case.lattice, case.rule).parameter_shapes
    scales = {name: (shape[1] if len(shape) > 1 else 4) ** -0.5 for name, shape in shapes.items()}
    parameters = RuleParameters(
        *(draw(*shapes[name], scale=scales[name]) if name in shapes else None for name in RuleParameters._fields)
    )
    counts = {"none": None, "each": case.batch, "shared": 1}
    drive_batch, mask_batch = counts[case.drive_batch], counts[case.mask_batch]
    drive = None if drive_batch is None else draw(drive_batch, *case.lattice.shape, case.rule.drive)
    mask = None if mask_batch is None else torch.rand(mask_batch, *case.lattice.shape, generator=generator) > 0.25
    return Inputs(draw(case.batch, *case.lattice.shape, case.lattice.channels), parameters, drive, mask)


def call(case: Case, inputs: Inputs, backend: str, steps: int = STEPS, **options) -> Rollout:
    result = rollout(
        inputs.x,
        inputs.parameters,
        case.lattice,
        case.rule,
        steps=steps,
        drive=inputs.drive,
        write_mask=inputs.write_mask,
        seed=case.seed,
        trajectory_every=case.trajectory_every,
        tolerance=case.tolerance,
        backend=backend,
        first_step=case.first_step,
        first_sample=case.first_sample,
        **options,
    )
    return result if isinstance(result, Rollout) else Rollout(result, None, torch.empty(0))


def run(case: Case, inputs: Inputs, backend: str, steps: int = STEPS, **options) -> dict[str, Tensor]:
    """The result, the trajectory, the steps taken, and the gradient of every input under a fixed cotangent."""
    result = call(case, inputs, backend, steps, **options)
    outputs = {"result": result.state}
    if result.trajectory is not None and len(result.trajectory):
        outputs["trajectory"] = result.trajectory
    # Of one sign: gradients that nearly cancel would have no digits to compare.
    cotangents = [
        torch.linspace(0.5, 1.5, output.numel(), dtype=torch.float64).to(output.dtype).view_as(output)
        for output in outputs.values()
    ]
    tensors = inputs.tensors()
    # Where everything is protected or dead, nothing depends on some of the inputs.
    gradients = torch.autograd.grad(
        list(outputs.values()), list(tensors.values()), cotangents, allow_unused=True, materialize_grads=True
    )
    named = {f"gradient of {name}": g for name, g in zip(tensors, gradients, strict=True)}
    return {name: output.detach() for name, output in outputs.items()} | named | {"steps": result.steps}


def error(actual: Tensor, truth: Tensor) -> float:
    """The L2 norm of the difference as a share of the truth's. Inputs and cotangents are of size one, so what nearly
    vanishes is measured against 0.01 an element: it carries the rounding of the rest."""
    size = max(truth.double().norm().item(), 0.01 * truth.numel() ** 0.5)
    return (actual.double() - truth.double()).norm().item() / max(size, 1e-300)


def assert_close(actual: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor's error is at most the tolerance."""
    assert actual.keys() == truth.keys()
    for name, right in truth.items():
        assert actual[name].shape == right.shape, name
        off = error(actual[name], right)
        assert off <= tolerance, f"{name}: relative error {off:.2e}, allowed {tolerance:.0e}"


def assert_close_in_half_width(actual: dict[str, Tensor], same: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    """A backend's results against the reference's of the same dtype and against those in float64.

    Both backends round at the same places, so that states differ by less than one rounding in all (measured on
    native: 0.02 % of the elements in bfloat16, by one unit). Gradients keep float32 through the steps, where the
    reference's autograd rounds them at each: against float64 they are no worse than its, to a few units."""
    assert actual.keys() == same.keys() == truth.keys()
    assert torch.equal(actual["steps"], same["steps"]), "steps"
    eps = torch.finfo(same["result"].dtype).eps
    for name in actual.keys() - {"steps"}:
        assert actual[name].shape == truth[name].shape, name
        if name.startswith("gradient"):
            off, allowed = error(actual[name], truth[name]), 2 * error(same[name], truth[name]) + 8 * eps
            assert off <= allowed, f"{name}: relative error {off:.2e}, allowed {allowed:.0e}"
        else:
            off = error(actual[name], same[name])
            assert off < eps, f"{name}: relative error {off:.2e}, allowed less than {eps:.0e}"
