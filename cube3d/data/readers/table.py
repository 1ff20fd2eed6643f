"""CSV with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from cube3d.data.readers.record import REQUIRED, Record, UniqueIds
from cube3d.errors import UserError


def csv_file(path: Path, text: str) -> Iterator[Record]:
    """A row a pair; the header names the columns, in any order."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    ids = UniqueIds(path)
    line = 1  # where the row begins that is being read
    try:
        header = next(rows, [])
        missing = [name for name in REQUIRED if name not in header]
        if missing:
            raise UserError(f"{path}:{line}: the header {header} lacks {' and '.join(map(repr, missing))}")
        line = rows.line_num + 1
        for row in rows:
            if len(row) > len(header):
                raise UserError(f"{path}:{line}: {len(row)} fields, more than the header's {len(header)}")
            if row:
                record: dict[str, object] = dict(
                    zip(header, row, strict=False)
                )  # what a short row lacks is missed later
                ids.add(f":{line}", record)
                yield f":{line}", record
            line = rows.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not CSV ({error})") from error
