"""CSV with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cube3d.errors import UserError
from cube3d.pairs.readers.record import REQUIRED, Record, UniqueIds, given
from cube3d.strict import parse_json


def csv_file(path: Path, text: str) -> Iterator[Record]:
    """A row a pair; the header names the columns, in any order. A blank cell says nothing. A ``score`` is a number,
    and a ``context`` a list of texts as JSON has it, ``["one turn", "the next"]``.
    """
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    ids = UniqueIds(path)
    line = 1  # where the row begins that is being read
    try:
        header = [name.strip() for name in next(rows, [])]
        _check(path, header)
        line = rows.line_num + 1
        for row in rows:
            if len(row) > len(header):
                raise UserError(f"{path}:{line}: {len(row)} fields, more than the header's {len(header)}")
            nameless = [cell for name, cell in zip(header, row, strict=False) if not name and cell.strip()]
            if nameless:
                raise UserError(f"{path}:{line}: {nameless[0]!r} stands in a column without a name")
            if row:
                # What a short row lacks is missed later.
                record: dict[str, Any] = given(dict(zip(header, row, strict=False)))
                _convert(f"{path}:{line}", record)
                ids.add(f":{line}", record)
                yield f":{line}", record
            line = rows.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not CSV ({error})") from error


def _check(path: Path, header: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise UserError(f"{path}:1: the header {header} lacks {' and '.join(map(repr, missing))}")
    first: dict[str, int] = {}
    for column, name in enumerate(header, start=1):
        # Spreadsheets leave columns without a name behind the last.
        if name and first.setdefault(name, column) != column:
            raise UserError(f"{path}:1: the column {name!r} is there twice, as number {first[name]} and {column}")


def _convert(where: str, record: dict[str, Any]) -> None:
    """Cells hold text; some of it stands for something else."""
    converters: dict[str, Callable[[str], object]] = {"score": float, "context": lambda cell: parse_json(cell, where)}
    for name, convert in converters.items():
        if name in record:
            # What cannot be converted is named where all records are checked.
            with suppress(ValueError):
                record[name] = convert(record[name])
