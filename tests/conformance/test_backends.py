"""Every backend gives what the reference gives in float64: the result and every gradient, over all switches."""

from dataclasses import fields, replace

import pytest
import torch

from tests.conformance.cases import (
    SWITCHES,
    TOLERANCE,
    Case,
    assert_close,
    assert_close_in_half_width,
    draw_case,
    draw_inputs,
    make_inputs,
    run,
    short_cases,
    sweep,
)
from tests.conformance.properties import (
    assert_same_bits,
    check_checkpoint_intervals,
    check_empty_batch,
    check_step_size,
    check_zero_steps,
)
from tests.conftest import native_isas

of_native = pytest.mark.conformance("native", "compiled for this CPU, every instruction set")
short = pytest.mark.parametrize("case", short_cases(), ids=str)
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def check(case: Case, dtype: torch.dtype, backend: str, **options) -> None:
    inputs = make_inputs(case, dtype)
    truth = run(case, inputs.map(torch.Tensor.double), "reference")
    assert_close(run(case, inputs, backend, **options), truth, TOLERANCE[dtype])


@of_native
@short
@dtypes
@pytest.mark.parametrize("isa", native_isas())
def test_native_agrees_with_reference(case, dtype, isa, poisoned, instruction_set):
    instruction_set(isa)
    check(case, dtype, "native")


@of_native
@pytest.mark.parametrize("case", short_cases(60), ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("isa", native_isas())
def test_native_agrees_with_reference_in_half_width(case, dtype, isa, poisoned, instruction_set):
    instruction_set(isa)
    inputs = make_inputs(case, dtype)
    same, actual = run(case, inputs, "reference"), run(case, inputs, "native")
    truth = run(case, inputs.map(torch.Tensor.double), "reference")
    assert_close_in_half_width(actual, same, truth)


@short
def test_reference_in_float32_agrees_with_itself_in_float64(case):
    check(case, torch.float32, "reference")


@of_native
@pytest.mark.sweep
@pytest.mark.parametrize("isa", native_isas())
@dtypes
def test_native_agrees_over_twenty_thousand_cases(dtype, isa, poisoned, instruction_set):
    instruction_set(isa)
    sweep(20_000, check, dtype, "native")


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("case", short_cases(12), ids=str)
def test_non_contiguous_inputs_give_the_same(case, backend):
    inputs = make_inputs(case, torch.float64)
    strided = inputs.map(lambda t: torch.stack([t, t * 0], dim=-1)[..., 0])
    assert not strided.x.is_contiguous()
    assert_close(run(case, strided, backend), run(case, inputs, backend), 1e-15)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("case", short_cases(12), ids=str)
def test_an_empty_batch_has_zero_gradients(case, backend, poisoned):
    check_empty_batch(case, backend)


@pytest.mark.parametrize("case", short_cases(12), ids=str)
def test_zero_steps_return_a_copy(case, poisoned):
    for backend in ("native", "reference"):
        check_zero_steps(case, backend)


def test_native_scales_any_update_that_takes_a_step_size():
    check_step_size("native")


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", short_cases(25), ids=str)
def test_native_gradients_are_bitwise_the_same_for_every_checkpoint_interval(case, dtype):
    check_checkpoint_intervals(case, dtype, "native")


@pytest.mark.parametrize("batch", [1, 2, 5, 40])
@pytest.mark.parametrize("case", [c for c in short_cases() if c.lattice.cells > 48][:6], ids=str)
def test_native_results_are_bitwise_the_same_for_every_thread_count(case, batch, threads):
    case = replace(case, batch=batch)
    inputs = draw_inputs(case, torch.float32)
    threads(1)
    first = run(case, inputs, "native")
    for count in (2, 3, 8):
        threads(count)
        assert_same_bits(run(case, inputs, "native"), first, f"with {count} threads")


def test_the_short_cases_hold_every_value_of_every_switch():
    """Of those that are legal together: each value of a switch comes up in at least five cases."""
    held = short_cases()
    for value in SWITCHES["neighborhood"]:
        assert sum(c.lattice.neighborhood == value for c in held) >= 5, value
    for value in SWITCHES["boundary"]:
        assert sum(c.lattice.boundary == value for c in held) >= 5, value
    for name in (
        "perception",
        "fixed_filters",
        "own_state",
        "hidden",
        "activation",
        "update",
        "squash",
        "fire_rate",
        "clamp",
    ):
        for value in SWITCHES[name]:
            assert sum(getattr(c.rule, name) == value for c in held) >= 5, (name, value)
    for name in ("drive_batch", "mask_batch", "trajectory_every", "tolerance"):
        for value in SWITCHES[name]:
            assert sum(getattr(c, name) == value for c in held) >= 5, (name, value)
    for when in ("before", "after", "both"):
        assert sum(c.rule.alive is not None and c.rule.alive.when == when for c in held) >= 5, when
    assert sum(bool(c.rule.immutable_channels) for c in held) >= 5
    assert sum(c.rule.fire_rescale for c in held) >= 5


def test_the_short_cases_give_every_field_of_a_rule():
    """One that no case gives, a backend may run without."""
    rules = [case.rule for case in short_cases()]
    for given in (rules, [rule.alive for rule in rules if rule.alive is not None]):
        for field in fields(given[0]):
            assert any(getattr(value, field.name) != field.default for value in given), field.name


def test_contradicting_switches_are_the_only_ones_left_out():
    """Most draws are legal: a check that refuses too much would thin out every test here."""
    assert sum(draw_case(seed) is not None for seed in range(300)) > 200
