"""A teacher that costs nothing, and an ensemble of such."""

from __future__ import annotations

import torch
from torch import Tensor

from cube3d.config import EnsembleSettings
from cube3d.teachers import Ensemble, Teacher
from cube3d.teachers.ensemble import Member
from cube3d.teachers.fusion import fit_fusion


class LetterTeacher(Teacher):
    """Counts the letters of a text, and has no vector for one with a letter that it was not told of."""

    def __init__(self, letters: str = "abcdefgh ") -> None:
        self.letters = letters
        self.asked: list[list[str]] = []

    def __str__(self) -> str:
        return "letters"

    @property
    def key(self) -> str:
        return f"letters-{self.letters}"

    def reads(self, text: str) -> bool:
        return bool(text) and set(text) <= set(self.letters)

    def embed(self, texts):
        assert all(map(self.reads, texts))
        self.asked.append(list(texts))
        return self.counted(texts)

    def counted(self, texts) -> Tensor:
        return torch.tensor([[float(text.count(letter)) for letter in self.letters] for text in texts])


def ensemble_of(*teachers: Teacher) -> Ensemble:
    vectors = [torch.eye(len(teacher.letters))[:4] for teacher in teachers]
    fusion, noted = fit_fusion(
        EnsembleSettings(weights=[1.0] * len(teachers)),
        [False] * len(teachers),
        vectors,
        vectors,
        torch.arange(4),
        seed=0,
    )
    return Ensemble([Member(str(teacher), teacher, False) for teacher in teachers], fusion, noted)
