"""Variants of one configuration, each trained under several seeds, on the same held-out questions."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cube3d import run as runs
from cube3d.config import Settings, dump_settings, parse_settings, set_value
from cube3d.errors import BusyError, StorageError, UserError
from cube3d.metrics import Floats, per_question
from cube3d.pairs import normalized
from cube3d.run import Run
from cube3d.vectors import Part
from cube_kernels import BackendError

Changes = Mapping[str, Any]
"""Values by the dotted names of their settings, such as ``{"cube.steps": 8}``."""


class InfeasibleError(UserError):
    """A variant that cannot be trained, with the reason: its values do not go together, or its training failed."""


def describe(changes: Changes) -> str:
    """The changes as they would be written on the command line."""
    return " ".join(f"{name}={plain(value)}" for name, value in changes.items()) or "the base"


def plain(value: Any) -> str:
    """A value as it would be written in YAML: text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Variants:
    """Trains variants of a configuration in a folder, and sees to it that their scores can be compared.

    Every seed has its own validation part and its own start; the test part is one for all seeds, so that what is
    chosen by the validation parts has seen nothing of it.

    Args:
        base: what the variants change.
        seeds: of the runs of each variant.
        folder: for the runs; what is in it already is not trained again.

    Raises:
        UserError: the base itself cannot be trained.
    """

    def __init__(self, base: Settings, seeds: Sequence[int], folder: Path) -> None:
        self._base, self._seeds, self._folder = with_one_test_part(base), seeds, folder
        started = [runs.start(folder / "unwritten", self._settings({}, seed)) for seed in seeds]
        # A missing teacher, or a cube that its vectors do not fill, is no variant's fault: it shows here.
        runs.fit_teachers(started[0])
        self._held_out = [_held_out(run) for run in started]

    def check(self, name: str, value: Any) -> None:
        """Raises UserError if no variant can have this value: the name is unknown, its field refuses the value or
        it does not reach the run. Values that merely do not go together are found when they meet."""
        try:
            require_reached(self._settings({name: value}, self._seeds[0]), {name: value})
        except UserError as error:
            if isinstance(error.__cause__, ValidationError):
                own = name.split(".")
                found = error.__cause__.errors()
                if not any(e["type"] == "extra_forbidden" or [*map(str, e["loc"])][: len(own)] == own for e in found):
                    return
            raise

    def train(self, changes: Changes) -> list[Run]:
        """The variant's runs, one a seed, trained.

        Raises:
            InfeasibleError: it cannot be trained, or holds out other questions than the base.
            UserError: a change does not reach the run.
            StorageError: something could not be written; nothing is wrong with the variant.
        BusyError: another process trains one of its runs; nothing is wrong with the variant.
        """
        try:
            return [
                self._trained(changes, seed, held_out)
                for seed, held_out in zip(self._seeds, self._held_out, strict=True)
            ]
        except (BusyError, StorageError, UnreachedError):
            raise
        except (UserError, BackendError) as error:
            raise InfeasibleError(str(error)) from error

    def _settings(self, changes: Changes, seed: int) -> Settings:
        values = self._base.model_dump()
        for name, value in changes.items():
            set_value(values, name, value)
        values["seed"] = seed
        return parse_settings(values, describe(changes))

    def folder(self, changes: Changes) -> Path:
        """Where the variant's runs are: named by its resolved configuration."""
        content = dump_settings(self._settings(changes, self._seeds[0]))
        return self._folder / hashlib.sha256(content.encode()).hexdigest()[:12]

    def _trained(self, changes: Changes, seed: int, held_out: list[tuple[str, str]]) -> Run:
        settings = self._settings(changes, seed)
        folder = self.folder(changes) / f"seed-{seed}"
        begun = (folder / "config.yaml").exists()
        if not begun and folder.exists():  # killed while its inputs were being written
            shutil.rmtree(folder)
        run = runs.load(folder) if begun else runs.start(folder, settings)
        require_reached(run.settings, changes)
        if _held_out(run) != held_out:
            raise UserError("it holds out other questions than the base, so that their scores cannot be compared")
        if not run.model_folder.is_dir():
            runs.train(run, progress=False)
        for folder in (run.training_folder, run.texts_folder):  # those of many runs would fill the disk
            shutil.rmtree(folder, ignore_errors=True)
        return run


def with_one_test_part(base: Settings) -> Settings:
    """The configuration with a seed for the test part, so that runs of every seed have the same."""
    if base.data.test_seed is not None:
        return base
    return base.model_copy(update={"data": base.data.model_copy(update={"test_seed": base.seed})})


class UnreachedError(UserError):
    """A changed setting that is not in the run's resolved configuration."""


def require_reached(settings: Settings, changes: Changes) -> None:
    """Raises UnreachedError if a change is not in a run's resolved settings: it would be searched in vain."""
    for name, value in changes.items():
        if not has(settings, name, value):
            raise UnreachedError(f"{name}: set to {plain(value)}, but the run has {plain(_resolved(settings, name))}")


def has(settings: Settings, name: str, value: Any) -> bool:
    """Whether a setting, by its dotted name, has a value; of a section, what the value names."""
    return _holds(_resolved(settings, name), value)


def _resolved(settings: Settings, name: str) -> Any:
    resolved: Any = settings.model_dump()
    for key in name.split("."):
        resolved = resolved[int(key)] if isinstance(resolved, list) else resolved[key]
    return resolved


def _holds(resolved: Any, value: Any) -> bool:
    """Whether the resolved value is the given one, with defaults where a section was given in part."""
    if isinstance(value, dict):
        return isinstance(resolved, dict) and all(k in resolved and _holds(resolved[k], v) for k, v in value.items())
    if isinstance(value, list):
        return len(resolved) == len(value) and all(map(_holds, resolved, value))
    return bool(resolved == value)


def _held_out(run: Run) -> list[tuple[str, str]]:
    rows = [*run.split.validation, *run.split.test]
    return [(normalized(run.pairs[i].question), normalized(run.pairs[i].answer)) for i in rows]


def measured(run: Run, part: Part) -> dict[str, Floats]:
    """Each metric of the run's cube for each question of a part, ``[N]``."""
    return per_question(run.model.predict(part), part, run.parts.train.answer.mean(0))
