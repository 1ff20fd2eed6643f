"""What training reads of each pair."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from cube3d.config import CurriculumSettings, NegativeSettings
from cube3d.training.curriculum import difficulty
from cube3d.training.mining import mine
from cube3d.vectors import Part


class TrainingPairs(Dataset[dict[str, Tensor]]):
    """The pairs of a part: what the model reads of the question, the answer's vector and group; where training asks
    for them, their difficulty and the negatives mined for them.

    Args:
        inputs: of each question, as :meth:`cube3d.model.AnswerModel.inputs` gives them.
        part: the pairs.
        curriculum, negatives: of the training; None for a part that is only measured.

    Raises:
        UserError: fewer negatives than asked for.
    """

    def __init__(
        self,
        inputs: Sequence[dict[str, Tensor]],
        part: Part,
        curriculum: CurriculumSettings | None = None,
        negatives: NegativeSettings | None = None,
    ) -> None:
        self.inputs, self.part = inputs, part
        self.difficulty = difficulty(part, curriculum.by) if curriculum and curriculum.by else None
        self.mined = mine(part, negatives) if negatives and negatives.mined else None

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        part = self.part
        pair = {**self.inputs[index], "answer_embedding": part.answer[index], "group": part.group[index]}
        if self.difficulty is not None:
            pair["difficulty"] = self.difficulty[index]
        if self.mined is not None:
            rows = self.mined[index]
            pair |= {"mined": part.bank[rows], "mined_group": part.bank_group[rows]}
        return pair
