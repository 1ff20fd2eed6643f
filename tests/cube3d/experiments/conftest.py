"""Training that takes little time or none, for tests of what is done with many runs."""

import pytest
import torch
import yaml

from cube3d import run as runs


@pytest.fixture(scope="session")
def base_file(config_file, tmp_path_factory):
    """The configuration of the other tests with two epochs, cells that the embedding must fill, and no mixture."""
    path = tmp_path_factory.mktemp("experiments") / "config.yaml"
    values = yaml.safe_load(config_file.read_text())
    values["training"]["epochs"] = 2
    values["cube"]["lift"] = "per_cell"
    path.write_text(yaml.safe_dump(values | {"mixture": "none"}))
    return path


@pytest.fixture
def quick_training(monkeypatch):
    """Training that takes no time: a readout drawn by the settings. Returns the settings that were trained."""
    trained = []

    def train(run, progress=True):
        runs._write_inputs(run, runs.fit_teachers(run))
        model = runs.new_cube(run.settings, run.parts.dim)
        size = run.settings.training.learning_rate
        torch.nn.init.normal_(model.mapping.readout, std=size, generator=torch.Generator().manual_seed(3))
        trained.append(run.settings)
        run.training_folder.mkdir()
        model.save(run.model_folder)

    monkeypatch.setattr("cube3d.run.train", train)
    monkeypatch.setattr("cube3d.experiments.search.tested", lambda trained, say: {})
    return trained
