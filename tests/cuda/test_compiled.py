"""The kernels as nvcc compiled them, run on the CPU with all checks of ``tools/ptx``: forward and every gradient
against the reference in float64, with the tolerances of every backend."""

from __future__ import annotations

import re
import shutil
from contextlib import nullcontext

import pytest
import torch

from cube_kernels import Lattice, perceive
from tests.building import PATH, why_not
from tests.conformance.cases import TOLERANCE, Case, assert_close, cases, make_inputs, run
from tests.cuda.compiled import simulated_device
from tests.cuda.modules import only_clusters
from tests.cuda.test_conformance import TF32_TOLERANCE, check_half, is_smooth

pytestmark = [
    pytest.mark.skipif(shutil.which("nvcc", path=PATH) is None, reason="there is no nvcc on the PATH"),
    pytest.mark.skipif(why_not() is not None, reason=f"the host's half cannot be built: {why_not()}"),
    pytest.mark.usefixtures("poisoned"),
]

compiled = pytest.mark.conformance("cuda", "compiled by nvcc, the PTX run in tools/ptx")
ARCHITECTURES = (80, 90, 100)
SMALL = [case for case in cases(12) if case.lattice.cells < 64]
IN_CLUSTERS = [case for case in cases(100) if 24 < case.lattice.cells < 72][4:7]
SMOOTH = [case for case in cases(60) if case.lattice.cells < 64 and is_smooth(case) and case.rule.hidden]


def check(
    case: Case, architecture: int, tolerance: float = TOLERANCE[torch.float32], clusters: bool = False
) -> list[str]:
    """Returns the names of the kernels that ran."""
    inputs = make_inputs(case, torch.float32)
    truth = run(case, inputs.map(torch.Tensor.double), "reference")
    memory = only_clusters(case.lattice, case.rule, torch.float32) if clusters else nullcontext()
    with simulated_device(architecture) as device, memory:
        actual = run(case, inputs, "cuda")
    assert_close(actual, truth, tolerance)
    return device.launched


@compiled
@pytest.mark.parametrize("architecture", [80, 90])
def test_compiled_kernels_agree_with_the_reference(architecture):
    kernels = check(SMALL[1], architecture)
    for kernel in ("pack", "forward.*OneBlock", "backward.*OneBlock", "collect"):
        assert any(re.search(kernel, name) for name in kernels), kernel


@compiled
def test_compiled_clusters_agree_with_the_reference():
    kernels = check(IN_CLUSTERS[0], 90, clusters=True)
    for kernel in ("forward.*Cluster", "backward.*Cluster"):
        assert any(re.search(kernel, name) for name in kernels), kernel


@compiled
@pytest.mark.sweep
@pytest.mark.parametrize("architecture", [90, 100])
@pytest.mark.parametrize("case", IN_CLUSTERS, ids=str)
def test_compiled_clusters_agree_over_many_cases(case, architecture):
    check(case, architecture, clusters=True)


@compiled
@pytest.mark.sweep
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_compiled_kernels_agree_over_many_cases(case, architecture):
    check(case, architecture)


@compiled
@pytest.mark.sweep
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_compiled_kernels_agree_in_half_width(dtype, architecture):
    for case in SMALL[:2]:
        with simulated_device(architecture) as device:
            check_half(case, dtype)
        assert any("Half" in name for name in device.launched)


@compiled
@pytest.mark.sweep
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled_kernels_agree_to_ten_bits_where_tf32_is_allowed(architecture, tf32):
    assert any("Tf32" in name for name in check(SMOOTH[0], architecture, TF32_TOLERANCE))


@pytest.mark.sweep
@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("filters", [None, 2])
def test_compiled_perception_and_its_adjoints_agree(channels, filters):
    lattice = Lattice((3, 2, 4), channels, radius=2, boundary="replicate")
    drawn = [torch.randn(2, *lattice.state_shape)]
    if filters is not None:
        drawn.append(torch.randn(filters, len(lattice.offsets), channels))
    results = []
    for backend, dtype in (("cuda", torch.float32), ("reference", torch.float64)):
        tensors = [tensor.to(dtype, copy=True).requires_grad_() for tensor in drawn]
        with simulated_device(80):
            seen = perceive(tensors[0], lattice, *tensors[1:], backend=backend)
            gradients = torch.autograd.grad((seen * seen).sum(), tensors)
        results.append(dict(zip(("percepts", "state", "filters"), (seen, *gradients), strict=False)))
    assert_close(*results, TOLERANCE[torch.float32])
