"""Checks of single options. Every message names the value and the valid ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar


def check_choice(owner: str, name: str, value: Any, choices: Iterable[Any]) -> None:
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{owner}: {name} is {value!r}; valid: {', '.join(map(repr, choices))}")


def check_positive(owner: str, name: str, value: Any, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} is {value!r}; it takes an integer")
    if value < least:
        raise ValueError(f"{owner}: {name} is {value}; it must be at least {least}")


def check_range(owner: str, name: str, value: Any, low: float, high: float) -> None:
    """A number in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{owner}: {name} is {value!r}; it takes a number")
    if not low <= value <= high:
        raise ValueError(f"{owner}: {name} is {value}; it must lie in [{low}, {high}]")


T = TypeVar("T", bound=type)


def once_hashed(frozen: T) -> T:
    """A frozen dataclass that computes its hash once: it is a key of every call."""
    compute: Any = frozen.__hash__

    def remembered(self: Any) -> int:
        known = self.__dict__.get("_hash")
        if known is None:
            known = compute(self)
            object.__setattr__(self, "_hash", known)
        return known

    frozen.__hash__ = remembered  # type: ignore[assignment]
    return frozen
