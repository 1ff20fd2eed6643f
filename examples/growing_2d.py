"""Grows a picture from one cell, as published: Mordvintsev, Randazzo, Niklasson and Levin, "Growing Neural Cellular
Automata", Distill, 2020.

    python examples/growing_2d.py --out runs/flower
    python examples/growing_2d.py --experiment grow --picture lizard.png --out runs/lizard

Three experiments, each harder than the one before: `grow` trains every rollout from the seed; `persist` goes on from
what a pool of samples has become, so that the picture stays; `regenerate` also damages samples, so that it heals. The
script prints the loss, measures what was promised on firing patterns that training did not see, and writes the rule, a
film, a page and a strip of pictures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cube_kernels import CubeLayer, view
from cube_kernels.growing import SamplePool, ball, half_space, normalize_gradients, random_seed, random_steps, seed_cell
from cube_kernels.rules import growing_nca

SIZE = 40


def flower() -> Tensor:
    """Color times opacity, and opacity, ``[1, 40, 40, 4]``: a flower with one leaf, which is not its mirror image."""
    fine = 4  # points along each edge of a cell, for smooth borders
    axis = (torch.arange(SIZE * fine) + 0.5) / (SIZE * fine) * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    color = torch.zeros(*x.shape, 4)

    def paint(where: Tensor, *rgb: float) -> None:
        color[where] = torch.tensor([*rgb, 1.0])

    bend = 0.06 * torch.sin(5 * y)
    paint(((x - bend).abs() < 0.06) & (y > -0.2) & (y < 0.72), 0.15, 0.5, 0.2)
    along, across = (x - 0.3) + (0.38 - y), (x - 0.3) - (0.38 - y)
    paint((along / 0.48).square() + (across / 0.2).square() < 1, 0.25, 0.65, 0.25)
    y = y + 0.26
    angle, radius = torch.atan2(y, x), (x.square() + y.square()).sqrt()
    paint(radius < 0.3 + 0.16 * torch.cos(5 * angle + 0.6), 0.9, 0.25, 0.45)
    paint(radius < 0.14, 0.98, 0.8, 0.2)
    return color.unflatten(0, (SIZE, fine)).unflatten(2, (SIZE, fine)).mean((1, 3))[None]


def read_picture(path: Path) -> Tensor:
    """A picture with transparency as the middle 32 × 32 cells of ``[1, 40, 40, 4]``."""
    image = torch.from_numpy(np.array(Image.open(path).convert("RGBA").resize((32, 32)))).float() / 255
    image[..., :3] *= image[..., 3:]
    return torch.nn.functional.pad(image, (0, 0, 4, 4, 4, 4))[None]


def losses(x: Tensor, target: Tensor) -> Tensor:
    """The squared distance of each sample to the target, ``[B]``."""
    return (x[..., :4] - target).square().mean((1, 2, 3, 4))


def train(layer: CubeLayer, target: Tensor, experiment: str, iterations: int, batch: int, pool_size: int) -> None:
    draws = torch.Generator().manual_seed(0)
    seed = seed_cell(layer.lattice)
    pool = None if experiment == "grow" else SamplePool(seed, pool_size, draws)
    damage = ball if experiment == "regenerate" else None
    optimizer = torch.optim.Adam(layer.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.7 * iterations)], gamma=0.1)
    start = time.perf_counter()
    for iteration in range(1, iterations + 1):
        if pool is None:
            x = seed.expand(batch, *seed.shape)
        else:
            places, x = pool.sample(batch, lambda states: losses(states, target), damage)
        x = layer(x, steps=random_steps(64, 96, draws), seed=random_seed(draws))
        loss = losses(x, target).mean()
        optimizer.zero_grad()
        loss.backward()
        normalize_gradients(layer.parameters())
        optimizer.step()
        schedule.step()
        if pool is not None:
            pool.update(places, x)
        if iteration % max(1, iterations // 20) == 0:
            print(f"{iteration:5d}  loss {loss.item():.5f}  {time.perf_counter() - start:.0f} s", flush=True)


def measure(layer: CubeLayer, target: Tensor, experiment: str, count: int) -> None:
    """The mean loss of samples that training did not see: grown, long after, and healed."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        x = seed_cell(layer.lattice).expand(count, *layer.lattice.state_shape)
        print(f"an empty picture has loss {target.square().mean():.5f}")
        x = layer(x, steps=96, seed=random_seed(draws))
        print(f"grown, after 96 steps: {losses(x, target).mean():.5f}")
        if experiment != "grow":
            x = layer(x, steps=904, seed=random_seed(draws))
            print(f"after 1000 steps: {losses(x, target).mean():.5f}")
        if experiment == "regenerate":
            for name, damage in (("a disc", ball), ("one half", half_space)):
                lost = x.masked_fill(damage(count, layer.lattice.shape, draws)[..., None], 0)
                healed = losses(layer(lost, steps=200, seed=random_seed(draws)), target)
                before, after = losses(lost, target).mean(), healed.mean()
                good = f"{(healed < 0.005).sum()} of {count} below 0.005"
                print(f"with {name} lost: {before:.5f}; 200 steps later: {after:.5f}, {good}")


def show(layer: CubeLayer, experiment: str, folder: Path) -> None:
    """Writes a film, a page, and a strip of every 20th step: grown from the seed, then after the loss of a half."""
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        x = seed_cell(layer.lattice)[None]
        states = [x[None], layer(x, steps=120, seed=random_seed(draws), trajectory_every=1).trajectory]
        if experiment == "regenerate":
            x = states[-1][-1].masked_fill(half_space(1, layer.lattice.shape, draws)[..., None], 0)
            states += [x[None], layer(x, steps=120, seed=random_seed(draws), trajectory_every=1).trajectory]
    grown = torch.cat(states)[:, 0]
    images = view.frames(grown)
    view.save_film(folder / "grown.gif", images)
    view.Page(grown).save(folder / "grown.html")
    rows = [torch.cat(list(part[::20]), dim=1) for part in images.split(121)]
    strip = torch.cat(rows).repeat_interleave(3, 0).repeat_interleave(3, 1)
    Image.fromarray(strip.numpy()).save(folder / "strip.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains cells to grow into a picture.")
    parser.add_argument("--experiment", choices=["grow", "persist", "regenerate"], default="regenerate")
    parser.add_argument("--picture", type=Path, help="any with transparency; a flower, if none is given")
    parser.add_argument("--iterations", type=int, default=1150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pool", type=int, default=256, help="samples in the pool; the authors take 1024")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rule, the film and the strip")
    options = parser.parse_args()

    torch.manual_seed(0)
    target = read_picture(options.picture) if options.picture else flower()
    layer = growing_nca((1, SIZE, SIZE))
    train(layer, target, options.experiment, options.iterations, options.batch, options.pool)
    measure(layer, target, options.experiment, 4 * options.batch)
    options.out.mkdir(parents=True, exist_ok=True)
    layer.save(options.out / "rule.safetensors")
    show(layer, options.experiment, options.out)


if __name__ == "__main__":
    main()
