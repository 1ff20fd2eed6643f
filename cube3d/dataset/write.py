"""Pairs as JSONL that the readers read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cube3d.files import save_text
from cube3d.pairs.pair import Pair


def save_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """A line a pair; names without a value are left out.

    Raises:
        StorageError: the file cannot be written.
    """
    save_records(path, [record(pair) for pair in pairs])


def save_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    save_text(path, "".join(json.dumps(values, ensure_ascii=False) + "\n" for values in records))


def record(pair: Pair) -> dict[str, Any]:
    """A pair by the names that the readers know."""
    values = {
        "question": pair.question,
        "answer": pair.answer,
        "domain": pair.domain,
        "difficulty": pair.difficulty,
        "group": pair.group,
        "context": list(pair.context),
        "dialogue": pair.dialogue,
        "source": ", ".join(filter(None, (pair.origin, pair.source))),
        "score": pair.score,
    }
    return {name: value for name, value in values.items() if value not in ("", [], None)}
