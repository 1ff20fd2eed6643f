"""What the comparison with the whole lattice would find out: each mistake, made on purpose, must fail it."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from cube_kernels import Alive, Lattice, Rule, RuleParameters, rollout
from cube_kernels import sharding as shared
from cube_kernels.backends.contract import Schedule
from cube_kernels.sharding import Sharding, blocks, by_kernels
from tests.cube_kernels.sharding.cases import UNEVEN, Case, deep, wrong
from tests.cube_kernels.sharding.ranks import on_ranks

retention, exchange, widened = Lattice.axis_retention, blocks.Exchange, Sharding.widened

FIRES = Rule(hidden=12, fire_rate=0.5)
# Each mistake: what is put in whose place, and the case that must find it. No two share a lattice, whose tables stay.
MISTAKES = {
    "none": (Sharding, "widened", widened, Case(deep(3), FIRES, 2, options={"seed": 1})),
    "a halo one plane short": (
        blocks, "Exchange", lambda group, axis, sizes, halo, periodic: exchange(group, axis, sizes, halo - 1, periodic),
        Case(deep(5), every=2),
    ),
    "one ring for life after the update": (
        Sharding, "widened", lambda self, steps, rings: widened(self, steps, 1),
        Case(deep(6, boundary="periodic"), Rule(hidden=12, alive=Alive(0, 0.5, "after")), 2),
    ),
    "the absorbing factor of the block": (
        Lattice, "axis_retention", lambda self, axis: retention(replace(self, window=None), axis),
        Case(deep(7, boundary="absorbing"), every=2),
    ),
    "the fire mask of the block": (
        Lattice, "axis_places", lambda self, axis: list(range(self.shape[axis])),
        Case(deep(8), FIRES, 2, options={"seed": 1}),
    ),
    "steps that begin anew": (
        by_kernels, "Schedule", lambda *numbers: Schedule(*numbers[:-2], 0, numbers[-1]),
        Case(deep(9), FIRES, 2, options={"seed": 1}),
    ),
}  # fmt: skip


def _mistaken(rank: int) -> dict[str, list[str]]:
    found = {}
    for name, (owner, attribute, mistake, case) in MISTAKES.items():
        sharding = Sharding(case.lattice, {"D": dist.group.WORLD}, {"D": UNEVEN[2]})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, attribute, mistake)
            found[name] = wrong(case, sharding, "native", torch.float64, 1e-9, bits=False)
    return found


def test_mistakes_are_found():
    found = on_ranks(_mistaken, 2)
    for name in MISTAKES:
        assert any(errors[name] for errors in found) == (name != "none"), name


def _beside_a_cut(rank: int) -> dict[str, bool]:
    """A rule that is quiet in the whole lattice, where the neighbors of a cell that may change add up to 2, and
    explodes where one is missing."""
    lattice = Lattice((24, 1, 1), 1, ((0, 0, 0), (-1, 0, 0), (1, 0, 0)))
    rule, big = Rule(hidden=1, own_state=False, activation="relu"), 1e30
    given = RuleParameters(
        torch.tensor([0.0, 1, 1]).view(1, 3, 1), torch.tensor([[-big]]), torch.tensor([1.5 * big]),
        torch.tensor([[big]]), torch.zeros(1), None,
    )  # fmt: skip
    x, mask = torch.ones(1, *lattice.state_shape), torch.ones(1, *lattice.shape, dtype=torch.bool)
    mask[:, [0, 23]] = False
    sharding = Sharding(lattice, {"D": dist.group.WORLD})
    finite = {}
    for backend in ("native", "reference"):
        for every in (1, 4):
            parameters = RuleParameters(*(None if p is None else p.clone().requires_grad_() for p in given))
            options = {"steps": 8, "backend": backend}
            truth = rollout(x, parameters, lattice, rule, write_mask=mask, **options)
            block = sharding.take(mask)
            state = shared.rollout(
                sharding.take(x), parameters, sharding, rule, every=every, write_mask=block, **options
            )
            assert torch.equal(state, sharding.take(truth))
            trained = [p for p in parameters if p is not None]
            gradients = torch.autograd.grad(state.sum(), trained)
            finite[f"{backend}, every {every}"] = all(bool(g.isfinite().all()) for g in gradients)
    return finite


def test_nothing_explodes_beside_a_cut():
    """What is computed of a cell whose neighbors are cut off would overflow, and make NaN of a gradient of zero."""
    for finite in on_ranks(_beside_a_cut, 2):
        assert len(finite) == 4
        assert all(finite.values()), finite
