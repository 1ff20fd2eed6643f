"""A cube as a module of sentence-transformers; ``sentence_transformers_router.py`` trains one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sentence_transformers.base.modules import Module

from cube_kernels import EmbeddingCube, Lattice, Rule


class Cube(Module):
    """``sentence_embedding`` ``[B, dim]`` → ``[B, dim]`` by an :class:`EmbeddingCube`."""

    config_keys = ["dim", "shape", "channels", "hidden", "steps"]  # noqa: RUF012

    def __init__(self, dim: int, shape: list[int], channels: int = 32, hidden: int = 64, steps: int = 4) -> None:
        super().__init__()
        self.dim, self.shape, self.channels, self.hidden, self.steps = dim, list(shape), channels, hidden, steps
        depth, height, width = shape
        self.mapping = EmbeddingCube(
            dim, Lattice((depth, height, width), channels), Rule(hidden=hidden, update="gated"), steps
        )

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        features["sentence_embedding"] = self.mapping(features["sentence_embedding"])
        return features

    def get_embedding_dimension(self) -> int:
        return self.dim

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        shutil.copy(__file__, Path(output_path).parent)  # the model's folder, where its classes are looked for

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **options: Any) -> Cube:
        names = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        where = {name: options[name] for name in names if name in options}
        cube = cls(**cls.load_config(model_name_or_path, **where))
        cls.load_torch_weights(model_name_or_path, model=cube, **where)
        return cube


Cube.__module__ = Path(__file__).stem  # what a saved model names it, also when it was loaded from a model's folder
