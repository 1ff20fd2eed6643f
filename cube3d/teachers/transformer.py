"""A teacher from any encoder or LLaMA-family decoder that ``transformers`` loads."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.config import TeacherSettings
from cube3d.device import find_device
from cube3d.errors import UserError
from cube3d.teachers.locate import Source, file_sha256, locate
from cube3d.teachers.teacher import Teacher


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


class TransformerTeacher(Teacher):
    """Text to unit vectors by pooling a model's last hidden states. Loading is put off until a text must be read, so
    that cached vectors cost nothing.

    Args:
        settings: model, pooling, batch size, dtype and device.

    Raises:
        UserError: the model's files cannot be found, or are not those of an encoder or decoder that
            ``transformers`` loads; code of the model's own is run only if ``trust_remote_code`` repeats its name.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        self.settings = settings
        self.source = locate(settings.model, with_code=settings.trust_remote_code is not None)

    def __str__(self) -> str:
        return str(self.source)

    @cached_property
    def key(self) -> str:
        """A hash of the model's files, pooling, length and dtype."""
        settings = self.settings
        digest = hashlib.sha256(f"{settings.pooling}\n{settings.max_length}\n{settings.dtype}\n".encode())
        for path in self.source.files():
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
        return digest.hexdigest()

    @cached_property
    def anisotropic(self) -> bool:
        """Decoders are: the architectures that model text from left to right and have no masked form."""
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        )

        kind = _load_config(self.source, self.key).model_type
        return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES

    @property
    def device(self) -> torch.device:
        return find_device(self.settings.device, f"the device of teacher {self.settings.model!r}")

    def load(self) -> tuple[Any, Any]:
        """Model and tokenizer, once a process."""
        return _load(self.source, self.key, self.settings.dtype, self.device)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``[len(texts), dim]``, float32 on the CPU whatever the model's dtype and device."""
        model, tokenizer = self.load()
        limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or math.inf)
        if self.settings.max_length > limit:
            raise UserError(
                f"teacher {self.source}: reads {limit} tokens; its max_length is {self.settings.max_length}"
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
            ).to(model.device)
            with torch.inference_mode():
                hidden = model(**inputs).last_hidden_state.float()
            vectors = POOLING[self.settings.pooling](hidden, inputs["attention_mask"])
            for i, vector in zip(batch, F.normalize(vectors, dim=-1).cpu(), strict=True):
                rows[i] = vector
        return torch.stack([row for row in rows if row is not None])


def load_options(source: Source) -> dict[str, Any]:
    """Offline, and without code from the folder unless it is trusted."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": source.with_code}
    return options | ({"gguf_file": source.gguf} if source.gguf else {})


@contextmanager
def loading(source: Source) -> Iterator[None]:
    if source.gguf and importlib.util.find_spec("gguf") is None:
        raise UserError(f"teacher {source}: reading GGUF needs a package that is not installed; `pip install gguf`")
    try:
        yield
    except Exception as error:  # transformers, tokenizers, gguf and safetensors raise many kinds for a damaged file
        raise UserError(f"teacher {source}: transformers cannot load it: {error or error!r}") from error


@lru_cache(maxsize=4)
def _load_config(source: Source, key: str) -> Any:
    """The model's configuration, once a process and content."""
    from transformers import AutoConfig

    with loading(source):
        return AutoConfig.from_pretrained(source.folder, **load_options(source))


@lru_cache(maxsize=4)
def _load(source: Source, key: str, dtype: str, device: torch.device) -> tuple[Any, Any]:
    """Model and tokenizer, once a process and content; from safetensors or GGUF, never from a pickle."""
    from transformers import AutoModel, AutoTokenizer

    if _load_config(source, key).is_encoder_decoder:
        raise UserError(f"teacher {source}: is an encoder with a decoder; a teacher is one or the other")
    with loading(source):
        tokenizer = AutoTokenizer.from_pretrained(source.folder, **load_options(source))
        model, report = AutoModel.from_pretrained(
            source.folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **load_options(source),
        )
    # transformers would draw them at random. A pooler is often absent, and not used here.
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise UserError(f"teacher {source}: its weights lack {', '.join(missing[:5])}")
    if tokenizer.pad_token is None:  # decoders often have none; padded positions are masked anyway
        if tokenizer.eos_token is None:
            raise UserError(f"teacher {source}: its tokenizer has no padding token and no end-of-text token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # on the left, a decoder's positions would count the padding
    return model.to(device).eval(), tokenizer
