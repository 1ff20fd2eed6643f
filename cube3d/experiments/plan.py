"""The folder of a search or an ablation, and what it was asked to do.

::

    base.yaml        the configuration that is varied, resolved
    plan.yaml        what is varied, and how
    runs/            every run, ``<variant>/seed-<seed>``
    results.json     the variants with their scores
    results.csv      the same for a spreadsheet
    pictures/
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, field_validator

from cube3d.config import Section, Seed, Settings, dump_settings, load_settings, parse_section, read_yaml
from cube3d.errors import UserError
from cube3d.files import holds_something, replacing, save_json, save_text


class Plan(Section):
    """What a search and an ablation have in common."""

    seeds: list[Seed] = Field([0, 1, 2], min_length=1)
    """Each variant is trained once for each."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[Seed]) -> list[Seed]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{seeds} repeats a seed")
        return seeds


SomePlan = TypeVar("SomePlan", bound=Plan)


def read_plan(path: Path, kind: type[SomePlan]) -> SomePlan:
    """Raises UserError if the file cannot be read or is no such plan."""
    return parse_section(kind, read_yaml(path, kind), str(path))


def require_new(folder: Path, base: Settings) -> None:
    """Raises UserError if the folder holds something else than what a process left that was killed at its beginning."""
    begun = folder / "base.yaml"
    if begun.is_file() and begun.read_bytes() == dump_settings(base).encode() and not (folder / "plan.yaml").exists():
        return
    if (folder.exists() and not folder.is_dir()) or holds_something(folder):
        raise UserError(f"{folder}: is not empty; name another folder, or go on with --resume")


def save_plan(folder: Path, base: Settings, plan: Plan) -> None:
    save_text(folder / "base.yaml", dump_settings(base))
    save_text(folder / "plan.yaml", dump_settings(plan))


def load_plan(folder: Path, kind: type[SomePlan]) -> tuple[Settings, SomePlan]:
    """What :func:`save_plan` saved.

    Raises:
        UserError: the folder holds no plan of this kind.
    """
    if not (folder / "plan.yaml").exists():
        raise UserError(f"{folder}: nothing was begun here; leave out --resume")
    return load_settings(folder / "base.yaml"), read_plan(folder / "plan.yaml", kind)


def save_results(folder: Path, results: Any, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes ``results.json`` and ``results.csv``."""
    save_json(folder / "results.json", results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    save_text(folder / "results.csv", text.getvalue())


def save_picture(folder: Path, name: str, png: bytes) -> None:
    with replacing(folder / "pictures" / f"{name}.png") as temporary:
        temporary.write_bytes(png)
