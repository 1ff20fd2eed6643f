"""Teachers and what was fitted to combine them: from texts to the vectors that a cube works on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cube3d.config import EnsembleSettings, TeacherSettings
from cube3d.errors import UserError
from cube3d.files import replacing
from cube3d.teachers.alignment import Alignment
from cube3d.teachers.cache import embed
from cube3d.teachers.fusion import Confidence, Fusion, fit_fusion
from cube3d.teachers.open import open_teacher
from cube3d.teachers.teacher import Teacher
from cube3d.teachers.weights import WeightsNoted


@dataclass(frozen=True)
class Member:
    """One teacher of an ensemble.

    Attributes:
        name: its model, as the settings name it.
        teacher: gives its own vectors.
        whitened: whether they are whitened.
    """

    name: str
    teacher: Teacher
    whitened: bool


@dataclass(frozen=True)
class Ensemble:
    """One or more teachers that act as one.

    Attributes:
        members: the teachers.
        fusion: what was fitted to combine their vectors.
        noted: how the weights came about, the last ones in force.
    """

    members: list[Member]
    fusion: Fusion
    noted: list[WeightsNoted]

    def questions(self, texts: Sequence[str], group: Tensor | None = None) -> Tensor:
        """Unit vectors ``[len(texts), dim]``, float32.

        Args:
            texts: questions.
            group: answer group of each, ``[len(texts)]``; None for questions from outside the run's pairs.

        Raises:
            UserError: a teacher has not the dimensions that the ensemble was fitted with, or cannot read a text.
        """
        return self.fusion.questions(self._vectors(texts), group)

    def answers(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``[len(texts), dim]``, float32. Raises what :meth:`questions` does."""
        return self.fusion.answers(self._vectors(texts))

    def readable(self, texts: Sequence[str]) -> list[str]:
        """The texts that every teacher has a vector for."""
        return [text for text in texts if all(member.teacher.reads(text) for member in self.members)]

    def alone(self, member: int) -> Ensemble:
        """One of the teachers, aligned as it is in the ensemble."""
        return Ensemble([self.members[member]], self.fusion.alone(member), [])

    def _vectors(self, texts: Sequence[str]) -> list[Tensor]:
        vectors = [embed(member.teacher, texts) for member in self.members]
        for member, x, alignment in zip(self.members, vectors, self.fusion.alignments, strict=True):
            if x.shape[1] != len(alignment.mean):
                raise UserError(
                    f"teacher {member.name!r}: gives {x.shape[1]} dimensions; it was fitted with {len(alignment.mean)}"
                )
        return vectors

    def save(self, path: Path) -> None:
        """Writes all that was fitted as safetensors, with the teachers' keys."""
        fusion, confidence = self.fusion, self.fusion.confidence
        tensors = {"weights": fusion.weights}
        for name, alignment in [*enumerate(fusion.alignments), ("reduction", fusion.reduction)]:
            if alignment is not None:
                tensors |= {f"{name}.mean": alignment.mean, f"{name}.map": alignment.map}
        if confidence is not None:
            tensors |= {"confidence.group": confidence.group, "confidence.usual": confidence.usual}
            tensors |= {f"{k}.references": answers for k, answers in enumerate(confidence.references)}
        about = {
            "teachers": [
                {"name": m.name, "key": m.teacher.key, "whitened": m.whitened, "learned": m.teacher.learned}
                for m in self.members
            ],
            "stacked": fusion.stacked,
            "floor": None if confidence is None else confidence.floor,
            "noted": [asdict(noted) for noted in self.noted],
        }
        with replacing(path) as temporary:
            save_file({k: t.contiguous() for k, t in tensors.items()}, temporary, {"ensemble": json.dumps(about)})


def fit_ensemble(
    teachers: Sequence[TeacherSettings],
    settings: EnsembleSettings,
    questions: Sequence[str],
    answers: Sequence[str],
    group: Tensor,
    seed: int,
) -> Ensemble:
    """The teachers, combined by what the training pairs show.

    Args:
        teachers, settings: from the configuration.
        questions, answers: texts of the ``N`` training pairs.
        group: answer group of each, ``[N]``.
        seed: of the order in which the weights are followed.

    Raises:
        UserError: a teacher cannot be had, or the pairs are too few for the settings.
    """
    members = []
    for given in teachers:
        teacher = open_teacher(given).fitted([*questions, *answers])
        members.append(Member(given.model, teacher, teacher.anisotropic if given.whiten is None else given.whiten))
    fusion, noted = fit_fusion(
        settings,
        [member.whitened for member in members],
        [embed(member.teacher, questions) for member in members],
        [embed(member.teacher, answers) for member in members],
        group,
        seed,
    )
    return Ensemble(members, fusion, noted)


def load_ensemble(path: Path, teachers: Sequence[TeacherSettings]) -> Ensemble:
    """What :meth:`Ensemble.save` wrote, for the same teachers.

    Raises:
        UserError: the file is missing or damaged, or was fitted to other teachers.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about: dict[str, Any] = json.loads(file.metadata()["ensemble"])
        fusion, noted = _fusion(tensors, about), [WeightsNoted(**entry) for entry in about["noted"]]
        members = [(entry["key"], entry["learned"], entry["whitened"]) for entry in about["teachers"]]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged, or no fitted ensemble: {error!r}") from error
    if len(members) != len(teachers):
        raise UserError(f"{path}: was fitted to {len(members)} teachers; the settings name {len(teachers)}")
    opened = []
    for given, (key, learned, whitened) in zip(teachers, members, strict=True):
        teacher = open_teacher(given, learned)
        if teacher.key != key:
            raise UserError(
                f"teacher {given.model!r}: is not the one {path} was fitted to; its files, or how it is read, changed"
            )
        opened.append(Member(given.model, teacher, whitened))
    return Ensemble(opened, fusion, noted)


def _fusion(tensors: dict[str, Tensor], about: dict[str, Any]) -> Fusion:
    teachers = range(len(about["teachers"]))

    def alignment(name: object) -> Alignment:
        return Alignment(tensors[f"{name}.mean"], tensors[f"{name}.map"])

    confidence = None
    if about["floor"] is not None:
        references = [tensors[f"{k}.references"] for k in teachers]
        confidence = Confidence(references, tensors["confidence.group"], tensors["confidence.usual"], about["floor"])
    reduction = alignment("reduction") if "reduction.map" in tensors else None
    return Fusion([alignment(k) for k in teachers], tensors["weights"], about["stacked"], reduction, confidence)
