"""Training: it learns, it resumes bit for bit, the backends agree, a killed or full disk loses nothing."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from cube3d.config import LOSS_NAMES, CurriculumSettings, LossSettings, TrainingSettings
from cube3d.errors import UserError
from cube3d.losses import Objective
from cube3d.metrics import per_question, ranking_loss
from cube3d.model import CubeConfig, CubeModel, MLPConfig, MLPModel
from cube3d.training.curriculum import competence
from cube3d.training.trainer import (
    CHECKPOINT_PREFIX,
    AnswerTrainer,
    ParameterWatch,
    _trainer,
    complete_checkpoints,
    fit,
)
from tests.cube3d.conftest import DIM

CUBE = {"shape": [2, 2, 2], "channels": 6, "hidden": 8, "steps": 3, "boundary": "walls", "update": "gated"}
SETTINGS = TrainingSettings(epochs=6, batch_size=12, learning_rate=1e-2, patience=6)
LEARNED_IN_ORDER = SETTINGS.model_copy(update={"curriculum": CurriculumSettings(by=["rank", "length"])})
ALL_LOSSES = {
    **dict.fromkeys(LOSS_NAMES, 0.5),
    "learn_temperature": True,
    "negatives": {"pool": "batch", "choose": "random", "count": 6, "mined": 2, "memory": 20, "ceiling": 0.95},
}


def new_model(loss=None, **changes):
    torch.manual_seed(0)
    return CubeModel(CubeConfig(dim=DIM, cube={**CUBE, **changes}, loss=loss))


def train(model, parts, folder, settings=SETTINGS):
    return fit(model, parts.train, parts.validation, settings, folder, seed=0)


def losses(trained):
    return [entry["loss"] for entry in trained.history if "loss" in entry]


def parameters(model):
    """Buffers too."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("make", [new_model, lambda: MLPModel(MLPConfig(dim=DIM, hidden=8))], ids=["cube", "mlp"])
def test_training_lowers_the_loss_and_passes_its_audit(make, parts, tmp_path):
    trained = train(make(), parts, tmp_path, SETTINGS.model_copy(update={"epochs": 12}))
    assert losses(trained)[-1] < 0.8 * losses(trained)[0]
    assert all(check.passed for check in trained.checks), trained.checks
    last = [entry for entry in trained.history if "loss" in entry][-1]
    expected = LossSettings().cosine * last["loss_cosine"] + LossSettings().info_nce * last["loss_info_nce"]
    assert last["loss"] == pytest.approx(expected, rel=1e-4)


def test_native_and_reference_train_alike_over_20_steps(parts, tmp_path, monkeypatch):
    """The same losses to 1e-4 at each of 20 steps."""
    settings = TrainingSettings(epochs=5, batch_size=12, learning_rate=1e-2, patience=5)
    compute_loss = AnswerTrainer.compute_loss
    seen: list[float] = []

    def recorded(self, model, inputs, return_outputs=False, **options):
        loss, outputs = compute_loss(self, model, inputs, return_outputs=True, **options)
        if model.training:
            seen.append(loss.item())
        return (loss, outputs) if return_outputs else loss

    monkeypatch.setattr(AnswerTrainer, "compute_loss", recorded)
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


@pytest.fixture(scope="module", params=["plain", "every loss, negatives and a curriculum"])
def interrupted(request, parts, tmp_path_factory):
    """How to make a model and train it, a run to its end, and a copy of its folder as it was after three of six
    epochs."""
    loss, settings = (None, SETTINGS) if request.param == "plain" else (ALL_LOSSES, LEARNED_IN_ORDER)
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    model = new_model(loss)
    trainer = _trainer(model, parts.train, parts.validation, settings, whole, seed=0)
    save = trainer._save_checkpoint

    def save_and_copy(*arguments):
        save(*arguments)
        if trainer.state.global_step == 12:
            shutil.copytree(whole, cut, dirs_exist_ok=True)

    trainer._save_checkpoint = save_and_copy
    trainer.train()
    return loss, settings, parameters(model), trainer.state.log_history, cut


def resumed(interrupted, parts, folder):
    loss, settings, expected, history, cut = interrupted
    shutil.copytree(cut, folder)
    model = new_model(loss)
    trained = train(model, parts, folder, settings)
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
    loss, settings, expected, _, cut = interrupted
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
    model = new_model(loss)
    train(model, parts, folder, settings)
    assert all(torch.equal(parameters(model)[name], expected[name]) for name in expected)


def test_a_checkpoint_of_two_processes_is_not_resumed_by_one(interrupted, parts, tmp_path):
    """The random states of one would be missing."""
    loss, settings, _, _, cut = interrupted
    folder = tmp_path / "run"
    shutil.copytree(cut, folder)
    newest = complete_checkpoints(folder)[-1]
    for rank in range(2):
        shutil.copy(newest / "rng_state.pth", newest / f"rng_state_{rank}.pth")
    (newest / "rng_state.pth").unlink()
    with pytest.raises(UserError, match=f"{newest.name}: saved by 2 processes; resume with as many, not with 1"):
        train(new_model(loss), parts, folder, settings)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("iostream error")], ids=["system", "torch.save"]
)
def test_a_full_disk_while_saving_names_the_checkpoint_that_is_whole(error, parts, tmp_path, monkeypatch):
    saved = AnswerTrainer._save_optimizer_and_scheduler

    def full(self, output_dir):
        if self.state.global_step > 8:
            raise error
        return saved(self, output_dir)

    monkeypatch.setattr(AnswerTrainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(UserError, match=r"could not be saved.*checkpoint-8 is whole"):
        train(new_model(), parts, tmp_path)


@pytest.mark.parametrize("metric", ["loss", "ranking_loss", "mrr", "centered_cosine"])
def test_early_stopping_keeps_the_model_of_the_best_validation_metric(metric, parts, tmp_path):
    """With a learning rate that diverges, training ends early and the best epoch's model is back."""
    settings = TrainingSettings(epochs=30, batch_size=12, learning_rate=0.3, patience=2, stop_on=metric)
    model = new_model()
    trained = train(model, parts, tmp_path, settings)
    values = [entry[f"eval_{metric}"] for entry in trained.history if "eval_loss" in entry]
    best = (min if metric.endswith("loss") else max)(values)
    assert len(values) < 30
    assert len(values) - 1 - values.index(best) == 2, "two epochs after the best one"
    prediction, center = model.predict(parts.validation), parts.train.answer.mean(0)
    kept = {
        "loss": model.objective(prediction, parts.validation.answer, parts.validation.group)[0].item(),
        "ranking_loss": ranking_loss(prediction, parts.validation),
        **{name: value.mean() for name, value in per_question(prediction, parts.validation, center).items()},
    }
    assert kept[metric] == pytest.approx(best, rel=1e-5)


def test_validation_losses_are_those_of_the_whole_part_and_each_is_logged(parts, tmp_path):
    model = new_model({**ALL_LOSSES, "negatives": {"pool": "batch", "memory": 20}})
    trained = train(model, parts, tmp_path, SETTINGS.model_copy(update={"epochs": 1}))
    logged = next(entry for entry in trained.history if "eval_loss" in entry)
    validation = parts.validation
    total, each = model.objective(model.predict(validation), validation.answer, validation.group)
    assert set(each) == set(LOSS_NAMES)
    assert logged["eval_loss"] == pytest.approx(total.item(), rel=1e-5)
    for name, value in each.items():
        assert logged[f"eval_loss_{name}"] == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
    assert set(next(e for e in trained.history if "loss" in e)) >= {f"loss_{name}" for name in LOSS_NAMES}


def test_a_curriculum_learns_the_easiest_pairs_first_and_logs_their_share(parts, tmp_path, monkeypatch):
    counted: list[float] = []
    forward = Objective.forward

    def recorded(self, prediction, answer, group, counted_rows=None, *negatives):
        if self.training:
            counted.append(counted_rows.double().mean().item())
        return forward(self, prediction, answer, group, counted_rows, *negatives)

    monkeypatch.setattr(Objective, "forward", recorded)
    curriculum = CurriculumSettings(by=["similarity"], start=0.25, warmup=0.2, full=0.7)
    settings = TrainingSettings(epochs=10, batch_size=48, patience=10, curriculum=curriculum)
    trained = train(new_model(), parts, tmp_path, settings)
    expected = [competence(step / 10, curriculum) for step in range(10)]
    assert counted == pytest.approx(expected, abs=1 / 48)
    assert counted[:3] == pytest.approx([0.25] * 3)
    assert counted[-3:] == [1, 1, 1]
    shares = [entry["competence"] for entry in trained.history if "competence" in entry]
    assert shares == pytest.approx([*expected[1:], 1])


def test_accumulating_two_batches_is_a_step_on_their_mean(parts, tmp_path):
    """Of a loss without negatives: 12 pairs at once, or twice 6."""
    models = []
    for batch_size, accumulation in ((12, 1), (6, 2)):
        changed = {"batch_size": batch_size, "accumulation": accumulation, "epochs": 2, "dropout": 0.0}
        settings = SETTINGS.model_copy(update=changed)
        models.append(new_model({"info_nce": 0.0}))
        trained = train(models[-1], parts, tmp_path / str(batch_size), settings)
        models.append(losses(trained))
    whole, whole_losses, halves, halves_losses = models
    assert halves_losses == pytest.approx(whole_losses, rel=1e-4)
    first, second = parameters(whole), parameters(halves)
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_bfloat16_trains_float32_parameters_nearly_alike(parts, tmp_path):
    settings = SETTINGS.model_copy(update={"precision": "bfloat16"})
    half, whole = new_model(), new_model()
    rounded, exact = train(half, parts, tmp_path / "half", settings), train(whole, parts, tmp_path / "whole")
    assert all(value.dtype == torch.float32 for value in half.parameters())
    assert losses(rounded) == pytest.approx(losses(exact), rel=0.05)
    assert losses(rounded) != losses(exact), "bfloat16 was used"


def test_a_reporter_gets_every_figure(parts, tmp_path, monkeypatch):
    seen: dict[str, float] = {}

    class Notebook(TrainerCallback):
        def on_log(self, args, state, control, logs, **kwargs):
            seen.update(logs)

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "notebook", Notebook)
    monkeypatch.setattr("cube3d.training.trainer.get_available_reporting_integrations", lambda: ["notebook"])
    train(new_model(), parts, tmp_path, SETTINGS.model_copy(update={"epochs": 1, "report_to": ["notebook"]}))
    assert {"loss", "loss_cosine", "loss_info_nce", "grad_norm", "eval_loss", "eval_mrr"} <= set(seen)


@pytest.mark.parametrize(
    ("name", "message"),
    [("notebok", "unknown 'notebok'; valid: .*tensorboard.*wandb"), ("neptune", "'neptune' needs its package")],
)
def test_a_reporter_that_is_unknown_or_not_installed_is_refused(name, message, parts, tmp_path):
    with pytest.raises(UserError, match=message):
        train(new_model(), parts, tmp_path, SETTINGS.model_copy(update={"report_to": [name]}))


def test_a_loss_that_is_not_a_number_stops_the_run_and_is_named(parts, tmp_path):
    model = new_model({"learn_temperature": True})
    torch.nn.init.constant_(model.objective.losses["info_nce"].log_temperature, float("nan"))
    with pytest.raises(UserError, match="loss info_nce is nan at step 0"):
        train(model, parts, tmp_path)


def test_predictions_that_are_no_numbers_stop_the_run_before_they_are_saved(parts, tmp_path, monkeypatch):
    """A gradient that is not finite spoils the parameters after the last loss of an epoch."""

    def spoil(self, args, state, control, model, **kwargs):
        if state.global_step == 7:
            torch.nn.init.constant_(model.mapping.readout, float("nan"))

    monkeypatch.setattr(ParameterWatch, "on_optimizer_step", spoil)
    with pytest.raises(UserError, match="a prediction is not a number at step 8"):
        train(new_model(), parts, tmp_path)
    assert [path.name for path in complete_checkpoints(tmp_path)] == [f"{CHECKPOINT_PREFIX}4"]


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


@pytest.mark.parametrize("make", [new_model, lambda: MLPModel(MLPConfig(dim=DIM, hidden=8))], ids=["cube", "mlp"])
def test_a_correction_is_that_of_the_kept_dimensions_and_the_question_keeps_all(make):
    """Number by number; a question all of whose dimensions are dropped is left as it is."""
    model = make().double()
    for parameter in model.mapping.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    questions = torch.randn(4, DIM, dtype=torch.float64)
    kept = torch.rand(4, DIM) >= 0.4
    kept[3] = False
    predicted = model(questions, kept=kept).prediction
    for row in range(3):
        whole = sum(v**2 for v in questions[row]).sqrt()
        left = sum(v**2 for v, keep in zip(questions[row], kept[row], strict=True) if keep).sqrt()
        seen = torch.stack(
            [v * whole / left if keep else 0 * v for v, keep in zip(questions[row], kept[row], strict=True)]
        )
        correction = model.mapping(seen[None])[0] - seen
        assert torch.allclose(predicted[row], questions[row] + correction, rtol=1e-9)
        assert not torch.allclose(predicted[row], model(questions).prediction[row], rtol=1e-3)
    assert torch.allclose(predicted[3], questions[3])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_step_drops_dimensions_anew_and_validation_none(dropout, parts, tmp_path, monkeypatch):
    kept, forward = {True: [], False: []}, CubeModel.forward

    def recorded(self, *arguments, **named):
        kept[self.training].append(named.get("kept"))
        return forward(self, *arguments, **named)

    monkeypatch.setattr(CubeModel, "forward", recorded)
    train(new_model(), parts, tmp_path, SETTINGS.model_copy(update={"dropout": dropout}))
    assert len(kept[True]) == 24
    assert kept[False]
    assert all(mask is None for mask in kept[False])
    if not dropout:
        assert all(mask is None for mask in kept[True])
        return
    masks = torch.stack(kept[True])
    assert masks.shape == (24, 12, DIM)
    assert masks.double().mean().item() == pytest.approx(1 - dropout, abs=0.02)  # 4 standard errors
    assert len(masks.flatten(0, 1).unique(dim=0)) == 24 * 12


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_take_their_rows_of_one_mask(processes, parts, tmp_path, monkeypatch):
    trainer = _trainer(new_model(), parts.train, parts.validation, SETTINGS, tmp_path, seed=0)
    torch.manual_seed(5)
    whole = trainer._kept(12)
    monkeypatch.setattr("transformers.TrainingArguments.world_size", processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr("transformers.TrainingArguments.process_index", rank)
        torch.manual_seed(5)
        shares.append(trainer._kept(12 // processes))
    assert torch.equal(torch.cat(shares), whole)


@pytest.mark.parametrize("pool", ["bank", "batch"])
def test_the_trainer_hands_in_the_whole_bank_for_the_pool_bank_alone(pool, parts, tmp_path, monkeypatch):
    given, forward = [], Objective.forward

    def recorded(self, *arguments, **named):
        if self.training:
            given.append(arguments[6:])
        return forward(self, *arguments, **named)

    monkeypatch.setattr(Objective, "forward", recorded)
    train(new_model({"negatives": {"pool": pool}}), parts, tmp_path, SETTINGS.model_copy(update={"epochs": 1}))
    assert len(given) == 4
    for bank, group in given:
        if pool == "batch":
            assert bank is None
            assert group is None
        else:
            assert torch.equal(bank, parts.train.bank)
            assert torch.equal(group, parts.train.bank_group)


def test_no_checkpoint_has_the_bank(parts, tmp_path):
    from safetensors import safe_open

    model = new_model()
    train(model, parts, tmp_path)
    newest = complete_checkpoints(tmp_path)[-1]
    with safe_open(newest / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {name for name, _ in model.named_parameters()}


def test_checkpoints_hold_no_pickled_model(parts, tmp_path):
    train(new_model(), parts, tmp_path)
    newest = complete_checkpoints(tmp_path)[-1]
    assert (newest / "model.safetensors").exists()
    assert not list(newest.glob("pytorch_model*"))
    assert json.loads((newest / "trainer_state.json").read_text())["best_model_checkpoint"]


def test_a_folder_that_was_moved_ends_with_its_own_best_model(interrupted, parts, tmp_path):
    """The Trainer notes the best checkpoint by the path that it had."""
    loss, settings, _, _, cut = interrupted
    folder = tmp_path / "moved"
    shutil.copytree(cut, folder)
    newest = complete_checkpoints(folder)[-1] / "trainer_state.json"
    state = json.loads(newest.read_text())
    state |= {"best_model_checkpoint": "/gone/checkpoint-1", "best_metric": -1e9}  # no later epoch can be better
    newest.write_text(json.dumps(state))
    best = load_file(folder / f"{CHECKPOINT_PREFIX}{state['best_global_step']}" / "model.safetensors")
    model = new_model(loss)
    train(model, parts, folder, settings)
    assert all(torch.equal(parameters(model)[name], best[name]) for name in parameters(model))


def test_a_best_checkpoint_that_is_gone_is_named(interrupted, parts, tmp_path):
    loss, settings, _, _, cut = interrupted
    shutil.copytree(cut, tmp_path / "run")
    newest = complete_checkpoints(tmp_path / "run")[-1] / "trainer_state.json"
    newest.write_text(json.dumps(json.loads(newest.read_text()) | {"best_global_step": 3}))
    with pytest.raises(UserError, match=f"{CHECKPOINT_PREFIX}3: is missing or damaged, and was the best so far"):
        train(new_model(loss), parts, tmp_path / "run", settings)


@pytest.mark.parametrize("name", ["checkpoint-15-backup", "checkpoint-", "checkpoint-best", "checkpoint-0x10"])
def test_what_somebody_put_beside_the_checkpoints_is_left_alone(name, interrupted, parts, tmp_path):
    loss, settings, expected, _, cut = interrupted
    folder = tmp_path / "run"
    shutil.copytree(cut, folder)
    shutil.copytree(complete_checkpoints(folder)[-1], folder / name)
    before = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
    model = new_model(loss)
    train(model, parts, folder, settings)
    assert {path.name: path.read_bytes() for path in (folder / name).iterdir()} == before
    assert all(torch.equal(parameters(model)[name], expected[name]) for name in expected)
    assert 1 <= len(complete_checkpoints(folder)) <= 2, "the newest and the best"


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_of_which_a_file_was_cut_is_passed_over(file, interrupted, tmp_path):
    shutil.copytree(interrupted[-1], tmp_path / "run")
    newest = complete_checkpoints(tmp_path / "run")[-1]
    path = newest / file
    path.write_bytes(path.read_bytes()[:-20])
    assert newest not in complete_checkpoints(tmp_path / "run")


def test_a_run_killed_when_its_patience_had_ended_trains_no_further(parts, tmp_path):
    """The last checkpoint says that training has ended; the model is not saved yet."""
    settings = TrainingSettings(epochs=40, batch_size=16, learning_rate=0.05, patience=1, dropout=0.0)
    model, again = new_model(), new_model()
    first = train(model, parts, tmp_path / "run", settings)
    evaluated = [entry["step"] for entry in first.history if "eval_loss" in entry]
    assert len(evaluated) < 40, "it stopped early"
    second = train(again, parts, tmp_path / "run", settings)
    assert [entry["step"] for entry in second.history if "eval_loss" in entry] == evaluated
    assert all(torch.equal(value, parameters(again)[name]) for name, value in parameters(model).items())
