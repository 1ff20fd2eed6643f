"""Sharded layers and perception inside other people's trainers: DTensors, DDP, FSDP2, compilers, second derivatives."""

from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from cube_kernels import CubeLayer, Lattice, Rule, perceive
from cube_kernels import sharding as shared
from cube_kernels.sharding import ShardedCubeLayer, Sharding
from tests.cube_kernels.sharding.ranks import on_ranks

LATTICE = Lattice((6, 4, 5), 4, "moore", boundary="periodic")


def layer_of(rule: Rule = Rule(hidden=8), lattice: Lattice = LATTICE, **options) -> CubeLayer:  # noqa: B008
    torch.manual_seed(0)
    layer = CubeLayer(lattice, rule, 4, **options).double()
    nn.init.normal_(layer.head_weight, std=0.3)
    return layer


def states(batch: int, lattice: Lattice = LATTICE) -> Tensor:
    return torch.randn(batch, *lattice.state_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(layer: nn.Module) -> list[Tensor]:
    return [p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for p in layer.parameters()]


def close(found: list[Tensor], truth: list[Tensor]) -> None:
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-12)


def _data_parallel(rank: int) -> None:
    """Two times two ranks: each pair shares a lattice, and the pairs have other samples."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "d"))
    x, layer = states(4), layer_of()
    layer(x).square().mean().backward()
    truth = gradients(layer)
    mine = x.chunk(2)[mesh["data"].get_local_rank()]
    for wrap in (
        lambda m: DistributedDataParallel(m, process_group=mesh["data"].get_group()),
        lambda m: fully_shard(m, mesh=mesh["data"]),
    ):
        sharded = ShardedCubeLayer(deepcopy(layer), {"D": mesh["d"]}, every=2)
        sharded.zero_grad()
        wrapped = wrap(sharded)
        y = wrapped(sharded.sharding.take(mine))
        # The mean over the lattice is the sum of the blocks' shares of it; that over the samples is the wrapper's.
        (y.square().sum() / mine.numel()).backward()
        close(gradients(sharded), truth)


def test_data_parallel_on_the_other_dimension():
    on_ranks(_data_parallel, 4)


def _distributed_tensors(rank: int) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "d"))
    layer = layer_of(Rule(hidden=8, fire_rate=0.5))
    sharded = ShardedCubeLayer(deepcopy(layer), {"D": mesh["d"]})
    x = states(4).requires_grad_()
    y = layer(x, seed=3, trajectory_every=2)
    y.trajectory.square().sum().backward()
    for placements in ([Shard(0), Shard(1)], [Replicate(), Shard(1)]):
        spread = distribute_tensor(x.detach(), mesh, placements).requires_grad_()
        found = sharded(spread, seed=3, trajectory_every=2)
        assert found.state.placements == tuple(placements)
        assert torch.equal(found.state.full_tensor(), y.state)
        assert torch.equal(found.trajectory.full_tensor(), y.trajectory)
        found.trajectory.to_local().square().sum().backward()
        assert spread.grad.placements == tuple(placements)
        close([spread.grad.full_tensor()], [x.grad])
    # The samples of a lattice that stays whole are counted through, too.
    parallel = distribute_module(deepcopy(layer), mesh["data"])
    found = parallel(distribute_tensor(x.detach(), mesh["data"], [Shard(0)]), seed=3)
    torch.testing.assert_close(found.full_tensor(), y.state)
    with pytest.raises(ValueError, match="sharded along its space over the ranks {}, but the lattice over"):
        sharded(distribute_tensor(x.detach(), mesh, [Replicate(), Replicate()]), seed=3)
    with pytest.raises(ValueError, match="{'H': "):
        sharded(distribute_tensor(x.detach(), mesh, [Replicate(), Shard(2)]), seed=3)
    with pytest.raises(ValueError, match=r"valid: Replicate\(\), Shard\(0 to 3\)"):
        sharded(distribute_tensor(x.detach(), mesh, [Replicate(), Shard(4)]), seed=3)


def test_distributed_tensors_in_and_out():
    on_ranks(_distributed_tensors, 4)


def _unchanged(rank: int) -> None:
    """What else there is of a call: compiled, perceived, differentiated twice, half as wide, under autocast."""
    world = {"D": dist.group.WORLD}
    layer, x = layer_of(), states(2)
    sharded = ShardedCubeLayer(deepcopy(layer), world, every=2)
    take = sharded.sharding.take

    compiled = torch.compile(sharded, fullgraph=True)
    layer(x).square().sum().backward()
    compiled(take(x)).square().sum().backward()
    close(gradients(sharded), gradients(layer))

    filters = torch.randn(3, 27, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    for bank in (filters, None):
        block, whole = take(x).requires_grad_(), x.clone().requires_grad_()
        named = [] if bank is None else [bank]
        here, there = shared.perceive(block, sharded.sharding, bank), perceive(whole, LATTICE, bank)
        assert torch.equal(here, take(there))
        found = torch.autograd.grad(here.pow(3).sum(), [block, *named], create_graph=True)
        truth = torch.autograd.grad(there.pow(3).sum(), [whole, *named], create_graph=True)
        close([found[0], *found[1:]], [take(truth[0]), *truth[1:]])
        second = torch.autograd.grad(found[0].pow(2).sum(), block)
        close(list(second), [take(torch.autograd.grad(truth[0].pow(2).sum(), whole)[0])])

    twice = layer_of(Rule(hidden=4, activation="tanh"), backend="reference")
    block, whole = take(x).requires_grad_(), x.clone().requires_grad_()
    here, there = ShardedCubeLayer(deepcopy(twice), world)(block, steps=3), twice(whole, steps=3)
    found = torch.autograd.grad(here.pow(3).sum(), block, create_graph=True)
    truth = torch.autograd.grad(there.pow(3).sum(), whole, create_graph=True)
    second = torch.autograd.grad(found[0].pow(2).sum(), block)
    close(list(second), [take(torch.autograd.grad(truth[0].pow(2).sum(), whole)[0])])

    turned = ShardedCubeLayer(deepcopy(layer), world)
    for p in turned.parameters():
        p.data = p.data.t().contiguous().t() if p.dim() == 2 else p.data
    strided = take(x).permute(4, 0, 1, 2, 3).contiguous().permute(1, 2, 3, 4, 0)
    assert torch.equal(turned(strided), take(layer(x)))

    narrow, x = layer_of().bfloat16(), states(2).bfloat16()
    found = ShardedCubeLayer(narrow, world)(take(x))
    assert torch.equal(found, take(narrow(x)))
    wide, x = layer_of().float(), states(2).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ShardedCubeLayer(wide, world)(take(x)), take(wide(x)))


def test_other_ways_to_call():
    on_ranks(_unchanged, 2)


def _refused(rank: int) -> None:
    world = dist.group.WORLD
    with pytest.raises(ValueError, match="axis is 'X'; valid: 'D', 'H', 'W'"):
        Sharding(LATTICE, {"X": world})
    with pytest.raises(ValueError, match=r"sizes\['D'\] is \(2, 3\); it takes 2 sizes, one a rank, that add up to 6"):
        Sharding(LATTICE, {"D": world}, {"D": (2, 3)})
    with pytest.raises(ValueError, match="axis of sizes is 'H'; valid: 'D'"):
        Sharding(LATTICE, {"D": world}, {"H": (2, 2)})
    with pytest.raises(TypeError, match="axis D is given 3; it takes a DeviceMesh of one dimension"):
        Sharding(LATTICE, {"D": 3})
    with pytest.raises(TypeError, match="a DeviceMesh of one dimension"):
        Sharding(LATTICE, {"D": init_device_mesh("cpu", (2, 1), mesh_dim_names=("a", "b"))})
    with pytest.raises(ValueError, match="axes is empty"):
        Sharding(LATTICE, {})
    with pytest.raises(ValueError, match="every is 0"):
        ShardedCubeLayer(layer_of(), {"D": world}, every=0)
    sharded = ShardedCubeLayer(layer_of(), {"D": world})
    with pytest.raises(ValueError, match=rf"the block of rank {rank} takes \[B, 3, 4, 5, 4\]"):
        sharded(states(2))
    with pytest.raises(TypeError, match="x is None"):
        sharded(None)
    assert "axes={'D': (3, 3)}, every=1" in repr(sharded)


def test_wrong_axes_sizes_and_blocks_are_refused():
    on_ranks(_refused, 2)
