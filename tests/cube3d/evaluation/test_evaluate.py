"""Evaluation of one run and of several: from values by question to means, intervals, tests and a verdict."""

import json
import shutil

import numpy as np
import pytest
import torch

from cube3d import run as runs
from cube3d.cli import main
from cube3d.errors import UserError
from cube3d.evaluation.evaluate import Evaluation, load_evaluations, summarize
from cube3d.metrics import METRICS
from cube3d.pairs import normalized
from cube3d.report.tables import gain_table, headline, markdown, method_table, terminal, verdict
from tests.cube3d.conftest import in_two_processes

METHODS = [
    "cube",
    "cube alone",
    "identity",
    "mean answer",
    "ridge",
    "residual ridge",
    "lattice off",
    "lattice off alone",
    "MLP",
    "MLP alone",
    "MLP x4",
    "MLP x4 alone",
    "shuffled pairs",
    "shuffled pairs alone",
]


def test_evaluation_measures_every_method(evaluated_run):
    results = json.loads((evaluated_run / "metrics.json").read_text())
    measured = results["subsets"]["all"]
    assert list(measured["means"]) == list(results["methods"]) == METHODS
    assert list(measured["gains"]) == METHODS[1:]
    for name, values in measured["means"].items():
        for metric in METRICS:
            estimate = values[metric]
            assert -1 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1, (name, metric)
    gain = measured["gains"]["identity"]["mrr"]["mean"]
    assert gain == pytest.approx(
        measured["means"]["cube"]["mrr"]["mean"] - measured["means"]["identity"]["mrr"]["mean"]
    )


def test_the_identity_row_is_the_cosine_of_the_teachers_own_vectors(evaluated_run):
    test = runs.load(evaluated_run).parts.test
    measured = json.loads((evaluated_run / "metrics.json").read_text())["subsets"]["all"]["means"]["identity"]
    assert measured["cosine"]["mean"] == pytest.approx((test.question * test.answer).sum(1).mean().item(), abs=1e-5)


def test_parameters_are_those_between_question_and_prediction(evaluated_run):
    methods = json.loads((evaluated_run / "metrics.json").read_text())["methods"]
    cube, dim = methods["cube alone"]["parameters"], 16
    opened = runs.load(evaluated_run)
    assert cube == sum(p.numel() for p in opened.model.mapping.parameters())
    assert methods["identity"]["parameters"] == 0
    assert methods["mean answer"]["parameters"] == dim
    assert methods["ridge"]["parameters"] == dim * dim + dim
    assert methods["MLP alone"]["parameters"] == pytest.approx(cube, rel=0.1)
    assert methods["MLP x4 alone"]["parameters"] == pytest.approx(4 * cube, rel=0.1)
    for name in ("cube", "lattice off", "MLP", "MLP x4", "shuffled pairs"):
        mixed = methods[f"{name} alone"]["parameters"] + dim * dim + dim + 1
        assert methods[name]["parameters"] == mixed, "ridge, and its share"


def test_questions_are_measured_by_kind(evaluated_run):
    """Half of the questions are "what is a …", half are "tell me about the …"."""
    saved = json.loads((evaluated_run / "questions.json").read_text())
    assert saved["headword"] == [question.startswith("what is") for question in saved["question"]]
    subsets = json.loads((evaluated_run / "metrics.json").read_text())["subsets"]
    cosines = np.array(saved["values"]["cube"]["cosine"])
    headword = np.array(saved["headword"])
    for name, rows in {"headword": headword, "other": ~headword}.items():
        assert subsets[name]["questions"] == rows.sum()
        assert subsets[name]["means"]["cube"]["cosine"]["mean"] == pytest.approx(cosines[rows].mean())


def test_two_runs_are_taken_together(two_runs):
    opened = [runs.load(folder) for folder in two_runs]
    together = summarize(load_evaluations(opened))
    assert together["seeds"] == [0, 1]
    cosines = [json.loads((f / "questions.json").read_text())["values"]["cube"]["cosine"] for f in two_runs]
    measured = together["subsets"]["all"]
    assert measured["means"]["cube"]["cosine"]["mean"] == pytest.approx(np.concatenate(cosines).mean())
    assert measured["groups"] == len({normalized(p.answer) for run in opened for p in run.parts.test.pairs})


def test_a_second_evaluation_trains_nothing_and_finds_the_same(two_runs, capsys, monkeypatch):
    monkeypatch.setattr("cube3d.report.write_report", lambda runs, path: path)  # slow, and tested apart
    before = [(folder / "metrics.json").read_text() for folder in two_runs]
    capsys.readouterr()
    assert main(["evaluate", *map(str, two_runs)]) == 0
    printed = capsys.readouterr().out
    assert "training the baseline" not in printed
    assert "2 seeds (0, 1)" in printed
    assert all(name in printed for name in METHODS)
    assert [(folder / "metrics.json").read_text() for folder in two_runs] == before


def test_runs_that_differ_in_more_than_the_seed_are_not_taken_together(two_runs, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    settings = (two_runs[1] / "config.yaml").read_text()
    (other / "config.yaml").write_text(settings.replace("hidden: 8", "hidden: 9"))
    (other / "pairs.jsonl").write_text((two_runs[1] / "pairs.jsonl").read_text())
    for command in ("evaluate", "report"):
        assert main([command, str(two_runs[0]), str(other), *(["--out", "x.md"] if command == "report" else [])]) == 2
        error = capsys.readouterr().err
        assert "differ in cube.hidden" in error
        assert "seed" not in error.split(";")[0]


def test_one_run_does_not_count_twice(evaluated_run):
    run = runs.load(evaluated_run)
    with pytest.raises(UserError, match=r"seeds are \[0, 0\]; each counts once"):
        load_evaluations([run, run])


# Summaries of made-up values


def made_evaluation(seed, cube, identity, headword=None, groups=None, parameters=(100, 0)):
    """Two methods whose every metric has the given values."""
    count = len(cube)
    values = {"cube": cube, "identity": identity}
    return Evaluation(
        seed=seed,
        main="cube",
        control="identity",
        answers=count,
        question=[f"q{i}" for i in range(count)],
        group=groups or [f"g{i}" for i in range(count)],
        headword=headword or [False] * count,
        values={name: {metric: list(map(float, v)) for metric in METRICS} for name, v in values.items()},
        properties={
            name: {"parameters": p, "anisotropy": 0.0, "effective_dimensions": 1.0}
            for name, p in zip(values, parameters, strict=True)
        },
        probe={},
    )


def noisy(seed, shift):
    draw = np.random.default_rng(seed)
    identity = draw.uniform(size=40)
    return made_evaluation(seed, identity + shift + 0.01 * draw.normal(size=40), identity)


def test_a_gain_on_every_question_is_found():
    results = summarize([noisy(seed, 0.12) for seed in range(5)])
    gain = results["subsets"]["all"]["gains"]["identity"]["cosine"]
    assert gain["mean"] == pytest.approx(0.12, abs=0.005)
    assert 0.1 < gain["low"] < gain["high"] < 0.14
    assert gain["p"] < 0.001
    assert results["subsets"]["all"]["questions"] == 40, "the same forty for each seed"


def test_what_the_questions_of_a_seed_have_in_common_is_no_evidence():
    """The same gains on average, once alike for all seeds and once not."""
    steady = summarize([noisy(seed, 0.1) for seed in range(3)])
    uneven = summarize([noisy(seed, shift) for seed, shift in enumerate((0.0, 0.1, 0.2))])
    widths = []
    for results in (steady, uneven):
        gain = results["subsets"]["all"]["gains"]["identity"]["cosine"]
        assert gain["mean"] == pytest.approx(0.1, abs=0.005)
        widths.append(gain["high"] - gain["low"])
    assert widths[1] > 5 * widths[0]


@pytest.mark.parametrize(
    ("shift", "words"),
    [(0.1, "beats the identity"), (0.0, "does NOT measurably differ"), (-0.1, "is WORSE than the identity")],
)
def test_the_verdict_says_what_was_found(shift, words):
    sentences = verdict(summarize([noisy(seed, shift) for seed in range(3)]))
    assert [words in sentence for sentence in sentences[:3]] == [True] * 3
    assert "in cosine" in sentences[0]


def test_the_verdict_leaves_out_baselines_of_more_than_four_times_the_parameters():
    def sentences(parameters):
        draw = np.random.default_rng(0).uniform(size=40)
        return verdict(summarize([made_evaluation(0, draw + 0.1, draw, parameters=(100, parameters))]))

    assert len(sentences(400)) == 6
    assert "beside the 1 baseline of" in sentences(400)[3]
    assert "above identity" in sentences(400)[3]
    assert len(sentences(401)) == 3


def test_a_kind_with_fewer_than_two_groups_is_not_measured_and_said_so():
    draw = np.random.default_rng(0).uniform(size=6)
    results = summarize([made_evaluation(0, draw, draw, headword=[True] + [False] * 5)])
    assert results["subsets"]["headword"] == {"questions": 1, "groups": 1}
    assert gain_table(results).rows[1][1] == "too few to measure"
    assert "methods, “What is X?”" not in markdown(results)
    assert "methods, other questions" in markdown(results)


def test_every_number_of_the_tables_is_a_measured_one():
    results = summarize([noisy(seed, 0.1) for seed in range(2)])
    cosine = results["subsets"]["all"]["means"]["cube"]["cosine"]
    cell = f"{cosine['mean']:.3f} [{cosine['low']:.3f}, {cosine['high']:.3f}]"
    assert method_table(results).rows[0][:3] == ["cube", "100", cell]
    for text in (terminal(results), markdown(results)):
        assert cell in text
        assert headline(results) in text
        assert all(sentence in text for sentence in verdict(results))


def test_markdown_tables_are_whole(two_runs):
    """Each row has as many cells as its header."""
    text = markdown(summarize(load_evaluations([runs.load(folder) for folder in two_runs])))
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 7
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1
    assert "38.4 %" in text


def test_evaluations_come_back_as_they_were_saved(evaluated_run):
    (evaluation,) = load_evaluations([runs.load(evaluated_run)])
    assert summarize([evaluation]) == json.loads((evaluated_run / "metrics.json").read_text())
    assert torch.tensor(evaluation.values["cube"]["mrr"]).isfinite().all()


@pytest.mark.parametrize("model", ["mapping", pytest.param("reader", marks=pytest.mark.sweep)])
def test_two_processes_evaluate_as_one(model, request, tmp_path):
    """They train the baselines together, the first one measures and writes, and both know the result."""
    trained = request.getfixturevalue({"mapping": "trained_run", "reader": "reader_run"}[model])
    one, two = (shutil.copytree(trained, tmp_path / name) for name in ("one", "two"))
    assert main(["evaluate", str(one)]) == 0
    said = in_two_processes(["evaluate", str(two)])
    assert said.count("report: ") == 1
    first, second = (load_evaluations([runs.load(folder)])[0] for folder in (one, two))
    assert list(second.values) == list(first.values)
    for name, values in first.values.items():
        for metric in ("cosine", "mrr"):
            assert np.mean(second.values[name][metric]) == pytest.approx(np.mean(values[metric]), abs=5e-3), name
