"""The checks that every run makes of itself. A failed one ends the run.

They exist because a system was once reported whose lattice was never called, whose parameters never moved
and whose validation read the training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cube3d.errors import UserError
from cube3d.model import CubeModel
from cube3d.pairs import Pair, Split, normalized
from cube3d.reader.model import ReaderModel
from cube3d.training.check import Check
from cube_kernels import TokenLattice

if TYPE_CHECKING:
    from cube3d.reader.train import Material

ROLLOUT = "the rollout changes the output"


def check_split(pairs: Sequence[Pair], groups: Sequence[int], split: Split) -> Check:
    """No answer group, answer text, question text or conversation is in two parts."""
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    owner: dict[object, str] = {}
    shared = []
    for part, indices in parts.items():
        for i in indices:
            keys: list[object] = [groups[i], "a:" + normalized(pairs[i].answer), "q:" + normalized(pairs[i].prompt)]
            if pairs[i].dialogue:
                keys.append("d:" + pairs[i].dialogue)
            for key in keys:
                if owner.setdefault(key, part) != part:
                    shared.append(f"{pairs[i].source} ({part} and {owner[key]})")
    sizes = ", ".join(f"{len({groups[i] for i in indices})} groups in {part}" for part, indices in parts.items())
    found = f"shared: {', '.join(shared[:5])}" if shared else f"{sizes}, none shared"
    return Check("parts share no answer group, answer, question or conversation", not shared, found)


def check_rollout(model: CubeModel, questions: Tensor) -> Check:
    """The rollout changes what is read out: the lattice is not decoration."""
    with torch.no_grad():
        first = model.mapping.place(questions)
        with_rollout = model.mapping.read(model.mapping.layer(first))
        without = model.mapping.read(first)
    if not with_rollout.any():
        return Check(ROLLOUT, False, "the readout is zero: no epoch was better than the untrained cube")
    change = ((with_rollout - without).norm() / with_rollout.norm()).item()
    return Check(ROLLOUT, change > 1e-4, f"relative change {change:.3f}")


def check_texts(material: Material, pairs: Sequence[Pair], split: Split) -> Check:
    """No text of the distillation is a held-out question or answer, token by token: asked of what training reads, not
    of what was meant to be left out."""
    tokenizer, corpus = material.tokenizer, material.corpus
    held_out = [text for i in (*split.validation, *split.test) for text in (pairs[i].prompt, pairs[i].answer)]
    # Texts that are mostly unknown tokens are alike without saying the same.
    rows = tokenizer.encode(held_out)
    known = {tuple(row) for row in rows if 2 * sum(token == tokenizer.unknown for token in row) < len(row)}
    shared = [i for i in range(len(corpus)) if tuple(corpus[i]["input_ids"].tolist()) in known]
    left_out = f"{len(corpus)} texts, {material.about['held_out']} others left out"
    found = f"text {shared[0]} and {len(shared) - 1} others are held out" if shared else left_out
    return Check("no text says what is held out", not shared, found)


def check_reading(model: ReaderModel, texts: Sequence[str]) -> Check:
    """A reader's rollout changes what it says."""
    assert isinstance(model.reading.context, TokenLattice)
    layer = model.reading.context.layer
    steps = layer.steps
    with_rollout = model.embed(texts)
    try:
        layer.steps = 0
        without = model.embed(texts)
    finally:
        layer.steps = steps
    change = (with_rollout - without).norm(dim=-1).mean().item()
    return Check(ROLLOUT, change > 1e-4, f"mean change of the unit vectors {change:.3f}")


def require(checks: Sequence[Check]) -> None:
    """Raises UserError that names the failed checks, if any failed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        raise UserError("the audit failed: " + "; ".join(f"{check.name}: {check.found}" for check in failed))
