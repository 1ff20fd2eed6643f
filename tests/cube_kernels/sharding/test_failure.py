"""Ranks that disagree, die or hang: an error on every other one, which says who and what."""

import os
import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from cube_kernels import CubeLayer, Lattice, Rule
from cube_kernels.sharding import DisagreementError, PeerError, ShardedCubeLayer, exchange
from tests.cube_kernels.sharding.ranks import on_ranks

LATTICE, RULE = Lattice((12, 4, 4), 4), Rule(hidden=8, fire_rate=0.5)


def _differently() -> dict[str, dict]:
    """What the deviating rank does otherwise, by the word that the error names it with."""
    return {
        "every": {"every": 2},
        "steps": {"steps": 5},
        "seed": {"seed": 4},
        "rule": {"rule": Rule(hidden=8, fire_rate=0.25)},
        "lattice": {"lattice": Lattice((12, 4, 4), 4, boundary="periodic")},
        "trajectory_every": {"trajectory_every": 2},
        "tolerance": {"tolerance": 0.1},
        "checkpoint_every": {"checkpoint_every": 5},
        "x": {"trained": False},
        "first_step": {"first_step": 6},
        "backend": {"backend": "reference"},
        "gradients": {"gradients": False},
        "sizes": {"sizes": {"D": (5, 7)}},
        "batch": {"batch": 3},
    }


def _call(axes, *, lattice=LATTICE, rule=RULE, every=1, sizes=None, trained=True, gradients=True, batch=2, **options):
    torch.manual_seed(0)
    layer = CubeLayer(lattice, rule, 6, backend=options.pop("backend", "native"))
    layer.checkpoint_every = options.pop("checkpoint_every", None)
    sharded = ShardedCubeLayer(layer, axes, every, sizes)
    x = torch.randn(batch, *sharded.sharding.block_shape, 4, requires_grad=trained)
    with torch.set_grad_enabled(gradients):
        return sharded(x, **{"seed": 3, **options})


def _deviates(rank: int) -> dict[str, str]:
    messages = {}
    for name, options in _differently().items():
        try:
            _call({"D": dist.group.WORLD}, **(options if rank == 1 else {}))
        except DisagreementError as error:
            messages[name] = str(error)
        else:
            messages[name] = ""
    _call({"D": dist.group.WORLD})  # and nothing is left hanging
    return messages


def test_ranks_that_disagree_are_told_what_about():
    for messages in on_ranks(_deviates, 2, timeout=20):
        for name, message in messages.items():
            assert f"{'x' if name == 'batch' else name} is " in message, (name, message)
            assert "on rank 0" in message, (name, message)
            assert "on rank 1" in message, (name, message)


def _one_of_four_deviates(rank: int) -> str:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("d", "h"))
    with pytest.raises(DisagreementError) as error:
        _call({"D": mesh["d"], "H": mesh["h"]}, seed=4 if rank == 2 else 3)
    _call({"D": mesh["d"], "H": mesh["h"]})
    return str(error.value)


def test_a_disagreement_is_an_error_on_all_ranks_of_a_grid():
    """Also on those that talk to nobody who deviates."""
    messages = on_ranks(_one_of_four_deviates, 4, timeout=20)
    assert all("seed is 3 on rank 0, 3 on rank 1, 4 on rank 2, 3 on rank 3" in message for message in messages)


def _leaves(rank: int, how: str, when: str) -> str:
    exchange.WAIT = 1.0
    _call({"D": dist.group.WORLD})
    if when == "backward":
        y = _call({"D": dist.group.WORLD})
    if rank == 1:
        if how == "dies":
            os._exit(9)
        time.sleep(60)
    with pytest.raises(PeerError) as error:
        y.sum().backward() if when == "backward" else _call({"D": dist.group.WORLD})
    return str(error.value)


@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_rank_that_leaves_is_named(how, when):
    """By all the others, at their timeout of three seconds."""
    first, _, third = on_ranks(_leaves, 3, how, when, timeout=3, silent=1)
    for message in (first, third):
        assert "when rank 1 died or did not answer within the timeout of 0:00:03" in message
