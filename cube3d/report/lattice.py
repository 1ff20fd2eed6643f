"""What goes on inside a trained lattice: its states, and the gradient that comes back through them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.model import CubeModel
from cube3d.reader.model import ReaderModel
from cube_kernels import TokenCube, TokenLattice


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


@torch.no_grad()
def movement(model: ReaderModel, text: str) -> tuple[list[str], Tensor]:
    """How far the cells of each token have moved from their first state after each step.

    Args:
        model: whose context is a lattice.
        text: that it reads.

    Returns:
        The tokens, and the Euclidean distances ``[steps + 1, tokens]``.
    """
    tokens = torch.tensor(model.encode([text]))
    reading, names = model.reading, model.tokenizer.texts()
    assert isinstance(reading, TokenCube)
    assert isinstance(reading.context, TokenLattice)
    entering: list[Tensor] = []
    hook = reading.context.register_forward_hook(lambda context, arguments, output: entering.extend(arguments[:2]))
    try:
        model.eval().read(tokens, torch.ones_like(tokens))
    finally:
        hook.remove()
    layer, states = reading.context.layer, []
    steps = layer.steps
    try:
        for layer.steps in range(steps + 1):
            states.append(reading.context(*entering)[0])
    finally:
        layer.steps = steps
    moved = torch.stack(states)
    return [names[token] or "?" for token in tokens[0].tolist()], (moved - moved[0]).norm(dim=-1)
