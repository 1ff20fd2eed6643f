"""The interpreted kernels give what the reference gives in float64, within the sanitizer's bounds."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from cube_kernels.lattice import BOUNDARIES, NEIGHBORHOODS
from cube_kernels.update_rule import PERCEPTIONS
from tests.conformance.cases import (
    SWITCHES,
    TOLERANCE,
    Case,
    assert_close,
    assert_close_in_half_width,
    make_inputs,
    run,
    short_cases,
    sweep,
)
from tests.conformance.properties import (
    assert_same_bits,
    check_checkpoint_intervals,
    check_empty_batch,
    check_zero_steps,
)

STEPS = 3
SMALL_BLOCKS = {"BLOCK": 16, "HIDDEN": 16}


def features(case: Case) -> list[tuple[str, object]]:
    """The value of each switch."""
    lattice, rule = case.lattice, case.rule
    switches = {name: getattr(rule, name, getattr(lattice, name, getattr(case, name, None))) for name in SWITCHES}
    switches |= {"lattice": lattice.shape, "immutable": bool(rule.immutable_channels)}
    switches |= {"alive": rule.alive and rule.alive.when, "bank": rule.bank}
    return list(switches.items())


def cost(case: Case) -> int:
    """About how many operations the interpreter runs: it is their number that takes the time, not their size."""
    images = 9 if case.lattice.boundary in ("replicate", "reflecting") and case.lattice.cells > 1 else 1
    return len(case.lattice.offsets) * (case.rule.bank + 2) * images * (1 + case.lattice.cells // 32)


def quick_cases() -> list[Case]:
    """The quickest of the short cases that together hold each value of each switch."""
    chosen, held = [], Counter()
    for case in sorted(short_cases(), key=cost):
        if any(not held[feature] for feature in features(case)):
            chosen.append(replace(case, batch=2))
            held.update(features(case))
    return chosen


def cases_of_several_chunks() -> list[Case]:
    """Two quick ones of each perception."""
    wide = [case for case in quick_cases() if case.rule.hidden > SMALL_BLOCKS["HIDDEN"]]
    return [case for kind in PERCEPTIONS for case in [c for c in wide if c.rule.perception == kind][:2]]


interpreted = pytest.mark.conformance("triton", "interpreted, under a sanitizer")


def check(case: Case) -> None:
    inputs = make_inputs(case, torch.float32)
    truth = run(case, inputs.map(torch.Tensor.double), "reference", STEPS)
    assert_close(run(case, inputs, "triton", STEPS), truth, TOLERANCE[torch.float32])


@interpreted
@pytest.mark.parametrize("case", quick_cases(), ids=str)
def test_triton_agrees_with_reference(case):
    check(case)


@interpreted
@pytest.mark.parametrize("blocks", [SMALL_BLOCKS], indirect=True)
@pytest.mark.parametrize("case", cases_of_several_chunks(), ids=str)
def test_triton_agrees_with_reference_in_small_blocks(case):
    """Chunks of the hidden layer, and parts of the weights' sums that go over several blocks."""
    check(case)


@interpreted
@pytest.mark.sweep
def test_triton_agrees_over_a_thousand_cases():
    sweep(1000, check)


@interpreted
@pytest.mark.parametrize("case", sorted(short_cases(60), key=cost)[:5], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_triton_agrees_with_reference_in_half_width(case, dtype):
    inputs = make_inputs(case, dtype)
    same, actual = run(case, inputs, "reference", STEPS), run(case, inputs, "triton", STEPS)
    truth = run(case, inputs.map(torch.Tensor.double), "reference", STEPS)
    assert_close_in_half_width(actual, same, truth)


@pytest.mark.parametrize("case", quick_cases()[:3], ids=str)
def test_gradients_are_bitwise_the_same_for_every_checkpoint_interval(case):
    check_checkpoint_intervals(case, torch.float32, "triton", STEPS)


@pytest.mark.parametrize("case", quick_cases()[:2], ids=str)
def test_non_contiguous_inputs_give_the_same(case):
    inputs = make_inputs(case, torch.float32)
    strided = inputs.map(lambda t: torch.stack([t, t * 0], dim=-1)[..., 0])
    assert not strided.x.is_contiguous()
    assert_same_bits(run(case, strided, "triton", STEPS), run(case, inputs, "triton", STEPS))


@pytest.mark.parametrize("case", quick_cases(), ids=str)
def test_an_empty_batch_has_zero_gradients(case):
    check_empty_batch(case, "triton")


@pytest.mark.parametrize("case", quick_cases(), ids=str)
def test_zero_steps_return_a_copy(case):
    check_zero_steps(case, "triton")


def test_the_quick_cases_hold_every_value_of_every_switch():
    held = Counter(feature for case in quick_cases() for feature in features(case))
    short = Counter(feature for case in short_cases() for feature in features(case))
    assert held.keys() == short.keys()
    for name, values in (("boundary", BOUNDARIES), ("neighborhood", NEIGHBORHOODS)):
        assert all(held[name, value] for value in values)
