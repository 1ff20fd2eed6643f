"""Answer groups, and a split that keeps each in one part."""

import random

import pytest

from cube3d.errors import UserError
from cube3d.pairs import Pair, answer_groups, normalized, split_by_group

PARTS = ("train", "validation", "test")


def pair(question, answer, group=""):
    return Pair(question, answer, "somewhere:1", group=group)


@pytest.fixture
def pairs():
    """300 pairs of 120 groups: one to four questions each, a third joined by name across two answers."""
    made = []
    for g in range(120):
        for q in range(1 + g % 4):
            answer = f"answer {g} in other words" if g % 3 == 0 and q % 2 else f"answer {g}"
            made.append(pair(f"question {g} {q}?", answer, f"group {g}"))
    return made


def split(pairs, seed=3, validation=0.2, test=0.3):
    return split_by_group(answer_groups(pairs), pairs, validation, test, seed)


def part_of_question(pairs, seed=3):
    parts = vars(split(pairs, seed))
    return {pairs[i].question: part for part in PARTS for i in parts[part]}


# Answer groups


@pytest.mark.parametrize(
    "other",
    [
        "a LATTICE of cells",
        "a  lattice\n of\tcells ",
        "ａ ｌａｔｔｉｃｅ of cells",
        "a\u00a0lattice of\u3000cells",
    ],
    ids=["case", "white space", "width", "wide spaces"],
)
def test_answers_that_differ_in_form_only_are_one_group(other):
    groups = answer_groups([pair("q1", "A lattice of cells"), pair("q2", "something else"), pair("q3", other)])
    assert groups == [0, 1, 0]


def test_case_folding_goes_beyond_lower_case():
    assert normalized("STRASSE") == normalized("Straße")
    assert normalized("STRASSE") != normalized("Strase")


def test_a_shared_group_name_joins():
    assert answer_groups([pair("q1", "a", "g"), pair("q2", "b", "h"), pair("q3", "c", "g")]) == [0, 1, 0]


def test_pairs_without_a_group_name_are_not_joined_by_it():
    assert answer_groups([pair("q1", "a"), pair("q2", "b"), pair("q3", "c")]) == [0, 1, 2]


def test_a_shared_question_joins():
    assert answer_groups([pair("Why?", "a"), pair("How?", "b"), pair(" WHY? ", "c")]) == [0, 1, 0]


def test_an_answer_a_question_and_a_group_name_of_the_same_text_do_not_join():
    assert answer_groups([pair("x", "a"), pair("q", "x"), pair("r", "b", "x")]) == [0, 1, 2]


def test_groups_join_through_others():
    chain = [
        pair("q1", "a"),
        pair("q2", "b", "g"),
        pair("q3", "unrelated"),
        pair("q4", "c", "g"),
        pair("q1", "C"),  # the question joins the first, the answer the fourth
    ]
    assert answer_groups(chain) == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_connected_components(seed):
    """Against a search that walks from pair to pair."""
    draw = random.Random(seed)
    made = [
        pair(
            f"q{draw.randrange(60)}",
            f"a{draw.randrange(60)}",
            draw.choice(["", "", f"g{draw.randrange(40)}"]),
        )
        for _ in range(50)
    ]

    def joined(a, b):
        return a.question == b.question or a.answer == b.answer or (a.group and a.group == b.group)

    expected = [-1] * len(made)
    for start in range(len(made)):
        if expected[start] < 0:
            number, waiting = max(expected) + 1, [start]
            while waiting:
                i = waiting.pop()
                expected[i] = number
                waiting += [j for j in range(len(made)) if expected[j] < 0 and joined(made[i], made[j])]
    assert answer_groups(made) == expected
    assert 1 < max(expected) + 1 < len(made)


# Splits


def test_no_group_is_in_two_parts_and_every_pair_is_used_once(pairs):
    groups, parts = answer_groups(pairs), vars(split(pairs))
    assert sorted(i for part in PARTS for i in parts[part]) == list(range(len(pairs)))
    seen = [{groups[i] for i in parts[part]} for part in PARTS]
    assert sum(map(len, seen)) == len(set(groups)) == 120


def test_parts_have_the_shares_of_the_groups_that_were_asked_for(pairs):
    groups, parts = answer_groups(pairs), vars(split(pairs, validation=0.2, test=0.3))
    assert [len({groups[i] for i in parts[part]}) for part in PARTS] == [60, 24, 36]


def test_one_seed_gives_one_split_and_another_seed_another(pairs):
    assert split(pairs, seed=3) == split(pairs, seed=3)
    assert split(pairs, seed=3) != split(pairs, seed=4)


def test_a_test_seed_holds_the_test_part_while_the_seed_moves_the_rest(pairs):
    def parts(seed, test_seed):
        return split_by_group(answer_groups(pairs), pairs, 0.2, 0.3, seed, test_seed)

    three, four = parts(3, 8), parts(4, 8)
    assert three.test == four.test
    assert three.validation != four.validation
    assert not set(three.test) & {*four.train, *four.validation}
    assert parts(3, 9).test != three.test
    assert parts(3, 3) == parts(3, None)


def test_the_order_of_the_pairs_does_not_matter(pairs):
    turned = pairs.copy()
    random.Random(0).shuffle(turned)
    assert turned != pairs
    assert part_of_question(turned) == part_of_question(pairs)


@pytest.mark.parametrize("seed", range(3))
def test_new_pairs_move_few_groups(pairs, seed):
    """Each boundary may shift by a few groups; a split drawn anew would move more than half of them."""
    new = [pair(f"new question {i}?", f"new answer {i}") for i in range(12)]
    before, after = part_of_question(pairs, seed), part_of_question(new + pairs, seed)
    moved = {question.split()[1] for question, part in before.items() if after[question] != part}
    assert len(moved) <= 12


def test_new_questions_of_known_answers_move_nothing(pairs):
    new = [pair(f"another question {i}?", f"answer {i}") for i in range(120)]
    before, after = part_of_question(pairs), part_of_question(pairs + new)
    assert {question: after[question] for question in before} == before


@pytest.mark.parametrize(
    ("count", "validation", "test", "counts"),
    [
        (4, 0.25, 0.25, (2, 1, 1)),
        (10, 0.1, 0.4, (5, 1, 4)),
        (10, 0.4, 0.1, (5, 4, 1)),
        (10, 0.4, 0.5, (1, 4, 5)),
        (10, 0.6, 0.6, (-2, 6, 6)),
    ],
)
def test_too_few_groups_are_told_with_the_counts(count, validation, test, counts):
    made = [pair(f"q{i} {j}", f"a{i}") for i in range(count) for j in range(3)]
    with pytest.raises(UserError) as caught:
        split(made, validation=validation, test=test)
    message = str(caught.value)
    assert f"{3 * count} pairs" in message
    assert f"{count} answer groups" in message
    for found, part in zip(counts, ("training", "validation", "testing"), strict=True):
        assert f"{found} for {part}" in message


def test_two_groups_a_part_are_enough():
    made = [pair(f"q{i}", f"a{i}") for i in range(6)]
    parts = vars(split(made, validation=1 / 3, test=1 / 3))
    assert [len(parts[part]) for part in PARTS] == [2, 2, 2]
