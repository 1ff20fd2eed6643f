"""More questions for the training part: each asks what one of its questions asks, in other words.

They are made after the split and for training alone, and stay in the answer group of their source.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from cube3d.config import RephraseSettings
from cube3d.dataset.build import Embed
from cube3d.errors import UserError
from cube3d.pairs.pair import Pair, normalized

# Forms that keep the grammar whatever stands in the gap, so only such as need no other inflection.
TEMPLATES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), forms)
    for pattern, forms in (
        (
            r"How (?:do|can|could|should) (?:I|you|we) (.+)\?",
            ("I want to {}; how is that done?", "What is a way to {}?"),
        ),
        (r"How does (.+) differ from (.+)\?", ("What is the difference between {} and {}?",)),
        (r"What is the difference between (.+)\?", ("How do {} differ?", "Please compare {}.")),
        (r"What (?:is|are) (an? .+)\?", ("What is meant by {}?",)),
        (r"What does ['\"](.+?)['\"] mean(.*)\?", ("What is meant by '{}'{}?", "Please define '{}'{}.")),
        (r"What does (\S+) do\?", ("What is the purpose of {}?", "What is {} for?")),
        (r"What happens (when|if) (.+)\?", ("What is the result {} {}?",)),
        (r"Why (.+)\?", ("For what reason {}?",)),
        (r"When should I (.+)\?", ("In which cases should I {}?", "In what situations is it right to {}?")),
        (r"Can (?:I|you|we) (.+)\?", ("Is it possible to {}?",)),
        (r"(.+)", ("Could you explain this to me? {}", "Here is something I have been wondering: {}")),
    )
)


SHORTEST = 0.6
"""Least length of a model's question, as a share of its source's: one that has lost its second half is still near it
in a teacher's space."""


def by_templates(pairs: Sequence[Pair], train: Sequence[int], count: int, seed: int) -> list[tuple[int, Pair]]:
    """``count`` new questions by :data:`TEMPLATES`: one of each training question, then a second of each, and so on.

    Args:
        pairs: all of them; no question of theirs is made again.
        train: rows of the training part.
        count: how many to make.
        seed: of the order of the questions.

    Returns:
        The row each was made from, and the new pair.

    Raises:
        UserError: the templates do not make as many; the message says how many they make.
    """
    order = list(train)
    random.Random(seed).shuffle(order)
    forms = {i: list(_forms(pairs[i].question)) for i in order}
    taken = {normalized(pair.prompt) for pair in pairs}
    made: list[tuple[int, Pair]] = []
    for k in range(max(map(len, forms.values()), default=0)):
        for i in order:
            if k < len(forms[i]) and len(made) < count:
                _take(made, taken, i, _new(pairs[i], forms[i][k], "a template"))
    if len(made) < count:
        raise UserError(
            f"data.rephrase.templates is {count}; the templates make {len(made)} of {len(order)} training questions"
        )
    return made


def by_model(
    pairs: Sequence[Pair],
    groups: Sequence[int],
    train: Sequence[int],
    seed: int,
    settings: RephraseSettings,
    reword: Callable[[str], str],
    judges: Sequence[Embed],
) -> list[tuple[int, Pair]]:
    """``settings.model`` new questions that a language model words, and that every teacher takes for the same: the
    nearest training question is one of its answer group, its source is at least so similar, and it is not much
    shorter.

    Args:
        pairs, train, seed: as for :func:`by_templates`.
        groups: answer group of each training pair, by its row.
        settings: how many, and the least cosine of a new question and its source.
        reword: a question in other words; "" where it knows none.
        judges: the teachers' embeddings; the first one's cosine is held against ``settings.similarity``.

    Returns:
        The row each was made from, and the new pair, whose score is that cosine.

    Raises:
        UserError: too few are accepted when every training question was tried; the message says how many.
    """
    order = list(train)
    random.Random(seed).shuffle(order)
    known = [embed([pairs[i].question for i in order]) for embed in judges]
    own = torch.tensor([groups[i] for i in order])
    taken = {normalized(pair.prompt) for pair in pairs}
    made: list[tuple[int, Pair]] = []
    for k, i in enumerate(order):
        if len(made) == settings.model:
            break
        text = reword(pairs[i].question)
        if len(text) < SHORTEST * len(pairs[i].question):
            continue
        cosines = [questions @ embed([text])[0] for embed, questions in zip(judges, known, strict=True)]
        alike = all(own[cosine.argmax()] == groups[i] for cosine in cosines)
        if alike and cosines[0][k] >= settings.similarity:
            pair = replace(_new(pairs[i], text, "a language model"), score=round(cosines[0][k].item(), 4))
            _take(made, taken, i, pair)
    if len(made) < settings.model:
        raise UserError(
            f"data.rephrase.model is {settings.model}; the teachers accept the new words of {len(made)} of "
            f"{len(order)} training questions (least cosine {settings.similarity})"
        )
    return made


def _forms(question: str) -> Iterator[str]:
    for pattern, forms in TEMPLATES:
        if match := pattern.fullmatch(question):
            yield from (form.format(*match.groups()) for form in forms)


def _new(pair: Pair, question: str, maker: str) -> Pair:
    return replace(pair, question=question, origin=f"{maker}, from {pair.source}")


def _take(made: list[tuple[int, Pair]], taken: set[str], i: int, pair: Pair) -> None:
    """Unless it is there already."""
    text = normalized(pair.prompt)
    if text not in taken:
        taken.add(text)
        made.append((i, pair))
