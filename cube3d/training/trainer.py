"""Training on pairs by ``transformers.Trainer``. Importing this takes seconds: do it late."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, EvalPrediction, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.trainer_callback import ExportableState, PrinterCallback, ProgressCallback

from cube3d.config import CurriculumSettings, TrainingSettings
from cube3d.device import training_process
from cube3d.errors import StorageError, UserError
from cube3d.files import follow_umask
from cube3d.metrics import LOSSES, measure
from cube3d.model import AnswerModel
from cube3d.progress import Progress, say
from cube3d.training.check import Check, check_each
from cube3d.training.curriculum import competence
from cube3d.training.rows import TrainingPairs
from cube3d.vectors import Part

CHECKPOINT_PREFIX = "checkpoint-"

STATE = "trainer_state.json"
"""The Trainer writes it after everything else: a checkpoint is whole that has it."""


@dataclass(frozen=True)
class Trained:
    """What training left: the Trainer's log, and the audit of the parameters."""

    history: list[dict[str, float]]
    checks: list[Check]


class ParameterWatch(TrainerCallback, ExportableState):
    """Notes which parameters ever got a gradient that was not zero, and which ever moved. Moves are seen
    step by step: the model of the best epoch, which training ends with, may be one of the first."""

    def __init__(self) -> None:
        self.with_gradient: list[str] = []
        self.moved: list[str] = []
        self._before: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name, parameter in kwargs["model"].named_parameters():
            if name not in self.with_gradient and parameter.grad is not None and parameter.grad.any():
                self.with_gradient.append(name)
            if name not in self.moved:
                self._before[name] = parameter.detach().clone()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        parameters = dict(kwargs["model"].named_parameters())
        self.moved += [name for name, value in self._before.items() if not torch.equal(value, parameters[name])]
        self._before.clear()

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"with_gradient": self.with_gradient, "moved": self.moved}}

    def checks(self, names: list[str]) -> list[Check]:
        """The audit of the parameters with these names."""
        return [
            check_each("each parameter got a gradient", names, self.with_gradient),
            check_each("each parameter moved", names, self.moved),
        ]


class StepBar(TrainerCallback):
    """The progress of the steps, with the remaining time.

    Args:
        name: what is being done.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown: Progress | None = None
        self._note = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._shown = Progress(self._name, state.max_steps)
            self._shown.skip(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self._note = f"loss {logs['loss']:.4f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._shown is not None:
            self._shown.advance(1, self._note)

    def close(self) -> None:
        """After an interrupt, too, of which callbacks hear nothing."""
        if self._shown is not None:
            self._shown.close()


class EpochLine(TrainerCallback):
    """One line an epoch on the terminal."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        say(
            f"epoch {round(state.epoch):3d}/{args.num_train_epochs:.0f}  step {state.global_step:5d}  "
            f"loss {losses[-1]:.4f}  validation: loss {metrics['eval_loss']:.4f}  "
            f"ranking loss {metrics['eval_ranking_loss']:.4f}  MRR {metrics['eval_mrr']:.4f}"
        )


class ProcessArguments(TrainingArguments):
    """Arguments for one device, and no other: by themselves they take the first GPU, and all at once where there are
    several.

    Args:
        device: ``training.device``; see :func:`cube3d.device.training_process`.
        arguments: what the trainings do not have in common.
    """

    def __init__(self, device: str, **arguments: Any) -> None:
        process = training_process(device)
        super().__init__(
            lr_scheduler_type="cosine",
            restore_callback_states_from_checkpoint=True,
            # The data set's keys are the model's arguments; nothing is to be dropped or renamed.
            remove_unused_columns=False,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            use_cpu=process.device.type == "cpu",
            **arguments,
        )
        training_process(device)  # they made the process's state anew
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    @property
    def device(self) -> torch.device:
        _ = self._setup_devices  # once; it is what others ask for the number of processes
        return PartialState().device

    @property
    def n_gpu(self) -> int:
        return int(self.device.type != "cpu")


@dataclass(frozen=True)
class Beside:
    """What a step minimizes beside the loss of its pairs, and how fast parameters move.

    Attributes:
        losses: for a step's number, further weighted losses by name.
        groups: parameter groups as ``torch.optim.AdamW`` takes them, with the parameters' names in their place.
    """

    losses: Callable[[int], dict[str, Tensor]]
    groups: list[dict[str, Any]]


class CheckpointingTrainer(Trainer):
    """Saves checkpoints that are whole or not there and keeps the newest and the best, goes on from them wherever their
    folder has been moved, stops at a loss that is not a number, and logs each loss beside the total.

    Args:
        groups: parameter groups with learning rates of their own, see :class:`Beside`; None: all parameters alike.
    """

    loss_is_scaled_for_ga = False  # a mean over the batch: the Trainer divides it by the batches of a step

    def __init__(self, groups: list[dict[str, Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._groups = groups
        self._parts: dict[str, list[float]] = defaultdict(list)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self._groups is None:
            return super().create_optimizer(*args, **kwargs)
        # By name: another device may have made new parameters of those that the model had.
        groups = [{**g, "params": [self.model.get_parameter(name) for name in g["params"]]} for g in self._groups]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        return self.optimizer

    def note(self, parts: Mapping[str, Tensor]) -> None:
        """Each loss of a batch, before weighting.

        Raises:
            UserError: one is not a number.
        """
        for name, part in parts.items():
            value = part.item()
            if not math.isfinite(value):
                raise UserError(f"loss {name} is {value} at step {self.state.global_step}; training stopped")
            self._parts[name].append(value)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs |= {f"loss_{name}": sum(values) / len(values) for name, values in self._parts.items()}
            self._parts.clear()
        super().log(logs, *args, **kwargs)

    def go_on(self) -> None:
        """Trains to the end, from the newest whole checkpoint of the folder or from the start.

        Raises:
            UserError: the checkpoint is of another number of processes, or the best one before it is missing.
        """
        whole = complete_checkpoints(Path(self.args.output_dir))
        if whole:
            check_processes(whole[-1], self.args.world_size)
        self.train(resume_from_checkpoint=str(whole[-1]) if whole else None)

    def _init_training_state(
        self, max_steps: int, steps: int, epochs: int, checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        begin = super()._init_training_state(max_steps, steps, epochs, checkpoint, trial)
        if checkpoint is None:
            return begin
        if self.state.best_global_step is not None:  # the Trainer noted where its folder was then
            best = Path(self.args.output_dir) / f"{CHECKPOINT_PREFIX}{self.state.best_global_step}"
            if not _is_whole(best):
                raise UserError(f"{best}: is missing or damaged, and was the best so far; put it back, or begin anew")
            self.state.best_model_checkpoint = str(best)
        return (epochs, 0) if self.control.should_training_stop else begin  # the patience had ended there

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            follow_umask(Path(output_dir or self.args.output_dir))

    def _save_rng_state(self, output_dir: str) -> None:
        """Each process writes its own; the state, which comes next, must be the last file of all."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch.save meets a full disk as RuntimeError
            folder = Path(self.args.output_dir)
            kept = complete_checkpoints(folder)
            hint = f"{kept[-1].name} is whole: make room and resume" if kept else "there is no earlier one"
            raise StorageError(f"{folder}: a checkpoint could not be saved: {error}; {hint}") from error
        if self.args.should_save:
            self._forget_old()

    def _forget_old(self) -> None:
        """All but the newest and the best. The Trainer's own limit would take copies that somebody made beside them
        for checkpoints, too."""
        for step, path in _checkpoints(Path(self.args.output_dir)).items():
            if step not in (self.state.global_step, self.state.best_global_step):
                (path / STATE).unlink(missing_ok=True)  # at once: a process that is killed now leaves no half
                shutil.rmtree(path, ignore_errors=True)


class AnswerTrainer(CheckpointingTrainer):
    """Learns from pairs: gives the model the negatives and the kept dimensions, follows the curriculum, and adds what
    is minimized beside them."""

    def __init__(
        self,
        curriculum: CurriculumSettings,
        dropout: float,
        width: int,
        bank: dict[str, Tensor],
        beside: Beside | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(None if beside is None else beside.groups, **kwargs)
        self.curriculum, self.dropout, self.width = curriculum, dropout, width
        self.bank, self.beside = {name: tensor.to(self.args.device) for name, tensor in bank.items()}, beside

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        if self.curriculum.by:
            inputs["counted"] = inputs.pop("difficulty") <= self._competence()
        if self.dropout:
            inputs["kept"] = self._kept(len(inputs["group"])).to(self.args.device)
        inputs |= self.bank
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        self.note(outputs.parts)
        if self.beside is not None and model.training:
            further = self.beside.losses(self.state.global_step)
            self.note(further)
            loss = loss + sum(further.values())
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, Tensor, Tensor]:
        """Predictions alone: losses of a validation batch would depend on how the part is cut into batches and
        spread over processes. They are measured on the whole part, with the other metrics."""
        inputs = self._prepare_inputs(inputs)
        group = inputs.pop("group")
        del inputs["answer_embedding"]
        with torch.no_grad():
            return None, model(**inputs).prediction, group

    def _kept(self, rows: int) -> Tensor:
        """Drawn on the CPU for the rows of all processes, of which each takes its own: neither their number nor the
        device changes it."""
        kept = torch.rand(self.args.world_size * rows, self.width) >= self.dropout
        return kept[self.args.process_index * rows :][:rows]

    def _competence(self) -> float:
        return competence(self.state.global_step / self.state.max_steps, self.curriculum)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self.curriculum.by:
            logs["competence"] = self._competence()
        super().log(logs, *args, **kwargs)


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints whose saving ended and that nothing has happened to since, oldest first."""
    return [path for _, path in sorted(_checkpoints(folder).items()) if _is_whole(path)]


def _checkpoints(folder: Path) -> dict[int, Path]:
    """By their steps, whole or not; nothing else that lies beside them."""
    found = {}
    for path in folder.glob(f"{CHECKPOINT_PREFIX}*"):
        step = path.name.removeprefix(CHECKPOINT_PREFIX)
        if re.fullmatch("[0-9]+", step) and path.is_dir():
            found[int(step)] = path
    return found


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        with safe_open(checkpoint / "model.safetensors", "pt"):  # it compares the lengths
            return all(zipfile.is_zipfile(path) for path in checkpoint.glob("*.pt*"))
    except (OSError, ValueError, SafetensorError):
        return False


def fit(
    model: AnswerModel,
    train: Part,
    validation: Part,
    settings: TrainingSettings,
    folder: Path,
    seed: int,
    progress: str | None = None,
    beside: Beside | None = None,
    lines: bool = False,
) -> Trained:
    """Trains the model in place, on ``settings.device``, and leaves it on the CPU, at its best validation metric
    (``settings.stop_on``).

    A checkpoint is kept every epoch, the newest and the best. Where the folder holds some, training goes on
    from the newest whole one, bit for bit: model, optimizer, schedule, random states, data order, early stopping,
    curriculum and memory of negatives.

    Started by ``torchrun``, several processes train one model, each on its share of every batch, as one process
    would: the losses are of the whole batch. Where the last batch of an epoch does not divide, the processes fill it up
    with pairs of the first.

    Args:
        model: as its constructor left it, the same when going on.
        train, validation: what is learned from, and what decides when to stop.
        settings: optimizer, schedule, curriculum and patience.
        folder: for the checkpoints.
        seed: of the data order.
        progress: what the steps are shown as, such as "training"; None: they are not.
        beside: what else is minimized; None: nothing.
        lines: print a line an epoch.

    Raises:
        UserError: a checkpoint could not be saved or is of another number of processes, a loss or prediction is not a
            number, an unknown reporter, fewer mined negatives than asked for, or a batch that the processes cannot
            share.
    """
    trainer = _trainer(model, train, validation, settings, folder, seed, beside)
    bar = StepBar(progress or "")
    if lines:
        trainer.add_callback(EpochLine())
    if progress is not None:
        trainer.add_callback(bar)
    with closing(bar):
        trainer.go_on()
    model.cpu()
    watch = next(c for c in trainer.callback_handler.callbacks if isinstance(c, ParameterWatch))
    checks = watch.checks(model.trainable())
    return Trained(trainer.state.log_history, checks)


def shared(batch_size: int, processes: int, section: str) -> int:
    """What each of the processes takes of a batch.

    Raises:
        UserError: they cannot share it.
    """
    if batch_size % processes:
        raise UserError(
            f"{section}.batch_size is {batch_size}, which {processes} processes cannot share; take a multiple"
        )
    return batch_size // processes


def check_processes(checkpoint: Path, processes: int) -> None:
    """The Trainer would go on with fresh random states, and say nothing."""
    saved = len(list(checkpoint.glob("rng_state*.pth")))
    if saved != processes:
        raise UserError(f"{checkpoint}: saved by {saved} processes; resume with as many, not with {processes}")


def _check_reporters(names: list[str]) -> None:
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"training.report_to: unknown {name!r}; valid: {', '.join(INTEGRATION_TO_CALLBACK)}")
        if name not in get_available_reporting_integrations():
            raise UserError(f"training.report_to: {name!r} needs its package, which is not installed")


def _trainer(
    model: AnswerModel,
    train: Part,
    validation: Part,
    settings: TrainingSettings,
    folder: Path,
    seed: int,
    beside: Beside | None = None,
) -> AnswerTrainer:
    _check_reporters(settings.report_to)
    model.prepare(torch.cat([train.question, train.bank]))
    negatives = model.objective.settings.negatives
    pairs = TrainingPairs(model.inputs(train), train, settings.curriculum, negatives)
    center = train.answer.mean(0)

    @torch.no_grad()
    def validation_metrics(outputs: EvalPrediction) -> dict[str, float]:
        prediction = torch.from_numpy(outputs.predictions)
        if not prediction.isfinite().all():  # before such a model is saved
            raise UserError(f"a prediction is not a number at step {trainer.state.global_step}; training stopped")
        return measure(prediction, validation, center, copy.deepcopy(model.objective).cpu())

    arguments = ProcessArguments(
        settings.device,
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=settings.epochs,
        per_device_eval_batch_size=1024,
        gradient_accumulation_steps=settings.accumulation,
        bf16=settings.precision == "bfloat16",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup,
        max_grad_norm=settings.max_grad_norm,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=settings.stop_on,
        greater_is_better=settings.stop_on not in LOSSES,
        label_names=["group"],
        report_to=settings.report_to,
    )
    arguments.per_device_train_batch_size = shared(settings.batch_size, arguments.world_size, "training")
    trainer = AnswerTrainer(
        curriculum=settings.curriculum,
        dropout=settings.dropout,
        width=model.input_width,
        bank={"bank": train.bank, "bank_group": train.bank_group} if negatives.pool == "bank" else {},
        beside=beside,
        model=model,
        args=arguments,
        train_dataset=pairs,
        eval_dataset=TrainingPairs(model.inputs(validation), validation),
        data_collator=model.collate,
        compute_metrics=validation_metrics,
        callbacks=[ParameterWatch(), EarlyStoppingCallback(early_stopping_patience=settings.patience)],
    )
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    return trainer
