"""Questions made for training: how many, from which, in which group, and who lets them pass."""

import pytest
import torch
import torch.nn.functional as F

from cube3d.audit import check_split
from cube3d.config import RephraseSettings, load_settings
from cube3d.dataset.prepare import prepare
from cube3d.dataset.rephrase import by_model, by_templates
from cube3d.errors import UserError
from cube3d.pairs import Pair, answer_groups, normalized

QUESTIONS = [
    "How do I merge two lists?",
    "Why is the sky blue?",
    "What is the difference between a list and a tuple?",
    "What does json.dumps do?",
    "Can I sort a tuple?",
    "Tell me of cubes.",
]
PAIRS = [Pair(question, f"Answer {i}.", f"f:{i}", domain="d", group=f"g{i}") for i, question in enumerate(QUESTIONS)]
GROUPS = answer_groups(PAIRS)


# Templates


def test_templates_keep_the_meaning_and_the_grammar():
    made = by_templates(PAIRS, range(5), 5, 0)
    assert {i: pair.question for i, pair in made} == {
        0: "I want to merge two lists; how is that done?",
        1: "For what reason is the sky blue?",
        2: "How do a list and a tuple differ?",
        3: "What is the purpose of json.dumps?",
        4: "Is it possible to sort a tuple?",
    }


def test_a_new_question_has_its_sources_answer_labels_and_provenance():
    [(i, pair)] = by_templates(PAIRS, [3], 1, 0)
    assert i == 3
    assert (pair.answer, pair.group, pair.domain, pair.source) == ("Answer 3.", "g3", "d", "f:3")
    assert pair.origin == "a template, from f:3"


@pytest.mark.parametrize("count", [1, 5, 9, 15])
def test_as_many_as_asked_for_all_different_and_spread(count):
    made = by_templates(PAIRS, range(6), count, 0)
    assert len(made) == count
    texts = {normalized(pair.question) for _, pair in made} | {normalized(q) for q in QUESTIONS}
    assert len(texts) == count + len(QUESTIONS)
    per_source = [sum(i == row for i, _ in made) for row in range(6)]
    assert max(per_source) - min(per_source) <= 1 or count > 12


def test_a_question_that_is_there_already_is_not_made_again():
    """In whatever part it is: it would join the parts."""
    other = Pair("For what reason is the sky BLUE?", "Another answer.", "f:9")
    made = by_templates([*PAIRS, other], [1], 2, 0)
    assert all(normalized(pair.question) != normalized(other.question) for _, pair in made)


def test_too_few_are_told():
    with pytest.raises(
        UserError, match=r"data.rephrase.templates is 100; the templates make 4 of 1 training questions"
    ):
        by_templates(PAIRS, [0], 100, 0)


# A language model


VECTORS = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)


def judge(of_new):
    """A teacher that knows the questions, and takes a new one for what ``of_new`` says."""

    def embed(texts):
        rows = [VECTORS[QUESTIONS.index(t)] if t in QUESTIONS else of_new(QUESTIONS.index(t[5:])) for t in texts]
        return F.normalize(torch.stack(rows), dim=-1)

    return embed


def same(i):
    return VECTORS[i] + 0.1 * VECTORS[(i + 1) % 6]


def another_from_three_on(i):
    return VECTORS[i] if i < 3 else VECTORS[(i + 1) % 6]


def reword(question):
    return f"Say: {question}"


def make(count, judges, reword=reword, similarity=0.8):
    settings = RephraseSettings(model=count, similarity=similarity)
    return by_model(PAIRS, GROUPS, range(6), 0, settings, reword, judges)


def test_what_all_teachers_take_for_the_same_question_is_kept():
    made = make(6, [judge(same), judge(same)])
    assert {i: pair.question for i, pair in made} == {i: f"Say: {q}" for i, q in enumerate(QUESTIONS)}
    assert all(pair.group == f"g{i}" and pair.origin == f"a language model, from f:{i}" for i, pair in made)
    assert all(0.9 < pair.score <= 1 for _, pair in made)


@pytest.mark.parametrize("order", [1, -1])
def test_what_one_teacher_takes_for_another_question_is_not(order):
    judges = [judge(same), judge(another_from_three_on)][::order]
    assert {i for i, _ in make(3, judges)} == {0, 1, 2}
    with pytest.raises(UserError, match="data.rephrase.model is 4; the teachers accept the new words of 3 of 6"):
        make(4, judges)


def test_what_is_not_similar_enough_is_not_kept():
    with pytest.raises(UserError, match=r"accept the new words of 0 of 6 training questions \(least cosine 0.999\)"):
        make(1, [judge(same)], similarity=0.999)


@pytest.mark.parametrize(
    "useless",
    [lambda question: "", lambda question: question, lambda question: f"Say: {question}"[:10]],
    ids=["nothing", "the same", "a part"],
)
def test_what_is_no_new_question_is_not_kept(useless):
    with pytest.raises(UserError, match="accept the new words of 0 of 6"):
        make(1, [judge(same)], reword=useless)


# In a run


def test_they_are_made_after_the_split_for_training_alone():
    plain = prepare(load_settings(None, []))
    more = prepare(load_settings(None, ["data.rephrase.templates=200"]))
    assert (more.split.validation, more.split.test) == (plain.split.validation, plain.split.test)
    assert more.pairs[: len(plain.pairs)] == plain.pairs
    new = list(range(len(plain.pairs), len(plain.pairs) + 200))
    assert more.split.train == [*plain.split.train, *new]
    groups_of_training = {plain.groups[i] for i in plain.split.train}
    assert {more.groups[i] for i in new} <= groups_of_training
    assert answer_groups(more.pairs) == more.groups
    assert check_split(more.pairs, more.groups, more.split).passed


def tiny_writer(tiny_teacher, folder):
    """A random LLaMA with the tiny teacher's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_model_writes_and_what_it_writes_is_judged(tiny_teacher, tmp_path):
    """A random model writes nothing that anybody takes for a question; the counts are told."""
    from cube3d.dataset.generator import Rewriter

    folder = tiny_writer(tiny_teacher, tmp_path / "writer")
    rewriter = Rewriter(str(folder))
    assert rewriter("why?") == rewriter("why?")
    made = [f"data.rephrase={{model: 1, generator: {folder}}}", f"teachers=[{{model: {tiny_teacher}, max_length: 64}}]"]
    pairs = tmp_path / "few.txt"
    pairs.write_text("".join(f"Q: what is {c}?\nA: it is {c}{c}.\n" for c in "abcdefghijkl"))
    with pytest.raises(UserError, match="data.rephrase.model is 1; the teachers accept the new words of 0 of 7"):
        prepare(load_settings(None, [f"data.pairs=[{pairs}]", *made]))


def test_a_line_that_is_a_question_is_what_the_model_wrote(tiny_teacher, tmp_path, monkeypatch):
    from cube3d.dataset.generator import Rewriter

    rewriter = Rewriter(str(tiny_writer(tiny_teacher, tmp_path / "writer")))
    monkeypatch.setattr(rewriter.tokenizer, "decode", lambda *_, **__: " what is it?\n\nQuestion: and?")
    assert rewriter("why?") == "what is it?"
    monkeypatch.setattr(rewriter.tokenizer, "decode", lambda *_, **__: "It is blue.")
    assert rewriter("why?") == ""


def test_a_model_that_writes_no_text_is_named(tiny_teacher):
    from cube3d.dataset.generator import Rewriter

    with pytest.raises(UserError, match=str(tiny_teacher)):
        Rewriter(str(tiny_teacher))
