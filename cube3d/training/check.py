"""What a run checks of itself, and what training checks of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Check:
    """One check, whether it passed, and what was found."""

    name: str
    passed: bool
    found: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def check_each(name: str, parameters: Sequence[str], passed: Sequence[str]) -> Check:
    """Something that every parameter must have done, and those that did."""
    missing = [parameter for parameter in parameters if parameter not in passed]
    found = f"not: {', '.join(missing)}" if missing else f"{len(parameters)} of {len(parameters)} parameters"
    return Check(name, not missing, found)
