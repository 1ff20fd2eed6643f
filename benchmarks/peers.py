"""The forms in which people write a 3D neural cellular automaton in PyTorch today, to be beaten."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cube_kernels import CubeLayer


def conv3d_rollout(layer: CubeLayer, x: Tensor) -> Tensor:
    """Depthwise Conv3d for perception and matrix products for the rule; walls, residual, relu."""
    lattice, rule, weights = layer.lattice, layer.rule, layer.rule_parameters
    channels = lattice.channels
    assert weights.filters is not None
    kernel = weights.filters.new_zeros(rule.filters, channels, 3, 3, 3)
    for o, (d, h, w) in enumerate(lattice.offsets):
        kernel[:, :, 1 + d, 1 + h, 1 + w] = weights.filters[:, o]
    kernel = kernel.transpose(0, 1).reshape(channels * rule.filters, 1, 3, 3, 3)
    for _ in range(layer.steps):
        seen = F.conv3d(x.permute(0, 4, 1, 2, 3), kernel, padding=1, groups=channels)
        seen = seen.unflatten(1, (channels, rule.filters)).transpose(1, 2).flatten(1, 2).permute(0, 2, 3, 4, 1)
        z = torch.cat([x, seen], dim=-1)
        a = torch.relu(F.linear(z, weights.hidden_weight, weights.hidden_bias))
        x = x + rule.step_size * F.linear(a, weights.head_weight, weights.head_bias)
    return x


def shifted_rollout(layer: CubeLayer, x: Tensor) -> Tensor:
    """The same with a padded slice for each neighbor in place of the convolution."""
    lattice, rule, weights = layer.lattice, layer.rule, layer.rule_parameters
    (depth, height, width), filters = lattice.shape, weights.filters
    assert filters is not None
    for _ in range(layer.steps):
        padded = F.pad(x, (0, 0, 1, 1, 1, 1, 1, 1))
        seen = [torch.zeros_like(x) for _ in range(rule.filters)]
        for o, (d, h, w) in enumerate(lattice.offsets):
            neighbor = padded[:, 1 + d : 1 + d + depth, 1 + h : 1 + h + height, 1 + w : 1 + w + width]
            seen = [s + filters[k, o] * neighbor for k, s in enumerate(seen)]
        z = torch.cat([x, *seen], dim=-1)
        a = torch.relu(F.linear(z, weights.hidden_weight, weights.hidden_bias))
        x = x + rule.step_size * F.linear(a, weights.head_weight, weights.head_bias)
    return x
