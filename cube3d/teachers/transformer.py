"""A teacher from any encoder or decoder that ``transformers`` loads."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from cube3d.config import TeacherSettings
from cube3d.errors import UserError
from cube3d.teachers.locate import file_sha256, locate, model_files


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=mask.device), mask.argmax(1)]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    positions = torch.arange(mask.shape[1], device=mask.device)
    return hidden[torch.arange(len(hidden), device=mask.device), (mask * positions).argmax(1)]


# Pooling of the last hidden states [B, tokens, dim] under the attention mask [B, tokens].
POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "cls": _first,
    "last": _last,
}


class Teacher:
    """Text to unit vectors. Loading is put off until a text must be read, so that cached vectors cost nothing.

    Args:
        settings: model, pooling and batch size.

    Raises:
        UserError: the model's files cannot be found, or are not those of a model that ``transformers`` loads
            from safetensors without running code of theirs.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        self.settings = settings
        self.folder = locate(settings.model)

    @cached_property
    def key(self) -> str:
        """What the vectors depend on besides the text: the model's files, pooling and length."""
        digest = hashlib.sha256(f"{self.settings.pooling}\n{self.settings.max_length}\n".encode())
        for path in model_files(self.folder):
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
        return digest.hexdigest()

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``[len(texts), dim]``, float32."""
        model, tokenizer = _load(str(self.folder), self.key)
        limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or math.inf)
        if self.settings.max_length > limit:
            raise UserError(
                f"teacher {self.folder}: reads {limit} tokens; teacher.max_length is {self.settings.max_length}"
            )
        # Batches of like length waste little on padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: list[Tensor | None] = [None] * len(texts)
        for start in range(0, len(order), self.settings.batch_size):
            batch = order[start : start + self.settings.batch_size]
            inputs = tokenizer(
                [texts[i] for i in batch],
                padding=True,
                truncation=True,
                max_length=self.settings.max_length,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = model(**inputs).last_hidden_state.float()
            vectors = POOLING[self.settings.pooling](hidden, inputs["attention_mask"])
            for i, vector in zip(batch, F.normalize(vectors, dim=-1), strict=True):
                rows[i] = vector
        return torch.stack([row for row in rows if row is not None])


@lru_cache(maxsize=4)
def _load(folder: str, key: str) -> tuple[Any, Any]:
    """Model and tokenizer, once a process and content; from safetensors, offline, without code from the folder."""
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, report = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"teacher {folder}: transformers cannot load it: {error}") from error
    # transformers would draw them at random. A pooler is often absent, and not used here.
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise UserError(f"teacher {folder}: its weights lack {', '.join(missing[:5])}")
    if tokenizer.pad_token is None:  # decoders often have none; padded positions are masked anyway
        if tokenizer.eos_token is None:
            raise UserError(f"teacher {folder}: its tokenizer has no padding token and no end-of-text token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # on the left, a decoder's positions would count the padding
    return model.eval(), tokenizer
