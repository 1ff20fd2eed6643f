"""The probe of minimal pairs: a bag is right in half of the cases by construction, the teachers in all."""

from collections import Counter

import pytest
import torch

from cube3d.probe import MinimalPair, minimal_pairs, told_apart


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
        "all": 0.5,
        "word order": 0.5,
        "negation": 0.5,
        "terms of two words": 0.5,
    }


def test_the_teachers_themselves_are_always_right():
    assert set(told_apart(minimal_pairs(), ordered, ordered).values()) == {1.0}


@pytest.mark.parametrize(("reads", "share"), [((0, 1), 1.0), ((1, 0), 0.0), ((0, 0), 0.5)])
def test_each_question_of_a_pair_counts_by_itself(reads, share):
    teach = {"a b": torch.tensor([1.0, 0.0]), "b a": torch.tensor([0.0, 1.0])}
    texts = list(teach)
    read = {text: teach[texts[i]] for text, i in zip(texts, reads, strict=True)}
    found = told_apart(
        [MinimalPair("word order", "a b", "b a")],
        lambda given: torch.stack([read[text] for text in given]),
        lambda given: torch.stack([teach[text] for text in given]),
    )
    assert found == {"all": share, "word order": share}
