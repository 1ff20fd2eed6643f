"""The reader as a ``transformers`` model: token numbers to a vector in the teachers' space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from cube3d.config import ReaderSettings
from cube3d.errors import UserError, named
from cube3d.model import AnswerConfig, AnswerModel, AnswerOutput
from cube3d.reader.contexts import CONTEXTS
from cube3d.reader.table import Storage, TokenTable
from cube3d.reader.tokenizer import TextTokenizer, load_tokenizer
from cube3d.vectors import Part
from cube_kernels import TokenCube, TokenReading
from cube_kernels.reading import Entered

BATCH = 512
"""Texts that are read at a time."""

GROUPS = 4
"""Texts of like length that a batch is cut into, so that none is padded far."""


class ReaderConfig(AnswerConfig):
    """Adds the size of the vocabulary and the reader's settings, as in the run's configuration."""

    model_type = "cube3d_reader"

    def __init__(self, vocabulary: int = 2, reader: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.vocabulary = vocabulary
        self.reader = ReaderSettings.model_validate(reader or {}).model_dump()
        super().__init__(**kwargs)

    def with_reader(self, settings: ReaderSettings) -> ReaderConfig:
        """The same with other settings of the reader."""
        return ReaderConfig(self.vocabulary, settings.model_dump(), dim=self.dim, loss=self.loss)


class ReaderModel(AnswerModel):
    """Token numbers ``[B, L]`` to vectors ``[B, dim]``: token vectors of a table, let see each other by the context
    (a lattice, unless it is one of the peers), and their weighted mean mapped into the teachers' space."""

    config_class = ReaderConfig
    base_model_prefix = "reader"
    config: ReaderConfig

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__(config)
        settings = ReaderSettings(**config.reader)
        width = settings.width or config.dim
        self.settings = settings
        self.table = TokenTable(config.vocabulary, width, settings.storage)
        self.log_weight = nn.Parameter(torch.zeros(config.vocabulary))
        if not settings.train_vectors and settings.storage == "float32":
            self.table.vectors.requires_grad_(False)
        self.reading = _reading(settings, width, config.dim)
        self._tokenizer: TextTokenizer | None = None
        self._complete()

    @property
    def tokenizer(self) -> TextTokenizer:
        """That of the folder the model was loaded from, unless one was set."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(Path(self.config.name_or_path), self.settings.max_length)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer

    def read(self, input_ids: Tensor, attention_mask: Tensor, kept: Tensor | None = None) -> Tensor:
        """Unit vectors ``[B, dim]``.

        Args:
            input_ids: ``[B, L]``, int64.
            attention_mask: ``[B, L]``; 1 where a token is, 0 for padding, which comes last.
            kept: the dimensions of each text's token vectors that are read, ``[B, width]``, bool; None: all. They are
                the same for all tokens of a text: from a mean over tokens nothing else would be missed.
        """
        mask = attention_mask.bool()
        if len(mask) < 2 * GROUPS:  # to look for what they share would take longer
            return self._mix(self._entered(self.table(input_ids), kept), mask, self.log_weight[input_ids])
        # Each token once: the gradient of the table is as large as the table, for every look-up that there is.
        numbers, places = input_ids.unique(return_inverse=True)
        vectors, log_weight = self.table(numbers), self.log_weight[numbers]
        entered = self.reading.enter(vectors) if kept is None else None
        lengths = mask.sum(dim=1)
        order = lengths.argsort(stable=True)
        read = []
        for rows in order.chunk(GROUPS):
            place = places[rows, : int(lengths[rows[-1]])]
            if entered is not None:
                own = entered.at(place)
            else:
                own = self._entered(F.embedding(place, vectors), None if kept is None else kept[rows])
            read.append(self._mix(own, mask[rows, : place.shape[1]], log_weight[place]))
        return torch.cat(read)[order.argsort()]

    def _entered(self, tokens: Tensor, kept: Tensor | None) -> Entered:
        """Of token vectors ``[B, L, width]``, less the dimensions that are left out."""
        if kept is not None:
            tokens = tokens * (kept / kept.float().mean(dim=1, keepdim=True).clamp_min(1 / kept.shape[1]))[:, None]
        return self.reading.enter(tokens)

    def _mix(self, entered: Entered, mask: Tensor, log_weight: Tensor) -> Tensor:
        if self.training and self.settings.token_dropout:
            left = torch.rand(mask.shape, device=mask.device) >= self.settings.token_dropout
            mask = mask & (left | ~(mask & left).any(dim=1, keepdim=True))  # a text keeps something
        return F.normalize(self.reading.mix(entered, mask, log_weight), dim=-1)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, kept: Tensor | None = None, **labels: Tensor | None
    ) -> AnswerOutput:
        """
        Args:
            input_ids, attention_mask, kept: see :meth:`read`.
            labels: see :meth:`cube3d.model.AnswerModel.complete`.
        """
        return self.complete(self.read(input_ids, attention_mask, kept), **labels)

    @property
    def input_width(self) -> int:
        return self.table.width

    def inputs(self, part: Part) -> Sequence[dict[str, Tensor]]:
        return [{"input_ids": torch.tensor(tokens)} for tokens in self.encode(part.text)]

    def collate(self, rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        return pad(rows)

    def predict(self, part: Part) -> Tensor:
        return self.embed(part.text)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``[len(texts), dim]``, float32, on the CPU wherever the model is.

        Raises:
            UserError: a text that has no token, or none that the tokenizer knows.
        """
        return self.embed_tokens(self.encode(texts))

    @torch.no_grad()
    def embed_tokens(self, tokens: Sequence[list[int]]) -> Tensor:
        """Unit vectors ``[len(tokens), dim]``, float32, on the CPU, of texts that :meth:`encode` read."""
        if self.training:
            self.eval()
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = torch.empty(len(tokens), self.config.dim)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = pad([{"input_ids": torch.tensor(tokens[i])} for i in rows])
            vectors[rows] = self.read(**{name: t.to(self.device) for name, t in batch.items()}).float().cpu()
        return vectors

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token numbers of each text. Raises what :meth:`embed` does."""
        found, unknown = self.tokenizer.encode(texts), self.tokenizer.unknown
        unread = [t for t, tokens in zip(texts, found, strict=True) if all(token == unknown for token in tokens)]
        if unread:
            raise UserError(f"the reader knows no token of {named(unread)}")
        return found

    def trainable(self) -> list[str]:
        """All but what an idle lattice does not use, and the table where it is frozen."""
        off = isinstance(self.reading, TokenCube) and self.settings.steps == 0
        names = [name for name in super().trainable() if not (off and name.startswith("reading.context."))]
        return names if self.settings.train_vectors else [name for name in names if not name.startswith("table.")]

    def save_in(self, folder: Path) -> None:
        super().save_in(folder)
        self.tokenizer.save(folder)

    def stored(self, storage: Storage) -> ReaderModel:
        """The same reader with its table in another number format."""
        other = ReaderModel(self.config.with_reader(self.settings.model_copy(update={"storage": storage})))
        table = self.table.stored(storage)
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("table.")}
        other.load_state_dict({**state, **{f"table.{name}": value for name, value in table.state_dict().items()}})
        other.tokenizer = self.tokenizer
        return other.eval()

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        tensors = [*self.table.state_dict().values(), self.log_weight, *self.reading.state_dict().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def fitted(self) -> int:
        """Numbers that were fitted to texts and pairs, in whatever format the table is stored now."""
        names = [name for name in self.trainable() if not name.startswith(("objective.", "table."))]
        table = len(self.table) * self.table.width if self.settings.train_vectors else 0
        return table + sum(self.get_parameter(name).numel() for name in names)

    @property
    def context_parameters(self) -> int:
        """Learned numbers with which tokens see each other, lift and readout included."""
        names = [
            name for name in self.trainable() if name.startswith(("reading.lift", "reading.read", "reading.context"))
        ]
        return sum(self.get_parameter(name).numel() for name in names)


def _reading(settings: ReaderSettings, width: int, dim: int) -> TokenReading:
    channels = settings.channels
    if settings.context == "lattice":
        depth, height = settings.cells
        lattice = settings.lattice((depth, height, settings.max_length))
        return TokenCube(
            width, lattice, settings.rule(), settings.steps, dim, settings.backend, settings.checkpoint_every
        )
    if settings.context == "none":
        return TokenReading(width, dim)
    return TokenReading(width, dim, CONTEXTS[settings.context](settings), channels, channels)


def pad(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Token numbers of several texts as one tensor with its mask, and what else the rows have stacked."""
    tokens = [row["input_ids"] for row in rows]
    lengths = torch.tensor([len(row) for row in tokens])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.zeros(mask.shape, dtype=torch.long)
    padded[mask] = torch.cat(tokens)
    others = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "input_ids"}
    return {"input_ids": padded, "attention_mask": mask.long(), **others}


AutoConfig.register(ReaderConfig.model_type, ReaderConfig)
AutoModel.register(ReaderConfig, ReaderModel)
