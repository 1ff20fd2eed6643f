"""Planted bugs: how one comes into a copy of a source, and how what a checker says of it is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Mutation(NamedTuple):
    bug: str
    file: str
    right: str  # occurs in it once
    wrong: str
    caught: tuple[str, ...]  # what each checker finds, in their order; "" for nothing


def is_there_once(mutation: Mutation, folder: Path) -> bool:
    return (folder / mutation.file).read_text().count(mutation.right) == 1


@contextmanager
def planted(mutation: Mutation, folder: Path) -> Iterator[None]:
    """Meanwhile, the bug is in the copy of the sources in this folder."""
    assert is_there_once(mutation, folder), mutation.bug
    path = folder / mutation.file
    original = path.read_text()
    path.write_text(original.replace(mutation.right, mutation.wrong))
    try:
        yield
    finally:
        path.write_text(original)


def first_finding(printed: str, signs: dict[str, str]) -> str:
    """The name of the sign, a regular expression, that stands first in what was printed; "" if there is none."""
    found = {name: match.start() for name, sign in signs.items() if (match := re.search(sign, printed))}
    return min(found, key=lambda name: found[name], default="")


def table(mutations: Sequence[Mutation], checkers: Sequence[str]) -> str:
    """In Markdown: what each checker makes of each bug."""
    head = "| planted bug | " + " | ".join(checkers) + " |"
    rows = [f"| {m.bug} | " + " | ".join(found or "nothing" for found in m.caught) + " |" for m in mutations]
    return "\n".join([head, "|---" * (1 + len(checkers)) + "|", *rows])
