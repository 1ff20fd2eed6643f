"""JSONL and JSON: objects with a question and an answer, or with a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cube3d.data.readers.dialogue import TURNS, is_dialogue, replies
from cube3d.data.readers.record import REQUIRED, Record, UniqueIds
from cube3d.errors import UserError

EXPECTED = f"an object with {' and '.join(map(repr, REQUIRED))}, or with {' or '.join(map(repr, TURNS))}"


def jsonl(path: Path, text: str) -> Iterator[Record]:
    """An object a line."""
    items = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            items.append((f":{number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from error
    return _records(path, items)


def json_file(path: Path, text: str) -> Iterator[Record]:
    """An array of objects; or an object that is one conversation, or that has the array under one of its names."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error})") from error
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise UserError(f"{path}: not JSON ({error})") from error
    if isinstance(value, dict) and is_dialogue(value):
        value = [value]
    if isinstance(value, dict):
        lists = [name for name, content in value.items() if isinstance(content, list)]
        if len(lists) != 1:
            found = f"the lists {', '.join(map(repr, lists))}" if lists else "no list"
            raise UserError(f"{path}: the object has {found}; expected one list of objects")
        value = value[lists[0]]
    if not isinstance(value, list):
        raise UserError(f"{path}: expected an array of objects, or an object with one")
    return _records(path, [(f"[{i}]", item) for i, item in enumerate(value)])


def _records(path: Path, items: list[tuple[str, object]]) -> Iterator[Record]:
    ids = UniqueIds(path)
    for place, record in items:
        if not isinstance(record, dict):
            raise UserError(f"{path}{place}: expected {EXPECTED}")
        ids.add(place, record)
        if is_dialogue(record):
            yield from replies(path, place, record)
        else:
            yield place, record
