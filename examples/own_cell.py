"""A cell of one's own in a dozen lines: reaction and diffusion (Gray and Scott, 1983; Pearson: "Complex Patterns in a
Simple System", Science 1993), which grows from a square into a coral.

    python examples/own_cell.py
    python examples/own_cell.py --size 128 --steps 8000 --feed 0.03 --kill 0.06
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from cube_kernels import Cell, Lattice, fixed_filters


class GrayScott(Cell):
    """Channels: ``u``, which is fed, and ``v``, which lives on it. One step is an explicit Euler step of length 1."""

    def __init__(self, lattice: Lattice, feed: float, kill: float) -> None:
        super().__init__(lattice)
        self.feed, self.kill = feed, kill
        self.register_buffer("laplacian", fixed_filters(("laplacian",), lattice))
        self.register_buffer("diffusion", torch.tensor([0.16, 0.08]))

    def step(self, x: Tensor) -> Tensor:
        u, v = x.unbind(-1)
        reaction = u * v * v
        change = torch.stack([self.feed * (1 - u) - reaction, reaction - (self.feed + self.kill) * v], dim=-1)
        return x + self.diffusion * self.perceive(x, self.laplacian) + change


def seeded(lattice: Lattice) -> Tensor:
    """All ``u``, and a square of ``v`` in the middle."""
    state = torch.zeros(1, *lattice.state_shape)
    state[..., 0] = 1
    _, height, width = (size // 2 for size in lattice.shape)
    state[:, :, height - 4 : height + 4, width - 4 : width + 4] = torch.tensor([0.5, 0.25])
    return state


def picture(v: Tensor) -> list[str]:
    """One plane, dark to bright."""
    shades = " .:-=+*#%@"
    brightness = (v / v.max() * (len(shades) - 1)).round().int()
    return ["".join(shades[i] for i in row) for row in brightness.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Reaction and diffusion on a torus.")
    parser.add_argument("--size", type=int, default=64, help="cells along both axes")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--feed", type=float, default=0.0545, help="how fast u is fed")
    parser.add_argument("--kill", type=float, default=0.062, help="how fast v dies beside what feeding washes away")
    options = parser.parse_args()
    lattice = Lattice((1, options.size, options.size), channels=2, neighborhood="von_neumann_2d", boundary="periodic")
    cell = GrayScott(lattice, options.feed, options.kill)
    with torch.no_grad():
        state = cell(seeded(lattice), steps=options.steps)
    print("\n".join(picture(state[0, 0, :, :, 1])))


if __name__ == "__main__":
    main()
