"""Easy pairs first: how hard a pair is, and which pairs are learned when.

Platanios et al., 2019 ("Competence-based Curriculum Learning for Neural Machine Translation"): a pair is learned once
its place in the order of difficulty is below the competence, which grows linearly with the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.config import CurriculumSettings
from cube3d.metrics import ranks
from cube3d.vectors import Part


def _length(part: Part) -> Tensor:
    return torch.tensor([float(len(pair.question) + len(pair.answer)) for pair in part.pairs])


def _distance(part: Part) -> Tensor:
    return 1 - F.cosine_similarity(part.question, part.answer, dim=-1)


def _rank(part: Part) -> Tensor:
    return ranks(part.question, part)


# What makes a pair hard, [N]: the greater, the harder.
MEASURES: dict[str, Callable[[Part], Tensor]] = {
    "length": _length,
    "similarity": _distance,
    "rank": _rank,
}


def difficulty(part: Part, by: Sequence[str]) -> Tensor:
    """The share of the pairs that are at most as hard as each, ``[N]``, float64, in (0, 1].

    Args:
        part: the training pairs.
        by: names of :data:`MEASURES`; of several the mean share counts.
    """
    return _place(torch.stack([_place(MEASURES[name](part)) for name in by]).mean(0))


def _place(values: Tensor) -> Tensor:
    _, index, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0).double() / len(values))[index]


def competence(progress: float, settings: CurriculumSettings) -> float:
    """The share of the easiest pairs that is learned after a share ``progress`` of the steps; 1 from ``full`` on."""
    grown = (progress - settings.warmup) / (settings.full - settings.warmup)
    return 1 - (1 - settings.start) * (1 - min(1.0, max(0.0, grown)))
