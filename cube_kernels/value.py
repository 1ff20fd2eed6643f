"""Checks of single options. Every message names the value and the valid ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import SymInt

if TYPE_CHECKING:
    from typing_extensions import Self


# Each check returns what the caller keeps: the plain Python value, of which a numpy scalar, say, is another form.


def check_choice(owner: str, name: str, value: Any, choices: Iterable[Any]) -> Any:
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{owner}: {name} is {value!r}; valid: {', '.join(map(repr, choices))}")
    return choices[choices.index(value)]


def check_flag(owner: str, name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):  # "no" would count as true
        raise TypeError(f"{owner}: {name} is {value!r}; it takes True or False")
    return bool(value)


def check_integer(owner: str, name: str, value: Any) -> int:
    """Whatever stands for an integer, but no flag; a compiler's symbol of one stays a symbol."""
    given: Any = value
    if type(value) is int or isinstance(value, SymInt):
        return given
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{owner}: {name} is {value!r}; it takes an integer")
    try:
        return index(value)
    except TypeError:  # an array has the method, too
        raise TypeError(f"{owner}: {name} is {value!r}; it takes an integer") from None


def check_positive(owner: str, name: str, value: Any, *, least: int = 1) -> int:
    integer = check_integer(owner, name, value)
    if integer < least:
        raise ValueError(f"{owner}: {name} is {integer}; it must be at least {least}")
    return integer


def check_range(owner: str, name: str, value: Any, low: float, high: float) -> float:
    """A number in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{owner}: {name} is {value!r}; it takes a number")
    number = float(value)
    if not low <= number <= high:
        raise ValueError(f"{owner}: {name} is {value}; it must lie in [{low}, {high}]")
    return number


def check_kind(value: Any, kind: type) -> None:
    """A value of a class of the package."""
    if not isinstance(value, kind):
        raise TypeError(f"cube_kernels: the {kind.__name__.lower()} is {value!r}; it takes a {kind.__name__}")


def check_tuple(owner: str, name: str, value: Any) -> tuple[Any, ...]:
    """A list is as good, but only a tuple can be hashed."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{owner}: {name} is {value!r}; it takes a tuple")
    return tuple(value)


class Value:
    """Base of the frozen dataclasses that describe a call: hashed and written out as text once, when made, since
    they are keys of every call. A subclass says ``__hash__ = Value.__hash__``, or its decorator writes another."""

    key: str
    """All fields as text, for operators, whose schemas know no such objects, and for compilers to compare."""
    _hash: int

    def _set(self, **values: Any) -> None:
        """Sets attributes of a frozen value, in its ``__post_init__``."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.init}  # type: ignore[arg-type]

    def _seal(self) -> None:
        """To be called last by ``__post_init__``."""
        named = self._fields()
        self._set(key=json.dumps(named, default=asdict), _hash=hash(tuple(named.values())))

    @classmethod
    def from_key(cls, key: str) -> Self:
        """The inverse of :attr:`key`.

        Raises:
            ValueError: the text of nothing, or of something that cannot be.
        """
        try:
            named = json.loads(key)
            if not isinstance(named, dict):
                raise ValueError("it names no fields")
            return cls(**cls._read(named))
        except (KeyError, TypeError, ValueError) as wrong:
            raise ValueError(f"{cls.__name__}: {key!r} is not the text of one: {wrong}") from wrong

    @classmethod
    def _read(cls, named: dict[str, Any]) -> dict[str, Any]:
        """The fields, of what JSON makes of them."""
        return named

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew from its fields: a string's hash is another in another process. And the class itself, not a method
        # of it, is something that `torch.load(weights_only=True)` can be told to trust.
        return type(self), tuple(self._fields().values())
