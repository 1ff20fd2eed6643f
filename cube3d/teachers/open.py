"""From the settings to the teacher they name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cube3d.config import TeacherSettings
from cube3d.errors import UserError
from cube3d.teachers.teacher import Teacher
from cube3d.teachers.transformer import TransformerTeacher
from cube3d.teachers.words import WORD_FILES, WordTeacher

ADAPTER = re.compile(r"(\w+(?:\.\w+)*):(\w+)")
"""``module:Class``, which no folder and no name on the hub is."""


def open_teacher(settings: TeacherSettings, learned: Mapping[str, Any] = MappingProxyType({})) -> Teacher:
    """The teacher that the settings name; its model is loaded when a text must be read.

    Args:
        settings: its model, and how to run it.
        learned: what :attr:`Teacher.learned` was when the teacher was fitted.

    Raises:
        UserError: what :class:`TransformerTeacher` raises; an adapter that cannot be imported, is no
            :class:`Teacher`; an adapter or a file of word vectors given settings that only a transformer has.
    """
    if match := ADAPTER.fullmatch(settings.model):
        _refuse_idle(settings, "an adapter")
        return _adapter(settings.model, *match.groups())(**learned)
    if settings.model.endswith(WORD_FILES):
        _refuse_idle(settings, "a file of word vectors")
        return WordTeacher(Path(settings.model), **learned)
    return TransformerTeacher(settings)


def _refuse_idle(settings: TeacherSettings, kind: str) -> None:
    idle = [
        field
        for field, default in TeacherSettings(model=settings.model, whiten=settings.whiten)
        if getattr(settings, field) != default
    ]
    if idle:
        raise UserError(f"teacher {settings.model!r}: {kind} has no {', '.join(idle)}; only model and whiten")


def _adapter(model: str, module: str, name: str) -> type[Teacher]:
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"teacher {model!r}: no such adapter: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Teacher)):
        raise UserError(f"teacher {model!r}: is no subclass of cube3d.teachers.Teacher")
    return kind
