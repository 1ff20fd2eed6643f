"""Training: it learns, it resumes bit for bit, the backends agree, a killed or full disk loses nothing."""

import json
import shutil

import pytest
import torch

from cube3d.config import TrainingSettings
from cube3d.errors import UserError
from cube3d.metrics import ranking_loss
from cube3d.model import CubeConfig, CubeModel, MLPConfig, MLPModel
from cube3d.trainer import CHECKPOINT_PREFIX, MappingTrainer, _trainer, complete_checkpoints, fit
from tests.cube3d.conftest import DIM

CUBE = {"shape": [2, 2, 2], "channels": 6, "hidden": 8, "steps": 3, "boundary": "walls", "update": "gated"}
SETTINGS = TrainingSettings(epochs=6, batch_size=12, learning_rate=1e-2, patience=6)


def new_model(**changes):
    torch.manual_seed(0)
    return CubeModel(CubeConfig(dim=DIM, cube={**CUBE, **changes}))


def train(model, parts, folder, settings=SETTINGS):
    return fit(model, parts.train, parts.validation, settings, folder, seed=0)


def losses(trained):
    return [entry["loss"] for entry in trained.history if "loss" in entry]


def parameters(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("make", [new_model, lambda: MLPModel(MLPConfig(dim=DIM, hidden=8))], ids=["cube", "mlp"])
def test_training_lowers_the_loss_and_passes_its_audit(make, parts, tmp_path):
    trained = train(make(), parts, tmp_path)
    assert losses(trained)[-1] < 0.8 * losses(trained)[0]
    assert all(check.passed for check in trained.checks), trained.checks
    last = [entry for entry in trained.history if "loss" in entry][-1]
    assert last["loss"] == pytest.approx(last["loss_cosine"] + last["loss_info_nce"], rel=1e-4)


def test_native_and_reference_train_alike_over_20_steps(parts, tmp_path, monkeypatch):
    """The same losses to 1e-4 at each of 20 steps."""
    settings = TrainingSettings(epochs=5, batch_size=12, learning_rate=1e-2, patience=5)
    compute_loss = MappingTrainer.compute_loss
    seen: list[float] = []

    def recorded(self, model, inputs, return_outputs=False, **options):
        loss, outputs = compute_loss(self, model, inputs, return_outputs=True, **options)
        if model.training:
            seen.append(loss.item())
        return (loss, outputs) if return_outputs else loss

    monkeypatch.setattr(MappingTrainer, "compute_loss", recorded)
    for backend in ("native", "reference"):
        train(new_model(backend=backend), parts, tmp_path / backend, settings)
    native, reference = seen[:20], seen[20:]
    assert len(native) == len(reference) == 20
    assert native == pytest.approx(reference, abs=1e-4)
    assert native[-1] < native[0]


def test_the_same_seed_gives_the_same_bits(parts, tmp_path):
    models = [new_model(), new_model()]
    for i, model in enumerate(models):
        train(model, parts, tmp_path / str(i))
    first, second = map(parameters, models)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def interrupted(parts, tmp_path_factory):
    """A run to its end, and a copy of its folder as it was after three of six epochs."""
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    model = new_model()
    trainer = _trainer(model, parts.train, parts.validation, SETTINGS, whole, seed=0)
    save = trainer._save_checkpoint

    def save_and_copy(*arguments):
        save(*arguments)
        if trainer.state.global_step == 12:
            shutil.copytree(whole, cut, dirs_exist_ok=True)

    trainer._save_checkpoint = save_and_copy
    trainer.train()
    return parameters(model), trainer.state.log_history, cut


def resumed(interrupted, parts, folder):
    expected, history, cut = interrupted
    shutil.copytree(cut, folder)
    model = new_model()
    trained = train(model, parts, folder)
    return expected, history, parameters(model), trained


def without_times(history):
    return [{k: v for k, v in entry.items() if "runtime" not in k and "per_second" not in k} for entry in history]


def test_resuming_goes_on_bit_for_bit(interrupted, parts, tmp_path):
    expected, history, actual, trained = resumed(interrupted, parts, tmp_path / "run")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    evaluations = [e for e in without_times(history) if "eval_loss" in e]
    assert [e for e in without_times(trained.history) if "eval_loss" in e] == evaluations
    assert losses(trained) == [e["loss"] for e in history if "loss" in e]
    assert all(check.passed for check in trained.checks)


@pytest.mark.parametrize("damage", ["no state file", "half a state file"])
def test_a_checkpoint_that_was_killed_while_saving_is_passed_over(damage, interrupted, parts, tmp_path):
    expected, _, cut = interrupted
    folder = tmp_path / "run"
    shutil.copytree(cut, folder)
    killed = folder / f"{CHECKPOINT_PREFIX}16"
    shutil.copytree(complete_checkpoints(folder)[-1], killed)
    state = killed / "trainer_state.json"
    if damage == "no state file":
        state.unlink()
    else:
        state.write_text(state.read_text()[:200])
    assert [path.name for path in complete_checkpoints(folder)][-1] == f"{CHECKPOINT_PREFIX}12"
    model = new_model()
    train(model, parts, folder)
    assert all(torch.equal(parameters(model)[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("iostream error")], ids=["system", "torch.save"]
)
def test_a_full_disk_while_saving_names_the_checkpoint_that_is_whole(error, parts, tmp_path, monkeypatch):
    saved = MappingTrainer._save_optimizer_and_scheduler

    def full(self, output_dir):
        if self.state.global_step > 8:
            raise error
        return saved(self, output_dir)

    monkeypatch.setattr(MappingTrainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(UserError, match=r"could not be saved.*checkpoint-8 is whole"):
        train(new_model(), parts, tmp_path)


def test_early_stopping_keeps_the_model_of_the_lowest_validation_ranking_loss(parts, tmp_path):
    """With a learning rate that diverges, training ends early and the best epoch's model is back."""
    settings = TrainingSettings(epochs=30, batch_size=12, learning_rate=0.3, patience=2)
    model = new_model()
    trained = train(model, parts, tmp_path, settings)
    history = [entry for entry in trained.history if "eval_loss" in entry]
    assert len(history) < 30
    best = min(entry["eval_ranking_loss"] for entry in history)
    assert ranking_loss(model.predict(parts.validation.question), parts.validation) == pytest.approx(best, rel=1e-5)


def test_a_loss_that_is_not_a_number_stops_the_run_and_is_named(parts, tmp_path):
    model = new_model()
    torch.nn.init.constant_(model.objective.losses["info_nce"].log_temperature, float("nan"))
    with pytest.raises(UserError, match="loss info_nce is nan at step 0"):
        train(model, parts, tmp_path)


def test_the_audit_sees_a_parameter_that_gets_no_gradient_and_one_that_does_not_move(parts, tmp_path):
    model = new_model()
    model.mapping.position.requires_grad_(False)
    checks = train(model, parts, tmp_path).checks
    assert [check.passed for check in checks] == [False, False]
    assert all("mapping.position" in check.found for check in checks)


def test_with_the_lattice_off_all_but_its_rule_is_audited(parts, tmp_path):
    model = new_model(steps=0)
    names = set(model.trainable())
    assert {name for name, _ in model.named_parameters()} - names == {
        f"mapping.layer.{name}" for name, _ in model.mapping.layer.named_parameters()
    }
    assert all(check.passed for check in train(model, parts, tmp_path).checks)


def test_checkpoints_hold_no_pickled_model(parts, tmp_path):
    train(new_model(), parts, tmp_path)
    newest = complete_checkpoints(tmp_path)[-1]
    assert (newest / "model.safetensors").exists()
    assert not list(newest.glob("pytorch_model*"))
    assert json.loads((newest / "trainer_state.json").read_text())["best_model_checkpoint"]
