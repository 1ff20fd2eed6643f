"""What a call costs beyond its kernel, in microseconds: ``python -m benchmarks.overhead``.

On a lattice so small that the kernel takes next to nothing. Each row is the least of many repeats, one thread, and says
how many Python functions of ours the call enters, and of how many modules.
"""

from __future__ import annotations

import os
import sys
import timeit
from collections.abc import Callable
from types import FrameType

import torch

from cube_kernels import Lattice, Rule, RuleParameters, bind, perceive, rollout
from cube_kernels.backends import native
from cube_kernels.backends.contract import Schedule

LATTICE, RULE = Lattice((2, 2, 2), 4), Rule(hidden=4)


def measured() -> dict[str, Callable[[], object]]:
    """What each row of the table runs."""
    torch.manual_seed(0)
    automaton = bind(LATTICE, RULE)
    x = torch.randn(1, *LATTICE.state_shape)
    shapes = automaton.parameter_shapes
    plain = RuleParameters(*(torch.randn(shapes[n]) if n in shapes else None for n in RuleParameters._fields))
    trained = RuleParameters(*(None if p is None else p.clone().requires_grad_() for p in plain))
    tensors = [p for p in trained if p is not None]
    x_trained, cotangent = x.clone().requires_grad_(), torch.ones_like(x)

    plan, weights = native.plan(automaton), automaton.step_weights(plain, x)
    schedule, result = (
        native._schedule(automaton, Schedule(1, 1, 0, 0, -1.0), x.dtype, 1, False, False, 1),
        torch.empty_like(x),
    )

    def kernel() -> None:
        plan.forward("auto", schedule, x, weights, None, None, result, None, None, None)

    gradient, gradients = torch.empty_like(x), [None if w is None else torch.empty_like(w) for w in weights]

    def kernel_backward() -> None:
        given = x, None, cotangent, None
        plan.backward("float32", "auto", schedule, x, weights, None, None, *given, gradient, gradients, None)

    def forward(parameters: RuleParameters) -> torch.Tensor:
        return rollout(x, parameters, LATTICE, RULE, steps=1, backend="native")

    def both() -> None:
        torch.autograd.grad(
            rollout(x_trained, trained, LATTICE, RULE, steps=1, backend="native"), [x_trained, *tensors], cotangent
        )

    def scale() -> None:
        torch.autograd.grad(torch.tanh(x_trained) * x_trained, x_trained, cotangent)

    return {
        "kernel, forward": kernel,
        "kernel, backward": kernel_backward,
        "rollout, forward without gradients": lambda: forward(plain),
        "rollout, forward": lambda: forward(trained),
        "rollout, forward and backward": both,
        "perceive, forward without gradients": lambda: perceive(x, LATTICE, plain.filters),
        "tanh(x) * x, forward": lambda: torch.tanh(x_trained) * x_trained,
        "tanh(x) * x, forward and backward": scale,
    }


def microseconds(call: Callable[[], object]) -> float:
    """The least over the repeats: what else runs on the machine only adds."""
    return min(timeit.repeat(call, number=100, repeat=200)) / 100 * 1e6


def frames(call: Callable[[], object]) -> list[str]:
    """The file of each Python function of ours that the call enters."""
    entered: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and f"{os.sep}cube_kernels{os.sep}" in frame.f_code.co_filename:
            entered.append(frame.f_code.co_filename)

    call()  # what is kept from an earlier call does not count
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, call in measured().items():
        entered = frames(call)
        where = f"   {len(entered)} frames in {len(set(entered))} modules" if entered else ""
        print(f"{name:<40}{microseconds(call):8.1f} µs{where}")
