"""A trained lattice as modules of sentence-transformers, in plain PyTorch.

``cube3d export`` puts this file beside the model that it writes, so that the model needs nothing but
sentence-transformers::

    model = SentenceTransformer(folder, trust_remote_code=True)  # allows this file, which you may read first
    scores = model.similarity(model.encode_query(question), model.encode_document(answers))

A model holds one of two modules. A :class:`Cube` corrects a question's embedding on a lattice of cells, which look at
their neighbors and update themselves some steps long. A :class:`Reader` makes the embedding itself: token vectors from
a table, corrected on a lattice that lies along the text, and then their weighted mean. Any lattice is a table of
neighbors here.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import InputModule, Module
from tokenizers import Tokenizer
from torch import Tensor, nn

ACTIVATIONS = {"relu": F.relu, "gelu": lambda h: F.gelu(h, approximate="tanh"), "silu": F.silu, "tanh": torch.tanh}
SQUASHES = {"identity": lambda target: target, "tanh": torch.tanh}
# The new state of a cell that was x and moves towards a target, by a share or as far as its gate lets it.
UPDATES = {
    "residual": lambda x, target, gate, share: x + share * target,
    "replace": lambda x, target, gate, share: target,
    "gated": lambda x, target, gate, share: x + torch.sigmoid(gate) * (target - x),
    "leaky": lambda x, target, gate, share: x + share * (target - x),
}
HUB_OPTIONS = ("subfolder", "token", "cache_folder", "revision", "local_files_only")


class Cells(Module):
    """What both modules have: named tensors, and cells that update themselves.

    Args:
        steps: how often the cells update themselves.
        rule: its ``activation``, ``update``, ``squash`` and ``step_size``; empty without a lattice.
        learned: shape of each parameter, by its name.
        fixed: dtype and shape of each other tensor. Those of the rule are ``hidden_weight``, ``hidden_bias``,
            ``head_weight``, ``head_bias`` and, for leaky updates, ``log_time_constant``.
    """

    config_keys = ["steps", "rule", "learned", "fixed"]  # noqa: RUF012
    optional: tuple[str, ...] = ()
    """Names of tensors that may be absent; they are None then."""

    def __init__(
        self, steps: int, rule: dict[str, Any], learned: dict[str, list[int]], fixed: dict[str, list[Any]]
    ) -> None:
        super().__init__()
        self.steps, self.rule, self.learned, self.fixed = steps, rule, learned, fixed
        for name in self.optional:
            if name not in {*learned, *fixed}:
                self.register_buffer(name, None)
        for name, shape in learned.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        for name, (dtype, *shape) in fixed.items():
            self.register_buffer(name, torch.zeros(shape, dtype=getattr(torch, dtype)))

    def updated(self, x: Tensor, percepts: Tensor) -> Tensor:
        """The cells ``[..., C]`` after one step in which they saw ``percepts`` ``[..., P·C]``."""
        rule, channels = self.rule, x.shape[-1]
        z = torch.cat([x, percepts], dim=-1)
        hidden = ACTIVATIONS[rule["activation"]](F.linear(z, self.hidden_weight, self.hidden_bias))
        heads = F.linear(hidden, self.head_weight, self.head_bias)
        target = SQUASHES[rule["squash"]](heads[..., :channels])
        share = rule["step_size"]
        if rule["update"] == "leaky":
            share = share * torch.exp(-self.log_time_constant)
        return UPDATES[rule["update"]](x, target, heads[..., channels:], share)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        shutil.copy(__file__, Path(output_path).parent / "cube.py")  # the model's folder, where it is looked for

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **options: Any) -> Any:
        where = {name: options[name] for name in HUB_OPTIONS if name in options}
        module = cls(**cls.load_config(model_name_or_path, **where))
        cls.load_torch_weights(model_name_or_path, model=module, **where)
        return module


class Cube(Cells):
    """``sentence_embedding`` ``[B, dim]`` → ``[B, dim]``. Its tensors:

    - ``order [dim]``, int64: the dimension that takes each place; ``entered``, ``left``, int64: the cells where the
      embedding enters the lattice and leaves it;
    - ``lift [1 or entered, f, C]``, ``position [cells, C]``, ``readout [1 or left, C, f]``; or, dense,
      ``lift [dim, entered·C]`` and ``readout [left·C, dim]``;
    - ``neighbors [seen, cells]``, int64: the cell that each cell sees at each offset, ``cells`` for none;
    - ``filters [P, seen, C]``: weights of what is seen; without it, cells see it as it is;
    - ``retention [cells, 1]``: what an absorbing boundary leaves;
    - ``ridge_map [dim, dim]``, ``ridge_shift [dim]``, ``ridge_share []``: a linear prediction that is mixed in, and its
      share; without them, none is.
    """

    optional = ("filters", "log_time_constant", "ridge_map", "ridge_shift", "ridge_share")

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
            seen = F.pad(x, (0, 0, 0, 1))[:, self.neighbors]  # one more cell, of zeros: what lies outside
            weighted = self.filters is not None
            percepts = torch.einsum("bonc,poc->bnpc", seen, self.filters) if weighted else seen.transpose(1, 2)
            x = self.updated(x, percepts.flatten(2)) * self.retention
        left = x[:, self.left]
        if self.readout.dim() == 2:
            read = left.flatten(1) @ self.readout
        else:
            read = torch.einsum("bnc,ncf->bnf", left, self.readout.expand(len(self.left), -1, -1)).flatten(1)
        prediction = embedding + scale * read[:, self.order.argsort()]
        if self.ridge_map is not None:
            ridge = embedding @ self.ridge_map.float() + self.ridge_shift
            prediction = torch.lerp(F.normalize(prediction, dim=1), F.normalize(ridge, dim=1), self.ridge_share.float())
        features["sentence_embedding"] = prediction.to(given.dtype)
        return features

    def get_embedding_dimension(self) -> int:
        return len(self.order)


def _weights(logit: Tensor, padding: Tensor) -> Tensor:
    """Softmax over the tokens, ``[B, L, 1]``; zero for padding, in a text of nothing else too."""
    # Not minus infinity, of which such a text would make no number.
    return logit.masked_fill(padding, torch.finfo(logit.dtype).min).softmax(dim=1).masked_fill(padding, 0)


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    """``[B, L, 1]`` and ``[B, L, n]`` to ``[B, n]``."""
    return (weights.transpose(1, 2) @ values).squeeze(1)


class Reader(Cells, InputModule):
    """Texts → ``sentence_embedding`` ``[B, dim]`` at unit length, or zero for a text of which no token is known, with a
    warning: it is near to nothing, and ends no batch. Its tensors:

    - ``table [V, width]``: token vectors, float32, float16, or int8 with ``table_scale [V, 1]``;
    - ``log_weight [V]``: logarithm of each token's weight;
    - ``output_weight``, ``output_bias``: of the linear map from the weighted mean;
    - with a lattice, on which each token has a column of cells: ``lift_weight``, ``lift_bias`` to its cells,
      ``read_weight``, ``read_bias`` from them; ``filters [P, seen, C]``: weights of what is seen, without which cells
      see it as it is; ``retention [cells, 1]``: what an absorbing boundary leaves.

    Args:
        max_seq_length: tokens of a text that are read.
        unknown: number of the token that stands for what the tokenizer does not know, if there is one.
        seen: for each offset, how many tokens away it is, and the cell there that each cell of a column sees, by its
            place in its own column; ``cells`` for none.
        steps, rule, learned, fixed: see :class:`Cells`.
    """

    config_keys = ["max_seq_length", "unknown", "seen", *Cells.config_keys]  # noqa: RUF012
    optional = ("table_scale", "filters", "log_time_constant")
    save_in_root = False

    def __init__(
        self, max_seq_length: int, unknown: int | None, seen: list[tuple[int, list[int]]], **cells: Any
    ) -> None:
        super().__init__(**cells)
        self.max_seq_length, self.unknown, self.seen = max_seq_length, unknown, seen

    def preprocess(self, inputs: Any, prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        texts = self._prepend_prompt(inputs, prompt) if prompt else list(inputs)
        self.tokenizer.enable_truncation(self.max_seq_length)
        rows = self.tokenizer.encode_batch_fast(texts)
        numbers = torch.tensor([row.ids for row in rows], dtype=torch.long)
        mask = torch.tensor([row.attention_mask for row in rows], dtype=torch.long)
        known = (mask.bool() & (numbers != (-1 if self.unknown is None else self.unknown))).any(dim=1)
        if not known.all():
            unread = ", ".join(repr(text[:80]) for text, some in zip(texts, known.tolist(), strict=True) if not some)
            warnings.warn(f"the reader knows no token of {unread}; such a text's vector is zero", stacklevel=2)
        return {"input_ids": numbers, "attention_mask": mask * known[:, None]}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        mask = features["attention_mask"]
        read = self.read(features["input_ids"], mask)
        features["sentence_embedding"] = read.masked_fill(~mask.any(dim=1, keepdim=True), 0)
        return features

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token numbers ``[B, L]`` and their mask, 0 for padding, to ``[B, dim]``."""
        padding = (attention_mask == 0)[..., None]
        logit = F.embedding(input_ids, self.log_weight[:, None])
        tokens = F.embedding(input_ids, self.table).to(logit.dtype)
        if self.table_scale is not None:
            tokens = tokens * F.embedding(input_ids, self.table_scale).to(logit.dtype)
        correction: Tensor | float = 0.0
        if self.rule:
            least = torch.finfo(tokens.dtype).tiny
            square = tokens.square().mean(dim=2, keepdim=True)
            scale = square.clamp_min(least).sqrt()
            cells = F.linear(tokens / scale.masked_fill(square <= least, 1), self.lift_weight, self.lift_bias)
            cells = self.rollout(cells, padding)
            logit = logit + F.linear(cells, self.read_weight[-1:], self.read_bias[-1:])
            weights = _weights(logit, padding)
            # What is read of a mean is the mean of what is read, and takes one product a text instead of one a token.
            read, shift = _mean(weights * scale, cells), (weights * scale).sum(dim=1)
            correction = F.linear(read, self.read_weight[:-1]) + shift * self.read_bias[:-1]
        else:
            weights = _weights(logit, padding)
        mean = _mean(weights, tokens) + correction
        return F.normalize(F.linear(mean, self.output_weight, self.output_bias), dim=-1)

    def rollout(self, x: Tensor, padding: Tensor) -> Tensor:
        """The tokens' cells ``[B, L, cells·C]`` after all steps. Padding is zero, as is what lies around a text."""
        x = x.masked_fill(padding, 0).unflatten(2, (len(self.retention), -1))
        for _ in range(self.steps):
            x = (self.updated(x, self.percepts(x)) * self.retention).masked_fill(padding[..., None], 0)
        return x.flatten(2)

    def percepts(self, x: Tensor) -> Tensor:
        """What each of the cells ``[B, L, cells, C]`` sees, ``[B, L, cells, P·C]``."""
        _, length, cells, _ = x.shape
        reach = max(abs(away) for away, _ in self.seen)
        around = F.pad(x, (0, 0, 0, 1, reach, reach))  # tokens of zeros, and in each column one more cell
        seen = []
        for away, column in self.seen:
            there = around[:, reach + away : reach + away + length]
            seen.append(there[:, :, :cells] if column == list(range(cells)) else there[:, :, column])
        if self.filters is None:
            return torch.cat(seen, dim=3)
        return sum(there[:, :, :, None] * self.filters[:, k] for k, there in enumerate(seen)).flatten(3)

    def get_embedding_dimension(self) -> int:
        return len(self.output_bias)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        super().save(output_path, *args, **kwargs)
        self.save_tokenizer(str(Path(output_path) / "tokenizer.json"))

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **options: Any) -> Any:
        module = super().load(model_name_or_path, *args, **options)
        where = {name: options[name] for name in HUB_OPTIONS if name in options}
        module.tokenizer = Tokenizer.from_file(str(cls.load_file_path(model_name_or_path, "tokenizer.json", **where)))
        return module


for _module in (Cube, Reader):
    _module.__module__ = Path(__file__).stem  # what a saved model names it, wherever it was loaded from
