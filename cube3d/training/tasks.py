"""Which tasks the rows of training are drawn from."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from cube3d.config import TaskSettings
from cube3d.errors import UserError
from cube3d.pairs.pair import normalized
from cube3d.vectors import Part


def task_mix(train: Part, shares: TaskSettings, seed: int) -> Part:
    """The training part with each task's share of the rows.

    - ``qa``: questions that stand alone, to their answers.
    - ``dialogue``: questions from conversations, with the turns before them, to their answers.
    - ``autoencoder``: each text, question or answer, to itself. It stays in its pair's answer group, so that it is
      nobody's negative that the pair is not.

    The part is as long as it must be for every question–answer pair of a named task to be in it; other tasks are
    repeated or drawn from, in an order that depends on the seed.

    Args:
        train: the training part.
        shares: all 0: every pair once, no autoencoder.
        seed: of the draws.

    Raises:
        UserError: a task has a share and no pairs.
    """
    wanted = {name: share for name, share in shares if share > 0}
    if not wanted:
        return train
    pairs = {
        "qa": [i for i, pair in enumerate(train.pairs) if not pair.dialogue],
        "dialogue": [i for i, pair in enumerate(train.pairs) if pair.dialogue],
    }
    empty = [name for name in wanted if name in pairs and not pairs[name]]
    if empty:
        found = ", ".join(f"{name} {len(rows)}" for name, rows in pairs.items())
        raise UserError(f"data.tasks.{empty[0]} is {wanted[empty[0]]}, but training has no such pairs: {found}")
    questions, answers = _distinct_texts(train)
    sizes = {**{name: len(rows) for name, rows in pairs.items()}, "autoencoder": len(questions) + len(answers)}
    leading = [name for name in wanted if name in pairs] or ["autoencoder"]
    length = max(math.ceil(sizes[name] / wanted[name]) for name in leading)

    draw = torch.Generator().manual_seed(seed)
    sources: list[Tensor] = []
    targets: list[Tensor] = []
    rows: list[int] = []
    read: list[str] = []
    texts = [(train.text[i], train.question[i], i) for i in questions]
    texts += [(train.pairs[i].answer, train.answer[i], i) for i in answers]
    for name, share in wanted.items():
        for k in _drawn(sizes[name], round(share * length), draw):
            if name == "autoencoder":
                text, target, i = texts[k]
                source = target
            else:
                i = pairs[name][k]
                text, source, target = train.text[i], train.question[i], train.answer[i]
            read.append(text)
            sources.append(source)
            targets.append(target)
            rows.append(i)
    return replace(
        train,
        pairs=[train.pairs[i] for i in rows],
        text=read,
        question=torch.stack(sources),
        answer=torch.stack(targets),
        group=train.group[rows],
    )


def _distinct_texts(train: Part) -> tuple[list[int], list[int]]:
    """Rows of the first pair with each question, and of the first with each answer."""
    first_question: dict[str, int] = {}
    first_answer: dict[str, int] = {}
    for i, pair in enumerate(train.pairs):
        first_question.setdefault(normalized(pair.prompt), i)
        first_answer.setdefault(normalized(pair.answer), i)
    return list(first_question.values()), list(first_answer.values())


def _drawn(size: int, count: int, draw: torch.Generator) -> list[int]:
    """``count`` of ``size`` numbers; none comes again before all have come as often."""
    times = math.ceil(count / size)
    return torch.cat([torch.randperm(size, generator=draw) for _ in range(times)])[:count].tolist() if count else []
