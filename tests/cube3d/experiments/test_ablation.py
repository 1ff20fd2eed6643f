"""The ablation: what it compares, how it pairs, and what it refuses."""

import csv
import json

import numpy as np
import pytest
import yaml

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import differences, load_settings
from cube3d.metrics import METRICS, per_question

PLAN = {
    "changes": {"cube.steps": [0], "loss.cosine": [0], "cube.shape": [[3, 3, 3]], "cube.checkpoint_every": [1]},
    "seeds": [0, 1],
}


def write_plan(folder, **changes):
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | changes))
    return path


def load(path):
    return json.loads(path.read_text())


def refusal(capsys, *arguments):
    assert main(["ablate", *map(str, arguments)]) == 2
    return capsys.readouterr().err.partition("cube3d: ")[2]


@pytest.fixture(scope="module")
def finished(base_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    options = ["--plan", str(write_plan(folder)), "--config", str(base_file), "--out", str(folder / "ablation")]
    assert main(["ablate", *options]) == 0
    return folder / "ablation"


def test_each_change_is_trained_by_itself_with_the_lattice_off_too(finished):
    rows = {row["name"]: row for row in load(finished / "results.json")["changes"]}
    assert list(rows) == ["cube.checkpoint_every=1", "cube.shape=[3, 3, 3]", "cube.steps=0", "loss.cosine=0"]
    assert "27 cells" in rows["cube.shape=[3, 3, 3]"]["infeasible"]
    base = load_settings(finished / "base.yaml")
    for name in ("cube.steps=0", "loss.cosine=0"):
        run = runs.load(finished / "runs" / rows[name]["runs"] / "seed-1")
        section, key = name.partition("=")[0].split(".")
        assert run.settings.model_dump()[section][key] == 0
        assert set(differences(run.settings, base)) == {f"{section}.{key}", "seed", "data.test_seed"}
        assert not rows[name]["unchanged"]
    assert rows["cube.checkpoint_every=1"]["unchanged"], "it trades memory for time alone, and the table says so"


def test_differences_are_of_the_same_questions_seed_by_seed(finished):
    results = load(finished / "results.json")
    (row,) = [row for row in results["changes"] if row["name"] == "loss.cosine=0"]
    folders = sorted(path for path in (finished / "runs").iterdir())
    base = next(f for f in folders if not any(f.name == r.get("runs") for r in results["changes"]))

    def values(folder):
        found = []
        for seed in PLAN["seeds"]:
            run = runs.load(folder / f"seed-{seed}")
            part = run.parts.validation
            found.append(per_question(run.model.predict(part), part, run.parts.train.answer.mean(0)))
        return {metric: np.concatenate([v[metric] for v in found]) for metric in METRICS}

    changed, unchanged = values(finished / "runs" / row["runs"]), values(base)
    for metric in METRICS:
        difference = row["differences"][metric]
        assert difference["mean"] == pytest.approx((changed[metric] - unchanged[metric]).mean())
        assert difference["low"] <= difference["mean"] <= difference["high"]
        assert row["means"][metric] == pytest.approx(changed[metric].mean())
        assert results["base"]["means"][metric] == pytest.approx(unchanged[metric].mean())
    assert row["differences"]["cosine"]["mean"] != 0


def test_the_table_holds_what_the_results_hold(finished):
    results = load(finished / "results.json")
    with open(finished / "results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["change"] for row in table] == ["base", *(row["name"] for row in results["changes"])]
    for line, row in zip(table[1:], results["changes"], strict=True):
        assert line["infeasible"] == row.get("infeasible", "")
        assert line["cosine"] == str(row.get("means", {}).get("cosine", ""))
        assert line["mrr difference low"] == str(row.get("differences", {}).get("mrr", {}).get("low", ""))
    for metric in ("mrr", "cosine"):
        assert (finished / "pictures" / f"{metric}.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_ablation_goes_on_where_it_stopped(base_file, tmp_path, quick_training, monkeypatch, capsys):
    train = runs.train

    def interrupted(run, progress=True):
        if len(quick_training) == 3:
            raise KeyboardInterrupt
        train(run, progress)

    options = ["--plan", str(write_plan(tmp_path)), "--config", str(base_file), "--out", str(tmp_path / "ablation")]
    monkeypatch.setattr("cube3d.run.train", interrupted)
    assert main(["ablate", *options]) == 130
    assert f"cube3d ablate --resume --out {tmp_path / 'ablation'}" in capsys.readouterr().err
    monkeypatch.setattr("cube3d.run.train", train)
    assert main(["ablate", "--resume", "--out", str(tmp_path / "ablation")]) == 0
    assert len(quick_training) == 2 * 4, "the base and three changes that can be trained, each once for each seed"
    assert len(load(tmp_path / "ablation" / "results.json")["changes"]) == 4


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_part_that_was_asked_for_is_measured_and_said(part, base_file, tmp_path, quick_training, monkeypatch):
    seen = []

    def spy(prediction, measured, center):
        seen.append(set(measured.group.tolist()))
        return per_question(prediction, measured, center)

    monkeypatch.setattr("cube3d.experiments.variants.per_question", spy)
    plan = write_plan(tmp_path, part=part, changes={"cube.steps": [1]})
    assert main(["ablate", "--plan", str(plan), "--config", str(base_file), "--out", str(tmp_path / "a")]) == 0
    results = load(tmp_path / "a" / "results.json")
    assert results["part"] == part
    opened = [runs.load(tmp_path / "a" / "runs" / results["changes"][0]["runs"] / f"seed-{seed}") for seed in (0, 1)]
    assert seen == 2 * [set(getattr(run.parts, part).group.tolist()) for run in opened]


MEMORY = {"pool": "batch", "memory": 4}


def test_values_that_do_not_go_together_are_a_row_with_the_reason(base_file, tmp_path, quick_training):
    plan = write_plan(tmp_path, changes={"loss.negatives.choose": ["hard"], "loss.negatives": [MEMORY]})
    assert main(["ablate", "--plan", str(plan), "--config", str(base_file), "--out", str(tmp_path / "a")]) == 0
    rows = {row["name"]: row for row in load(tmp_path / "a" / "results.json")["changes"]}
    assert "choose 'hard' needs a count" in rows["loss.negatives.choose=hard"]["infeasible"]
    assert rows['loss.negatives={"memory": 4, "pool": "batch"}']["differences"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cube.steps": [2]}, "cube.steps=2 is the base's own value"),
        ({"cube.steps": [3], "loss.negatives": [{"choose": "all"}]}, 'loss.negatives={"choose": "all"} is the base'),
        ({"cube.stepps": [3]}, "did you mean 'steps'"),
        ({"cube.steps": ["many"]}, "got 'many'"),
        ({"cube.steps": 3}, "changes.cube.steps"),
        ({}, "changes"),
    ],
)
def test_a_wrong_plan_is_one_clear_message_and_writes_nothing(changes, message, base_file, tmp_path, capsys):
    plan = write_plan(tmp_path, changes=changes)
    assert message in refusal(capsys, "--plan", plan, "--config", base_file, "--out", tmp_path / "ablation")
    assert not (tmp_path / "ablation").exists()
