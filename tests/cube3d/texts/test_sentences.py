"""Prose out of documents: what is one sentence, what is left out, and that no input takes for ever."""

import time

import pytest

from cube3d.texts.sentences import LONGEST, SHORTEST, is_prose, prose, sentences


def found(document):
    return list(sentences(document))


def test_paragraphs_become_sentences_on_one_line():
    document = "The river is\nlong. Is it deep?  Nobody\r\nknows!\r\n\r\nAnother paragraph begins"
    assert found(document) == ["The river is long.", "Nobody knows!", "Another paragraph begins"]
    assert found(document.replace("\r\n", "\n")) == found(document)


@pytest.mark.parametrize(
    "sentence",
    [
        "Some letters, e.g. Those of J. R. Tolkien, are lost.",
        "It has two senses, i.e. Two of them.",
        "The price rose to 3.50 crowns in May.",
        "The rule of St. Francis is known to Dr. Faust and Mrs. Marthe.",
    ],
)
def test_an_abbreviation_ends_no_sentence(sentence):
    assert found(sentence) == [sentence]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Réne est ici. Évidemment elle dort.", ["Réne est ici.", "Évidemment elle dort."]),
        ("Он живёт здесь. Это хорошо видно.", ["Он живёт здесь.", "Это хорошо видно."]),
        ("¿Qué hora es ahora? ¡Ya es muy tarde!", ["¿Qué hora es ahora?", "¡Ya es muy tarde!"]),
        ("今天的天气非常好，我们去公园。明天可能会下雨，请带上雨伞。", 2),
        ("नदी बहुत लंबी है। पानी बहुत ठंडा है।", 2),
        ("แม่น้ำสายนี้ยาวมากจริงๆ", 1),
    ],
)
def test_other_languages_are_prose_too(text, parts):
    if isinstance(parts, int):
        assert "".join(found(text)).replace(" ", "") == text.replace(" ", "")
        assert len(found(text)) == parts
    else:
        assert found(text) == parts


def test_marks_of_markdown_go_and_what_they_set_apart_stays_apart():
    document = """# The first title
Some *very plain* text with `code`, a [link to it](https://a.b/c) and
an ![image of it](x.png) in it.

- The first item of the list
- The second item of
  the list

1. A numbered item of a list

```python
import something as other
```
<p align="center">Text within a tag</p>
"""
    assert found(document) == [
        "The first title",
        "Some very plain text with code, a link to it and an image of it in it.",
        "The first item of the list",
        "The second item of the list",
        "A numbered item of a list",
        "Text within a tag",
    ]


def test_marks_of_restructuredtext_go():
    document = """The title of it
===============
Cuts a :class:`~things.Wood` and a :ref:`piece of it <piece>` with **great** force.

.. note:: Mind your own fingers.

>>> cut the wood in two
the wood is in two now

Both size_of_it and a*b*c keep their marks here.
"""
    assert found(document) == [
        "The title of it",
        "Cuts a things.Wood and a piece of it with great force.",
        "Mind your own fingers.",
        "Both size_of_it and a*b*c keep their marks here.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Too short",
        "torch.nn.functional.linear",
        "x = [f(i) for i in (1, 2, 3)] + {4: 5}",
        "| a | b | c | d | e | f |",
        "word " * 100,
        "- the item of a list",
        "",
    ],
)
def test_what_is_no_prose(text):
    assert not is_prose(text)


def test_prose_has_four_letters_of_five():
    assert is_prose("abc efgh" + "1" * 2 + "ab")
    assert not is_prose("abc efgh" + "1" * 3 + "ab")


def test_length_of_prose():
    assert is_prose("a " + "b" * (SHORTEST - 2))
    assert not is_prose("a " + "b" * (SHORTEST - 3))
    assert is_prose("a " + "b" * (LONGEST - 2))
    assert not is_prose("a " + "b" * (LONGEST - 1))


def test_a_long_sentence_is_cut_at_clauses_and_a_long_clause_at_words_and_nothing_is_lost():
    clauses = "; ".join(f"the {i}th clause of it".replace("1th", "first") for i in range(60))
    words = " ".join(["word"] * 500)
    for text in (clauses, words, f"{clauses}; {words}"):
        parts = list(prose(text))
        assert " ".join(parts) == text
        assert all(len(part) <= LONGEST for part in parts)
        assert len(parts) <= 2 + 2 * len(text) / LONGEST
    assert all(part.endswith(";") for part in list(prose(clauses))[:-1])


def test_marks_of_a_paragraph_stay_where_it_has_none_of_a_document():
    assert list(prose("a 'quoted' *word* of it")) == ["a 'quoted' *word* of it"]


def test_half_of_a_surrogate_pair_does_not_get_through():
    assert [text.encode() for text in sentences("A text with \ud800 within it")] == [b"A text with ? within it"]


@pytest.mark.parametrize(
    "hostile",
    ["[", "<a", "\n", ":a", ":a:`", "```\n~~~\n", " ", "a", ">>> x\n", "=", "*", "_a", "\r", "#", "a, ", ". ", "\0"],
)
def test_no_input_takes_for_ever(hostile):
    """60 kilobytes of it; a pattern that looks on to the end for each of them takes more than ten seconds."""
    start = time.process_time()
    assert not [text for text in sentences("\n" + hostile * (60_000 // len(hostile)) + "x") if len(text) > LONGEST]
    assert time.process_time() - start < 3
