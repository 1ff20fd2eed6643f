"""Writing files and folders so that a killed process never leaves half of one, and no two write into one folder."""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cube3d.errors import BusyError, StorageError
from cube3d.strict import parse_json, read_text

LOCK = ".lock"
"""In a folder that :func:`locked` was called for, for good: who has it open keeps the others out."""

PARTIAL, REPLACED = ".partial-", ".replaced-"
"""In the names of what is being written and of the folder that it replaces, and of what a killed process left of
them."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` to write a file or a folder to, and renames it on success. Who may read
    what was written is for the umask to say, as for any file.

    Raises:
        StorageError: writing failed (a full disk, say); what ``path`` held before is untouched.
    """
    temporary = path.with_name(f".{path.name}{PARTIAL}{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        follow_umask(temporary)
        if path.is_dir():  # a folder cannot be renamed over another
            replaced = path.with_name(f".{path.name}{REPLACED}{secrets.token_hex(4)}")
            os.replace(path, replaced)
            try:
                os.replace(temporary, path)
            except OSError:
                os.replace(replaced, path)
                raise
        else:
            os.replace(temporary, path)
        if path.is_dir():  # what it replaced, and what killed processes left of it, may be large
            for kind in (PARTIAL, REPLACED):
                for leftover in path.parent.glob(f".{glob.escape(path.name)}{kind}*"):
                    shutil.rmtree(leftover, ignore_errors=True)
    except BrokenPipeError:  # of what the body printed
        raise
    except OSError as error:
        raise StorageError(f"{path}: could not be saved: {error}; nothing that was there has changed") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def follow_umask(path: Path) -> None:
    """Gives a file, or all files of a folder, the mode of any new file: safetensors writes for the owner alone."""
    mask = os.umask(0o077)  # it cannot be read without being set
    os.umask(mask)
    for file in [path, *path.rglob("*")]:
        file.chmod((0o777 if file.is_dir() else 0o666) & ~mask)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder if it is not there, and keeps every other process that asks for it out, until the block ends or
    the process dies.

    Raises:
        BusyError: another process has it.
        StorageError: the folder cannot be written to.

    Example::

        with locked(run.folder):
            train(run)
    """
    lock = FileLock(folder / LOCK, mode=0o666)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(f"{folder}: another process is at work in it; wait until it has ended") from error
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written to: {error}") from error
    try:
        yield
    finally:
        lock.release()


def holds_something(folder: Path) -> bool:
    """Whether there is more in a folder than a process leaves that is killed before it has written anything."""
    return folder.is_dir() and any(p.name != LOCK and PARTIAL not in p.name for p in folder.iterdir())


def save_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_json(path: Path, value: Any) -> None:
    save_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def load_json(path: Path) -> Any:
    """Raises UserError if the file is missing or not JSON, or an object in it has a key twice."""
    return parse_json(read_text(path), path)
