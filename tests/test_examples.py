"""The examples run, small."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cube_kernels import CubeLayer

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_growing_3d_automaton_learns_its_shape(monkeypatch, capsys, tmp_path):
    page = tmp_path / "grown.html"
    options = ["--size", "6", "--steps", "8", "--iterations", "20", "--hidden", "32", "--out", str(page)]
    monkeypatch.setattr(sys, "argv", ["growing_3d.py", *options])
    runpy.run_path(str(EXAMPLES / "growing_3d.py"), run_name="__main__")
    printed = capsys.readouterr().out
    losses = [
        float(word) for line in printed.splitlines() if "loss" in line for word in line.split() if word[:2] == "0."
    ]
    assert len(losses) >= 2, printed
    assert losses[-1] < losses[0], printed
    assert "const steps = 8, shape = [6, 6, 6]" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("experiment", ["grow", "regenerate"])
def test_a_picture_is_grown_from_a_picture(experiment, monkeypatch, capsys, tmp_path):
    square = Image.new("RGBA", (64, 64), (200, 40, 40, 255))
    square.save(tmp_path / "square.png")
    options = ["--iterations", "2", "--batch", "4", "--pool", "4", "--picture", str(tmp_path / "square.png")]
    monkeypatch.setattr(sys, "argv", ["growing_2d.py", "--experiment", experiment, "--out", str(tmp_path), *options])
    runpy.run_path(str(EXAMPLES / "growing_2d.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert ("with one half lost" in printed) == (experiment == "regenerate")
    assert CubeLayer.load(tmp_path / "rule.safetensors").lattice.shape == (1, 40, 40)
    rows = 2 if experiment == "regenerate" else 1
    assert Image.open(tmp_path / "strip.png").size == (7 * 120, rows * 120)
    assert Image.open(tmp_path / "grown.gif").n_frames > 1


def test_a_cell_of_ones_own_grows_beyond_its_seed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["own_cell.py", "--size", "32", "--steps", "1000"])
    runpy.run_path(str(EXAMPLES / "own_cell.py"), run_name="__main__")
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 32
    assert sum(character not in " ." for row in rows for character in row) > 3 * 8 * 8


def test_two_processes_share_a_lattice_and_learn():
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--size", "12", "--steps", "8", "--iterations", "20"]
    done = subprocess.run([*launch, EXAMPLES / "sharded_3d.py", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[2]) for line in done.stdout.splitlines()]
    assert len(losses) == 10, done.stdout
    assert losses[-1] < losses[0], done.stdout


@pytest.fixture
def example(monkeypatch):
    """Loads an example as a module; its neighbors can be imported, as they can when it is run."""

    def load(name):
        monkeypatch.syspath_prepend(str(EXAMPLES))
        return runpy.run_path(str(EXAMPLES / f"{name}.py"))

    return load


@pytest.mark.parametrize(
    ("name", "package", "epochs", "task"),
    [
        ("plain_loop", "torch", 4, "embeddings"),
        ("transformers_trainer", "transformers", 4, "embeddings"),
        ("lightning_voxels", "lightning", 3, "voxels"),
        ("accelerate_voxels", "accelerate", 3, "voxels"),
    ],
)
def test_a_lattice_in_a_trainer_learns_and_comes_back_from_its_file(name, package, epochs, task, example, tmp_path):
    pytest.importorskip(package, reason=f"{package}, which drives this example, is not installed")
    module = example(name)
    model, before, after = module["main"](["--epochs", str(epochs), "--out", str(tmp_path / "saved")])
    assert after < 0.8 * before, "on data that training did not see"
    inputs, _ = example("tasks")[task](5, seed=3)
    again = module["load"](tmp_path / "saved")
    with torch.no_grad():
        expected, found = model.eval()(inputs), again.eval()(inputs)
    if isinstance(expected, dict):
        expected, found = expected["prediction"], found["prediction"]
    assert not torch.equal(expected, inputs)
    assert torch.equal(found, expected)
