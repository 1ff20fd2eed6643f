"""Writing files and folders so that a killed process never leaves half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cube3d.errors import StorageError
from cube3d.strict import parse_json, read_text


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` to write a file or a folder to, and renames it on success.

    Raises:
        StorageError: writing failed (a full disk, say); what ``path`` held before is untouched.
    """
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_dir():  # a folder cannot be renamed over another
            replaced = path.with_name(f".{path.name}.replaced-{os.getpid()}")
            os.replace(path, replaced)
            try:
                os.replace(temporary, path)
            except OSError:
                os.replace(replaced, path)
                raise
            shutil.rmtree(replaced)
        else:
            os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path}: could not be saved: {error}; nothing that was there has changed") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def save_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_json(path: Path, value: Any) -> None:
    save_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def load_json(path: Path) -> Any:
    """Raises UserError if the file is missing or not JSON, or an object in it has a key twice."""
    return parse_json(read_text(path), path)
