"""What every reader yields, and what a pair is made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cube3d.errors import UserError
from cube3d.pairs.pair import Pair

Record = tuple[str, dict[str, object]]
"""Where in the file (``:7`` for a line, ``[7]`` for an item), and the values by their names."""

Reader = Callable[[Path, str], Iterator[Record]]

REQUIRED = ("question", "answer")
LABELS = ("domain", "difficulty", "group", "dialogue")


def given(record: dict[str, Any]) -> dict[str, Any]:
    """The values of a record that say something: null and a blank label mean that there is none. A blank question or
    answer stays, to be named as such."""

    def blank(value: object) -> bool:
        return isinstance(value, str) and not value.strip()

    return {
        name: value for name, value in record.items() if value is not None and (name in REQUIRED or not blank(value))
    }


class UniqueIds:
    """The ids of a file's records. Two alike mean that the file was put together wrongly."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str | int, str] = {}

    def add(self, place: str, record: dict[str, object]) -> None:
        """Raises UserError if the record's id is no text or whole number, or is another record's."""
        name = record.get("id")
        if name is None:
            return
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise UserError(f"{self.path}{place}: 'id' is {name!r}; expected text or a whole number")
        name = name.strip() if isinstance(name, str) else name
        if name in self.places:
            raise UserError(
                f"{self.path}{place}: the id {name!r} is that of {self.path.name}{self.places[name]} already"
            )
        self.places[name] = place


def pair_of(path: Path, place: str, record: dict[str, object], window: int) -> Pair:
    """The pair in a record.

    Args:
        path: the file.
        place: of the record in it.
        record: what :func:`given` leaves of it; names that no pair has are ignored.
        window: how many of the turns before the question are kept.

    Raises:
        UserError: a value is missing, blank or of another type.
    """
    where = f"{path}{place}"
    lacking = [key for key in REQUIRED if key not in record]
    if lacking:
        raise UserError(f"{where}: no {lacking[0]!r}; expected {' and '.join(map(repr, REQUIRED))}")
    values = {key: _text(where, key, record[key]) for key in REQUIRED}
    for key in REQUIRED:
        if not values[key]:
            raise UserError(f"{where}: the {key} is empty")
    labels = {key: _text(where, key, record[key]) for key in LABELS if key in record}
    origin = _text(where, "source", record.get("source", ""))
    score = record.get("score")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
    ):
        raise UserError(f"{where}: 'score' is {score!r}; expected a number")
    context = record.get("context", [])
    if not isinstance(context, list):
        raise UserError(f"{where}: 'context' is {context!r}; expected a list of texts, the oldest turn first")
    turns = [_text(where, "context", turn) for turn in context]
    return Pair(
        **values,
        **labels,
        source=f"{path.name}{place}",
        context=tuple(turns[-window:] if window else ()),
        origin=origin,
        score=score,
    )


def _text(where: str, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {key!r} is {value!r}; expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: the {key} holds half of a surrogate pair at character {error.start}") from error
    return value.strip()
