"""What training reads of each pair."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from cube3d.config import CurriculumSettings, NegativeSettings
from cube3d.curriculum import difficulty
from cube3d.mining import mine
from cube3d.vectors import Part


class TrainingPairs(Dataset[dict[str, Tensor]]):
    """The pairs of the training part, with their difficulty where there is a curriculum and the negatives mined for
    them where some are asked for.

    Raises:
        UserError: fewer negatives than asked for.
    """

    def __init__(self, part: Part, curriculum: CurriculumSettings, negatives: NegativeSettings) -> None:
        self.part = part
        self.difficulty = difficulty(part, curriculum.by) if curriculum.by else None
        self.mined = mine(part, negatives) if negatives.mined else None

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pair = self.part[index]
        if self.difficulty is not None:
            pair["difficulty"] = self.difficulty[index]
        if self.mined is not None:
            rows = self.mined[index]
            pair |= {"mined": self.part.bank[rows], "mined_group": self.part.bank_group[rows]}
        return pair
