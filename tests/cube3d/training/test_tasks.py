"""Task mixes: what share of the training rows each task has, and that they are what training sees."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from cube3d import run as runs
from cube3d.config import TaskSettings, load_settings, parse_settings
from cube3d.errors import UserError
from cube3d.evaluation.baselines import trained_baselines
from cube3d.model import CubeModel
from cube3d.training.tasks import task_mix
from tests.cube3d.conftest import make_part


@pytest.fixture
def train():
    """32 questions that stand alone and 16 of conversations; two for each of 24 answers."""
    part = make_part(24, 1)
    pairs = [replace(pair, dialogue=f"chat {i}" if i >= 32 else "") for i, pair in enumerate(part.pairs)]
    return replace(part, pairs=pairs)


def tasks(part, train):
    """The task of each row, by what its vectors are."""
    found = []
    for question, answer, pair in zip(part.question, part.answer, part.pairs, strict=True):
        if torch.equal(question, answer):
            found.append("autoencoder")
        else:
            i = next(i for i, row in enumerate(train.question) if torch.equal(row, question))
            assert torch.equal(train.answer[i], answer)
            assert train.pairs[i] == pair
            found.append("dialogue" if pair.dialogue else "qa")
    return Counter(found)


def test_without_shares_every_pair_is_there_once(train):
    assert task_mix(train, TaskSettings(), 0) is train


@pytest.mark.parametrize(
    ("shares", "rows"),
    [
        ({"qa": 0.8, "autoencoder": 0.2}, {"qa": 32, "autoencoder": 8}),
        ({"qa": 0.5, "dialogue": 0.5}, {"qa": 32, "dialogue": 32}),
        ({"qa": 0.5, "dialogue": 0.25, "autoencoder": 0.25}, {"qa": 32, "dialogue": 16, "autoencoder": 16}),
        ({"qa": 0.25, "autoencoder": 0.75}, {"qa": 32, "autoencoder": 96}),
        ({"dialogue": 1.0}, {"dialogue": 16}),
        ({"autoencoder": 1.0}, {"autoencoder": 72}),  # 48 questions and 24 answers
    ],
    ids=str,
)
def test_each_task_has_its_share(train, shares, rows):
    mixed = task_mix(train, TaskSettings(**shares), 0)
    assert tasks(mixed, train) == rows
    assert len(mixed.pairs) == len(mixed.question) == len(mixed.answer) == len(mixed.group) == sum(rows.values())


def test_every_pair_of_the_leading_task_is_there_and_repeats_are_even(train):
    mixed = task_mix(train, TaskSettings(qa=0.5, dialogue=0.5), 0)
    counts = Counter(pair.question for pair in mixed.pairs)
    assert set(counts) == {pair.question for pair in train.pairs}
    assert {pair.question: 2 if pair.dialogue else 1 for pair in train.pairs} == counts


def test_a_text_that_is_carried_to_itself_stays_in_its_answer_group(train):
    mixed = task_mix(train, TaskSettings(autoencoder=1.0), 0)
    texts = torch.cat([train.question, train.answer])
    groups = torch.cat([train.group, train.group])
    for question, group in zip(mixed.question, mixed.group, strict=True):
        row = next(i for i, text in enumerate(texts) if torch.equal(text, question))
        assert groups[row] == group


def test_the_bank_and_what_is_not_a_row_are_untouched(train):
    mixed = task_mix(train, TaskSettings(qa=0.5, autoencoder=0.5), 0)
    assert mixed.bank is train.bank
    assert mixed.bank_text is train.bank_text


def test_the_seed_decides_what_is_drawn(train):
    shares = TaskSettings(qa=0.8, autoencoder=0.2)
    first, again, other = (task_mix(train, shares, seed).question for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("missing", "kept"), [("dialogue", 32), ("qa", 16)])
def test_a_task_without_pairs_is_named(train, missing, kept):
    rows = [i for i, pair in enumerate(train.pairs) if bool(pair.dialogue) == (missing == "qa")]
    alone = replace(
        train,
        pairs=[train.pairs[i] for i in rows],
        question=train.question[rows],
        answer=train.answer[rows],
        group=train.group[rows],
    )
    with pytest.raises(UserError) as caught:
        task_mix(alone, TaskSettings(qa=0.5, dialogue=0.5), 0)
    assert f"data.tasks.{missing} is 0.5" in str(caught.value)
    assert str(kept) in str(caught.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.tasks.qa=0.5", "the shares sum to 0.5"),
        ("data.tasks={qa: 0.8, autoencoder: 0.8}", "the shares sum to 1.6"),
        ("data.tasks.qa=-1", "data.tasks.qa"),
        ("data.tasks.chat=1", "unknown key 'chat' in data.tasks; valid: qa, dialogue, autoencoder"),
    ],
)
def test_shares_that_are_none_are_named(override, told):
    with pytest.raises(UserError) as caught:
        load_settings(None, [override])
    assert told in str(caught.value)


def test_shares_of_every_task_are_summed():
    class More(TaskSettings):
        chat: float = 0.0

    assert More(qa=0.5, chat=0.5).chat == 0.5
    with pytest.raises(ValueError, match="the shares sum to 1.5"):
        More(qa=1.0, chat=0.5)


# In a run


@pytest.fixture
def tiny_run(tiny_teacher, tmp_path):
    chats = [{"turns": [f"say {c}", f"it is {c}{c}", f"more of {c}?", f"then {c}{c}{c}"]} for c in "abcdefghijkl"]
    alone = [{"question": f"what is {c}?", "answer": f"that is {c} {c}"} for c in "mnopqrstuvwxyz"]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, [*chats, *alone])))
    values = {
        "data": {
            "pairs": [str(tmp_path / "mine.jsonl")],
            "tasks": {"qa": 0.25, "dialogue": 0.5, "autoencoder": 0.25},
            "rephrase": {"templates": 5},
        },
        "teachers": [{"model": str(tiny_teacher), "max_length": 64}],
        "model": "mapping",
        "cube": {"channels": 4, "hidden": 8, "steps": 2},
        "training": {"epochs": 1, "batch_size": 8},
    }
    return runs.start(tmp_path / "run", parse_settings(values, "test"))


def test_the_mix_and_the_new_questions_are_what_the_batches_hold(tiny_run, monkeypatch):
    seen = []
    forward = CubeModel.forward

    def watched(self, question_embedding, **named):
        if self.training:
            seen.extend(zip(question_embedding.clone(), named["answer_embedding"].clone(), strict=True))
        return forward(self, question_embedding, **named)

    monkeypatch.setattr(CubeModel, "forward", watched)
    runs.train(tiny_run, progress=False)
    part = tiny_run.parts.train
    dialogue = sum(bool(pair.dialogue) for pair in part.pairs)
    length = max(2 * dialogue, 4 * (len(part) - dialogue))
    assert len(seen) == length
    assert sum(torch.equal(q, a) for q, a in seen) == round(length / 4)
    made = [i for i, pair in enumerate(part.pairs) if pair.origin.startswith("a template")]
    assert len(made) == 5
    for i in made:
        assert any(torch.equal(q, part.question[i]) and torch.equal(a, part.answer[i]) for q, a in seen)


def test_the_baselines_are_trained_on_the_same_mix(tiny_run, monkeypatch, tmp_path):
    lengths = []

    def watched_fit(model, train, *rest):
        lengths.append(len(train))

    monkeypatch.setattr("cube3d.training.trainer.fit", watched_fit)
    runs._write_inputs(tiny_run, runs.fit_teachers(tiny_run))
    cube = runs.new_cube(tiny_run.settings, tiny_run.parts.dim)
    trained = trained_baselines(cube, tiny_run.parts, tiny_run.settings, tmp_path / "baselines", print)
    mixed = task_mix(tiny_run.parts.train, tiny_run.settings.data.tasks, tiny_run.settings.seed)
    rows = [name for name in trained if not name.endswith(" alone")]
    assert lengths == [len(mixed)] * len(rows) != []
    assert len(mixed) > len(tiny_run.parts.train)
