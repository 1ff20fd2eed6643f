"""What is held out stays out: against a search for the words one by one."""

import random
import re

from cube3d.texts import HeldOut
from cube3d.texts.heldout import RUN, WHOLE

LONG = "The quick brown fox jumps over the lazy dog and sleeps"


def test_the_same_words_in_a_row_whatever_their_marks_and_case():
    held_out = HeldOut([LONG])
    assert held_out.repeated_by("They say: the QUICK, brown fox - jumps over the 'lazy' dog!")
    assert held_out.repeated_by("fox\njumps over the lazy dog and sleeps")
    assert not held_out.repeated_by("the quick brown fox jumps over the dog and sleeps")
    assert not held_out.repeated_by(" ".join(LONG.split()[: RUN - 1]))
    assert held_out.repeated_by(" ".join(LONG.split()[:RUN]))


def test_of_a_short_text_all_the_words():
    held_out = HeldOut(["What is a dog?", "What is that?"])
    assert held_out.repeated_by("he asked, what is a dog, and left")
    assert not held_out.repeated_by("what is a dogma")
    assert not held_out.repeated_by("somewhat is a dog")
    assert not held_out.repeated_by("what is a cat")


def test_a_text_of_a_word_or_two_is_repeated_by_itself_alone():
    held_out = HeldOut(["Yes.", "Of course!"])
    assert held_out.repeated_by("YES")
    assert held_out.repeated_by("of course")
    assert not held_out.repeated_by("Yes, the river is long")
    assert not held_out.repeated_by("it is of course long")


def test_compatible_letters_are_the_same():
    assert HeldOut(["the ﬁrst Straße here"]).repeated_by("THE FIRST STRASSE HERE")


def test_with_nothing_held_out_nothing_repeats_it():
    assert not HeldOut([]).repeated_by("any text")
    assert not HeldOut([]).repeated_by("")
    assert not HeldOut(["?!"]).repeated_by("any text")


def says(text, held_out):
    """The definition, word by word."""
    words, wanted = (re.findall(r"\w+", t.casefold()) for t in (text, held_out))
    if len(wanted) < WHOLE:
        return words == wanted
    size = min(RUN, len(wanted))
    runs = [wanted[i : i + size] for i in range(len(wanted) - size + 1)]
    return any(words[i : i + size] == run for run in runs for i in range(len(words) - size + 1))


def test_as_a_plain_search_finds_them():
    """Few words, so that many texts share some."""
    draw = random.Random(0)

    def text(longest):
        return " ".join(draw.choice("ab") + draw.choice(["", "c"]) for _ in range(draw.randint(1, longest)))

    held = [text(12) for _ in range(30)]
    held_out = HeldOut(held)
    texts = [text(14) for _ in range(600)]
    expected = [any(says(t, h) for h in held) for t in texts]
    assert [held_out.repeated_by(t) for t in texts] == expected
    assert 60 < sum(expected) < 540


def test_a_common_word_costs_no_more_than_a_rare_one():
    """Every held-out text begins alike; each is looked for by the word that only it has."""
    held_out = HeldOut(f"What does the function number{i} do?" for i in range(500))
    assert all(len(runs) == 1 for runs in held_out._by_word.values())
