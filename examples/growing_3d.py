"""Grows a shape of voxels from one cell: growing neural cellular automata (Mordvintsev et al., 2020) in space.

    python examples/growing_3d.py
    python examples/growing_3d.py --size 16 --steps 32 --iterations 1000 --out grown.html

Every cell runs the same small rule and sees its 26 neighbors alone; the rule is trained until the whole becomes a
mushroom. It prints the loss before and after, and a slice through the target and through what has grown.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from cube_kernels import CubeLayer, view
from cube_kernels.growing import normalize_gradients, seed_cell
from cube_kernels.rules import growing_nca

RED, CREAM = (0.9, 0.15, 0.1), (0.95, 0.9, 0.7)


def mushroom(size: int) -> Tensor:
    """Color and opacity of each cell, ``[size, size, size, 4]``: half a ball on a stem. The first axis is height."""
    axis = torch.linspace(-1, 1, size)
    height, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x.square() + y.square()).sqrt()
    cap = (height > 0) & (radius.square() + height.square() < 0.64)
    stem = (height <= 0) & (height > -0.8) & (radius < 0.3)
    color = torch.where(cap[..., None], torch.tensor(RED), torch.tensor(CREAM))
    solid = (cap | stem)[..., None].float()
    return torch.cat([color * solid, solid], dim=-1)


def grown(layer: CubeLayer, batch: int, seed: int) -> Tensor:
    """Color and opacity after a rollout from one cell; which cells fire is drawn from ``seed``."""
    return layer(seed_cell(layer.lattice).expand(batch, *layer.lattice.state_shape), seed=seed)[..., :4]


def picture(voxels: Tensor) -> list[str]:
    """The slice through the middle, top first: ``#`` for red, ``:`` for cream, a dot for nothing."""
    rows = voxels[:, :, voxels.shape[2] // 2].flip(0)
    return [" ".join("." if cell[3] < 0.5 else "#" if cell[1] < 0.5 else ":" for cell in row) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains cells to grow into a mushroom of voxels.")
    parser.add_argument("--size", type=int, default=12, help="cells along each axis")
    parser.add_argument("--channels", type=int, default=16, help="numbers a cell, 4 of them color and opacity")
    parser.add_argument("--hidden", type=int, default=64, help="width of the rule's hidden layer")
    parser.add_argument("--steps", type=int, default=20, help="steps of a rollout; a cell sees one further with each")
    parser.add_argument("--iterations", type=int, default=200, help="training rollouts")
    parser.add_argument("--batch", type=int, default=2, help="samples a rollout, which differ in the cells that fire")
    parser.add_argument("--out", help="write a page to this .html file, on which the growth can be turned and watched")
    options = parser.parse_args()

    torch.manual_seed(0)
    layer = growing_nca((options.size,) * 3, options.channels, options.hidden, steps=options.steps)
    target = mushroom(options.size)
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.iterations)

    def test_loss() -> float:
        """On firing patterns that training does not see: it takes the seeds from 1."""
        with torch.no_grad():
            return (grown(layer, options.batch, seed=0) - target).square().mean().item()

    print(f"loss before: {test_loss():.4f}")
    start = time.perf_counter()
    for iteration in range(1, options.iterations + 1):
        loss = (grown(layer, options.batch, seed=iteration) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        normalize_gradients(layer.parameters())  # as the authors do: their size varies widely
        optimizer.step()
        schedule.step()
        if iteration % max(1, options.iterations // 10) == 0:
            print(f"{iteration:5d}  loss {loss.item():.4f}  {time.perf_counter() - start:.0f} s")
    print(f"loss after: {test_loss():.4f}\n")

    with torch.no_grad():
        voxels = grown(layer, 1, seed=0)[0]
    for wanted, got in zip(picture(target), picture(voxels), strict=True):
        print(f"{wanted}    {got}")
    if options.out:
        with torch.no_grad():
            states = layer(seed_cell(layer.lattice)[None], seed=0, trajectory_every=1).trajectory
        view.Page(states[:, 0]).save(options.out)


if __name__ == "__main__":
    main()
