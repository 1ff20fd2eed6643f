"""The bundled pairs as a contract: what a run may count on."""

from collections import Counter, defaultdict

import pytest

from cube3d.pairs import BUNDLED, answer_groups, normalized, read_pairs


@pytest.fixture(scope="module")
def pairs():
    return read_pairs([BUNDLED])


def test_there_are_enough_pairs_and_answers(pairs):
    assert len(pairs) >= 600
    assert len({normalized(pair.answer) for pair in pairs}) >= 400


def test_five_domains_are_balanced(pairs):
    groups = defaultdict(set)
    for pair in pairs:
        groups[pair.domain].add(pair.group)
    assert len(groups) == 5
    assert len({len(names) for names in groups.values()}) == 1
    assert len(set(Counter(pair.domain for pair in pairs).values())) == 1


def test_half_of_the_answers_are_asked_for_in_two_ways(pairs):
    questions = Counter(pair.group for pair in pairs)
    assert sum(count > 1 for count in questions.values()) >= len(questions) / 2


def test_every_pair_has_its_labels(pairs):
    lacking = [
        pair.source
        for pair in pairs
        if not (pair.domain and pair.group and pair.difficulty in ("easy", "medium", "hard"))
    ]
    assert lacking == []


@pytest.mark.parametrize("label", ["answer", "domain", "difficulty"])
def test_one_group_has_one_answer_domain_and_difficulty(pairs, label):
    values = defaultdict(set)
    for pair in pairs:
        values[pair.group].add(getattr(pair, label))
    assert {group: found for group, found in values.items() if len(found) > 1} == {}


def test_one_answer_has_one_group(pairs):
    """The data set's groups are the answer groups: nothing joins two of them."""
    groups = defaultdict(set)
    for pair, group in zip(pairs, answer_groups(pairs), strict=True):
        groups[group].add(pair.group)
    assert [found for found in groups.values() if len(found) > 1] == []


def test_no_question_is_there_twice(pairs):
    counts = Counter(normalized(pair.question) for pair in pairs)
    assert [question for question, count in counts.items() if count > 1] == []


def test_every_answer_ends_a_sentence(pairs):
    assert [pair.source for pair in pairs if not pair.answer.endswith((".", "!", "?"))] == []


def test_every_answer_is_of_at_most_three_sentences(pairs):
    assert {pair.source: len(pair.answer.split()) for pair in pairs if len(pair.answer.split()) > 70} == {}
