"""The interface for those who do without a command line, as the README shows it."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

import cube3d
from cube3d.cli import main


def test_what_the_readme_shows(config_file, pairs_file, tmp_path):
    """The settings, the pairs and the seed being the same, it gives the numbers of the command line."""
    values = yaml.safe_load(config_file.read_text())
    del values["data"]["pairs"]
    given = tmp_path / "config.yaml"
    given.write_text(yaml.safe_dump(values))
    run = cube3d.fit(tmp_path / "python", cube3d.load_settings(given), cube3d.read_pairs([str(pairs_file)]))
    assert main(["train", "--config", str(config_file), "--out", str(tmp_path / "line")]) == 0
    assert cube3d.load(tmp_path / "line").results("history")[0]["loss"] == run.results("history")[0]["loss"]
    evaluation = cube3d.evaluate(run)
    assert evaluation.main == "cube"
    reader = cube3d.Reader(str(run.folder))
    question = run.pairs[0].question
    first, second = reader.answer([question], count=2)[0]
    assert first.score >= second.score
    assert reader.embed([question]).shape == (1, run.parts.dim)
    assert cube3d.load(run.folder).settings.data.pairs == []


def test_a_run_that_goes_on_has_its_own_settings_and_pairs(trained_run):
    run = cube3d.load(trained_run)
    assert cube3d.fit(trained_run, resume=True).settings == run.settings
    with pytest.raises(cube3d.UserError, match="seed differ"):
        cube3d.fit(trained_run, run.settings.model_copy(update={"seed": 99}), resume=True)
    with pytest.raises(cube3d.UserError, match="has its own pairs"):
        cube3d.fit(trained_run, pairs=run.pairs, resume=True)


def test_pairs_of_python_that_were_never_written_are_asked_for_again(config_file, pairs_file, tmp_path, monkeypatch):
    folder, settings, pairs = tmp_path / "run", cube3d.load_settings(config_file), cube3d.read_pairs([str(pairs_file)])

    def killed(ensemble, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cube3d.teachers.ensemble.Ensemble.save", killed)
        with pytest.raises(KeyboardInterrupt):
            cube3d.fit(folder, settings, pairs)
    assert (folder / "config.yaml").exists()
    with pytest.raises(
        cube3d.UserError, match=f"{folder}: was killed before its pairs, .* delete the folder and call fit"
    ):
        cube3d.fit(folder, resume=True)
    shutil.rmtree(folder)
    assert cube3d.fit(folder, settings, pairs, progress=False).pairs == pairs


def test_pairs_of_python_are_checked_as_those_of_a_file_are():
    first, second = cube3d.make_pairs([("q", "a"), {"question": "r", "answer": "b", "group": "g", "score": None}])
    assert (first.question, first.answer, first.source) == ("q", "a", "pairs[0]")
    assert (second.group, second.score) == ("g", None)
    for wrong, message in [
        ([("q", " ")], r"pairs\[0\]: the answer is empty"),
        ([("q", "a"), ("q", 1)], r"pairs\[1\]: 'answer' is 1"),
        ([("q", "a", "b")], r"pairs\[0\]: is \('q', 'a', 'b'\); expected \(question, answer\)"),
        ([], "there are none"),
    ]:
        with pytest.raises(cube3d.UserError, match=message):
            cube3d.make_pairs(wrong)


def test_every_name_is_there_and_costs_nothing_before_it_is_used():
    program = """
import json, sys, cube3d
before = [name for name in ("torch", "transformers") if name in sys.modules]
print(json.dumps([before, [getattr(cube3d, name).__name__ for name in cube3d.__all__]]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, names = json.loads(done.stdout)
    assert before == []
    assert names == cube3d.__all__
    with pytest.raises(AttributeError, match="no attribute 'train'; it has Answer, "):
        _ = cube3d.train
