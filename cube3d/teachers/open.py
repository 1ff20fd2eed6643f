"""From the settings to the teacher they name."""

from __future__ import annotations

import importlib
import re

from cube3d.config import TeacherSettings
from cube3d.errors import UserError
from cube3d.teachers.teacher import Teacher
from cube3d.teachers.transformer import TransformerTeacher

ADAPTER = re.compile(r"(\w+(?:\.\w+)*):(\w+)")
"""``module:Class``, which no folder and no name on the hub is."""


def open_teacher(settings: TeacherSettings) -> Teacher:
    """The teacher that the settings name; its model is loaded when a text must be read.

    Raises:
        UserError: what :class:`TransformerTeacher` raises; an adapter that cannot be imported, is no
            :class:`Teacher`, or is given settings that only a transformer has.
    """
    if match := ADAPTER.fullmatch(settings.model):
        return _adapter(settings, *match.groups())
    return TransformerTeacher(settings)


def _adapter(settings: TeacherSettings, module: str, name: str) -> Teacher:
    idle = [
        field
        for field, default in TeacherSettings(model=settings.model, whiten=settings.whiten)
        if getattr(settings, field) != default
    ]
    if idle:
        raise UserError(f"teacher {settings.model!r}: an adapter has no {', '.join(idle)}; only model and whiten")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"teacher {settings.model!r}: no such adapter: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Teacher)):
        raise UserError(f"teacher {settings.model!r}: is no subclass of cube3d.teachers.Teacher")
    return kind()
