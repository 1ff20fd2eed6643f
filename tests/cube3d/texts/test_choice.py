"""How many texts of which source, and which."""

import random

import pytest

from cube3d.texts import chosen

SOURCES = [[f"{name} {i}" for i in range(size)] for name, size in (("a", 5), ("b", 40), ("c", 100))]


def parts(texts):
    return {name: sum(text.startswith(name) for text in texts) for name in "abc"}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (30, {"a": 5, "b": 12, "c": 13}),
        (9, {"a": 3, "b": 3, "c": 3}),
        (100, {"a": 5, "b": 40, "c": 55}),
        (145, {"a": 5, "b": 40, "c": 100}),
        (1000, {"a": 5, "b": 40, "c": 100}),
        (None, {"a": 5, "b": 40, "c": 100}),
        (1, {"a": 0, "b": 0, "c": 1}),
        (0, {"a": 0, "b": 0, "c": 0}),
    ],
)
def test_each_source_gives_as_much_as_the_others_as_far_as_it_can(count, expected):
    texts = chosen(SOURCES, count)
    assert parts(texts) == expected
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (9, {"a": 5, "b": 2, "c": 2}),
        (3, {"a": 3, "b": 0, "c": 0}),
        (0, {"a": 0, "b": 0, "c": 0}),
        (None, {"a": 5, "b": 40, "c": 100}),
    ],
)
def test_the_first_source_may_come_whole(count, expected):
    assert parts(chosen(SOURCES, count, first=True)) == expected


def test_a_text_of_several_sources_counts_once_for_the_first():
    texts = chosen([["x", "y", "x"], ["y", "z"]], None)
    assert sorted(texts) == ["x", "y", "z"]
    assert set(chosen([["x", "y"], ["y", "z"]], 2)) in ({"x", "z"}, {"y", "z"})


def test_the_choice_depends_on_the_texts_alone():
    shuffled = [random.Random(0).sample(texts, len(texts)) for texts in SOURCES]
    assert chosen(shuffled, 30) == chosen(SOURCES, 30)


def test_the_choice_is_no_run_of_neighbors():
    numbers = sorted(int(text.split()[1]) for text in chosen([SOURCES[2]], 50))
    assert 30 < sum(number < 75 for number in numbers) < 46


def test_a_larger_choice_holds_a_smaller_one():
    assert set(chosen(SOURCES, 20)) <= set(chosen(SOURCES, 40))


@pytest.mark.parametrize("sources", [[], [[]], [[], []]])
@pytest.mark.parametrize("count", [None, 5])
def test_without_texts_nothing_is_chosen(sources, count):
    assert chosen(sources, count) == []
