"""A reader from training to answering: it learns, resumes bit for bit, needs no teacher, stands beside its peers."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from transformers import AutoModel

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import parse_settings
from cube3d.errors import UserError
from cube3d.evaluation.readers import variants
from cube3d.model import load_model
from cube3d.reader.distill import parameter_groups
from cube3d.reader.model import ReaderConfig, ReaderModel
from cube3d.reader.train import new_reader
from cube_kernels import TokenLattice
from tests.cube3d.conftest import train_in_one_and_two_processes


@pytest.fixture(scope="module")
def run(reader_run):
    return runs.load(reader_run)


def test_an_untrained_reader_is_the_weighted_mean_of_its_token_vectors(run):
    material = run.prepare_material()
    model = new_reader(material, run.settings.reader, 16)
    text = "what is a tree?"
    tokens = torch.tensor(model.encode([text])[0])
    weight = material.weights[tokens].softmax(0)
    expected = F.normalize((weight[:, None] * material.vectors[tokens]).sum(0), dim=-1)
    torch.testing.assert_close(model.embed([text])[0], expected)


def test_distillation_brings_the_reader_nearer_to_its_teacher(run):
    part = run.parts.validation
    before = new_reader(run.prepare_material(), run.settings.reader, 16).predict(part)
    after = load_model(ReaderModel, run.distilled_folder).predict(part)
    cosine = [F.cosine_similarity(x, part.question).mean().item() for x in (before, after)]
    assert cosine[1] > cosine[0] + 0.05, cosine


def test_two_processes_train_a_reader_as_one(reader_config_file, tmp_path):
    """torchrun distills and tunes on the same batches, with the losses of whole batches, to the same vectors."""
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ["train", "--config", str(reader_config_file)]
    train_in_one_and_two_processes(arguments, one, two)
    for name in ("distilled/history.json", "history.json"):
        first, second = ([e["loss"] for e in json.loads((f / name).read_text()) if "loss" in e] for f in (one, two))
        assert len(first) >= 2
        assert first == pytest.approx(second, rel=1e-4)
    texts = ["what is a tree?", "how to sort a list"]
    torch.testing.assert_close(runs.load(two).model.embed(texts), runs.load(one).model.embed(texts), atol=1e-4, rtol=0)


def test_a_run_audits_its_reader(run):
    names = [check["name"] for check in run.results("audit")]
    assert "no text says what is held out" in names
    assert "the rollout changes the output" in names
    assert names.count("each parameter moved") == 2  # of the distillation and of the tuning
    assert all(check["passed"] for check in run.results("audit"))


def test_a_batch_is_read_as_its_texts_are_one_by_one(run):
    """However texts are grouped and padded."""
    texts = [pair.answer for pair in run.pairs][:12] + [pair.question for pair in run.pairs][:12]
    together = run.model.embed(texts)
    alone = torch.cat([run.model.embed([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_reader_answers_without_its_teacher(reader_run, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise AssertionError("a teacher was opened")

    monkeypatch.setattr("cube3d.teachers.ensemble.open_teacher", refuse)
    assert main(["ask", str(reader_run), "what is a river?", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert len(answers) == 3
    assert answers == sorted(answers, key=lambda answer: -answer["score"])


def test_a_question_of_unknown_tokens_is_an_error_that_shows_it(reader_run, capsys):
    assert main(["ask", str(reader_run), "日本語"]) == 2
    assert "knows no token of '日本語'" in capsys.readouterr().err


def test_pairs_of_unknown_tokens_are_all_named_before_anything_is_trained(
    reader_config_file, pairs_file, tmp_path, capsys
):
    pairs = tmp_path / "pairs.jsonl"
    strange = [{"question": "日本", "answer": "a country"}, {"question": "what is it?", "answer": "語"}]
    pairs.write_text(pairs_file.read_text() + "".join(json.dumps(pair) + "\n" for pair in strange))
    options = ["--config", str(reader_config_file), f"data.pairs=[{pairs}]", "--out", str(tmp_path / "run")]
    assert main(["train", *options]) == 2
    assert "the reader knows no token of '日本', '語'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_saved_model_loads_through_transformers(run):
    loaded = AutoModel.from_pretrained(run.model_folder)
    assert isinstance(loaded, ReaderModel)
    texts = [pair.question for pair in run.pairs[:3]]
    assert torch.equal(loaded.embed(texts), run.model.embed(texts))


def test_a_run_killed_in_either_stage_resumes_bit_for_bit(reader_config_file, reader_run, tmp_path, monkeypatch):
    """The first kill comes while it distills, the second while it is tuned."""
    from cube3d.reader.distill import DistillationTrainer
    from cube3d.training.trainer import AnswerTrainer

    folder = tmp_path / "run"
    for trainer, steps in ((DistillationTrainer, 9), (AnswerTrainer, 3)):
        original, done = trainer.training_step, []

        def killed(self, *arguments, original=original, done=done, steps=steps, **options):
            done.append(0)
            if len(done) > steps:
                raise KeyboardInterrupt
            return original(self, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(trainer, "training_step", killed)
            resume = ["--resume"] if folder.exists() else ["--config", str(reader_config_file)]
            assert main(["train", "--out", str(folder), *resume]) == 130
        assert not (folder / "model").exists()
    assert main(["train", "--out", str(folder), "--resume"]) == 0
    whole, resumed = (load_model(ReaderModel, path / "model").state_dict() for path in (reader_run, folder))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_run_killed_before_it_distills_goes_on(reader_config_file, reader_run, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cube3d.reader.train.write_corpus", killed)
        assert main(["train", "--config", str(reader_config_file), "--out", str(folder)]) == 130
    assert main(["train", "--out", str(folder), "--resume"]) == 0
    whole, resumed = (load_model(ReaderModel, path / "model").state_dict() for path in (reader_run, folder))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_texts_that_cannot_be_read_leave_no_run_behind(reader_config_file, tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--config", str(reader_config_file), "--out", str(folder), "texts.sources=[pairs, gone.txt]"]
    assert main(["train", *options]) == 2
    assert "gone.txt: cannot be read" in capsys.readouterr().err
    assert not folder.exists()


def test_a_run_whose_texts_say_what_is_held_out_fails_its_audit(reader_config_file, tmp_path, monkeypatch, capsys):
    """Where the filter fails, the audit does not."""
    monkeypatch.setattr("cube3d.texts.HeldOut.repeated_by", lambda self, text: False)
    pairs = tmp_path / "all.jsonl"
    config = yaml.safe_load(reader_config_file.read_text())
    records = [json.loads(line) for line in Path(config["data"]["pairs"][0]).read_text().splitlines()]
    pairs.write_text("".join(json.dumps({"text": record["answer"]}) + "\n" for record in records))
    options = ["--config", str(reader_config_file), "--out", str(tmp_path / "run"), f"texts.sources=[pairs, {pairs}]"]
    assert main(["train", *options]) == 2
    assert "the audit failed: no text says what is held out" in capsys.readouterr().err


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_a_table_in_fewer_bits_says_nearly_the_same(run, storage):
    texts = [pair.question for pair in run.pairs]
    whole, stored = run.model.embed(texts), run.model.stored(storage).embed(texts)
    assert 0 < (whole - stored).norm(dim=-1).max() < 0.05
    assert run.model.stored(storage).size < run.model.size


@pytest.mark.parametrize("override", ["reader.storage=int8", "reader.context=none", "reader.cells=[2, 1]"])
def test_other_readers_train_and_load(reader_config_file, tmp_path, override):
    folder = tmp_path / "run"
    options = [override, "distillation.epochs=1", "training.epochs=1"]
    assert main(["train", "--config", str(reader_config_file), "--out", str(folder), *options]) == 0
    run = runs.load(folder)
    prediction = run.model.predict(run.parts.test)
    torch.testing.assert_close(prediction.norm(dim=-1), torch.ones(len(prediction)))


def test_several_teachers_are_one_target(reader_config_file, tiny_teacher, tmp_path):
    """The reader speaks in the space of both teachers, one after the other, and so do its token vectors."""
    folder = tmp_path / "run"
    teachers = ", ".join(
        f"{{model: {tiny_teacher}, max_length: 64, pooling: {pooling}}}" for pooling in ("mean", "cls")
    )
    options = [f"teachers=[{teachers}]", "distillation.epochs=1", "training.epochs=1"]
    assert main(["train", "--config", str(reader_config_file), "--out", str(folder), *options]) == 0
    run = runs.load(folder)
    assert run.model.table.width == run.model.config.dim == 32
    part = run.parts.test
    assert F.cosine_similarity(run.model.predict(part), part.question).mean() > 0.3


def test_word_vectors_teach_a_reader_with_a_tokenizer_of_its_own(reader_config_file, pairs_file, tmp_path):
    folder, vectors = tmp_path / "run", tmp_path / "words.vec"
    words = sorted(set(re.findall(r"[a-z]+", pairs_file.read_text().lower())))
    draw = torch.Generator().manual_seed(0)
    rows = "".join(f"{word} {' '.join(f'{x:.3f}' for x in torch.randn(8, generator=draw))}\n" for word in words)
    vectors.write_text(f"{len(words)} 8\n{rows}")
    options = [f"teachers=[{{model: {vectors}}}]", "reader.tokenizer=trained", "reader.vocabulary=200"]
    assert main(["train", "--config", str(reader_config_file), "--out", str(folder), *options]) == 0
    run = runs.load(folder)
    material = run.prepare_material()
    known = (material.vectors.norm(dim=1) > 0).sum()
    assert 10 < known < len(material.tokenizer)  # parts of words have no vector, and start from zero


def test_a_frozen_table_stays_as_the_teachers_make_it(reader_config_file, tmp_path):
    folder = tmp_path / "run"
    options = ["reader.train_vectors=false", "distillation.epochs=1", "training.epochs=1"]
    assert main(["train", "--config", str(reader_config_file), "--out", str(folder), *options]) == 0
    run = runs.load(folder)
    assert torch.equal(run.model.table.vectors, run.prepare_material().vectors)


def test_peers_have_the_context_parameters_of_the_lattice(run):
    material, dim = run.prepare_material(), run.parts.dim
    wanted = run.model.context_parameters
    for name, settings in variants(run.settings.reader, run.model).items():
        if name in ("transformer layer", "convolutions"):
            found = new_reader(material, settings, dim).context_parameters
            step = new_reader(material, settings.model_copy(update={"hidden": settings.hidden + 1}), dim)
            narrowest = settings.hidden == 1  # its attention alone has more
            assert narrowest or abs(found - wanted) <= (step.context_parameters - found) / 2, name


def test_channels_that_four_heads_do_not_divide_get_fewer(run):
    settings = run.settings.reader.model_copy(update={"context": "transformer", "channels": 6})
    model = new_reader(run.prepare_material(), settings, run.parts.dim)
    assert model.reading.context.layer.self_attn.num_heads == 2
    assert model.embed(["what is a tree?"]).isfinite().all()


def test_learning_rates_are_those_of_their_parameters(run):
    groups = parameter_groups(run.model, 1.0, 0.5, 2.0, 3.0)
    rate = {name: group["lr"] for group in groups for name in group["params"]}
    assert set(rate) == {name for name, _ in run.model.named_parameters()}
    assert rate.pop("table.vectors") == 2.0
    assert rate.pop("log_weight") == 3.0
    assert set(rate.values()) == {1.0}


def test_a_text_that_says_what_is_held_out_is_not_learned_from(run):
    texts = (run.folder / "texts" / "about.json").read_text()
    material = run.prepare_material()
    assert json.loads(texts)["texts"] == len(material.corpus)
    held_out = {tuple(tokens) for tokens in material.tokenizer.encode([p.question for p in run.parts.test.pairs])}
    corpus = {tuple(material.corpus[i]["input_ids"].tolist()) for i in range(len(material.corpus))}
    assert not held_out & corpus


def test_evaluation_puts_every_peer_beside_the_reader(reader_run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(reader_run, folder)
    assert main(["evaluate", str(folder)]) == 0
    run = runs.load(folder)
    results = run.results("metrics")
    assert results["main"] == "reader"
    assert results["control"] == "teacher"
    for name in ("reader", "lattice off", "bag", "transformer layer", "convolutions"):
        assert {name, f"{name} (distilled)"} <= set(results["methods"])
        assert results["methods"][name]["questions_a_second"] > 0
    assert results["methods"]["reader (int8)"]["bytes"] < results["methods"]["reader"]["bytes"]
    sizes = {results["methods"][name]["parameters"] for name in ("reader", "reader (int8)", "reader (distilled)")}
    assert sizes == {sum(p.numel() for n, p in run.model.named_parameters() if not n.startswith("objective."))}
    assert "The reader" in capsys.readouterr().out
    assert (folder / "report.html").read_text().count("data:image/png") >= 4


def test_lattice_off_computes_no_step(run):
    off = new_reader(run.prepare_material(), run.settings.reader.model_copy(update={"steps": 0}), 16)
    assert isinstance(off.reading.context, TokenLattice)
    assert not any(name.startswith("reading.context.") for name in off.trainable())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reader": {"context": "none", "cells": [2, 2]}}, "only a lattice has cells"),
        ({"reader": {"neighborhood": "diagonal"}}, "'diagonal'"),
        ({"reader": {"neighborhood": [[0, 0]]}}, "reader.neighborhood.*at least 3 items"),
        ({"reader": {"radius": 0}}, "radius"),
        ({"texts": {"count": 1}}, "texts.count"),
    ],
)
def test_a_wrong_setting_of_a_reader_is_an_error_that_names_it(values, message):
    with pytest.raises(UserError, match=message):
        parse_settings(values, "test")


def test_a_teacher_without_a_tokenizer_says_what_to_set(tmp_path, pairs_file, capsys):
    vectors = tmp_path / "words.vec"
    words = sorted({word for line in pairs_file.read_text().split() for word in line.strip('{}",:?.').split()})
    draw = torch.Generator().manual_seed(0)
    rows = "".join(f"{w} {' '.join(f'{x:.3f}' for x in torch.randn(8, generator=draw))}\n" for w in words if w)
    vectors.write_text(f"{len([w for w in words if w])} 8\n{rows}")
    config = tmp_path / "config.yaml"
    values = {
        "data": {"pairs": [str(pairs_file)]},
        "teachers": [{"model": str(vectors)}],
        "texts": {"sources": ["pairs"]},
    }
    config.write_text(yaml.safe_dump(values))
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    assert "reader.tokenizer=trained" in capsys.readouterr().err


def test_a_config_of_a_model_knows_its_vocabulary():
    config = ReaderConfig(vocabulary=7, dim=4, reader={"width": 3, "channels": 4, "hidden": 4})
    model = ReaderModel(config)
    assert model.table.vectors.shape == (7, 3)
    assert model.read(torch.tensor([[1, 2]]), torch.tensor([[1, 1]])).shape == (1, 4)
