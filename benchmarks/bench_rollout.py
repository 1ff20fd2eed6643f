"""One rollout on the CPU: ours against eager PyTorch, forward and with gradients.

`pytest --benchmark` prints a table for each case: ms, and how many times the fastest each peer takes. Every
peer computes the same numbers, which is checked before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.peers import conv3d_rollout, shifted_rollout
from cube_kernels import CubeLayer, Lattice, Rule

PEERS: dict[str, Callable[[CubeLayer, Tensor], Tensor]] = {
    "cube_kernels native": lambda layer, x: layer(x),
    "torch eager, Conv3d": conv3d_rollout,
    "torch eager, shifts": shifted_rollout,
}

CASES = {
    "8x8x12 C32 hidden128 von_neumann P1 T8 B16": (Lattice((8, 8, 12), 32), 1, 128, 8, 16),
    "16x16x16 C16 hidden128 moore P4 T8 B4": (Lattice((16, 16, 16), 16, "moore"), 4, 128, 8, 4),
}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("case", CASES)
def bench_rollout(benchmark, case, direction, peer):
    lattice, filters, hidden, steps, batch = CASES[case]
    torch.manual_seed(0)
    rule = Rule(filters=filters, hidden=hidden, activation="relu", step_size=0.1)
    layer = CubeLayer(lattice, rule, steps, backend="native")
    x = torch.randn(batch, *lattice.shape, lattice.channels)
    with torch.no_grad():
        torch.testing.assert_close(PEERS[peer](layer, x), layer(x), rtol=1e-3, atol=1e-4)

    def forward() -> None:
        with torch.no_grad():
            PEERS[peer](layer, x)

    def both() -> None:
        layer.zero_grad()
        PEERS[peer](layer, x).square().mean().backward()

    threads, version = torch.get_num_threads(), torch.__version__
    benchmark.group = f"{case}, {direction}, float32, {threads} threads, torch {version}"
    benchmark.pedantic(forward if direction == "forward" else both, rounds=9, warmup_rounds=2)
