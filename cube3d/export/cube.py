"""A trained cube as a sentence-transformers module, in plain PyTorch.

``cube3d export`` puts this file beside the model that it writes, so that the model needs nothing but
sentence-transformers::

    model = SentenceTransformer(folder, trust_remote_code=True)  # allows this file, which you may read first
    scores = model.similarity(model.encode_query(question), model.encode_document(answers))

An embedding is placed on a lattice of cells, the cells look at their neighbors and update themselves some steps long,
and what is read from them corrects the embedding. Any lattice is a table of neighbors here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import Module
from torch import Tensor, nn

ACTIVATIONS = {"relu": F.relu, "gelu": lambda h: F.gelu(h, approximate="tanh"), "silu": F.silu, "tanh": torch.tanh}
SQUASHES = {"identity": lambda target: target, "tanh": torch.tanh}
TABLES = {
    **dict.fromkeys(("order", "entered", "left", "neighbors"), torch.int64),
    "retention": torch.float32,
    **dict.fromkeys(("ridge_map", "ridge_shift", "ridge_share"), torch.float32),
}
HUB_OPTIONS = ("subfolder", "token", "cache_folder", "revision", "local_files_only")


class Cube(Module):
    """``sentence_embedding`` ``[B, dim]`` → ``[B, dim]``.

    Args:
        steps: how often the cells update themselves.
        activation, update, squash, step_size: of the rule.
        tensors: shape of each tensor:

            - ``order [dim]``, int64: the dimension that takes each place; ``entered``, ``left``, int64: the cells where
              the embedding enters the lattice and leaves it;
            - ``lift [1 or entered, f, C]``, ``position [cells, C]``, ``readout [1 or left, C, f]``; or, dense,
              ``lift [dim, entered·C]`` and ``readout [left·C, dim]``;
            - ``neighbors [seen, cells]``, int64: the cell that each cell sees at each offset, ``cells`` for none;
            - ``filters [filters, seen, C]``: weights of what is seen; without it, cells see it as it is;
            - ``hidden_weight``, ``hidden_bias``, ``head_weight``, ``head_bias``, ``log_time_constant``: of the rule;
            - ``retention [cells, 1]``: what an absorbing boundary leaves;
            - ``ridge_map [dim, dim]``, ``ridge_shift [dim]``, ``ridge_share []``: a linear prediction that is mixed in,
              and its share; without them, none is.
    """

    config_keys = ["steps", "activation", "update", "squash", "step_size", "tensors"]  # noqa: RUF012

    def __init__(
        self,
        steps: int,
        activation: str,
        update: str,
        squash: str,
        step_size: float,
        tensors: dict[str, list[int]],
    ) -> None:
        super().__init__()
        self.steps, self.activation, self.update, self.squash = steps, activation, update, squash
        self.step_size, self.tensors = step_size, tensors
        for name in ("filters", "log_time_constant"):
            self.register_parameter(name, None)
        for name, shape in tensors.items():
            if name in TABLES:
                self.register_buffer(name, torch.zeros(shape, dtype=TABLES[name]))
            else:
                self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        given = features["sentence_embedding"]
        embedding = given.float()
        scale = embedding.square().mean(dim=1, keepdim=True).clamp_min(torch.finfo(embedding.dtype).tiny).sqrt()
        placed = (embedding / scale).to(self.lift.dtype)[:, self.order]
        if self.lift.dim() == 2:
            lifted = (placed @ self.lift).unflatten(1, (len(self.entered), -1))
        else:
            cells = placed.unflatten(1, (len(self.entered), -1))
            lifted = torch.einsum("bnf,nfc->bnc", cells, self.lift.expand(len(self.entered), -1, -1))
        x = self.position.repeat(len(embedding), 1, 1).index_add(1, self.entered, lifted)
        for _ in range(self.steps):
            x = self.step(x)
        left = x[:, self.left]
        if self.readout.dim() == 2:
            read = left.flatten(1) @ self.readout
        else:
            read = torch.einsum("bnc,ncf->bnf", left, self.readout.expand(len(self.left), -1, -1)).flatten(1)
        correction = read[:, self.order.argsort()]
        prediction = embedding + scale * correction
        if "ridge_map" in self.tensors:
            ridge = embedding @ self.ridge_map.float() + self.ridge_shift
            prediction = torch.lerp(F.normalize(prediction, dim=1), F.normalize(ridge, dim=1), self.ridge_share.float())
        features["sentence_embedding"] = prediction.to(given.dtype)
        return features

    def step(self, x: Tensor) -> Tensor:
        """One update of every cell, ``[B, cells, C]``."""
        seen = F.pad(x, (0, 0, 0, 1))[:, self.neighbors]  # one more cell, of zeros: what lies outside
        weighted = self.filters is not None
        percepts = torch.einsum("bonc,poc->bnpc", seen, self.filters) if weighted else seen.transpose(1, 2)
        z = torch.cat([x, percepts.flatten(2)], dim=-1)
        hidden = ACTIVATIONS[self.activation](F.linear(z, self.hidden_weight, self.hidden_bias))
        heads = F.linear(hidden, self.head_weight, self.head_bias)
        channels = x.shape[-1]
        target = SQUASHES[self.squash](heads[..., :channels])
        if self.update == "residual":
            new = x + self.step_size * target
        elif self.update == "gated":
            new = x + torch.sigmoid(heads[..., channels:]) * (target - x)
        elif self.update == "leaky":
            new = x + self.step_size * torch.exp(-self.log_time_constant) * (target - x)
        else:
            new = target
        return new * self.retention

    def get_embedding_dimension(self) -> int:
        return len(self.order)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        shutil.copy(__file__, Path(output_path).parent / "cube.py")  # the model's folder, where it is looked for

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **options: Any) -> Cube:
        where = {name: options[name] for name in HUB_OPTIONS if name in options}
        cube = cls(**cls.load_config(model_name_or_path, **where))
        cls.load_torch_weights(model_name_or_path, model=cube, **where)
        return cube


Cube.__module__ = Path(__file__).stem  # what a saved model names it, wherever it was loaded from
