"""Readers of question–answer files. Every problem is an error that names the file and the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from cube3d.data.pairs import Pair
from cube3d.errors import UserError

BUNDLED = "bundled"
"""Name of the data set that ships with cube3d."""

REQUIRED = ("question", "answer")
OPTIONAL = ("domain", "difficulty", "group")

Record = tuple[int, dict[str, object]]


def read_pairs(sources: Sequence[str]) -> list[Pair]:
    """All pairs of the sources, in their order.

    Args:
        sources: paths of ``.jsonl``, ``.csv`` or ``.txt`` files, or ``"bundled"``.

            - JSONL: an object a line with ``question`` and ``answer``, and optionally ``domain``,
              ``difficulty`` and ``group`` (a name that answers with one meaning share). Other keys are ignored.
            - CSV: a header line with the same names.
            - TXT: ``Q: …`` followed by ``A: …``; further lines belong to what stands above them.

    Raises:
        UserError: no source, an unknown format, a file that cannot be read or is not UTF-8, a line that is not
            what the format says, a blank question or answer.
    """
    if not sources:
        raise UserError(f"no pairs: name files ({', '.join(READERS)}) or {BUNDLED!r}")
    pairs: list[Pair] = []
    for source in sources:
        paths = bundled_files() if source == BUNDLED else [Path(source)]
        for path in paths:
            pairs.extend(_read_file(path))
    return pairs


def bundled_files() -> list[Path]:
    folder = Path(str(files("cube3d.data") / "bundled"))
    return sorted(folder.glob("*.jsonl"))


def _read_file(path: Path) -> list[Pair]:
    if path.suffix not in READERS:
        raise UserError(f"{path}: unknown format {path.suffix!r}; valid: {', '.join(READERS)}, or {BUNDLED!r}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte {error.object[error.start]:#04x}); convert the file"
        ) from error
    pairs = [_pair(path, line, record) for line, record in READERS[path.suffix](path, text)]
    if not pairs:
        raise UserError(f"{path}: holds no pairs")
    return pairs


def _pair(path: Path, line: int, record: dict[str, object]) -> Pair:
    where = f"{path}:{line}"
    values = {}
    for key in (*REQUIRED, *OPTIONAL):
        value = record.get(key)
        if value is None and key in OPTIONAL:
            value = ""
        if value is None:
            raise UserError(f"{where}: no {key!r}; expected {' and '.join(map(repr, REQUIRED))}")
        if not isinstance(value, str):
            raise UserError(f"{where}: {key!r} is {value!r}; expected text")
        if not value.strip() and key in REQUIRED:
            raise UserError(f"{where}: the {key} is empty")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: the {key} holds half of a surrogate pair at character {error.start}") from error
        values[key] = value.strip()
    return Pair(source=f"{path.name}:{line}", **values)


def _jsonl(path: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: expected an object with {' and '.join(map(repr, REQUIRED))}")
        yield number, record


def _csv(path: Path, text: str) -> Iterator[Record]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
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
                yield line, dict(zip(header, row, strict=False))  # what a short row lacks is missed later
            line = rows.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not CSV ({error})") from error


def _txt(path: Path, text: str) -> Iterator[Record]:
    record: dict[str, object] = {}
    start, key = 0, ""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        mark = stripped[:2].upper()
        if mark == "Q:":
            if record:
                yield start, record
            start, key, record = number, "question", {"question": stripped[2:].strip()}
        elif mark == "A:":
            if key != "question":
                raise UserError(f"{path}:{number}: an answer without a question; expected 'Q: …' before 'A: …'")
            key, record["answer"] = "answer", stripped[2:].strip()
        elif stripped and not key:
            raise UserError(f"{path}:{number}: expected 'Q: …', found {stripped[:40]!r}")
        elif stripped:
            record[key] = f"{record[key]} {stripped}".strip()
    if record:
        yield start, record


READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {".jsonl": _jsonl, ".csv": _csv, ".txt": _txt}
