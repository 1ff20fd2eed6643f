"""The table of token vectors, and the number formats it can be stored in."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Storage = Literal["float32", "float16", "int8"]


class TokenTable(nn.Module):
    """Token numbers to their vectors, ``[...] → [..., width]``, float32 whatever they are stored as.

    ``float32`` is a parameter, which can be trained; ``float16`` and ``int8`` are buffers. ``int8`` has one scale a
    token, float32: a number is ``code · scale``, the codes from -127 to 127.

    Args:
        vocabulary: tokens.
        width: of their vectors.
        storage: the number format.
    """

    vectors: Tensor
    codes: Tensor
    scale: Tensor

    def __init__(self, vocabulary: int, width: int, storage: Storage = "float32") -> None:
        super().__init__()
        self.width, self.storage = width, storage
        if storage == "float32":
            self.vectors = nn.Parameter(torch.zeros(vocabulary, width))
        elif storage == "float16":
            self.register_buffer("codes", torch.zeros(vocabulary, width, dtype=torch.float16))
        else:
            self.register_buffer("codes", torch.zeros(vocabulary, width, dtype=torch.int8))
            self.register_buffer("scale", torch.zeros(vocabulary, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        if self.storage == "float32":
            return nn.functional.embedding(tokens, self.vectors)
        found = self.codes[tokens].float()
        return found if self.storage == "float16" else found * self.scale[tokens]

    def stored(self, storage: Storage) -> TokenTable:
        """The same vectors in another format, each number to the nearest that it has."""
        with torch.no_grad():
            everything = self(torch.arange(len(self)))
            other = TokenTable(len(self), self.width, storage)
            if storage == "float32":
                other.vectors.copy_(everything)
            elif storage == "float16":
                largest = torch.finfo(torch.float16).max
                other.codes.copy_(everything.clamp(-largest, largest))
            else:
                scale = everything.abs().amax(dim=1, keepdim=True) / 127
                # A row of zeros, or of numbers next to zero, has no scale.
                other.codes.copy_((everything / scale.where(scale > 0, 1)).round())
                other.scale.copy_(scale)
        return other

    def __len__(self) -> int:
        return len(self.vectors if self.storage == "float32" else self.codes)
