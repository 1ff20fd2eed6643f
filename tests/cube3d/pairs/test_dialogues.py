"""Conversations: which turn answers which, and the context that is read with a question."""

import json

import pytest
import torch

from cube3d.audit import check_split
from cube3d.config import EnsembleSettings, TeacherSettings
from cube3d.errors import UserError
from cube3d.pairs import Pair, Split, answer_groups, read_pairs, split_by_group
from cube3d.teachers import embed, fit_ensemble, open_teacher
from cube3d.vectors import embed_parts

CHAT = {
    "domain": "small talk",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a cube?"},
        {"role": "assistant", "content": "A body."},
        {"role": "user", "content": "With faces?"},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "Six."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Count them."},
    ],
}

CHATTERBOT = """\
categories:
- AI
- yes
conversations:
- - What is AI?
  - A field.
- - Hello
  - 42
  - "Colon: quoted"
"""


def read(tmp_path, name, content, **kwargs):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_pairs([str(path)], **kwargs)


def problem(tmp_path, name, content):
    with pytest.raises(UserError) as caught:
        read(tmp_path, name, content)
    return str(caught.value)


# Who answers whom


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_the_assistant_answers_the_user(tmp_path, name):
    pairs = read(tmp_path, name, CHAT, context=99)
    assert [(pair.question, pair.answer, pair.context) for pair in pairs] == [
        ("What is a cube?", "A body.", ()),
        ("With faces?\nHow many?", "Six.", ("What is a cube?", "A body.")),
        ("Why?", "Count them.", ("What is a cube?", "A body.", "With faces?\nHow many?", "Six.")),
    ]
    assert {pair.domain for pair in pairs} == {"small talk"}
    assert len({pair.dialogue for pair in pairs}) == 1
    assert len({pair.source for pair in pairs}) == 3


def test_plain_turns_each_answer_the_one_before(tmp_path):
    pairs = read(tmp_path, "a.jsonl", {"turns": ["Hello.", "Hi, who are you?", "A cube."]}, context=99)
    assert [(p.question, p.answer, p.context) for p in pairs] == [
        ("Hello.", "Hi, who are you?", ()),
        ("Hi, who are you?", "A cube.", ("Hello.",)),
    ]


def test_what_the_assistant_says_first_is_context_only(tmp_path):
    turns = [("assistant", "Welcome."), ("user", "Why?"), ("assistant", "So.")]
    pairs = read(tmp_path, "a.jsonl", {"turns": [{"role": r, "content": c} for r, c in turns]})
    assert [(p.question, p.answer, p.context) for p in pairs] == [("Why?", "So.", ("Welcome.",))]


@pytest.mark.parametrize("name", ["a.yml", "a.yaml"])
def test_chatterbot_yaml(tmp_path, name):
    pairs = read(tmp_path, name, CHATTERBOT)
    assert [(p.question, p.answer) for p in pairs] == [
        ("What is AI?", "A field."),
        ("Hello", "42"),
        ("42", "Colon: quoted"),
    ]
    assert {pair.domain for pair in pairs} == {"AI, yes"}
    assert [pair.source for pair in pairs] == [f"{name}:5 turn 2", f"{name}:7 turn 2", f"{name}:7 turn 3"]
    assert len({pair.dialogue for pair in pairs}) == 2


# The context window


@pytest.mark.parametrize(("window", "turns"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (9, 4)])
def test_the_window_keeps_the_last_turns(tmp_path, window, turns):
    last = read(tmp_path, "a.jsonl", CHAT, context=window)[-1]
    before = ["What is a cube?", "A body.", "With faces?\nHow many?", "Six."]
    assert last.prompt == "\n".join([*before[len(before) - turns :], "Why?"])


def test_the_window_holds_for_pairs_that_carry_their_context(tmp_path):
    record = {"question": "q", "answer": "a", "context": ["one", "two", "three"]}
    assert read(tmp_path, "a.jsonl", record, context=2)[0].context == ("two", "three")


def test_the_context_reaches_the_teacher(tmp_path, tiny_teacher):
    teachers = [TeacherSettings(model=str(tiny_teacher), max_length=64)]

    def questions(window):
        pairs = read(tmp_path, "a.jsonl", CHAT, context=window)
        groups, rows = answer_groups(pairs), list(range(len(pairs)))
        texts = [pair.prompt for pair in pairs], [pair.answer for pair in pairs]
        ensemble = fit_ensemble(teachers, EnsembleSettings(), *texts, torch.tensor(groups), 0)
        return embed_parts(pairs, groups, Split(rows, rows, rows), ensemble).test.question

    without, with_two = questions(0), questions(2)
    moved = (without - with_two).abs().amax(1) > 1e-3
    assert moved.tolist() == [False, True, True]  # the first turn has nothing before it


def test_the_window_that_is_not_named_keeps_one_exchange(tmp_path):
    assert [len(pair.context) for pair in read(tmp_path, "a.jsonl", CHAT)] == [0, 2, 2]


# Splits


def test_no_conversation_is_in_two_parts(tmp_path):
    """Later turns hold the earlier answers in their context."""
    chats = [{"turns": [f"q{i}.{t}" for t in range(4)]} for i in range(30)]
    pairs = read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, chats)))
    groups = answer_groups(pairs)
    assert len(set(groups)) == 90
    split = split_by_group(groups, pairs, 0.2, 0.3, 0)
    assert [len(rows) for rows in vars(split).values()] == [45, 18, 27]
    parts = [{pairs[i].dialogue for i in rows} for rows in vars(split).values()]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 30
    assert check_split(pairs, groups, split).passed


def test_the_audit_finds_a_conversation_in_two_parts():
    pairs = [Pair(f"q{i}", f"a{i}", f"f:{i}", dialogue=f"d{i // 2}") for i in range(12)]
    groups = answer_groups(pairs)
    split = split_by_group(groups, pairs, 0.34, 0.34, 0)
    assert check_split(pairs, groups, split).passed
    split.test.append(split.train.pop())
    assert not check_split(pairs, groups, split).passed


def test_the_same_words_after_other_turns_are_another_question():
    pairs = [
        Pair("Why?", "a", "f:1", context=("one",)),
        Pair("Why?", "b", "f:2", context=("two",)),
        Pair("Why?", "c", "f:3", context=("ONE",)),
    ]
    assert answer_groups(pairs) == [0, 1, 0]


def test_too_few_conversations_are_told(tmp_path):
    pairs = read(tmp_path, "a.jsonl", {"turns": [f"t{i}" for i in range(40)]})
    with pytest.raises(UserError, match="39 pairs have 1 groups of conversations that share no answer"):
        split_by_group(answer_groups(pairs), pairs, 0.2, 0.2, 0)


# What is refused


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"turns": "Hello"}, "'turns' is 'Hello'"),
        ({"turns": ["alone"]}, "'turns' holds no reply"),
        ({"turns": []}, "'turns' holds no reply"),
        ({"messages": [{"role": "user", "content": "q"}]}, "'messages' holds no reply"),
        ({"messages": [{"role": "user", "content": "q"}, "a"]}, "'messages' item 2 is 'a'"),
        (
            {"messages": [{"role": "tool", "content": "q"}]},
            "item 1: unknown role 'tool'; valid: user, assistant, system",
        ),
        ({"messages": [{"content": "q"}]}, "item 1: unknown role None"),
        ({"messages": [{"role": "user", "content": 3}]}, "item 1: 'content' is 3"),
        ({"messages": [{"role": "user", "content": " "}]}, "item 1: 'content' is ' '"),
        ({"turns": ["q", ""]}, "the answer is empty"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:24],
)
def test_a_conversation_that_is_none_names_line_and_item(tmp_path, record, told):
    message = problem(tmp_path, "a.jsonl", '{"question": "q", "answer": "a"}\n' + json.dumps(record))
    assert "a.jsonl:2" in message
    assert told in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("categories: [a]\nconversations:\n- - q\n  - 'a\n", "a.yml:5: not YAML"),
        ("conversations:\n- - q\n\t- a\n", "a.yml:3: not YAML"),
        ("conversations:\n- - q\x07\n  - a\n", "a.yml:2: not YAML (the character '\\x07')"),
        ("[" * 600, "not YAML (nested too deeply)"),
        ("- a\n- b\n", "expected 'conversations'"),
        ("", "expected 'conversations'"),
        ("categories: [a]\nconversation: []\n", "has 'categories', 'conversation'; expected 'conversations'"),
        ("conversations: many\n", "a.yml:1: expected a list"),
        ("conversations:\n- - q\n  - a\n- q\n", "a.yml:4: expected a list, found 'q'"),
        ("conversations:\n- - q\n  - a: b\n", "a.yml:3: expected text"),
        ("conversations:\n- - q\n  -\n", "a.yml:"),
        ("conversations:\n- - alone\n", "a.yml:2: 'turns' holds no reply"),
        ("conversations: []\n", "holds no pairs"),
    ],
)
def test_yaml_that_is_damaged_or_of_another_shape_names_the_line(tmp_path, content, told):
    assert told in problem(tmp_path, "a.yml", content)


def test_conversations_with_one_id_are_refused(tmp_path):
    chats = [{"id": "x", "turns": ["q", "a"]}, {"id": "x", "turns": ["r", "b"]}]
    assert "a.json[1]: the id 'x' is that of a.json[0]" in problem(tmp_path, "a.json", chats)


@pytest.mark.parametrize(
    "text", ["a " * 100_000, "ما هي الشبكة العصبية؟", "\u202eabc\u202c \u0007"], ids=["huge", "RTL", "odd"]
)
def test_any_text_has_a_vector(tmp_path, tiny_teacher, text):
    pairs = read(tmp_path, "a.jsonl", {"question": text, "answer": "a"})
    teacher = open_teacher(TeacherSettings(model=str(tiny_teacher), max_length=64))
    assert embed(teacher, [pairs[0].prompt]).norm().item() == pytest.approx(1, abs=1e-5)
