"""What holds of every backend without another to compare it with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cube_kernels import CubeLayer, Lattice, Rule, update_rule
from tests.conformance.cases import STEPS, Case, draw_inputs, make_inputs, run


def assert_same_bits(actual: dict[str, Tensor], first: dict[str, Tensor], where: object = "") -> None:
    assert actual.keys() == first.keys()
    for name, tensor in first.items():
        assert torch.equal(actual[name], tensor), f"{name} {where}"


def check_checkpoint_intervals(case: Case, dtype: torch.dtype, backend: str, steps: int = STEPS) -> None:
    """Results and gradients are the same bits for every ``checkpoint_every``."""
    inputs = draw_inputs(case, dtype)
    first = run(case, inputs, backend, steps, checkpoint_every=1)
    for every in range(2, steps + 2):
        assert_same_bits(
            run(case, inputs, backend, steps, checkpoint_every=every), first, f"with checkpoint_every={every}"
        )


def check_empty_batch(case: Case, backend: str) -> None:
    """No samples give no results, and gradients of zero."""
    empty = replace(case, batch=0)
    results = run(empty, draw_inputs(empty, torch.float32), backend)
    assert results.pop("result").shape == (0, *case.lattice.state_shape)
    for name, gradient in results.items():
        assert not gradient.any(), name


def check_zero_steps(case: Case, backend: str) -> None:
    """The state itself, in memory of its own."""
    inputs = make_inputs(case, torch.float32)
    result = run(case, inputs, backend, steps=0)["result"]
    assert torch.equal(result, inputs.x)
    assert result.data_ptr() != inputs.x.data_ptr()


def check_step_size(backend: str) -> None:
    """Where an update takes a step size, half of it is half of the change: an update of one's own is told so once."""
    torch.manual_seed(0)
    lattice = Lattice((2, 3, 4), 5)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(update_rule, "SCALED", ("gated",))
        layer, x = CubeLayer(lattice, Rule(hidden=6, update="gated"), 1, backend=backend), torch.randn(2, 2, 3, 4, 5)
        whole = layer(x) - x
        layer.rule = replace(layer.rule, step_size=0.5)
        torch.testing.assert_close(layer(x) - x, whole / 2, rtol=1e-4, atol=1e-6)
