"""Teacher vectors on disk, by content: the same text and the same model are never embedded twice."""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.errors import StorageError, UserError, named
from cube3d.progress import progress
from cube3d.teachers.teacher import Teacher

CACHE_VARIABLE = "CUBE3D_CACHE"


def cache_folder() -> Path:
    """``CUBE3D_CACHE``, or ``cube3d`` in the user's cache folder.

    Raises:
        StorageError: the user has no home folder, and no variable names another.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cube3d"
    except RuntimeError as error:
        raise StorageError(f"this user has no home folder for the teacher cache; {CACHE_VARIABLE} names one") from error


CHUNK = 512
"""Texts that are looked up, or embedded and saved, at a time: a killed process loses no more."""


def embed(teacher: Teacher, texts: Sequence[str]) -> Tensor:
    """Unit vectors ``[len(texts), dim]``, float32, from the cache where it has them.

    The cache is one SQLite file a teacher, named by what its vectors depend on; processes may share it.

    Raises:
        UserError: the teacher reads certain words only, and none of a text (the message names all such texts, and what
            was found for the others is kept); it gives no usable vector for a text, or vectors of another length than
            it gave before.
        StorageError: the cache cannot be written; the message names the variable that moves it.
    """
    path = cache_folder() / "teachers" / f"{teacher.key}.sqlite"
    keys = {text: hashlib.sha256(text.encode()).digest() for text in texts}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL)")
            vectors = _kept(database, list(keys.values()))
            missing = [text for text in keys if keys[text] not in vectors]
            readable = [text for text in missing if teacher.reads(text)]
            chunks = [readable[start : start + CHUNK] for start in range(0, len(readable), CHUNK)]
            # Who embeds a chunk at a time shows a progress of its own.
            for chunk in progress(chunks, "teacher vectors", len(readable)) if len(chunks) > 1 else chunks:
                new = _unit(teacher, chunk).numpy().astype("<f4")
                rows = {keys[text]: row.tobytes() for text, row in zip(chunk, new, strict=True)}
                with database:
                    database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows.items())
                vectors.update(rows)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{path}: the teacher cache failed: {error}; {CACHE_VARIABLE} moves it") from error
    if len(readable) < len(missing):
        known = set(readable)
        unread = [text for text in missing if text not in known]
        raise UserError(
            f"teacher {teacher}: knows no word of {named(unread)}; leave {'it' if len(unread) == 1 else 'them'} out. "
            "What it gave for the others is kept"
        )
    dims = sorted({len(vector) // 4 for vector in vectors.values()})
    if len(dims) > 1:
        raise UserError(
            f"teacher {teacher}: vectors of {' and of '.join(map(str, dims))} dimensions under one key; a key says all "
            f"that vectors depend on. Mend it, or delete {path}"
        )
    return torch.from_numpy(np.stack([np.frombuffer(vectors[keys[text]], "<f4") for text in texts]).copy())


def _kept(database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        marks = ", ".join("?" * len(chunk))
        found.update(database.execute(f"SELECT text, vector FROM vectors WHERE text IN ({marks})", chunk))
    return found


def _unit(teacher: Teacher, texts: Sequence[str]) -> Tensor:
    vectors = teacher.embed(texts)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise UserError(f"teacher {teacher}: gave {tuple(vectors.shape)} for {len(texts)} texts, not [texts, dim]")
    length = vectors.float().norm(dim=-1)
    for text, value in zip(texts, length.tolist(), strict=True):
        if not 0 < value < math.inf:
            raise UserError(f"teacher {teacher}: its vector has length {value} for the text {text[:80]!r}")
    return F.normalize(vectors.float(), dim=-1)
