"""The probe of minimal pairs: a bag is right in half of the cases by construction, the teachers in all."""

from collections import Counter

import pytest
import torch

from cube3d.evaluation.probe import ToldApart, told_apart
from cube3d.pairs.minimal import MinimalPair, minimal_pairs


def bag(texts):
    """A random vector a word, added up in the order of the text."""
    rows = []
    for text in texts:
        words = text.lower().replace("?", "").replace(",", "").split()
        seeds = [sum(ord(c) * 31**i for i, c in enumerate(word)) % 2**31 for word in words]
        rows.append(sum(torch.randn(16, generator=torch.Generator().manual_seed(seed)) for seed in seeds))
    return torch.stack(rows)


def ordered(texts):
    """Words weighted by their place: what a bag cannot see."""
    rows = []
    for text in texts:
        parts = [bag([word]) * (1 + i) for i, word in enumerate(text.split())]
        rows.append(torch.cat(parts).sum(0))
    return torch.stack(rows)


def test_both_questions_of_a_pair_have_the_same_words():
    for pair in minimal_pairs():
        words = [Counter(text.lower().replace("?", "").replace(",", "").split()) for text in (pair.first, pair.second)]
        assert words[0] == words[1], pair
        assert pair.first != pair.second


def test_there_are_dozens_of_each_kind():
    kinds = Counter(pair.kind for pair in minimal_pairs())
    assert set(kinds) == {"word order", "negation", "terms of two words"}
    assert min(kinds.values()) >= 30


def test_a_bag_is_right_in_half_of_the_cases():
    assert told_apart(minimal_pairs(), bag, ordered) == {
        kind: ToldApart(0.5, 0.5) for kind in ("all", "word order", "negation", "terms of two words")
    }


def test_the_teachers_themselves_are_always_right():
    assert set(told_apart(minimal_pairs(), ordered, ordered).values()) == {ToldApart(1.0, 1.0)}


@pytest.mark.parametrize(
    ("reads", "alone", "paired"),
    [
        ([(1.0, 0.0), (0.0, 1.0)], 1.0, 1.0),
        ([(0.0, 1.0), (1.0, 0.0)], 0.0, 0.0),
        ([(1.0, 0.0), (1.0, 0.0)], 0.5, 0.5),  # as a bag reads
        ([(1.0, 0.0), (0.9, 0.1)], 0.5, 1.0),  # moves the right way, but not far enough
        ([(0.9, 0.1), (1.0, 0.0)], 0.5, 0.0),
    ],
)
def test_a_question_counts_alone_and_with_the_other_of_its_pair(reads, alone, paired):
    texts = ["a b", "b a"]
    teach = dict(zip(texts, torch.eye(2), strict=True))
    read = dict(zip(texts, torch.tensor(reads), strict=True))
    found = told_apart(
        [MinimalPair("word order", "a b", "b a")],
        lambda given: torch.stack([read[text] for text in given]),
        lambda given: torch.stack([teach[text] for text in given]),
    )
    assert found == {"all": ToldApart(alone, paired), "word order": ToldApart(alone, paired)}


def test_each_kind_is_counted_by_itself():
    teach = {"a b": (1.0, 0.0), "b a": (0.0, 1.0), "c d": (1.0, 0.0), "d c": (0.0, 1.0)}
    read = teach | {"c d": (0.0, 1.0), "d c": (1.0, 0.0)}
    found = told_apart(
        [MinimalPair("word order", "a b", "b a"), MinimalPair("negation", "c d", "d c")],
        lambda given: torch.tensor([read[text] for text in given]),
        lambda given: torch.tensor([teach[text] for text in given]),
    )
    assert found == {
        "all": ToldApart(0.5, 0.5),
        "word order": ToldApart(1.0, 1.0),
        "negation": ToldApart(0.0, 0.0),
    }
