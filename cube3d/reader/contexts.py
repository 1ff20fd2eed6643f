"""What else could let tokens see each other: the peers that a lattice is measured beside."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cube3d.config import HEADS, ReaderSettings


class ConvolutionContext(nn.Module):
    """Untied layers along the tokens, ``[B, L, C] → [B, L, C]``: each a depthwise convolution to two filters a channel
    and a perceptron on them and the token's own state, added to it. A lattice's step with other weights each time.
    Padding enters and stays zero.

    Args:
        channels: ``C``.
        hidden: width of the perceptron.
        radius: tokens to each side that a layer sees.
        layers: how many.
    """

    def __init__(self, channels: int, hidden: int, radius: int, layers: int) -> None:
        super().__init__()
        size = 2 * radius + 1
        self.filters = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, size, padding=radius, groups=channels, bias=False) for _ in range(layers)
        )
        self.hidden = nn.ModuleList(nn.Linear(3 * channels, hidden) for _ in range(layers))
        self.change = nn.ModuleList(nn.Linear(hidden, channels) for _ in range(layers))

    def forward(self, state: Tensor, mask: Tensor) -> Tensor:
        present = mask[..., None].to(state.dtype)
        for filters, hidden, change in zip(self.filters, self.hidden, self.change, strict=True):
            seen = filters(state.transpose(1, 2)).transpose(1, 2)
            state = (state + change(F.gelu(hidden(torch.cat([state, seen], dim=-1))))) * present
        return state


class TransformerContext(nn.Module):
    """One layer of a transformer with learned positions, ``[B, L, C] → [B, L, C]`` (Vaswani et al., 2017; the norm
    first, as Xiong et al., 2020). What it leaves in padding is anything.

    Args:
        channels: ``C``.
        hidden: width of its perceptron.
        heads: of its attention.
        max_length: positions.
    """

    def __init__(self, channels: int, hidden: int, heads: int, max_length: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(max_length, channels) * 0.02)
        self.layer = nn.TransformerEncoderLayer(
            channels, heads, hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, state: Tensor, mask: Tensor) -> Tensor:
        # A text without tokens would divide by nothing: it looks at its first place.
        hidden = ~mask
        hidden[:, :1] &= mask.any(dim=1, keepdim=True)
        mixed: Tensor = self.layer(state + self.position[: state.shape[1]], src_key_padding_mask=hidden)
        return mixed


# Each by its name in the settings; "lattice" and "none" are no modules of their own.
CONTEXTS: dict[str, Callable[[ReaderSettings], nn.Module]] = {
    "transformer": lambda s: TransformerContext(s.channels, s.hidden, gcd(s.channels, HEADS), s.max_length),
    "convolutions": lambda s: ConvolutionContext(s.channels, s.hidden, s.radius, s.steps),
}
