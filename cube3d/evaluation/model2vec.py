"""Model2Vec of a run's first teacher: the static model that everyone knows, beside the reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.device import first_process
from cube3d.evaluation.methods import Method
from cube3d.files import replacing
from cube3d.teachers import Teacher
from cube3d.teachers.transformer import TransformerTeacher
from cube3d.vectors import Part

if TYPE_CHECKING:
    from model2vec import StaticModel


def static_model(teacher: Teacher, folder: Path, say: Callable[[str], None]) -> StaticModel | None:
    """What the package distills from the teacher by its defaults, kept in a folder; None, said, where it cannot.

    Args:
        teacher: of the run.
        folder: where it is kept.
        say: gets the reason.
    """
    try:
        from model2vec import StaticModel
        from model2vec.distill import distill
    except ImportError as error:
        say(f"no rows for Model2Vec ({error}); pip install 'cube-kernels[model2vec]'")
        return None
    if not isinstance(teacher, TransformerTeacher) or teacher.source.gguf or teacher.source.with_code:
        say(f"no rows for Model2Vec: it takes a transformer in a folder of safetensors, not {teacher}")
        return None
    with first_process() as writes:
        if writes and not folder.is_dir():
            say("distilling Model2Vec")
            made = distill(str(teacher.source.folder), device="cpu", pooling=_pooling(teacher))
            with replacing(folder) as temporary:
                made.save_pretrained(temporary, model_name=folder.name)
    return StaticModel.from_pretrained(folder)


def _pooling(teacher: TransformerTeacher) -> str:
    return {"mean": "mean", "cls": "first", "last": "last"}[teacher.settings.pooling]


def static_method(model: StaticModel) -> Method:
    """Questions and answers both read by the model: its space is none of the teachers'."""

    def encode(texts: Sequence[str]) -> Tensor:
        return F.normalize(torch.from_numpy(model.encode(list(texts), use_multiprocessing=False)).float(), dim=-1)

    def bank(part: Part) -> Part:
        return replace(part, answer=encode([pair.answer for pair in part.pairs]), bank=encode(part.bank_text))

    vectors: Any = model.embedding
    size = vectors.nbytes + sum(w.nbytes for w in (model.weights, model.token_mapping) if w is not None)
    return Method(lambda part: encode(part.text), vectors.size, size, encode, bank)


def static_table(model: StaticModel, texts: Sequence[str]) -> Tensor:
    """The model's vector of each text by itself, ``[len(texts), width]``, float32; zero for "" and for one that it
    does not know."""
    return torch.from_numpy(model.encode(list(texts), use_multiprocessing=False)).float().nan_to_num()
