"""The CUDA kernels, emulated on the CPU, give what the reference gives: the same cases, the same tolerances as every
backend. Shared memory is filled with NaN before every block, fresh tensors by ``poisoned``."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cube_kernels import Alive, Lattice, Rule, perceive
from cube_kernels.backends import cuda
from tests.conformance.cases import (
    TOLERANCE,
    Case,
    assert_close,
    assert_close_in_half_width,
    cases,
    draw_inputs,
    error,
    make_inputs,
    run,
    sweep,
)
from tests.conformance.properties import (
    assert_same_bits,
    check_checkpoint_intervals,
    check_empty_batch,
    check_step_size,
    check_zero_steps,
)
from tests.cuda.modules import only_clusters

pytestmark = pytest.mark.usefixtures("emulation", "poisoned")

emulated = pytest.mark.conformance("cuda", "its sources emulated on the CPU")
HALVES = [torch.bfloat16, torch.float16]
# Operands keep 10 bits of mantissa, and a value is a dozen products deep.
TF32_TOLERANCE = 2**-10 * 24


def check(case: Case, tolerance: float = TOLERANCE[torch.float32]) -> None:
    inputs = make_inputs(case, torch.float32)
    truth = run(case, inputs.map(torch.Tensor.double), "reference")
    assert_close(run(case, inputs, "cuda"), truth, tolerance)


def check_half(case: Case, dtype: torch.dtype) -> None:
    inputs = make_inputs(case, dtype)
    same, actual = run(case, inputs, "reference"), run(case, inputs, "cuda")
    truth = run(case, inputs.map(torch.Tensor.double), "reference")
    assert_close_in_half_width(actual, same, truth)


@emulated
@pytest.mark.parametrize("case", cases(60), ids=str)
def test_cuda_agrees_with_reference(case):
    check(case)


@emulated
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", cases(20), ids=str)
def test_cuda_agrees_with_reference_in_half_width(case, dtype):
    check_half(case, dtype)


def is_smooth(case: Case) -> bool:
    """Elsewhere a value that is rounded so early may come to the other side of a kink."""
    rule = case.rule
    return case.tolerance is None and rule.alive is None and rule.clamp is None and rule.activation != "relu"


@emulated
@pytest.mark.parametrize("case", [c for c in cases(40) if is_smooth(c)], ids=str)
def test_cuda_agrees_to_ten_bits_where_tf32_is_allowed(case, tf32):
    """And to no more, where there are products: the switch does something."""
    check(case, TF32_TOLERANCE)
    inputs = make_inputs(case, torch.float32)
    rounded = run(case, inputs, "cuda")["gradient of x"]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    exact = run(case, inputs, "cuda")["gradient of x"]
    assert torch.equal(rounded, exact) == (case.rule.hidden == 0)


@emulated
@pytest.mark.sweep
def test_cuda_agrees_over_two_thousand_cases():
    sweep(2000, check)


@emulated
@pytest.mark.sweep
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_cuda_agrees_over_five_hundred_cases_in_half_width(dtype):
    sweep(500, check_half, dtype)


@pytest.mark.parametrize("order", ["1", "2"], ids=["reverse", "random"])
@pytest.mark.parametrize("case", cases(8), ids=str)
def test_results_do_not_depend_on_the_order_in_which_threads_run(case, order, monkeypatch):
    inputs = draw_inputs(case, torch.bfloat16)
    first = run(case, inputs, "cuda")
    monkeypatch.setenv("CUBE_EMULATED_ORDER", order)
    assert_same_bits(run(case, inputs, "cuda"), first)


def test_any_update_that_takes_a_step_size_is_scaled():
    check_step_size("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", cases(12), ids=str)
def test_gradients_are_bitwise_the_same_for_every_checkpoint_interval(case, dtype):
    check_checkpoint_intervals(case, dtype, "cuda")


@pytest.mark.parametrize("shared", [16 << 10, 24 << 10, 40 << 10])
@pytest.mark.parametrize("case", [c for c in cases(60) if c.lattice.cells > 48][:6], ids=str)
def test_results_do_not_depend_on_what_fits_in_shared_memory(case, shared, monkeypatch):
    """Where it is short, tiles are smaller, and weights and gradients lie in global memory."""
    inputs = make_inputs(case, torch.bfloat16)
    roomy = run(case, inputs, "cuda")
    monkeypatch.setenv("CUBE_EMULATED_SHARED_BYTES", str(shared))
    if cuda.why_not(case.lattice, case.rule, torch.bfloat16, torch.device("cpu")) is not None:
        pytest.skip("its states need more")
    # Sums over smaller tiles are rounded at other places.
    assert_close(run(case, inputs, "cuda"), roomy, 4 * torch.finfo(torch.bfloat16).eps)


def check_in_clusters(case: Case) -> None:
    """Up to eight cells take no more memory in one block than in eight. The states are the same bits."""
    if case.lattice.cells > 8:
        inputs = make_inputs(case, torch.float32)
        alone = run(case, inputs, "cuda")["result"]
        with only_clusters(case.lattice, case.rule, torch.float32):
            check(case)
            assert torch.equal(run(case, inputs, "cuda")["result"], alone)


@emulated
@pytest.mark.parametrize("case", [c for c in cases(100) if c.lattice.cells > 48][:12], ids=str)
def test_clusters_agree_with_reference(case):
    check_in_clusters(case)


@emulated
@pytest.mark.sweep
def test_clusters_agree_over_five_hundred_cases():
    sweep(500, check_in_clusters)


@pytest.mark.parametrize("case", cases(12), ids=str)
def test_non_contiguous_and_unaligned_inputs_give_the_same(case):
    inputs = make_inputs(case, torch.float32)
    first = run(case, inputs, "cuda")
    strided = inputs.map(lambda t: torch.stack([t, t * 0], dim=-1)[..., 0])
    shifted = inputs.map(lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view_as(t))
    assert shifted.x.data_ptr() % 16
    for same in (strided, shifted):
        assert_same_bits(run(case, same, "cuda"), first)


@pytest.mark.parametrize("case", cases(12), ids=str)
def test_an_empty_batch_has_zero_gradients(case):
    check_empty_batch(case, "cuda")


def test_a_batch_of_more_samples_than_there_are_blocks():
    rule = Rule(filters=1, hidden=5, drive=2, update="leaky", squash="tanh")
    case = Case(Lattice((1, 1, 2), 3), rule, drive_batch="shared", batch=515)
    check(case)
    check(replace(case, drive_batch="each", tolerance=0.3))


def test_clusters_take_no_samples_no_steps_and_more_samples_than_run_at_once():
    """Both ways: without layers, neither direction needs more memory than the state and a few rows."""
    rule = Rule(filters=1, hidden=0, own_state=False, alive=Alive(1, 0.1, "both", 0.0))
    lattice = Lattice((2, 3, 6), 4)
    case = Case(lattice, rule, batch=515, tolerance=0.3)
    with only_clusters(lattice, rule, torch.float32):
        check_empty_batch(case, "cuda")
        check_zero_steps(case, "cuda")
        check(case)


@pytest.mark.parametrize("case", cases(6), ids=str)
def test_zero_steps_return_a_copy(case):
    check_zero_steps(case, "cuda")


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("boundary", ["walls", "reflecting"])
@pytest.mark.parametrize("filters", [None, 1, 5])
def test_perception_alone_agrees_to_second_derivatives(dtype, channels, boundary, filters):
    """First derivatives are the adjoint and the filters' gradient; theirs lead back to all three."""
    lattice = Lattice((2, 3, 4), channels, "moore", boundary=boundary)

    def derivatives(dtype: torch.dtype, backend: str) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> torch.Tensor:
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            return drawn.to(storage).to(dtype).requires_grad_()

        x = draw(3, *lattice.state_shape)
        bank = None if filters is None else draw(filters, len(lattice.offsets), channels)
        tensors = [x] if bank is None else [x, bank]
        y = perceive(x, lattice, bank, backend=backend)
        cotangent = draw(*y.shape)
        first = torch.autograd.grad(y, tensors, cotangent, create_graph=True)
        total = sum((g * g.detach()).sum() for g in first)
        return [
            y,
            *first,
            *torch.autograd.grad(total, [*tensors, cotangent], allow_unused=True, materialize_grads=True),
        ]

    storage = dtype
    for actual, truth in zip(derivatives(dtype, "cuda"), derivatives(torch.float64, "reference"), strict=True):
        assert error(actual, truth) <= 8 * torch.finfo(dtype).eps
