"""Which questions give their answer's subject away."""

import pytest

from cube3d.evaluation.subsets import is_headword_question


@pytest.mark.parametrize(
    "question",
    [
        "What is overfitting?",
        "what is a hash table",
        "What's a negative index?",
        "What’s a class ?",
        "WHAT ARE\n generators?",
        "What was the Lisp machine?!",
        "What is a generator expression in Python?",
        "What is the difference between a stack and a queue?",
        "What does 'resolve' mean in Git?",
        "What does torch.split do?",
        "What does asyncio.wait do in Python?",
        "What do endog and exog mean?",
        "What does PCA stand for?",
        "Define recursion.",
        "Explain the bias-variance trade-off…",
    ],
)
def test_questions_that_ask_only_what_something_is(question):
    assert is_headword_question(question)


@pytest.mark.parametrize(
    "question",
    [
        "How do I cite Django?",
        "Why does Python sometimes take so long to start?",
        "Is a *.pyd file the same as a DLL?",
        "What operating systems does it run on?",
        "What datatypes does SQLite support?",
        "What if my question is not answered here?",
        "What does it take to write a compiler?",
        "My loss is NaN. What is wrong?",
        "What is this error? Why am I getting it?",
        "Whatever is a monad?",
        "What is?",
        "",
        "define",
    ],
)
def test_other_questions(question):
    assert not is_headword_question(question)
