"""Where models are trained: on the device that is asked for, with every tensor there, and nowhere else in silence."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from accelerate import PartialState

from cube3d import run as runs
from cube3d.cli import main
from cube3d.device import find_device, training_process
from cube3d.errors import UserError
from cube3d.training.trainer import ProcessArguments

ON_SECOND = ("training.device=second:0", "teachers.0.device=cpu")


@pytest.mark.parametrize("model", ["mapping", "reader"])
def test_a_second_device_trains_what_the_cpu_trains(model, config_file, reader_config_file, tmp_path):
    """A tensor that is made on the CPU and meets one of the device is an error there."""
    config, backend = {
        "mapping": (config_file, "cube.backend=reference"),
        "reader": (reader_config_file, "reader.backend=reference"),
    }[model]
    command = ["train", "--config", str(config), backend]
    assert main([*command, "--out", str(tmp_path / "cpu")]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "tests.cube3d.second_device", *command, *ON_SECOND, "--out", str(tmp_path / "second")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "training on second:0; teachers: " in done.stdout
    assert " on cpu\n" in done.stdout
    first, second = (runs.load(tmp_path / name) for name in ("cpu", "second"))
    losses, others = ([e["eval_loss"] for e in run.results("history") if "eval_loss" in e] for run in (first, second))
    assert len(losses) > 1
    assert others == pytest.approx(losses, rel=1e-5)
    predicted, other = (run.model.predict(run.parts.test) for run in (first, second))
    assert torch.allclose(other, predicted, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model", ["mapping", "reader"])
def test_a_gpu_trains_what_the_cpu_trains(model, config_file, reader_config_file, tmp_path):
    config = {"mapping": config_file, "reader": reader_config_file}[model]
    for device in ("cpu", "cuda"):
        command = ["train", "--config", str(config), f"training.device={device}", "--out", str(tmp_path / device)]
        assert main(command) == 0
    first, second = (runs.load(tmp_path / name) for name in ("cpu", "cuda"))
    assert second.model.device.type == "cuda"
    predicted, other = (run.model.predict(run.parts.test) for run in (first, second))
    assert torch.nn.functional.cosine_similarity(other, predicted, dim=-1).min() > 0.99


def test_a_run_is_asked_where_its_device_is_not(trained_run, capsys):
    run = runs.load(trained_run)
    training = run.settings.training.model_copy(update={"device": "cuda:7"})
    moved = dataclasses.replace(run, settings=run.settings.model_copy(update={"training": training}))
    assert moved.model.device == torch.device("cpu")
    said = capsys.readouterr().err
    assert "training.device is 'cuda:7'" in said
    assert "the model runs on cpu" in said


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(config_file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "--config", str(config_file), "training.device=tpu", "--out", str(folder)]) == 2
    assert "training.device is 'tpu', which is not to be had here" in capsys.readouterr().err
    assert not folder.exists()


def test_a_backend_that_does_not_run_on_the_device_is_refused_before_anything_is_written(config_file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "--config", str(config_file), "cube.backend=cuda", "--out", str(folder)]) == 2
    assert "backend is 'cuda', but it cannot run this call" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("name", ["meta", "cuda:7", "gpu", ""])
def test_what_is_no_device_here_is_named(name):
    with pytest.raises(UserError, match=f"training.device is {name!r}, which is not to be had here"):
        find_device(name, "training.device")


def test_auto_takes_an_accelerator(monkeypatch):
    assert find_device("auto", "") == torch.device("cpu")
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available: torch.device("cuda"))
    assert find_device("auto", "") == torch.device("cuda")


@pytest.fixture
def with_gpus(monkeypatch):
    """What names a device finds it."""
    monkeypatch.setattr("cube3d.device.find_device", lambda name, setting: torch.device(name))
    yield
    PartialState._reset_state()


def test_one_process_takes_the_device_that_it_is_told_and_no_other(with_gpus, tmp_path, monkeypatch):
    """Not the first, and not all of them at once."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
    arguments = ProcessArguments("cuda:1", output_dir=str(tmp_path))
    assert arguments.device == PartialState().device == torch.device("cuda:1")
    assert (arguments.n_gpu, arguments.world_size) == (1, 1)
    assert training_process("cuda").device == torch.device("cuda:0")


def test_several_processes_do_not_share_a_device(with_gpus, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="'cuda:1', and there are 2 processes.*say 'cuda' or 'auto'"):
        training_process("cuda:1")
