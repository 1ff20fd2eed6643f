"""Static token vectors: what a teacher says of each entry of a vocabulary by itself, and how much each counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.errors import UserError
from cube3d.progress import progress
from cube3d.teachers import Ensemble

CHUNK = 512
"""Texts that are embedded at a time."""

SMOOTHING = 1e-3
"""``a`` of :func:`log_weights`."""


def static_vectors(texts: Sequence[str], ensemble: Ensemble) -> Tensor:
    """The teachers' vector of each text, less their mean, of length 1 (as Model2Vec makes them); zero for "" and for
    what a teacher cannot read.

    Args:
        texts: what each token stands for, ``V`` of them.
        ensemble: the teachers as one.

    Returns:
        ``[V, dim]``, float32.

    Raises:
        UserError: the teachers can read none of them.
    """
    readable = ensemble.readable(list(dict.fromkeys(text for text in texts if text)))
    if len(readable) < 2:
        raise UserError(f"the teachers can read {len(readable)} of the {len(texts)} tokens of the vocabulary")
    chunks = [readable[start : start + CHUNK] for start in range(0, len(readable), CHUNK)]
    vectors = torch.cat([ensemble.answers(chunk) for chunk in progress(chunks, "token vectors", len(readable))])
    vectors = F.normalize(vectors - vectors.mean(0), dim=-1)
    place = {text: i for i, text in enumerate(readable)}
    rows = torch.tensor([place.get(text, len(readable)) for text in texts])
    return torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])[rows]


def reduced(vectors: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The vectors' ``width`` principal components, and the map back: ``vectors ≈ components @ back``.

    Args:
        vectors: ``[V, dim]``.
        width: at most ``dim``.

    Returns:
        ``[V, width]`` and ``[width, dim]``.

    Raises:
        UserError: the vectors are narrower.
    """
    if width > vectors.shape[1]:
        raise UserError(f"reader.width is {width}; the teachers' vectors have {vectors.shape[1]} dimensions")
    gram = (vectors.T @ vectors).double()
    back = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :width].T.float()
    return vectors @ back.T, back


def mapped(vectors: Tensor, onto: Tensor) -> Tensor:
    """The linear map ``[width, dim]`` that brings the vectors ``[V, width]`` nearest to others of the same tokens
    ``[V, dim]``, by least squares."""
    found: Tensor = torch.linalg.lstsq(vectors.double(), onto.double(), driver="gelsd").solution
    return found.float()


def log_weights(counts: Tensor) -> Tensor:
    """``ln( a / (a + p) )`` for tokens of frequency ``p``, ``[V]``: rare ones count more (Arora, Liang and Ma, 2017,
    "A Simple but Tough-to-Beat Baseline for Sentence Embeddings": smooth inverse frequency).

    Args:
        counts: how often each is in the texts, ``[V]``.
    """
    frequency = counts.double() / counts.sum().clamp_min(1)
    return (SMOOTHING / (SMOOTHING + frequency)).log().float()
