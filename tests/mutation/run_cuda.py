"""``python -m tests.mutation.run_cuda SOURCES BUILD``: the kernels as nvcc compiles these sources, against the
reference. Ends with what is found first."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from cube_kernels import Alive, Lattice, Rule
from tests.conformance.cases import Case
from tests.cuda.compiled import simulated_device
from tests.cuda.modules import built, only_clusters
from tests.cuda.test_conformance import check, check_half

LATTICE = Lattice((3, 4, 6), 5, boundary="reflecting")
DYING = Rule(hidden=19, filters=2, fire_rate=0.5, alive=Alive(2, 0.5, "both", -0.3))
CASES = [
    Case(LATTICE, DYING, tolerance=0.3),
    Case(LATTICE, Rule(hidden=19, filters=2, update="gated"), trajectory_every=1),
]
"""Between them: odd sizes, tiles that the cells do not fill, every kind of mask, several samples, both passes."""


IN_CLUSTERS = [Case(LATTICE, replace(DYING, hidden=7), tolerance=0.3), CASES[1]]
"""The first is in clusters both ways: with so small a hidden layer, the backward pass needs little more memory."""


def main(source: Path, build: Path) -> None:
    module = built("handed", build, source)
    for case, in_clusters in zip(CASES, IN_CLUSTERS, strict=True):
        with simulated_device(90, module, source):
            check(case)
            with only_clusters(in_clusters.lattice, in_clusters.rule, torch.float32):
                check(in_clusters)
    with simulated_device(90, module, source):  # on tensor cores
        check_half(CASES[-1], torch.bfloat16)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
