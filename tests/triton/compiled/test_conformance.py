"""The compiled kernels, run on the CPU: wrapper, specialization and PTX as on a GPU, in the PTX interpreter of
``tools/ptx`` with all of its checks. Forward and every gradient against the reference in float64."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from tests.conformance.cases import TOLERANCE, Case, assert_close, assert_close_in_half_width, cases, make_inputs, run
from tests.triton.addresses import check_the_last_rows
from tools.ptx.triton_driver import launches, simulated_gpu

compiled = pytest.mark.conformance("triton", "compiled by Triton, the PTX run in tools/ptx")
ARCHITECTURES = (80, 90, 100)


@pytest.fixture(autouse=True)
def fixed_configurations():
    torch.use_deterministic_algorithms(True)  # the autotuner has nothing to time here
    yield
    torch.use_deterministic_algorithms(False)


def check(case: Case, architecture: int, dtype: torch.dtype = torch.float32) -> None:
    inputs, before = make_inputs(case, dtype), len(launches)
    truth = run(case, inputs.map(torch.Tensor.double), "reference")
    with simulated_gpu(architecture):
        actual = run(case, inputs, "triton")
    assert len(launches) > before
    assert all(launch.capability == architecture for launch in launches[before:])
    if dtype is torch.float32:
        assert_close(actual, truth, TOLERANCE[dtype])
    else:
        assert_close_in_half_width(actual, run(case, inputs, "reference"), truth)


@compiled
@pytest.mark.parametrize(("number", "architecture"), [(0, 80), (1, 90), (2, 100), (3, 80), (4, 90), (5, 100)])
def test_compiled_kernels_agree_with_the_reference(number, architecture):
    check(cases(6)[number], architecture)


@compiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_compiled_kernels_agree_in_half_width(dtype):
    """With the tensor-core instructions of sm_80."""
    check(cases(8)[6], 80, dtype)


@compiled
@pytest.mark.sweep
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", cases(40), ids=str)
def test_compiled_kernels_agree_over_many_cases(case, architecture):
    check(case, architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_are_counted_in_64_bits(architecture):
    with simulated_gpu(architecture):
        check_the_last_rows()
