"""Distillation: the reader learns to say of any text what its teachers say."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from cube3d.config import DistillationSettings, LossSettings, NegativeSettings, TuningSettings
from cube3d.losses import Objective
from cube3d.metrics import ranks
from cube3d.reader.corpus import Corpus
from cube3d.reader.model import ReaderModel, pad
from cube3d.trainer import (
    Beside,
    CheckpointingTrainer,
    ParameterWatch,
    StepBar,
    Trained,
    check_processes,
    complete_checkpoints,
    shared,
)
from cube3d.vectors import Part

CHECKPOINTS = 10
"""How often a distillation is saved."""


def _objective(settings: DistillationSettings, dim: int) -> Objective:
    return Objective(
        LossSettings(
            cosine=settings.cosine,
            distillation=settings.relational,
            distillation_temperature=settings.temperature,
            info_nce=0.0,
            negatives=NegativeSettings(pool="batch"),
        ),
        dim,
    )


class DistillationTrainer(CheckpointingTrainer):
    """Texts to their teachers' vectors."""

    def __init__(self, objective: Objective, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objective = objective

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        target = inputs.pop("target")
        outputs = model(**inputs)
        loss, parts = self.objective(outputs.prediction, target, torch.arange(len(target)))
        self.note(parts)
        return (loss, outputs) if return_outputs else loss


class HeldOutLine(TrainerCallback):
    """After every epoch, how the reader does on questions that it is not trained on.

    Args:
        model: the reader.
        validation: the questions, with their teachers' vectors.
        say: gets a line.
    """

    def __init__(self, model: ReaderModel, validation: Part, say: Callable[[str], None]) -> None:
        self._model, self._validation, self._say = model, validation, say

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        training = self._model.training
        prediction = self._model.predict(self._validation)
        self._model.train(training)
        cosine = F.cosine_similarity(prediction, self._validation.question, dim=-1).mean().item()
        mrr = (1 / ranks(prediction, self._validation)).mean().item()
        state.log_history.append(
            {"epoch": state.epoch, "step": state.global_step, "eval_teacher_cosine": cosine, "eval_mrr": mrr}
        )
        if state.is_world_process_zero:
            self._say(
                f"epoch {round(state.epoch):3d}/{args.num_train_epochs:.0f}  step {state.global_step:5d}  "
                f"validation: cosine with the teacher {cosine:.4f}  MRR {mrr:.4f}"
            )


def distill(
    model: ReaderModel,
    corpus: Corpus,
    validation: Part,
    settings: DistillationSettings,
    folder: Path,
    seed: int,
    say: Callable[[str], None] | None = None,
) -> Trained:
    """Trains the reader in place. Where the folder holds checkpoints, it goes on from the newest whole one, bit for
    bit.

    Args:
        model: with its token vectors.
        corpus: the texts.
        validation: questions that are measured after every epoch.
        settings: optimizer, schedule and losses.
        folder: for the checkpoints.
        seed: of the data order.
        say: gets a line an epoch; None: silent.

    Raises:
        UserError: a checkpoint could not be saved or is of another number of processes, a loss is not a number, or a
            batch that the processes cannot share.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=settings.epochs,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        max_grad_norm=1.0,
        eval_strategy="no",
        save_strategy="steps",
        save_steps=1 / CHECKPOINTS,
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=1 / 50,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        label_names=["target"],
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    # A part of a batch could not be shared evenly: an epoch leaves it out, and draws other texts into it the next time.
    arguments.dataloader_drop_last = len(corpus) >= settings.batch_size
    arguments.per_device_train_batch_size = shared(settings.batch_size, arguments.world_size, "distillation")
    trainer = DistillationTrainer(
        objective=_objective(settings, model.config.dim),
        groups=parameter_groups(
            model,
            settings.learning_rate,
            settings.weight_decay,
            settings.vectors_learning_rate,
            settings.weights_learning_rate,
        ),
        model=model,
        args=arguments,
        train_dataset=corpus,
        data_collator=pad,
        callbacks=[ParameterWatch()],
    )
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    bar = StepBar("distilling")
    if say is not None:
        trainer.add_callback(HeldOutLine(model, validation, say))
        trainer.add_callback(bar)
    checkpoints = complete_checkpoints(folder)
    if checkpoints:
        check_processes(checkpoints[-1], arguments.world_size)
    with closing(bar):
        trainer.train(resume_from_checkpoint=str(checkpoints[-1]) if checkpoints else None)
    watch = next(c for c in trainer.callback_handler.callbacks if isinstance(c, ParameterWatch))
    # The losses of the pairs wait for their turn.
    return Trained(
        trainer.state.log_history, watch.checks([n for n in model.trainable() if not n.startswith("objective.")])
    )


def parameter_groups(
    model: ReaderModel, learning_rate: float, weight_decay: float, vectors: float, weights: float
) -> list[dict[str, Any]]:
    """The table, the tokens' weights and all the rest, each with its own learning rate.

    Args:
        model: the reader; what it does not train is in no group.
        learning_rate, weight_decay: of the rest.
        vectors, weights: learning rates of the table and of the tokens' weights; 0 leaves them out.
    """
    named = {name: model.get_parameter(name) for name in model.trainable()}
    table = [p for name, p in named.items() if name.startswith("table.")]
    rest = [p for name, p in named.items() if not name.startswith("table.") and name != "log_weight"]
    groups = [
        {"params": rest, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": table, "lr": vectors, "weight_decay": 0.0},
        {"params": [model.log_weight], "lr": weights, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"] and group["lr"]]


def going_on(
    model: ReaderModel,
    corpus: Corpus,
    distillation: DistillationSettings,
    tuning: TuningSettings,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> Beside:
    """What tuning minimizes beside the loss of the pairs: distillation that goes on, and the distance of the token
    vectors from the distilled ones.

    Args:
        model: distilled.
        corpus: the texts it was distilled on.
        distillation, tuning: from the configuration.
        learning_rate, weight_decay: of all but the table.
        seed: of the texts that are drawn, for each step by itself, so that a resumed run draws the same.
    """
    objective, process = _objective(distillation, model.config.dim), PartialState(cpu=True)
    distilled = model.table.vectors.detach().clone() if tuning.hold else None

    def losses(step: int) -> dict[str, Tensor]:
        found = {}
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        drawn = torch.randint(len(corpus), (distillation.batch_size,), generator=draw)
        rows = drawn[process.process_index :: process.num_processes].tolist()
        batch = pad([corpus[row] for row in rows])
        target = batch.pop("target")
        if tuning.distillation:
            loss, _ = objective(model.read(**batch), target, torch.arange(len(target)))
            found["going_on"] = tuning.distillation * loss
        if distilled is not None:
            tokens = batch["input_ids"].unique()
            found["hold"] = tuning.hold * (model.table(tokens) - distilled[tokens]).square().sum(1).mean()
        return found

    return Beside(
        losses,
        parameter_groups(model, learning_rate, weight_decay, tuning.vectors_learning_rate, learning_rate),
    )
