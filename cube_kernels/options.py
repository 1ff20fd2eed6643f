"""Checks of single options. Every message names the value and the valid ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from torch import SymInt

if TYPE_CHECKING:
    from typing_extensions import Self


def check_choice(owner: str, name: str, value: Any, choices: Iterable[Any]) -> None:
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{owner}: {name} is {value!r}; valid: {', '.join(map(repr, choices))}")


def check_kind(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"cube_kernels: the {kind.__name__.lower()} is {value!r}; it takes a {kind.__name__}")


def check_positive(owner: str, name: str, value: Any, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, SymInt)):
        raise TypeError(f"{owner}: {name} is {value!r}; it takes an integer")
    if value < least:
        raise ValueError(f"{owner}: {name} is {value}; it must be at least {least}")


def check_range(owner: str, name: str, value: Any, low: float, high: float) -> None:
    """A number in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{owner}: {name} is {value!r}; it takes a number")
    if not low <= value <= high:
        raise ValueError(f"{owner}: {name} is {value}; it must lie in [{low}, {high}]")


class Value:
    """Base of the frozen dataclasses that describe a call: hashed and written out as text once, when made, since
    they are keys of every call; copied and pickled by their fields, since a string's hash is another in another
    process."""

    key: str
    """All fields as text, for operators, whose schemas know no such objects, and for compilers to compare."""
    _hash: int

    def _seal(self) -> None:
        """To be called last by ``__post_init__``."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.init}  # type: ignore[arg-type]
        object.__setattr__(self, "key", json.dumps(named, default=asdict))
        object.__setattr__(self, "_hash", hash(tuple(named.values())))

    @classmethod
    def from_key(cls, key: str) -> Self:
        """The inverse of :attr:`key`.

        Raises:
            ValueError: the text of nothing, or of something that cannot be.
        """
        try:
            return cls(**cls._read(json.loads(key)))
        except (KeyError, TypeError, ValueError) as wrong:
            raise ValueError(f"{cls.__name__}: {key!r} is not the text of one: {wrong}") from wrong

    @classmethod
    def _read(cls, named: dict[str, Any]) -> dict[str, Any]:
        """The fields, of what JSON makes of them."""
        return named

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return self.from_key, (self.key,)
