"""One lattice over several devices: a 3D automaton that grows a ball from one cell, on a lattice cut into slabs.

On this machine, two processes on the CPU:

    torchrun --nproc-per-node 2 examples/sharded_3d.py --size 96

On as many GPUs as there are, and on two machines with eight each (the same command on both):

    torchrun --nproc-per-node gpu examples/sharded_3d.py --size 512 --channels 16
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        examples/sharded_3d.py --size 512 --axes D H

Each process holds its block of the cells, and exchanges the faces with its neighbors before every few steps; the
gradient of each parameter is that of the whole lattice.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cube_kernels import CubeLayer, Lattice, Rule
from cube_kernels.sharding import ShardedCubeLayer


def mesh_of(axes: list[str], device: str) -> DeviceMesh:
    """All processes in a grid, as even as it can be: the last axis takes the largest factor."""
    shape, left = [], dist.get_world_size()
    for count in range(len(axes), 0, -1):
        factor = max(n for n in range(1, round(left ** (1 / count)) + 1) if left % n == 0) if count > 1 else left
        shape.append(factor)
        left //= factor
    return init_device_mesh(device, tuple(shape), mesh_dim_names=tuple(axes))


def block_of(layer: ShardedCubeLayer, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of this process: the seed, what is in the middle of nothing, and the ball that is to grow, ``[1, d, h, w, ...]``.
    No process ever has the whole."""
    lattice, sharding = layer.layer.lattice, layer.sharding
    d, h, w = (
        torch.linspace(-1, 1, size, device=device)[first : first + count].view(shape)
        for size, (first, count), shape in zip(
            lattice.shape, sharding.ranges, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True
        )
    )
    center = [(axis.abs() * (size - 1)).round() <= 1 for axis, size in zip((d, h, w), lattice.shape, strict=True)]
    seed = torch.zeros(1, *sharding.block_shape, lattice.channels, device=device)
    seed[0, center[0] & center[1] & center[2]] = 1.0  # one cell, or eight where the size is even
    return seed, ((d.square() + h.square() + w.square()) < 0.2).float()[None]


def train(options: argparse.Namespace) -> None:
    """Prints the loss of the whole lattice as it falls."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    mesh = mesh_of(options.axes, device.type)

    torch.manual_seed(0)  # the same parameters on all
    lattice = Lattice((options.size,) * 3, options.channels, "moore")
    rule = Rule(fixed_filters=("sobel_d", "sobel_h", "sobel_w", "laplacian"), filters=0, hidden=64)
    layer = ShardedCubeLayer(
        CubeLayer(lattice, rule, options.steps).to(device), {axis: mesh[axis] for axis in options.axes}, options.every
    )
    seed, target = block_of(layer, device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
    start = time.perf_counter()
    for iteration in range(1, options.iterations + 1):
        optimizer.zero_grad()
        # The sum over the block, as a share of the whole: the blocks' losses add up to the mean over the lattice.
        loss = (layer(seed)[..., 0] - target).square().sum() / lattice.cells
        loss.backward()
        optimizer.step()
        whole = loss.detach().clone()
        dist.all_reduce(whole)
        if dist.get_rank() == 0 and iteration % max(1, options.iterations // 10) == 0:
            print(f"{iteration:4d}  loss {whole.item():.4f}  {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="cells along each axis")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--steps", type=int, default=16, help="steps of a rollout")
    parser.add_argument("--every", type=int, default=1, help="steps from one exchange to the next")
    parser.add_argument("--axes", nargs="+", default=["D"], choices=["D", "H", "W"], help="which axes are cut")
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    train(options)
    dist.barrier()  # none leaves while another still talks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
