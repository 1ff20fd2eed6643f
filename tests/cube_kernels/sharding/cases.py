"""Lattices that ranks share, and the whole lattice's results beside theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cube_kernels import Alive, Lattice, Rollout, Rule, RuleParameters, bind, rollout
from cube_kernels import sharding as shared
from cube_kernels.lattice import BOUNDARIES
from cube_kernels.sharding import Sharding

DEPTH, STEPS = 11, 8
UNEVEN = {1: (11,), 2: (3, 8), 4: (1, 4, 1, 5)}  # of ranks; thinner than the halo, too
EMPTY = {1: (11,), 2: (0, 11), 4: (4, 0, 1, 6)}


@dataclass(frozen=True)
class Case:
    lattice: Lattice
    rule: Rule = Rule(hidden=12)  # noqa: RUF009
    every: int = 1
    sizes: dict[int, tuple[int, ...]] = field(default_factory=lambda: UNEVEN)
    options: dict[str, Any] = field(default_factory=dict)
    masked: bool = False


def deep(channels: int = 4, **given: Any) -> Lattice:
    return Lattice((DEPTH, 4, 5), channels, **given)


def cases() -> dict[str, Case]:
    return dict(_cases())


def _cases() -> Iterator[tuple[str, Case]]:
    for boundary in BOUNDARIES:
        for every in (1, 2, 4):
            yield f"{boundary}, every {every}", Case(deep(neighborhood="moore", boundary=boundary), every=every)
    yield "steps that are no multiple of every", Case(deep(neighborhood="moore"), every=3)
    yield "halo larger than the lattice", Case(deep(radius=2), every=8)
    yield "halo larger than the periodic lattice", Case(deep(radius=2, boundary="periodic"), every=8)
    yield "wide sponge", Case(deep(boundary="absorbing", sponge_width=5), every=2)
    yield "empty slab", Case(deep(boundary="periodic"), every=2, sizes=EMPTY)
    yield "empty slab and walls", Case(deep(), Rule(hidden=5, fire_rate=0.5), 2, EMPTY, {"seed": 3})
    yield "planes that look at none", Case(deep(neighborhood="moore_2d", boundary="reflecting"), every=4)
    yield "offsets to one side", Case(deep(neighborhood=((0, 0, 0), (2, 0, 0), (0, -1, 1))), every=2)
    gathered = Rule(perception="gather", hidden=12, update="gated", drive=3)
    yield "gathered, driven, masked", Case(deep(), gathered, every=2, masked=True)
    leaky = Rule(
        hidden=12, update="leaky", fixed_filters=("sobel_d", "laplacian"), immutable_channels=(1,), clamp=(-1.0, 1.0)
    )
    yield (
        "leaky, fixed filters, immutable channel, clamp",
        Case(deep(neighborhood="moore", boundary="replicate"), leaky, every=4),
    )
    yield "bare stencil", Case(deep(), Rule(hidden=0, own_state=False, step_size=0.2), every=2)
    for when in ("before", "after", "both"):
        yield f"alive {when}", Case(deep(boundary="periodic"), Rule(hidden=12, alive=Alive(0, 0.5, when)), every=2)
    for boundary in ("walls", "periodic"):
        fires = Rule(hidden=12, fire_rate=0.5)
        yield f"fires, {boundary}", Case(deep(boundary=boundary), fires, every=2, options={"seed": 7})
    everything = Rule(hidden=12, fire_rate=0.6, fire_rescale=True, clamp=(-2.0, 2.0), alive=Alive(0, 0.3))
    counted = {"seed": 2**40 + 3, "first_step": 2**31 - 9, "first_sample": 5}
    yield "fires, alive, absorbing, clamp, mask", Case(deep(boundary="absorbing"), everything, 4, UNEVEN, counted, True)
    yield "trajectory of every second", Case(deep(), every=4, options={"trajectory_every": 2})
    yield "trajectory of every third", Case(deep(), every=4, options={"trajectory_every": 3})
    gated = Rule(hidden=12, update="gated")
    stops = {"tolerance": 0.12, "trajectory_every": 2}
    yield "stops", Case(deep(), gated, every=4, options=stops)
    yield "few checkpoints", Case(deep(), every=2, options={"checkpoint_every": 4})
    yield "one checkpoint", Case(deep(), every=4, options={"checkpoint_every": 1})
    yield "no steps", Case(deep(), options={"steps": 0})


@dataclass
class Inputs:
    x: Tensor
    parameters: RuleParameters
    drive: Tensor | None
    mask: Tensor | None
    cotangent: Tensor

    def leaves(self) -> dict[str, Tensor]:
        named = {"x": self.x, "drive": self.drive, **self.parameters._asdict()}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def draw(case: Case, dtype: torch.dtype, device: str = "cpu", batch: int = 2) -> Inputs:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(device, dtype)

    lattice, rule = case.lattice, case.rule
    shapes = bind(lattice, rule).parameter_shapes
    parameters = [
        numbers(*shapes[name], scale=0.15 if name == "hidden_weight" else 0.3).requires_grad_()
        if name in shapes
        else None
        for name in RuleParameters._fields
    ]
    drive = numbers(1, *lattice.shape, rule.drive).requires_grad_() if rule.drive else None
    mask = (torch.rand(batch, *lattice.shape, generator=generator) < 0.8).to(device) if case.masked else None
    x, cotangent = numbers(batch, *lattice.state_shape, scale=0.5), numbers(batch, *lattice.state_shape)
    return Inputs(x.requires_grad_(), RuleParameters(*parameters), drive, mask, cotangent)


def block_of(inputs: Inputs, sharding: Sharding) -> Inputs:
    def take(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else sharding.take(tensor.detach()).requires_grad_(tensor.requires_grad)

    parameters = (None if p is None else p.detach().clone().requires_grad_() for p in inputs.parameters)
    cotangent = sharding.take(inputs.cotangent)
    return Inputs(take(inputs.x), RuleParameters(*parameters), take(inputs.drive), take(inputs.mask), cotangent)


Results = dict[str, Tensor]


def results(inputs: Inputs, result: Tensor | Rollout) -> Results:
    """The states, the trajectory, the steps taken, and every gradient."""
    named: Results = {}
    if isinstance(result, Rollout):
        named["steps"] = result.steps
        loss = (result.state * inputs.cotangent).sum()
        if result.trajectory is not None:
            named["trajectory"] = result.trajectory
            loss = loss + result.trajectory.square().sum()
        result = result.state
    else:
        loss = (result * inputs.cotangent).sum()
    named["state"] = result
    leaves = inputs.leaves()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return named | {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}


def whole(case: Case, inputs: Inputs, backend: str) -> Results:
    options = {"steps": STEPS, **case.options}
    given = {"drive": inputs.drive, "write_mask": inputs.mask, "backend": backend}
    return results(inputs, rollout(inputs.x, inputs.parameters, case.lattice, case.rule, **options, **given))


def in_blocks(case: Case, inputs: Inputs, sharding: Sharding, backend: str) -> Results:
    """This rank's block of the same."""
    mine = block_of(inputs, sharding)
    options = {"steps": STEPS, "every": case.every, **case.options}
    given = {"drive": mine.drive, "write_mask": mine.mask, "backend": backend}
    return results(mine, shared.rollout(mine.x, mine.parameters, sharding, case.rule, **options, **given))


CELLS = {"state": 1, "trajectory": 2, "gradient of x": 1, "gradient of drive": 1}
"""Where the lattice's dimensions begin, of what is cut."""


def error(block: Tensor, truth: Tensor) -> float:
    """The largest difference as a share of the largest number."""
    if not truth.numel():
        return 0.0
    block, truth = block.detach(), truth.detach()
    return float((block.double() - truth.double()).abs().max() / truth.double().abs().max().clamp_min(1e-300))


def wrong(
    case: Case,
    sharding: Sharding,
    backend: str,
    dtype: torch.dtype,
    tolerance: float,
    bits: bool,
    device: str = "cpu",
) -> list[str]:
    """What of this rank's block is not the whole's; states must have the same bits, or not."""
    inputs = draw(case, dtype, device)
    there, here = whole(case, inputs, backend), in_blocks(case, inputs, sharding, backend)
    assert there.keys() == here.keys()
    found = []
    for name, truth in there.items():
        truth = sharding.take(truth, CELLS[name]) if name in CELLS else truth
        if name == "steps" or (bits and not name.startswith("gradient")):
            if not torch.equal(here[name], truth):
                found.append(f"{name} differs by {error(here[name], truth):.1e}")
        elif not error(here[name], truth) <= tolerance:
            found.append(f"{name} is off by {error(here[name], truth):.1e}, allowed {tolerance:.1e}")
    return found
