"""JSONL and JSON: objects with a question and an answer, or with a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cube3d.errors import UserError
from cube3d.pairs.readers.dialogue import TURNS, is_dialogue, replies
from cube3d.pairs.readers.record import REQUIRED, Record, UniqueIds, given
from cube3d.strict import parse_json, parse_json_lines

EXPECTED = f"an object with {' and '.join(map(repr, REQUIRED))}, or with {' or '.join(map(repr, TURNS))}"


def jsonl(path: Path, text: str) -> Iterator[Record]:
    """An object a line."""
    return _records(path, [(f":{number}", value) for number, _, value in parse_json_lines(text, path)])


def json_file(path: Path, text: str) -> Iterator[Record]:
    """An array of objects; or an object that is one conversation, or that has the array under one of its names."""
    value = parse_json(text, path)
    if isinstance(value, dict):
        value = given(value)
        lists = [name for name, content in value.items() if isinstance(content, list)]
        if is_dialogue(value):  # its other lists are labels, unless they hold objects, too
            lists = [name for name in lists if name in TURNS or any(isinstance(item, dict) for item in value[name])]
        if len(lists) > 1 or not (lists or is_dialogue(value)):
            found = f"the lists {', '.join(map(repr, lists))}" if lists else "no list"
            raise UserError(f"{path}: the object has {found}; expected one list of objects")
        value = [value] if is_dialogue(value) else value[lists[0]]
    if not isinstance(value, list):
        raise UserError(f"{path}: expected an array of objects, or an object with one")
    return _records(path, [(f"[{i}]", item) for i, item in enumerate(value)])


def _records(path: Path, items: list[tuple[str, object]]) -> Iterator[Record]:
    ids = UniqueIds(path)
    for place, record in items:
        if not isinstance(record, dict):
            raise UserError(f"{path}{place}: expected {EXPECTED}")
        record = given(record)
        ids.add(place, record)
        if is_dialogue(record):
            yield from replies(path, place, record)
        else:
            yield place, record
