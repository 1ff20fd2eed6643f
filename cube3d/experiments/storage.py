"""Where a search keeps what is done: a file in its folder, or a storage of optuna's that any number of workers share.

Messages between workers are rows of the storage; there is no other channel. With a database each worker's heartbeat is
one of them, so that a killed worker's point is done again. A journal file has no heartbeats.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from cube3d.config import Settings, dump_settings
from cube3d.errors import BusyError, StorageError, UserError
from cube3d.experiments.plan import Plan
from cube3d.files import save_text

HEARTBEAT = 30
"""Seconds between two signs of life of a worker; after twice as many without one its point is free."""

SHARED = "storage"
"""File in the folder of a worker: the storage that it shares."""


@contextmanager
def opened(storage: str | None, folder: Path, base: Settings, plan: Plan) -> Iterator[optuna.Study]:
    """The study of a search. Its name is made of base and plan, so that all workers of one search meet in it, and those
    of another never do.

    Args:
        storage: URL of a database, such as ``postgresql+psycopg://user@host/name``, or the path of a journal file,
            which ends on ``.journal``; None: a file in the folder.
        folder: of this worker.
        base, plan: of the search.

    Raises:
        UserError: a storage of neither kind, one that cannot be used, or another than this folder's search began with.
        StorageError: it failed meanwhile.

    Example::

        with opened("sqlite:////shared/search.sqlite", folder, base, plan) as study:
            ...
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _check_same(storage, folder)
    where = folder / "study.sqlite" if storage is None else _shown(storage)
    name = "search-" + hashlib.sha256((dump_settings(base) + dump_settings(plan)).encode()).hexdigest()[:16]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            study = optuna.create_study(
                storage=_storage(storage, folder), study_name=name, direction="maximize", load_if_exists=True
            )
        except (SQLAlchemyError, OptunaError, ImportError, OSError, ValueError) as error:
            raise UserError(f"{where}: the search cannot be kept there: {error}") from error
        try:
            yield study
        except (SQLAlchemyError, OptunaError) as error:
            raise StorageError(f"{where}: failed: {error}") from error


def _storage(storage: str | None, folder: Path) -> BaseStorage:
    if storage is None:
        path = str(folder / "study.sqlite")
        url = URL.create("sqlite", database=path).render_as_string()
        if make_url(url).database != path:
            raise ValueError("this version of sqlalchemy cannot name such a path; `pip install --upgrade sqlalchemy`")
        return RDBStorage(url)
    if "://" in storage:
        database = RDBStorage(storage, heartbeat_interval=HEARTBEAT)
        if database.engine.dialect.name == "sqlite":
            _one_writer_at_a_time(database.engine)
        return database
    if storage.endswith(".journal"):
        return JournalStorage(JournalFileBackend(storage))
    raise ValueError("expected the URL of a database (sqlite:///..., postgresql+psycopg://...) or a file .journal")


def _one_writer_at_a_time(engine: Engine) -> None:
    """SQLite locks no rows: two workers that read before they write would both take one point. So a transaction takes
    the whole file as it begins, as SQLAlchemy's page on SQLite says to."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # Python's module would begin transactions in its own way
        connection.execute("PRAGMA busy_timeout = 60000")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were made before


def _check_same(storage: str | None, folder: Path) -> None:
    note = folder / SHARED
    before = note.read_text(encoding="utf-8").strip() if note.exists() else None
    now = None if storage is None else _shown(storage)
    if before is None and now is not None and not (folder / "study.sqlite").exists():
        save_text(note, now + "\n")
    elif before != now:
        raise UserError(
            f"{folder}: its search is kept in {before or 'study.sqlite there'}, not in {now or 'the folder'}; "
            + (f"give --storage {before}" if before else "leave out --storage")
        )


def _shown(storage: str) -> str:
    """Without the password."""
    try:
        return make_url(storage).render_as_string() if "://" in storage else storage
    except SQLAlchemyError:
        return storage


def check_waiting(study: optuna.Study, for_what: str) -> None:
    """Frees what dead workers had, where that can be known.

    Raises:
        BusyError: it cannot, so that waiting might never end.
    """
    if isinstance(study._storage, JournalStorage):
        raise BusyError(
            f"{for_what} are being done by other workers. The search ends with the last of them; if they were killed, "
            "--resume --alone takes over what they had (a journal file, unlike a database, does not know)"
        )
    optuna.storages.fail_stale_trials(study)
