"""What is measured: the cases, and the peers that compute the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.peers import conv3d_rollout, shifted_rollout
from cube_kernels import CubeLayer, Lattice, Rule

PEERS: dict[str, Callable[[CubeLayer, Tensor], Tensor]] = {
    "native": lambda layer, x: layer(x),
    "eager, Conv3d": conv3d_rollout,
    "eager, shifts": shifted_rollout,
}

# Lattice, filters, steps, batch; hidden 128, relu, residual, float32.
CASES = {
    "8x8x12 C32 von_neumann P1 T8 B16": (Lattice((8, 8, 12), 32), 1, 8, 16),
    "16x16x16 C16 moore P4 T8 B4": (Lattice((16, 16, 16), 16, "moore"), 4, 8, 4),
}

DIRECTIONS = ("forward", "forward+backward")


def workload(case: str, direction: str, peer: str) -> Callable[[], None]:
    """One call to time. Raises AssertionError if the peer's numbers are not ours: then no time means anything."""
    lattice, filters, steps, batch = CASES[case]
    torch.manual_seed(0)
    rule = Rule(filters=filters, hidden=128, activation="relu", step_size=0.1)
    layer = CubeLayer(lattice, rule, steps, backend="native")
    x = torch.randn(batch, *lattice.shape, lattice.channels)
    run = PEERS[peer]
    with torch.no_grad():
        torch.testing.assert_close(run(layer, x), layer(x), rtol=1e-3, atol=1e-4)

    def forward() -> None:
        with torch.no_grad():
            run(layer, x)

    def both() -> None:
        layer.zero_grad()
        run(layer, x).square().mean().backward()

    return forward if direction == "forward" else both
