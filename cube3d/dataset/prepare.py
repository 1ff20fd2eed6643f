"""What a run works on: its pairs, read, grouped, split, and the training part rephrased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cube3d.config import Settings
from cube3d.dataset.rephrase import by_model, by_templates
from cube3d.pairs.pair import Pair, Split, answer_groups, split_by_group
from cube3d.pairs.readers import read_pairs


@dataclass(frozen=True)
class Prepared:
    """Pairs, the answer group of each, and the part it is in."""

    pairs: list[Pair]
    groups: list[int]
    split: Split


def prepare(settings: Settings, pairs: Sequence[Pair] | None = None) -> Prepared:
    """The pairs of a run, read from ``settings.data.pairs`` unless they are given. What is made of them comes after the
    split, and is added to training alone.

    Raises:
        UserError: the pairs cannot be read or split, or fewer can be made than were asked for.
    """
    data = settings.data
    pairs = read_pairs(data.pairs, data.context) if pairs is None else list(pairs)
    groups = answer_groups(pairs)
    split = split_by_group(groups, pairs, data.validation, data.test, settings.seed, data.test_seed)
    made = []
    if data.rephrase.templates:
        made += by_templates(pairs, split.train, data.rephrase.templates, settings.seed)
    if data.rephrase.model:
        from cube3d.dataset.generator import Rewriter
        from cube3d.teachers import embed, open_teacher

        judges = [partial(embed, open_teacher(teacher)) for teacher in settings.teachers]
        known = [*pairs, *(pair for _, pair in made)]
        reword = Rewriter(data.rephrase.generator)
        made += by_model(known, groups, split.train, settings.seed, data.rephrase, reword, judges)
    new = range(len(pairs), len(pairs) + len(made))
    return Prepared(
        [*pairs, *(pair for _, pair in made)],
        [*groups, *(groups[i] for i, _ in made)],
        Split([*split.train, *new], split.validation, split.test),
    )
