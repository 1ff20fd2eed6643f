"""Who is measured. A peer makes of a case a program: the call to time, and how to read its results in our layout.

Forward returns the last state; forward+backward the gradients of ``y.square().mean()`` for the first state and every
parameter, in the order of ``RuleParameters``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.forms import FORMS, Form
from cube_kernels import CubeLayer, RuleParameters, perceive


class Program(NamedTuple):
    call: Callable[[], Any]
    read: Callable[[Any], list[Tensor]]


def _same(results: Sequence[Tensor]) -> list[Tensor]:
    return list(results)


def torch_program(
    case: Case, rollout: Callable[[Tensor], Tensor], x: Tensor, parameters: RuleParameters, read=_same
) -> Program:
    """Runs ``rollout`` under no_grad, or differentiates it."""
    if not case.backward:
        return Program(torch.no_grad()(lambda: [rollout(x)]), read)
    x = x.detach().requires_grad_()

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(rollout(x).square().mean(), [x, *(p for p in parameters if p is not None)])

    return Program(both, read)


def _ours(case: Case) -> Program:
    problem = case.problem()
    layer = CubeLayer(problem.lattice, problem.rule, problem.steps, backend="native").to(problem.x.dtype)
    layer.load_state_dict(problem.tensors)
    return torch_program(case, layer, problem.x, layer.rule_parameters)


def _in_form(form: Form, compiled: bool) -> Callable[[Case], Program]:
    def program(case: Case) -> Program:
        problem = case.problem()
        parameters = RuleParameters(**{n: p.requires_grad_(case.backward) for n, p in problem.tensors.items()})
        step = form.step
        if compiled:  # C++ templates of matrix products compete with the library's, and the faster one is taken
            options = {"max_autotune": True, "autotune_num_choices_displayed": 0}
            step = torch.compile(form.step, fullgraph=True, dynamic=False, options=options)

        def read(results: Sequence[Tensor]) -> list[Tensor]:
            return [form.leave(results[0]), *results[1:]]

        def rollout(x: Tensor) -> Tensor:
            return form.rollout(x, problem, parameters, step)

        return torch_program(case, rollout, form.enter(problem.x), parameters, read)

    return program


def _cax(case: Case) -> Program:
    from benchmarks import cax_peer

    return cax_peer.program(case)


def _perceive(case: Case) -> Program:
    problem = case.problem()

    def rollout(x: Tensor) -> Tensor:
        for _ in range(problem.steps):
            x = perceive(x, problem.lattice, problem.parameters.filters)
        return x

    return torch_program(case, rollout, problem.x, ())


def _conv_stencil(case: Case) -> Program:
    from benchmarks.stencils import conv3d

    return conv3d(case)


def _scipy(case: Case) -> Program:
    from benchmarks.stencils import scipy_convolve

    return scipy_convolve(case)


def _devito(case: Case) -> Program:
    from benchmarks.stencils import devito

    return devito(case)


@dataclass(frozen=True)
class Peer:
    """``needs``: distributions beside torch. One with a thread pool or compiler of its own has a process of its
    own, so that neither its threads nor its memory meet the others'. ``ours`` are no peers to be beaten."""

    program: Callable[[Case], Program]
    needs: tuple[str, ...] = ()
    own_process: bool = False
    ours: bool = False


OURS = "cube-kernels, native"

# Best before compilation are the Conv3d forms, but the compiler fuses only shifts into one loop.
COMPILED = ("Conv3d, channels_last_3d", "shifts")

ROLLOUT_PEERS = {
    OURS: Peer(_ours, ours=True),
    **{f"eager {name}": Peer(_in_form(form, compiled=False)) for name, form in FORMS.items()},
    **{f"compiled {name}": Peer(_in_form(FORMS[name], compiled=True)) for name in COMPILED},
    "CAX": Peer(_cax, needs=("jax", "flax", "cax"), own_process=True),
}

HEAT_PEERS = {
    OURS: Peer(_ours, ours=True),
    "cube-kernels, perceive": Peer(_perceive, ours=True),
    "eager Conv3d": Peer(_conv_stencil),
    "scipy.ndimage.convolve": Peer(_scipy, needs=("scipy",)),
    "Devito": Peer(_devito, needs=("devito",), own_process=True),
}

PEERS = {**ROLLOUT_PEERS, **HEAT_PEERS}


def peers_of(case: Case) -> dict[str, Peer]:
    return HEAT_PEERS if case.heat else ROLLOUT_PEERS
