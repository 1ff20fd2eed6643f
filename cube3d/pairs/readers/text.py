"""Plain text with ``Q:`` and ``A:``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cube3d.errors import UserError
from cube3d.pairs.readers.record import Record


def txt(path: Path, text: str) -> Iterator[Record]:
    """``Q: …`` followed by ``A: …``; further lines belong to what stands above them."""
    record: dict[str, object] = {}
    start, key = 0, ""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        mark = stripped[:2].upper()
        if mark == "Q:":
            if record:
                yield f":{start}", record
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
        yield f":{start}", record
