"""From pairs as they come to pairs that are worth training on, with a record of what was dropped and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic import Field, model_validator
from torch import Tensor

from cube3d.config import Section, TeacherSettings
from cube3d.dataset.duplicates import Resembling, Shingled, resemblance_classes
from cube3d.dataset.quality import QualitySettings, Verdict, judge_agreement, judge_coherence, judge_text
from cube3d.errors import UserError
from cube3d.pairs.pair import Pair, connected, normalized
from cube3d.pairs.readers import CONTEXT_TURNS
from cube3d.teachers import item_agreement

Embed = Callable[[Sequence[str]], Tensor]
"""Texts to unit vectors ``[len(texts), dim]``."""


class BuildSettings(Section):
    """What ``cube3d data build`` keeps."""

    context: int = Field(CONTEXT_TURNS, ge=0)
    """Turns of a conversation before a question that are kept with it."""
    teachers: list[TeacherSettings] = Field([TeacherSettings()])
    """Who judges; the first one judges coherence. An empty list leaves texts to speak for themselves."""
    quality: QualitySettings = QualitySettings()
    balance: bool = False
    """Keep as many pairs of each domain, those with the best scores."""
    count: int | None = Field(None, ge=1)
    """Keep exactly so many pairs, those with the best scores; None keeps all that pass."""

    @model_validator(mode="after")
    def _judged(self) -> BuildSettings:
        if self.quality.agreement is not None and len(self.teachers) < 2:
            raise ValueError(f"quality.agreement needs two teachers; there are {len(self.teachers)}")
        return self


@dataclass(frozen=True)
class Dropped:
    """A pair that was not kept, why, and what was found."""

    pair: Pair
    reason: str
    detail: str


@dataclass(frozen=True)
class Built:
    """The pairs that were kept, with scores, and those that were not, both in the order they were read."""

    kept: list[Pair]
    dropped: list[Dropped]

    def reasons(self) -> Counter[str]:
        return Counter(dropped.reason for dropped in self.dropped)


def build(pairs: Sequence[Pair], settings: BuildSettings, judges: Sequence[Embed]) -> Built:
    """Drops what is too short, damaged, said twice, unrelated or disputed; groups answers that say nearly the
    same; then keeps the best of each domain where that is asked for.

    Args:
        pairs: as they were read.
        settings: what to keep.
        judges: the teachers' embeddings, in the order of ``settings.teachers``.

    Raises:
        UserError: nothing is left, or fewer than were asked for.
    """
    sieve = _Sieve(pairs)
    for i in sieve.left():
        sieve.judge(i, judge_text(pairs[i], settings.quality))
    _drop_duplicates(sieve, settings.quality.near_duplicate)
    _join_answers(sieve, settings.quality.near_duplicate)
    if judges:
        _ask_teachers(sieve, settings.quality, judges)
    if not sieve.left():
        raise UserError(f"none of {len(pairs)} pairs is left: {_listed(sieve.built().reasons())}")
    _keep_best(sieve, settings)
    return sieve.built()


class _Sieve:
    """Pairs with their scores, the reasons why some fell through, and the names of joined answer groups."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.score = [1.0] * len(pairs)
        self.reason = [""] * len(pairs)
        self.detail = [""] * len(pairs)
        self.group = [pair.group for pair in pairs]

    def left(self) -> list[int]:
        return [i for i, reason in enumerate(self.reason) if not reason]

    def judge(self, i: int, verdict: Verdict) -> None:
        """A pair is as good as the product of what its judges say; the first reason to drop it is told."""
        self.score[i] *= verdict.score
        if not self.reason[i]:
            self.reason[i], self.detail[i] = verdict.reason, verdict.detail

    def built(self) -> Built:
        kept, dropped = [], []
        for i, pair in enumerate(self.pairs):
            scored = replace(pair, score=round(self.score[i], 4))
            if self.reason[i]:
                dropped.append(Dropped(scored, self.reason[i], self.detail[i]))
            else:
                kept.append(replace(scored, group=self.group[i]))
        return Built(kept, dropped)


def _drop_duplicates(sieve: _Sieve, threshold: float) -> None:
    """Drops pairs both sides of which are said before by one that is kept."""
    left = sieve.left()
    questions = Resembling([Shingled(sieve.pairs[i].prompt) for i in left], threshold)
    answers = Resembling([Shingled(sieve.pairs[i].answer) for i in left], threshold)
    for k, i in enumerate(left):
        # Many pairs may share a question, and many an answer; few share both.
        side, other = sorted((questions, answers), key=lambda side: side.count(k))
        found = [j for j in side.matches(k) if other.resemble(k, j)]
        if found:
            first = min(found)
            equal = all(side.texts[k].text == side.texts[first].text for side in (questions, answers))
            detail = f"of {sieve.pairs[left[first]].source}"
            sieve.judge(i, Verdict(0, "a duplicate" if equal else "a near-duplicate", detail))
        else:
            questions.add(k)
            answers.add(k)


def _join_answers(sieve: _Sieve, threshold: float) -> None:
    """Puts answers that say nearly the same into one group, so that no split has them on both sides. The group has
    the name that the data set gave to one of them, or that of the place of the first."""
    left = sieve.left()
    answers = resemblance_classes([Shingled(sieve.pairs[i].answer) for i in left], threshold)
    texts: dict[int, set[str]] = defaultdict(set)
    for i, answer in zip(left, answers, strict=True):
        texts[answer].add(normalized(sieve.pairs[i].answer))
    joined = connected(
        [("answer", answer), ("group", sieve.group[i] or i)] for i, answer in zip(left, answers, strict=True)
    )
    names: dict[int, str] = {}
    for i, number in zip(left, joined, strict=True):
        if sieve.group[i]:
            names.setdefault(number, sieve.group[i])
    for i, answer, number in zip(left, answers, joined, strict=True):
        if len(texts[answer]) > 1:
            names.setdefault(number, sieve.pairs[i].source)
        sieve.group[i] = names.get(number, "")


def _ask_teachers(sieve: _Sieve, settings: QualitySettings, judges: Sequence[Embed]) -> None:
    left = sieve.left()
    sides = []
    for embed in judges:
        vectors = embed([sieve.pairs[i].prompt for i in left] + [sieve.pairs[i].answer for i in left])
        sides.append((vectors[: len(left)], vectors[len(left) :]))
    question, answer = sides[0]
    for i, cosine in zip(left, (question * answer).sum(1).tolist(), strict=True):
        sieve.judge(i, judge_coherence(cosine, settings))
    if settings.agreement is not None:
        for i, agreement in zip(left, item_agreement(sides).tolist(), strict=True):
            sieve.judge(i, judge_agreement(agreement, settings))


def _keep_best(sieve: _Sieve, settings: BuildSettings) -> None:
    """Lets go of the pairs with the lowest scores, later ones first, until the counts are as asked for."""
    by_domain: dict[str, list[int]] = defaultdict(list)
    for i in sieve.left():
        by_domain[sieve.pairs[i].domain if settings.balance else ""].append(i)
    sizes = {domain: len(rows) for domain, rows in by_domain.items()}
    if settings.count is not None:
        each, more = divmod(settings.count, len(sizes))
        wanted = {domain: each + (n < more) for n, domain in enumerate(sizes)}
    elif settings.balance:
        wanted = dict.fromkeys(sizes, min(sizes.values()))
    else:
        wanted = sizes
    if any(sizes[domain] < wanted[domain] for domain in sizes):
        short = {domain or "all": f"{sizes[domain]} of {wanted[domain]}" for domain in sizes}
        raise UserError(
            f"{settings.count} pairs were asked for, and {sum(sizes.values())} are left of {len(sieve.pairs)} "
            f"({', '.join(f'{domain}: {found}' for domain, found in short.items())}); "
            f"dropped: {_listed(sieve.built().reasons())}"
        )
    enough = "better ones were enough for its domain" if settings.balance else "better ones were enough"
    for domain, rows in by_domain.items():
        best = sorted(rows, key=lambda i: -sieve.score[i])  # stable: the first read of equals
        for i in best[wanted[domain] :]:
            sieve.judge(i, Verdict(1, enough))


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none"
