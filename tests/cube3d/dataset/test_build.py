"""What a build keeps and drops, why, and in what numbers."""

import json
import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cube3d.cli import main
from cube3d.config import load_section, parse_section
from cube3d.dataset.build import BuildSettings, build
from cube3d.dataset.duplicates import Resembling, Shingled, compared, resemblance_classes
from cube3d.dataset.write import record, save_pairs
from cube3d.errors import UserError
from cube3d.pairs import Pair, answer_groups, normalized, read_pairs

ANSWERS = [
    "A compiler turns the text of a program into instructions of a machine.",
    "Sorting by merging halves needs time in proportion to n log n.",
    "The garbage collector frees objects that nothing refers to any more.",
    "An index lets the database find rows without reading the whole table.",
    "Regularization keeps the weights small, so that noise is not learned.",
    "A tokenizer cuts text into pieces that have a vector each.",
]


def good(i, **labels):
    return Pair(f"What should I know about subject {i}?", ANSWERS[i], f"f:{i}", **labels)


GOOD = [good(i) for i in range(len(ANSWERS))]


def settings(**values):
    return parse_section(BuildSettings, {"teachers": [], **values}, "test")


def reason(pair, **quality):
    """Why a pair is dropped beside good ones; "" if it is kept."""
    built = build([*GOOD, pair], settings(quality=quality), [])
    assert built.kept[: len(GOOD)] == [*build(GOOD, settings(quality=quality), []).kept]
    return built.dropped[0].reason if built.dropped else ""


# Texts


@pytest.mark.parametrize(
    ("question", "answer", "told"),
    [
        ("Why?", ANSWERS[0], "question shorter than 8"),
        ("Why is that so?", "Because.", "answer shorter than 15"),
        ("word " * 100_000, ANSWERS[0], "question longer than 1000"),
        ("Why is that so?", "A long story. " * 100_000, "answer longer than 4000"),
        ("What does it mean?", "what  DOES it mean?", "the answer is the question"),
        ("What is this thing?", "It rings \x07 and beeps \x1b[31m in red.", "answer holds characters that are no text"),
        (
            "What is this thing?",
            "It was cut in the midd\ufffd of a letter.",
            "answer holds characters that are no text",
        ),
        ("Why doesnâ€™t it work?", ANSWERS[0], "question was decoded wrongly"),
        ("What is this thing?", "Sie ist schÃ¶n und groÃŸ, sagt man.", "answer was decoded wrongly"),
        ("What is this thing?", "0x3f 0x11 {}[]();; == != 1234 5678 // ##", "answer is not prose"),
        ("What is this thing?", "spam and eggs and " * 12, "answer repeats itself"),
    ],
    ids=lambda text: text[:20],
)
def test_bad_text_is_dropped_with_its_reason(question, answer, told):
    assert reason(Pair(question, answer, "f:9")).startswith(told)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("ما هي الشبكة العصبية؟", "هي نموذج من طبقات من الخلايا يتعلم من الأمثلة."),
        ("מהי רשת עצבית בלמידה?", "מודל של שכבות שלומד מתוך דוגמאות רבות."),
        ("什么是神经网络,它有什么用?", "神经网络由许多层单元组成,从例子中学习如何把输入变成输出。"),
        ("Warum ist der Himmel blau – und abends rot?", "Weil blaues Licht stärker gestreut wird als rotes, schön."),
        ("Pourquoi « naïve » s’écrit-il ainsi ?", "Le tréma sépare les deux voyelles, à la différence de « laid »."),
    ],
    ids=["Arabic", "Hebrew", "Chinese", "German", "French"],
)
def test_text_of_any_script_is_kept(question, answer):
    assert reason(Pair(question, answer, "f:9")) == ""


def test_scores_lie_between_zero_and_one_and_an_unfinished_answer_has_half():
    whole, cut = good(0), Pair(GOOD[0].question, ANSWERS[0][:-1] + ":", "f:9")
    full, half = (build([pair], settings(), []).kept[0].score for pair in (whole, cut))
    assert 0 < full <= 1
    assert half == pytest.approx(full / 2, abs=0.02)


# Duplicates


def test_what_is_said_twice_is_dropped_and_names_the_first():
    again = Pair(f" {GOOD[1].question.upper()} ", ANSWERS[1].replace(".", "!"), "f:9")
    built = build([*GOOD, again], settings(), [])
    assert [(d.pair.source, d.reason, d.detail) for d in built.dropped] == [("f:9", "a duplicate", "of f:1")]


def test_what_is_said_nearly_the_same_is_dropped():
    again = Pair("What should I know about this subject 1?", ANSWERS[1], "f:9")
    assert reason(again, near_duplicate=0.7) == "a near-duplicate"
    assert reason(again, near_duplicate=1.0) == ""


@pytest.mark.parametrize(
    "pair",
    [
        Pair("How would a layman put it, in two words or three?", ANSWERS[1], "f:9"),
        Pair(GOOD[1].question, "It depends on what you want to do with it.", "f:9"),
    ],
    ids=["another question for the answer", "another answer to the question"],
)
def test_paraphrases_and_second_answers_are_kept(pair):
    built = build([*GOOD, pair], settings(), [])
    assert len(built.kept) == len(GOOD) + 1
    assert len(set(answer_groups(built.kept))) == len(GOOD)


def test_texts_that_differ_in_a_number_are_not_duplicates():
    text = "What does the class torch.nn.modules.conv.Conv{}d of the library do?"
    one, two = Shingled(text.format(1)), Shingled(text.format(2))
    assert not one.resembles(two, 0.5)
    assert one.resembles(Shingled(text.format(1).replace("the library", "that library")), 0.5)


def test_answers_that_say_nearly_the_same_become_one_group():
    """Else a split could put one in training and the other in test."""
    pairs = [
        *GOOD,
        Pair("Where do dead objects go?", ANSWERS[2].replace("frees objects", "frees all objects"), "f:9"),
        Pair("What of the dead objects' memory?", ANSWERS[2], "f:10", group="memory"),
    ]
    assert len(set(answer_groups(pairs))) == len(GOOD) + 1
    kept = build(pairs, settings(quality={"near_duplicate": 0.8}), []).kept
    assert len(kept) == len(pairs)
    assert len(set(answer_groups(kept))) == len(GOOD)
    assert {pair.group for pair in kept if "objects" in pair.answer} == {"memory"}
    assert {pair.group for pair in kept if "objects" not in pair.answer} == {""}


def test_candidates_are_found_as_a_comparison_of_all_with_all_finds_them():
    words = [word for answer in ANSWERS for word in answer.split()]
    draw = torch.Generator().manual_seed(0)
    texts = []
    for i in range(60):
        start = [words[k] for k in torch.randint(len(words), (14,), generator=draw)]
        texts.append(" ".join(start))
        if i % 2:
            texts.append(" ".join([*start[:-1], "changed"]))
    shingled = [Shingled(text) for text in texts]
    alike = {(a, b) for a in range(90) for b in range(a) if shingled[a].resembles(shingled[b], 0.7)}
    assert 20 < len(alike) < 40
    classes = resemblance_classes(shingled, 0.7)
    assert {(a, b) for a in range(90) for b in range(a) if classes[a] == classes[b]} == alike


LANGUAGES = [
    Pair(f"What is the language {name} good for?", f"{name} is good for {use}, people say.", f"f:{name}")
    for name, use in [("C", "drivers"), ("C++", "games"), ("C#", "windows")]
]


def test_what_differs_in_a_mark_that_says_something_is_kept():
    same = [
        replace(pair, answer="It depends on what you would like to do with it.", source=f"{pair.source} again")
        for pair in LANGUAGES
    ]
    operators = [
        Pair("How do I compare two values there?", f"Write `if a {mark} b`, and what follows is done.", f"f:{mark}")
        for mark in ("==", "!=", "<=", ">=")
    ]
    pairs = [*LANGUAGES, *same, *operators]
    assert build(pairs, settings(), []).dropped == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is C?", "What is C++?"),
        ("What is C#?", "What is C++?"),
        ("a == b", "a != b"),
        ("x = -5", "x = 5"),
        ("3.5 apples", "35 apples"),
        ("What is 10³?", "What is 103?"),
        ("It weighs 1½ kg", "It weighs 11⁄2 kg"),
        ("What is 5!?", "What is 5?"),
        ("What is f'(x)?", "What is f(x)?"),
        ("What does *args do?", "What does **args do?"),
        ("the type of '5'", "the type of 5"),
        ("the type of 1. in Python", "the type of 1 in Python"),
        ("split at ',' or", "split at '.' or"),
        ("What is a[0]?", "What is a(0)?"),
        ("[1, 2]", "(1, 2)"),
        ("50 %", "50"),
        ("What is a :: b", "What is a : b"),
        ("What is ??", "What is ?"),
    ],
)
def test_a_mark_that_says_something_stays(one, other):
    assert compared(one) != compared(other)
    text = (
        "in a text that is long enough for its shingles to be the same ones nearly all of them, whatever it begins with"
    )
    assert not Shingled(f"{one} {text}").resembles(Shingled(f"{other} {text}"), 0.7)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is C++?", "what is  C++"),
        ("What is C++?", "What is `C++`"),
        ("Well, it's so.", "Well it’s so!"),
        ("He said “no”; then he left.", 'He said "no", then he left'),
        ("What does 'self' mean?", "What does self mean?"),
        ("a near-duplicate", "a near–duplicate"),
        ("a near-duplicate", "a near duplicate"),
        ("It is *very* **good**.", "It is very good"),
        ("It is ``this``...", "It is `this`"),
        ("你好，世界。", "你好 世界"),
        ("¿Por qué?", "Por qué"),
        ("Ｃ＋＋", "C++"),
    ],
)
def test_punctuation_says_nothing(one, other):
    assert compared(one) == compared(other)


def templated(side):
    """Pairs of one template: each word of a small vocabulary with each other."""
    draw = random.Random(0)
    words = ["".join(draw.choice("bdfklmnprst") + draw.choice("aeiou") for _ in range(4)) for _ in range(side)]
    return [
        Pair(
            f"How do I set the {a} of the {b} in production?",
            f"Open the page of the {b}, and choose its {a} there.",
            "f",
        )
        for a in words
        for b in words
    ]


def test_templated_texts_are_not_compared_all_with_all():
    """Texts are compared that share a word that is filled in, of which there are twice as many among four times the
    texts, and hardly any others."""
    counts = []
    for side in (20, 40):
        texts = [Shingled(pair.question) for pair in templated(side)]
        resembling = Resembling(texts, 0.9)
        for i in range(len(texts)):
            list(resembling.matches(i))
            resembling.add(i)
        counts.append(resembling.comparisons)
    assert counts[1] < 10 * counts[0]
    assert counts[1] < 1600 * 1600 / 2 / 8


def test_texts_of_one_class_are_compared_with_few_of_it():
    """Long texts that differ in a word all resemble each other."""
    text = "This setting is described in the manual of the program, which says of each what it is for and why. " * 3
    texts = [Shingled(f"{text}{pair.question.split()[5]}") for pair in templated(20)[::20]]
    texts += [Shingled(f"{text}{a}{b}") for a in "abcdefgh" for b in "abcdefghijklmnop"]
    resembling = Resembling(texts, 0.9)
    for i in range(len(texts)):
        for other in resembling.matches(i):
            resembling.join(i, other)
        resembling.add(i)
    assert len({resembling.number(i) for i in range(len(texts))}) == 1
    assert resembling.comparisons < 2 * len(texts)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
def test_all_that_resemble_are_found_in_templated_texts_of_any_length(threshold):
    draw = random.Random(1)
    words = ANSWERS[0].split() + ANSWERS[1].split()
    texts = []
    for _ in range(40):
        start = [draw.choice(words) for _ in range(draw.randint(1, 30))]
        for _ in range(4):
            changed = [draw.choice(words) if draw.random() < 0.05 else word for word in start]
            texts.append(Shingled(" ".join(changed) + draw.choice(["", "", " 7", " !="])))
    resembling = Resembling(texts, threshold)
    for i, text in enumerate(texts):
        expected = {j for j in range(i) if text.resembles(texts[j], threshold)}
        assert set(resembling.matches(i)) == expected
        resembling.add(i)


# Teachers


def judge(cosines):
    """A teacher in whose space the i-th pair, as its source says, has the i-th cosine."""

    def embed(texts):
        rows = torch.zeros(len(texts), 2 * len(cosines))
        half = len(texts) // 2
        for k, text in enumerate(texts[:half]):
            i = next(i for i in range(len(cosines)) if f"subject {i}?" in text)
            rows[k, i] = 1
            rows[half + k, i] = cosines[i]
            rows[half + k, len(cosines) + i] = (1 - cosines[i] ** 2) ** 0.5
        return F.normalize(rows, dim=-1)

    return embed


def test_pairs_outside_the_bounds_of_coherence_are_dropped():
    cosines = [0.05, 0.5, 0.99, 0.2, 0.9, 0.1001]
    built = build(GOOD, settings(quality={"coherence": [0.1, 0.95]}), [judge(cosines)])
    assert [(d.pair.source, d.reason.split(":")[0], d.detail) for d in built.dropped] == [
        ("f:0", "unrelated", "0.050"),
        ("f:2", "the answer repeats the question", "0.990"),
    ]
    scores = {pair.source: pair.score for pair in built.kept}
    assert max(scores, key=scores.get) == "f:1"
    assert min(scores, key=scores.get) == "f:5"


def test_pairs_on_which_the_teachers_disagree_are_dropped():
    """The second teacher sees the last question and answer turned around among the others."""
    draw = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(12, 8, generator=draw), dim=-1)
    other = vectors.clone()
    other[5] = -vectors[5]
    judges = [lambda texts: vectors, lambda texts: other]
    quality = {"coherence": [-1, 1], "agreement": 0.5}
    built = build(GOOD, settings(quality=quality, teachers=[{}, {}]), judges)
    assert [(d.pair.source, d.reason) for d in built.dropped] == [("f:5", "the teachers disagree: agreement below 0.5")]


def test_agreement_needs_two_teachers():
    with pytest.raises(UserError, match=r"quality.agreement needs two teachers; there are 1"):
        settings(quality={"agreement": 0.5}, teachers=[{}])


# Counts


DOMAINS = [good(0, domain="a"), good(1, domain="a"), good(2, domain="a"), good(3, domain="b"), good(4, domain="b")]
COSINES = [0.15, 0.5, 0.2, 0.5, 0.15, 0.5]


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({}, ["f:0", "f:1", "f:2", "f:3", "f:4"]),
        ({"balance": True}, ["f:1", "f:2", "f:3", "f:4"]),
        ({"count": 2}, ["f:1", "f:3"]),
        ({"count": 3}, ["f:1", "f:2", "f:3"]),
        ({"count": 2, "balance": True}, ["f:1", "f:3"]),
        ({"count": 3, "balance": True}, ["f:1", "f:2", "f:3"]),
        ({"count": 5, "balance": True}, ["f:0", "f:1", "f:2", "f:3", "f:4"]),
    ],
    ids=str,
)
def test_the_best_of_each_domain_are_kept_in_the_numbers_asked_for(values, kept):
    built = build(DOMAINS, settings(**values), [judge(COSINES)])
    assert [pair.source for pair in built.kept] == kept
    assert {d.pair.source for d in built.dropped} == {pair.source for pair in DOMAINS} - set(kept)
    assert all("better ones" in d.reason for d in built.dropped)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"count": 6}, "6 pairs were asked for, and 5 are left of 6"),
        ({"count": 4, "balance": True, "quality": {"coherence": [0.16, 0.95]}}, "a: 2 of 2, b: 1 of 2"),
    ],
)
def test_too_few_are_told_with_what_there_is(values, told):
    bad = Pair("Why?", "So.", "f:9", domain="a")
    with pytest.raises(UserError) as caught:
        build([*DOMAINS, bad], settings(**values), [judge(COSINES)])
    assert told in str(caught.value)
    assert "1 question shorter than 8 characters" in str(caught.value)


def test_nothing_left_is_an_error_with_the_reasons():
    with pytest.raises(UserError, match="none of 1 pairs is left: 1 question shorter"):
        build([Pair("Why?", "So.", "f:9")], settings(), [])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"qualty": {}}, "unknown key 'qualty'"),
        ({"quality": {"length": 3}}, "unknown key 'length' in quality"),
        ({"quality": {"coherence": [0.9, 0.1]}}, "coherence is [0.9, 0.1]; the lower bound comes first"),
        ({"count": 0}, "count"),
    ],
)
def test_settings_that_are_none_are_named(values, told):
    with pytest.raises(UserError) as caught:
        settings(**values)
    assert told in str(caught.value)


# Files and commands


def test_a_saved_pair_is_read_back_with_its_score_and_provenance(tmp_path):
    pair = Pair("q", "a", "old.csv:3", "d", "easy", "g", ("one", "two"), "chat 1", "the web", 0.5)
    save_pairs(tmp_path / "new.jsonl", [pair])
    [read] = read_pairs([str(tmp_path / "new.jsonl")])
    assert read.origin == "the web, old.csv:3"
    assert record(read) == {**record(pair), "source": "the web, old.csv:3, new.jsonl:1"}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [{"question": pair.question, "answer": pair.answer, "domain": "d"} for pair in GOOD]
    path.write_text("\n".join(map(json.dumps, [*lines, lines[0], {"question": "Why?", "answer": "So."}])))
    return path


def test_build_writes_what_was_kept_and_what_was_dropped(source, tmp_path, capsys):
    out = tmp_path / "built.jsonl"
    assert main(["data", "build", str(source), "--out", str(out), "--set", "teachers=[]"]) == 0
    kept = read_pairs([str(out)])
    assert [normalized(pair.question) for pair in kept] == [normalized(pair.question) for pair in GOOD]
    assert [pair.origin for pair in kept] == [f"mine.jsonl:{i + 1}" for i in range(6)]
    assert all(0 < pair.score <= 1 for pair in kept)
    dropped = [json.loads(line) for line in (tmp_path / "built.dropped.jsonl").read_text().splitlines()]
    assert [(d["reason"], d["detail"], d["source"]) for d in dropped] == [
        ("a duplicate", "of mine.jsonl:1", "mine.jsonl:7"),
        ("question shorter than 8 characters", "4", "mine.jsonl:8"),
    ]
    printed = capsys.readouterr().out
    assert "8 pairs read, 6 kept in 6 answer groups, 2 dropped" in printed
    assert "mine.jsonl:8  Why? | So." in printed


def test_build_takes_its_settings_from_a_file(source, tmp_path):
    config = tmp_path / "build.yaml"
    config.write_text("teachers: []\ncount: 3\n")
    out = tmp_path / "built.jsonl"
    assert main(["data", "build", str(source), "--out", str(out), "--config", str(config)]) == 0
    assert len(read_pairs([str(out)])) == 3


def test_inspect_shows_the_same_and_writes_nothing(source, tmp_path, capsys, tiny_teacher):
    before = sorted(tmp_path.iterdir())
    teacher = f"teachers=[{{model: {tiny_teacher}, max_length: 64}}]"
    assert main(["data", "inspect", str(source), "--set", teacher, "--set", "quality.coherence=[-1, 1]"]) == 0
    assert sorted(tmp_path.iterdir()) == before
    printed = capsys.readouterr().out
    for part in ("8 pairs, 7 answer groups", "7  d", "1  no domain", "a duplicate", "lowest scores", "highest scores"):
        assert part in printed


def test_split_writes_the_parts_that_train_makes(tmp_path, capsys):
    from cube3d import run as runs
    from cube3d.config import load_settings

    assert main(["data", "split", "--out", str(tmp_path / "parts"), "seed=3", "data.test=0.3"]) == 0
    run = runs.start(tmp_path / "run", load_settings(None, ["seed=3", "data.test=0.3"]))
    for name, rows in vars(run.split).items():
        read = read_pairs([str(tmp_path / "parts" / f"{name}.jsonl")])
        assert [pair.question for pair in read] == [run.pairs[i].question for i in rows]
    assert f"test          {len(run.split.test)} pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["build", "--out", "built.csv", "--set", "teachers=[]"], "name it built.jsonl"),
        (["build", "gone.jsonl", "--out", "built.jsonl"], "gone.jsonl"),
        (["inspect", "--set", "teacher=1"], "unknown key 'teacher'"),
        (["inspect", "--set", "teachers=[{modle: x}]"], "unknown key 'modle' in teachers.0 (did you mean 'model'?)"),
        (["inspect", "--set", "count"], "expected section.key=value"),
    ],
)
def test_a_wrong_command_is_one_message(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_bundled_pairs_pass(tmp_path):
    """All but what a teacher says: our own data keeps to our own bounds."""
    assert build(read_pairs(["bundled"]), load_section(BuildSettings, None, ["teachers=[]"]), []).dropped == []
