"""What goes on inside a trained lattice: its states, and the gradient that comes back through them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.model import CubeModel


def signal(model: CubeModel, questions: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """The lattice's states from the first to the last, and the gradient of each question's cosine distance to its
    answer at each of them.

    Args:
        model: its rollout is run step by step, through the model's own forward pass.
        questions, answers: ``[N, dim]``.

    Returns:
        Two tensors ``[steps + 1, N, D, H, W, C]``.
    """
    states: list[Tensor] = []

    def step_by_step(layer: Any, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        states.append(arguments[0].detach().requires_grad_())
        for _ in range(layer.steps):
            states.append(layer.forward(states[-1], steps=1))
        return states[-1]

    model.eval()
    hook = model.mapping.layer.register_forward_hook(step_by_step)
    try:
        distance = 1 - F.cosine_similarity(model.mapping(questions), answers, dim=-1)
    finally:
        hook.remove()
    gradients = torch.autograd.grad(distance.sum(), states)
    return torch.stack(states).detach(), torch.stack(gradients)
