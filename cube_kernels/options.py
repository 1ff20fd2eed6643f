"""Checks of single options. Every message names the value and the valid ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def check_choice(owner: str, name: str, value: Any, choices: Iterable[Any]) -> None:
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{owner}: {name} is {value!r}; valid: {', '.join(map(repr, choices))}")


def check_positive(owner: str, name: str, value: Any, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} is {value!r}; it takes an integer")
    if value < least:
        raise ValueError(f"{owner}: {name} is {value}; it must be at least {least}")
