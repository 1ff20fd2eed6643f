"""From the vectors of several teachers to one, and what is fitted for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.config import EnsembleSettings
from cube3d.errors import UserError
from cube3d.teachers.alignment import Alignment, principal_components, rotation, unchanged, whitening
from cube3d.teachers.weights import WeightsNoted, likelihood_weights, margins, with_floor


@dataclass(frozen=True, eq=False)
class Confidence:
    """How sure each teacher is of a single question: its margin among the training answers, beside its mean margin.

    Attributes:
        references: each teacher's aligned training answers, ``[A, dim]``.
        group: their answer groups, ``[A]``.
        usual: each teacher's mean margin over the training questions, ``[K]``.
        floor: least weight of a teacher.
    """

    references: list[Tensor]
    group: Tensor
    usual: Tensor
    floor: float

    def weights(self, weights: Tensor, questions: Sequence[Tensor], group: Tensor | None) -> Tensor:
        """The weights ``[K]`` for each question, ``[N, K]``."""
        surety = _margins(questions, self.references, self.group, group) / self.usual
        shares = weights * surety + 1e-12  # no teacher sees a difference: all count as always
        return with_floor(shares / shares.sum(dim=1, keepdim=True), self.floor)


@dataclass(frozen=True, eq=False)
class Fusion:
    """Vectors of ``K`` teachers to unit vectors of one space.

    Attributes:
        alignments: one for each teacher.
        weights: ``[K]``, with a sum of 1.
        stacked: whether aligned vectors are put one after the other, ``√w`` long, so that a cosine of fused vectors is
            the weighted mean of the teachers' cosines; else their weighted sum is taken.
        reduction: of the fused vectors to fewer dimensions, or None.
        confidence: weights for each question of its own, or None.
    """

    alignments: list[Alignment]
    weights: Tensor
    stacked: bool
    reduction: Alignment | None = None
    confidence: Confidence | None = None

    def questions(self, vectors: Sequence[Tensor], group: Tensor | None = None) -> Tensor:
        """The fused questions, ``[N, dim]``.

        Args:
            vectors: ``[N, dim k]`` from each teacher.
            group: answer group of each question, ``[N]``; its own answers say nothing of how sure a teacher is. None
                for questions that have no answer yet.
        """
        return self.fused_questions(self._aligned(vectors), group)

    def answers(self, vectors: Sequence[Tensor]) -> Tensor:
        """The fused answers, ``[N, dim]``, of ``[N, dim k]`` from each teacher."""
        return self.fused_answers(self._aligned(vectors))

    def fused_questions(self, aligned: Sequence[Tensor], group: Tensor | None = None) -> Tensor:
        """As :meth:`questions`, of vectors that are aligned already."""
        if self.confidence is None:
            return self._fused(aligned, self.weights)
        return self._fused(aligned, self.confidence.weights(self.weights, aligned, group))

    def fused_answers(self, aligned: Sequence[Tensor]) -> Tensor:
        """As :meth:`answers`, of vectors that are aligned already."""
        return self._fused(aligned, self.weights)

    def alone(self, teacher: int) -> Fusion:
        """One teacher in its own aligned space."""
        return Fusion([self.alignments[teacher]], torch.ones(1), stacked=True)

    def _aligned(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        return [align(x) for align, x in zip(self.alignments, vectors, strict=True)]

    def _fused(self, aligned: Sequence[Tensor], weights: Tensor) -> Tensor:
        if self.stacked:
            fused = torch.cat(
                [x * w.sqrt()[..., None] for x, w in zip(aligned, weights.unbind(-1), strict=True)], dim=-1
            )
        else:
            parts = [x * w[..., None] for x, w in zip(aligned, weights.unbind(-1), strict=True)]
            fused = F.normalize(torch.stack(parts).sum(dim=0), dim=-1)
        return fused if self.reduction is None else self.reduction(fused)


def fit_fusion(
    settings: EnsembleSettings,
    whiten: Sequence[bool],
    questions: Sequence[Tensor],
    answers: Sequence[Tensor],
    group: Tensor,
    seed: int,
) -> tuple[Fusion, list[WeightsNoted]]:
    """The fusion of K teachers, and how their weights came about.

    Args:
        settings: the space, and how teachers are weighted.
        whiten: for each teacher, whether to whiten its vectors.
        questions, answers: unit vectors ``[N, dim k]`` of the training pairs, from each teacher.
        group: answer group of each pair, ``[N]``.
        seed: of the order in which the weights are followed.

    Raises:
        UserError: fewer fused dimensions than ``settings.dim``.
    """
    texts = [torch.cat(sides) for sides in zip(questions, answers, strict=True)]
    alignments = [whitening(x) if white else unchanged(x.shape[1]) for x, white in zip(texts, whiten, strict=True)]
    if settings.space == "procrustes":
        anchor = alignments[0](texts[0])
        pairs = list(zip(alignments, texts, strict=True))[1:]
        alignments[1:] = [align.then(rotation(align(x), anchor)) for align, x in pairs]
    questions = [align(q) for align, q in zip(alignments, questions, strict=True)]
    answers = [align(a) for align, a in zip(alignments, answers, strict=True)]
    if isinstance(settings.weights, list):
        noted = [WeightsNoted(0, [weight / sum(settings.weights) for weight in settings.weights])]
    elif len(texts) == 1:
        noted = [WeightsNoted(0, [1.0])]
    else:
        noted = likelihood_weights(questions, answers, group, settings.window, settings.floor, seed)
    weights = torch.tensor(noted[-1].weights)
    confidence = None
    if settings.confidence:
        usual = _margins(questions, answers, group, group).mean(dim=0)
        confidence = Confidence(answers, group, usual.clamp_min(1e-6), settings.floor)
    stacked = {"concatenation": True, "pca": True, "procrustes": False}[settings.space]
    fusion = Fusion(alignments, weights, stacked, confidence=confidence)
    if settings.dim is not None:
        fused = torch.cat([fusion.fused_questions(questions, group), fusion.fused_answers(answers)])
        if settings.dim > fused.shape[1]:
            raise UserError(f"ensemble.dim is {settings.dim}; the teachers have {fused.shape[1]} dimensions together")
        fusion = replace(fusion, reduction=principal_components(fused, settings.dim))
    return fusion, noted


def _margins(
    questions: Sequence[Tensor], references: Sequence[Tensor], reference_group: Tensor, group: Tensor | None
) -> Tensor:
    """``[N, K]``"""
    shape = len(questions[0]), len(reference_group)
    own = torch.zeros(shape, dtype=torch.bool) if group is None else group[:, None] == reference_group[None, :]
    return torch.stack([margins(q, a, own) for q, a in zip(questions, references, strict=True)], dim=1)
