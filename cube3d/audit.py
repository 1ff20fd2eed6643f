"""The checks that every run makes of itself. A failed one ends the run.

They exist because a system was once reported whose lattice was never called, whose parameters never moved
and whose validation read the training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from cube3d.data import Pair, Split, normalized
from cube3d.errors import UserError
from cube3d.model import CubeModel


@dataclass(frozen=True)
class Check:
    """One check, whether it passed, and what was found."""

    name: str
    passed: bool
    found: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def check_split(pairs: Sequence[Pair], groups: Sequence[int], split: Split) -> Check:
    """No answer group, answer text or question text is in two parts."""
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    owner: dict[object, str] = {}
    shared = []
    for part, indices in parts.items():
        for i in indices:
            for key in (groups[i], "a:" + normalized(pairs[i].answer), "q:" + normalized(pairs[i].question)):
                if owner.setdefault(key, part) != part:
                    shared.append(f"{pairs[i].source} ({part} and {owner[key]})")
    sizes = ", ".join(f"{len({groups[i] for i in indices})} groups in {part}" for part, indices in parts.items())
    found = f"shared: {', '.join(shared[:5])}" if shared else f"{sizes}, none shared"
    return Check("parts share no answer group, answer or question", not shared, found)


def check_gradients(names: Sequence[str], with_gradient: set[str]) -> Check:
    """Each parameter got a gradient that was not zero."""
    without = [name for name in names if name not in with_gradient]
    found = f"none for {', '.join(without)}" if without else f"{len(names)} of {len(names)} parameters"
    return Check("each parameter got a gradient", not without, found)


def check_moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> Check:
    """Each parameter differs from where it started."""
    still = [name for name, value in before.items() if torch.equal(value, after[name])]
    found = f"unmoved: {', '.join(still)}" if still else f"{len(before)} of {len(before)} parameters"
    return Check("each parameter moved", not still, found)


def check_rollout(model: CubeModel, questions: Tensor) -> Check:
    """The rollout changes what is read out: the lattice is not decoration."""
    with torch.no_grad():
        first = model.mapping.place(questions)
        with_rollout = model.mapping.read(model.mapping.layer(first))
        without = model.mapping.read(first)
    change = ((with_rollout - without).norm() / with_rollout.norm().clamp_min(1e-12)).item()
    return Check("the rollout changes the output", change > 1e-4, f"relative change {change:.3f}")


def require(checks: Sequence[Check]) -> None:
    """Raises UserError that names the failed checks, if any failed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        raise UserError("the audit failed: " + "; ".join(f"{check.name}: {check.found}" for check in failed))
