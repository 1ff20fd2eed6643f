"""Teacher vectors on disk, by content: the same text and the same model are never embedded twice."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cube3d.errors import StorageError
from cube3d.teachers.transformer import Teacher

CACHE_VARIABLE = "CUBE3D_CACHE"


def cache_folder() -> Path:
    """``CUBE3D_CACHE``, or ``cube3d`` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cube3d"


def embed(teacher: Teacher, texts: Sequence[str]) -> Tensor:
    """Unit vectors ``[len(texts), dim]``, float32, from the cache where it has them.

    The cache is one SQLite file a teacher, named by what its vectors depend on; processes may share it.

    Raises:
        StorageError: the cache cannot be written; the message names the variable that moves it.
    """
    path = cache_folder() / "teachers" / f"{teacher.key}.sqlite"
    keys = {text: hashlib.sha256(text.encode()).digest() for text in texts}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(path, timeout=60) as database:
            database.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL)")
            vectors = dict(database.execute("SELECT text, vector FROM vectors"))
            missing = [text for text in keys if keys[text] not in vectors]
            if missing:
                new = teacher.embed(missing).numpy().astype("<f4")
                rows = [(keys[text], row.tobytes()) for text, row in zip(missing, new, strict=True)]
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
                vectors.update(rows)
        database.close()
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{path}: the teacher cache failed: {error}; {CACHE_VARIABLE} moves it") from error
    return torch.from_numpy(np.stack([np.frombuffer(vectors[keys[text]], "<f4") for text in texts]).copy())
