"""The forms in which people write a 3D neural cellular automaton in PyTorch: one step each, eager or compiled.

They are written to be fast: weights are brought into a form's layout once a rollout and not once a step, the residual
is one fused operation, and no percept is permuted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import Problem
from cube_kernels import Lattice, RuleParameters


@dataclass(frozen=True)
class Form:
    """``weights`` maps the rule's parameters to those of ``step(x, step_size, *weights)``; ``enter`` brings a state
    ``[B, D, H, W, C]`` into the form's layout and ``leave`` takes it back."""

    step: Callable[..., Tensor]
    weights: Callable[[RuleParameters, Lattice], tuple]
    enter: Callable[[Tensor], Tensor]
    leave: Callable[[Tensor], Tensor]

    def rollout(self, x: Tensor, problem: Problem, parameters: RuleParameters, step: Callable[..., Tensor]) -> Tensor:
        """With ``step`` this form's own or its compiled twin."""
        weights = self.weights(parameters, problem.lattice)
        for _ in range(problem.steps):
            x = step(x, problem.rule.step_size, *weights)
        return x


def _kernel(parameters: RuleParameters, lattice: Lattice) -> Tensor:
    """The filters as the weight of a depthwise Conv3d, whose percepts come channel by channel."""
    filters, channels = parameters.filters, lattice.channels
    assert filters is not None
    kernel = filters.new_zeros(len(filters), channels, 3, 3, 3)
    for o, (d, h, w) in enumerate(lattice.offsets):
        kernel[:, :, 1 + d, 1 + h, 1 + w] = filters[:, o]
    return kernel.transpose(0, 1).reshape(-1, 1, 3, 3, 3)


def _linear_weights(parameters: RuleParameters, lattice: Lattice) -> tuple[Tensor, ...]:
    """The layers for percepts in the order of Conv3d: ours come filter by filter."""
    _, hidden_weight, hidden_bias, head_weight, head_bias, _ = parameters
    own, percepts = hidden_weight.split([lattice.channels, hidden_weight.shape[1] - lattice.channels], dim=1)
    percepts = percepts.unflatten(1, (-1, lattice.channels)).transpose(1, 2).flatten(1)
    return _kernel(parameters, lattice), torch.cat([own, percepts], dim=1), hidden_bias, head_weight, head_bias


def _conv_weights(parameters: RuleParameters, lattice: Lattice) -> tuple[Tensor, ...]:
    """The same with the layers as 1×1×1 convolutions."""
    kernel, hidden_weight, hidden_bias, head_weight, head_bias = _linear_weights(parameters, lattice)
    return kernel, hidden_weight[..., None, None, None], hidden_bias, head_weight[..., None, None, None], head_bias


def _conv_step(x, step_size, kernel, hidden_weight, hidden_bias, head_weight, head_bias):
    z = torch.cat([x, F.conv3d(x, kernel, padding=1, groups=x.shape[1])], dim=1)
    a = torch.relu_(F.conv3d(z, hidden_weight, hidden_bias))
    return torch.add(x, F.conv3d(a, head_weight, head_bias), alpha=step_size)


def _linear_step(x, step_size, kernel, hidden_weight, hidden_bias, head_weight, head_bias):
    percepts = F.conv3d(x.permute(0, 4, 1, 2, 3), kernel, padding=1, groups=x.shape[-1]).permute(0, 2, 3, 4, 1)
    a = torch.relu_(F.linear(torch.cat([x, percepts], dim=-1), hidden_weight, hidden_bias))
    return torch.add(x, F.linear(a, head_weight, head_bias), alpha=step_size)


def _shifts_step(x, step_size, offsets, filters, hidden_weight, hidden_bias, head_weight, head_bias):
    _, depth, height, width, _ = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 1, 1, 1))
    near = [padded[:, 1 + d : 1 + d + depth, 1 + h : 1 + h + height, 1 + w : 1 + w + width] for d, h, w in offsets]
    percepts = []
    for taps in filters:
        percept = near[0] * taps[0]
        for o in range(1, len(near)):
            percept = torch.addcmul(percept, near[o], taps[o])
        percepts.append(percept)
    a = torch.relu_(F.linear(torch.cat([x, *percepts], dim=-1), hidden_weight, hidden_bias))
    return torch.add(x, F.linear(a, head_weight, head_bias), alpha=step_size)


def _same(x: Tensor) -> Tensor:
    return x


def _to_channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 4, 1, 2, 3).contiguous()


def _to_channels_last_3d(x: Tensor) -> Tensor:
    return x.permute(0, 4, 1, 2, 3)  # of a contiguous state, this is torch.channels_last_3d


def _back(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 4, 1)


FORMS = {
    "Conv3d, channels first": Form(_conv_step, _conv_weights, _to_channels_first, _back),
    "Conv3d, channels_last_3d": Form(_conv_step, _conv_weights, _to_channels_last_3d, _back),
    "Conv3d, permuted, Linear": Form(_linear_step, _linear_weights, _same, _same),
    "shifts": Form(_shifts_step, lambda p, lattice: (lattice.offsets, *p[:5]), _same, _same),
}
