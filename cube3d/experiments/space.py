"""The values that a search may give to settings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cube3d.errors import UserError

if TYPE_CHECKING:
    from optuna import Trial

# Each kind of range by its name: a number that a trial tries.
RANGES: dict[str, Callable[[Trial, str, float, float], float]] = {
    "uniform": lambda trial, name, low, high: trial.suggest_float(name, low, high),
    "log": lambda trial, name, low, high: trial.suggest_float(name, low, high, log=True),
    "int": lambda trial, name, low, high: trial.suggest_int(name, int(low), int(high)),
}


@dataclass(frozen=True)
class Choices:
    """Any values, without an order."""

    values: list[Any]

    def suggest(self, trial: Trial, name: str) -> Any:
        by_code = {_code(value): value for value in self.values}
        return by_code[trial.suggest_categorical(name, list(by_code))]


@dataclass(frozen=True)
class Range:
    """Numbers between two: real and ``uniform``, real and uniform in the logarithm (``log``), or whole (``int``)."""

    kind: str
    low: float
    high: float

    def suggest(self, trial: Trial, name: str) -> float:
        return RANGES[self.kind](trial, name, self.low, self.high)


Space = dict[str, Choices | Range]


def parse_space(values: dict[str, Any]) -> Space:
    """A list of choices, or ``{uniform: [low, high]}``, ``{log: ...}``, ``{int: ...}``, for each setting.

    Raises:
        UserError: anything else, or an empty or repeated choice.
    """
    return {name: _parse(name, value) for name, value in values.items()}


def _parse(name: str, value: Any) -> Choices | Range:
    if isinstance(value, list):
        codes = [_code(choice) for choice in value]
        if not codes or len(set(codes)) < len(codes):
            raise UserError(f"{name}: {value} {'repeats a choice' if codes else 'has no choice'}")
        return Choices(value)
    if isinstance(value, dict) and len(value) == 1:
        ((kind, ends),) = value.items()
        number = int if kind == "int" else (int, float)
        if kind in RANGES and isinstance(ends, list) and len(ends) == 2:
            low, high = ends
            numbers = all(isinstance(end, number) and not isinstance(end, bool) for end in ends)
            if numbers and low < high and (low > 0 or kind != "log"):
                return Range(kind, *(ends if kind == "int" else map(float, ends)))
    raise UserError(
        f"{name}: expected a list of choices, {{uniform: [low, high]}}, {{log: [low, high]}} with low above 0, or "
        f"{{int: [low, high]}} in whole numbers, got {value!r}"
    )


def grid(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of the choices, as optuna's parameters.

    Raises:
        UserError: the space has a range.
    """
    codes = []
    for name, dimension in space.items():
        if isinstance(dimension, Range):
            raise UserError(f"{name}: a grid needs a list of choices, got a range; method tpe takes ranges")
        codes.append([_code(value) for value in dimension.values])
    return (dict(zip(space, point, strict=True)) for point in itertools.product(*codes))


def samples(dimension: Choices | Range) -> list[Any]:
    """Every choice, or the ends of the range."""
    if isinstance(dimension, Choices):
        return dimension.values
    ends = [dimension.low, dimension.high]
    return list(map(int, ends)) if dimension.kind == "int" else ends


def _code(value: Any) -> Any:
    """What optuna stores for a choice: it takes lists and sections as text only."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
