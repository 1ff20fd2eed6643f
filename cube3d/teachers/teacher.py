"""What every teacher is: text to vectors, under a name that says what they depend on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Teacher(ABC):
    """The two things a teacher of your own needs; ``docs/extending.md`` shows one."""

    @property
    @abstractmethod
    def key(self) -> str:
        """What the vectors depend on besides the text, as a file's name: cached vectors are found by it."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[len(texts), dim]``, float32, of any length but zero."""

    def reads(self, text: str) -> bool:
        """Whether the teacher has a vector for a text; some know certain words only."""
        return True

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu")

    @property
    def anisotropic(self) -> bool:
        """Whether the vectors crowd into a narrow cone, as those of decoders do (Ethayarajh, 2019), and so are
        whitened unless the settings say otherwise."""
        return False

    def fitted(self, texts: Sequence[str]) -> Teacher:
        """The teacher after it has seen the training texts. Most learn nothing from them."""
        return self

    @property
    def learned(self) -> dict[str, Any]:
        """What :meth:`fitted` found, as JSON can hold it: saved with a run, and given back to the constructor."""
        return {}
