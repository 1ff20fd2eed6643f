"""``python -m tests.mutation.run_cuda SOURCES BUILD``: the kernels as nvcc compiles these sources, against the
reference. Ends with what is found first."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from cube_kernels import Alive, Lattice, Rule
from tests.conformance.cases import TOLERANCE, Case, assert_close, make_inputs, run
from tests.cuda.compiled import simulated_device
from tests.cuda.modules import built, only_clusters
from tests.cuda.test_conformance import check_half

LATTICE = Lattice((3, 4, 6), 5, boundary="reflecting")
CASES = [
    Case(LATTICE, Rule(hidden=19, filters=2, fire_rate=0.5, alive=Alive(2, 0.5, "both", -0.3)), tolerance=0.3),
    Case(LATTICE, Rule(hidden=19, filters=2, update="gated"), trajectory_every=1),
]
"""Between them: odd sizes, tiles that the cells do not fill, every kind of mask, several samples, both passes."""


def main(source: Path, build: Path) -> None:
    module = built("handed", build, source)
    for case in CASES:
        inputs = make_inputs(case, torch.float32)
        truth = run(case, inputs.map(torch.Tensor.double), "reference")
        with simulated_device(90, module, source):
            actual = run(case, inputs, "cuda")
        assert_close(actual, truth, TOLERANCE[torch.float32])
        with simulated_device(90, module, source), only_clusters(case.lattice, case.rule, torch.float32):
            actual = run(case, inputs, "cuda")
        assert_close(actual, truth, TOLERANCE[torch.float32])
    with simulated_device(90, module, source):  # on tensor cores
        check_half(CASES[-1], torch.bfloat16)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
