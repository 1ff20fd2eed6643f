"""What a bag of tokens cannot tell apart: the pairs of :mod:`cube3d.pairs.minimal`.

There are two measures, of the cosines between the reader's vectors and the teachers': whether each question is nearer
to its own teachers' vector than to the other's, and whether the two together are nearer to their own than to each
other's. The second asks only that the reader moves from the one question to the other as its teachers do; for the
first, that must be more than the reader's error in this direction. What sees only the bag is right in half of the
cases, since a tie counts a half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.pairs.minimal import MinimalPair

TIE = 1e-6
"""Cosines nearer than this are equal: a bag adds up the same vectors in another order."""


@dataclass(frozen=True)
class ToldApart:
    """Shares between 0 and 1; a tie counts a half.

    Attributes:
        alone: of the questions that are nearer to their own teachers' vector than to the other's.
        paired: of the pairs whose two cosines with their own vectors add up to more than those with each other's.
    """

    alone: float
    paired: float


def told_apart(
    pairs: Sequence[MinimalPair], read: Callable[[list[str]], Tensor], teach: Callable[[list[str]], Tensor]
) -> dict[str, ToldApart]:
    """How many of the pairs are told apart, for each kind and for ``all``.

    Args:
        pairs: the questions.
        read: texts to vectors ``[N, dim]``.
        teach: texts to the teachers' vectors ``[N, dim]``.
    """
    texts = [[pair.first for pair in pairs], [pair.second for pair in pairs]]
    ours, theirs = ([F.normalize(f(side), dim=-1) for side in texts] for f in (read, teach))
    leads = [(ours[own] * (theirs[own] - theirs[other])).sum(-1) for own, other in ((0, 1), (1, 0))]
    alone = (_right(leads[0]) + _right(leads[1])) / 2
    paired = _right(leads[0] + leads[1])
    kinds = [pair.kind for pair in pairs]
    found = {}
    for kind in ("all", *dict.fromkeys(kinds)):
        rows = torch.tensor([kind in ("all", own) for own in kinds])
        found[kind] = ToldApart(alone[rows].mean().item(), paired[rows].mean().item())
    return found


def _right(lead: Tensor) -> Tensor:
    """1 where the lead is positive, a half for a tie."""
    right = (lead > 0).to(lead.dtype)
    return torch.where(lead.abs() <= TIE, torch.full_like(lead, 0.5), right)
