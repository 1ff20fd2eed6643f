"""No time is printed for numbers that are not ours: every program is held to the reference in float64."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from benchmarks.cases import Case
from cube_kernels import RuleParameters, rollout

# Of each tensor, by L2 norm. Far above what rounding does (a hidden value that rounds across relu's kink, or 64 steps
# that each round the state to 8 bits), far below what a wrong tap, weight or boundary does to such a rollout.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}


CELLS_AT_ONCE = 2**15


class DisagreementError(AssertionError):
    """Two programs of one row do not compute the same."""


@lru_cache(maxsize=1)
def truth(case: Case) -> list[Tensor]:
    """What every program of the case is to return. Few samples at a time: float64 takes memory."""
    problem = case.problem()
    parameters = RuleParameters(**{n: p.double().requires_grad_(case.backward) for n, p in problem.tensors.items()})
    states = []
    weights = [p for p in parameters if p is not None]
    sums = [torch.zeros_like(p) for p in weights]
    for x in problem.x.double().split(max(1, CELLS_AT_ONCE // case.lattice.cells)):
        x.requires_grad_(case.backward)
        y = rollout(x, parameters, problem.lattice, problem.rule, steps=problem.steps, backend="reference")
        if not case.backward:
            states.append(y)
            continue
        state, *gradients = torch.autograd.grad(y.square().sum() / problem.x.numel(), [x, *weights])
        states.append(state)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient
    return [torch.cat(states), *(sums if case.backward else [])]


def check(case: Case, who: str, results: list[Tensor]) -> None:
    """Raises DisagreementError unless the results are those of the reference."""
    names = ["gradient of x", *(f"gradient of {name}" for name in case.problem().tensors)] if case.backward else ["y"]
    for name, result, right in zip(names, results, truth(case), strict=True):
        if result.shape != right.shape:
            raise DisagreementError(
                f"{who}: {name} has shape {list(result.shape)}, and the reference {list(right.shape)}"
            )
        error = ((result.double() - right).norm() / right.norm()).item()
        if not error <= TOLERANCE[case.dtype]:
            raise DisagreementError(
                f"{who}: {name} is off by {error:.1e} of its norm, allowed {TOLERANCE[case.dtype]:.0e}"
            )
