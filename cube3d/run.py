"""A run's folder: what training writes, and evaluation, report and answering read.

::

    config.yaml      the resolved settings
    pairs.jsonl      the pairs as they were read, with part and answer group
    ensemble.safetensors  how the teachers are aligned and weighed
    texts/           what a reader is distilled on: tokens, teachers' vectors, tokenizer
    distilled/       a reader before it is tuned on pairs
    model/           the trained model
    answers.safetensors  the vectors of the run's answers, so that a reader answers without a teacher
    history.json     the Trainer's log
    audit.json       the checks the run made of itself
    training/        checkpoints
    baselines/       the trained baselines
    questions.json   what the evaluation measured, question by question
    metrics.json     its means, intervals and tests
    teachers.json    what each teacher gives alone, their weights and agreement
    report.html      all of it for a reader
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cube3d.audit import check_reading, check_rollout, check_split, check_texts, require
from cube3d.config import LatticeSettings, Settings, differences, dump_settings, load_settings
from cube3d.dataset.prepare import prepare
from cube3d.device import find_device, training_process
from cube3d.errors import UserError
from cube3d.files import holds_something, load_json, locked, replacing, save_json, save_text
from cube3d.hints import command
from cube3d.model import AnswerModel, CubeConfig, CubeModel, load_model
from cube3d.pairs import Pair, Split
from cube3d.progress import say
from cube3d.reader.model import ReaderModel
from cube3d.strict import parse_json_lines, read_text
from cube3d.teachers import Ensemble, fit_ensemble, load_ensemble, open_teacher
from cube3d.training.check import Check
from cube3d.training.mixture import mix
from cube3d.training.ridge import ridge
from cube3d.training.tasks import task_mix
from cube3d.vectors import Parts, embed_parts
from cube_kernels import CubeLayer

if TYPE_CHECKING:
    from accelerate import PartialState

    from cube3d.reader.train import Material

PART_NAMES = tuple(field.name for field in fields(Split))


@dataclass(frozen=True)
class Run:
    """A folder that :func:`start` made, opened."""

    folder: Path
    settings: Settings
    pairs: list[Pair]
    groups: list[int]
    split: Split

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def model_folder(self) -> Path:
        return self.folder / "model"

    @property
    def training_folder(self) -> Path:
        return self.folder / "training"

    @property
    def baselines_folder(self) -> Path:
        return self.folder / "baselines"

    @property
    def report_file(self) -> Path:
        return self.folder / "report.html"

    @property
    def ensemble_file(self) -> Path:
        return self.folder / "ensemble.safetensors"

    @cached_property
    def ensemble(self) -> Ensemble:
        """The teachers as one, as they were fitted when training began.

        Raises:
            UserError: training has not begun, the file is damaged, or a teacher is not the one it was.
        """
        return load_ensemble(self.ensemble_file, self.settings.teachers)

    @cached_property
    def parts(self) -> Parts:
        return embed_parts(self.pairs, self.groups, self.split, self.ensemble)

    @cached_property
    def model(self) -> AnswerModel:
        """The trained model, on the device it was trained on, or the one that "auto" finds where that is not there.

        Raises:
            UserError: training has not ended, the folder is damaged, or the model is another run's.
        """
        if not self.model_folder.is_dir():
            hint = command("train", "--resume", "--out", self.folder)
            raise UserError(f"{self.folder}: training has not ended; `{hint}` goes on")
        section = "reader" if self.settings.model == "reader" else "cube"
        model = load_model(_kind(self.settings), self.model_folder)
        own, saved = getattr(self.settings, section).model_dump(), getattr(model.config, section)
        differing = [f"{section}.{name}" for name, value in own.items() if saved.get(name) != value]
        if differing:
            raise UserError(f"{self.model_folder}: of another configuration: {', '.join(differing)} differ")
        if isinstance(model, CubeModel) and model.config.mixture != (self.settings.mixture == "ridge"):
            raise UserError(f"{self.model_folder}: of another configuration: mixture differs")
        model.to(self._device())
        return model

    def _device(self) -> torch.device:
        """A run is often asked on another machine than it was trained on."""
        try:
            return find_device(self.settings.training.device, "training.device")
        except UserError as error:
            device = find_device("auto", "training.device")
            print(f"{error}; the model runs on {device}", file=sys.stderr)  # answers alone go to the standard output
            return device

    def fingerprint(self) -> str:
        """A hash of the files that a text's vector depends on."""
        digest = hashlib.sha256()
        for path in [self.ensemble_file, *sorted(self.model_folder.rglob("*"))]:
            if path.is_file():
                digest.update(f"{path.name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    @property
    def texts_folder(self) -> Path:
        return self.folder / "texts"

    @property
    def distilled_folder(self) -> Path:
        return self.folder / "distilled"

    @property
    def answers_file(self) -> Path:
        return self.folder / "answers.safetensors"

    def prepare_material(self) -> Material:
        """Reads, tokenizes and embeds the texts that readers are distilled on, or opens what is there of them.

        Raises:
            UserError: what :func:`cube3d.reader.train.prepare` raises.
        """
        from cube3d.reader.train import prepare

        return prepare(self.texts_folder, self.settings, self.pairs, self.split, self.ensemble, say)

    def ask(self, questions: Sequence[str]) -> Tensor:
        """Predicted answers ``[N, dim]`` for questions as texts. A reader does without the teachers."""
        model = self.model
        if isinstance(model, ReaderModel):
            return model.embed(questions)
        assert isinstance(model, CubeModel)
        return model.map(self.ensemble.questions(questions))

    def save_answers(self) -> None:
        """Keeps the vectors of the run's answers, so that a reader answers without a teacher."""
        texts = list(dict.fromkeys(pair.answer for pair in self.pairs))
        with replacing(self.answers_file) as temporary:
            save_file({"vectors": self.ensemble.answers(texts)}, temporary)

    def answers(self) -> dict[str, Tensor]:
        """What :meth:`save_answers` kept, by the answers' texts.

        Raises:
            UserError: the file is missing or damaged.
        """
        texts = list(dict.fromkeys(pair.answer for pair in self.pairs))
        try:
            vectors = load_file(self.answers_file)["vectors"]
            return dict(zip(texts, vectors, strict=True))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{self.answers_file}: damaged, or of another run: {error!r}") from error

    def results(self, name: str) -> Any:
        """``history``, ``audit``, ``questions``, ``metrics`` or ``teachers`` as it was saved.

        Raises:
            UserError: it is not there yet.
        """
        path = self.folder / f"{name}.json"
        if not path.exists():
            if name in ("questions", "metrics", "teachers"):
                hint = command("evaluate", self.folder)
            else:
                hint = command("train", "--resume", "--out", self.folder)
            raise UserError(f"{path}: not there yet; `{hint}` writes it")
        return load_json(path)

    def save_results(self, name: str, value: Any) -> None:
        save_json(self.folder / f"{name}.json", value)


def fit(
    folder: str | Path,
    settings: Settings | None = None,
    pairs: Sequence[Pair] | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Trains a run in a new folder, or goes on with one that was interrupted. What ``cube3d train`` does.

    Args:
        folder: for all that the run writes.
        settings: from :func:`cube3d.config.load_settings`, or made in Python; None: the defaults, or those of the run
            that goes on.
        pairs: what to learn from instead of the files that the settings name (``data.pairs``).
        resume: go on with the run in the folder. It has its own settings and pairs.
        progress: print what is being done.

    Raises:
        UserError, BusyError: what :func:`start`, :func:`load` and :func:`train` raise; settings or pairs that are not
            those of the run that goes on.

    Example::

        run = fit("runs/mine", load_settings(None, ["training.epochs=5"]), read_pairs(["faq.csv"]))
    """
    folder = Path(folder)
    if resume:
        if pairs is not None:
            raise UserError(f"{folder}: a run that goes on has its own pairs; give none")
        run = load(folder)
        differing = [] if settings is None else differences(run.settings, settings)
        if differing:
            raise UserError(f"{folder}: its checkpoints are of another configuration: {', '.join(differing)} differ")
    else:
        run = start(folder, Settings() if settings is None else settings, pairs)
    train(run, progress)
    return run


def start(folder: Path, settings: Settings, pairs: Sequence[Pair] | None = None) -> Run:
    """A new run: prepares its pairs, those given or those that the settings name. Nothing is written before training
    begins.

    Raises:
        UserError: the folder holds a run already, or the pairs cannot be read or split.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder")
    if holds_something(folder):
        hint = ""
        if (folder / "config.yaml").exists():
            hint = f", or go on with the run in it: `{command('train', '--resume', '--out', folder)}`"
        raise UserError(f"{folder}: is not empty; name another folder{hint}")
    if pairs is not None:
        settings = settings.model_copy(update={"data": settings.data.model_copy(update={"pairs": []})})
    return _prepared(folder, settings, pairs)


def _has_begun(folder: Path) -> bool:
    """Whether a run has written its inputs, of which the pairs are the last. What of them is missing then was lost."""
    return any((folder / name).exists() for name in ("pairs.jsonl", "texts", "training", "model"))


def _prepared(folder: Path, settings: Settings, pairs: Sequence[Pair] | None = None) -> Run:
    prepared = prepare(settings, pairs)
    return Run(folder, settings, prepared.pairs, prepared.groups, prepared.split)


def fit_teachers(run: Run) -> Ensemble:
    """The teachers as one, fitted to the training pairs and tried on all of them, before a file is written.

    Raises:
        UserError: a teacher cannot be had or cannot read a text, the pairs are too few for the settings, or the
            embedding does not fill a mapping's cube.
    """
    training = [run.pairs[i] for i in run.split.train]
    ensemble = fit_ensemble(
        run.settings.teachers,
        run.settings.ensemble,
        [pair.prompt for pair in training],
        [pair.answer for pair in training],
        torch.tensor([run.groups[i] for i in run.split.train]),
        run.settings.seed,
    )
    parts = embed_parts(run.pairs, run.groups, run.split, ensemble)
    if run.settings.model == "mapping":
        new_cube(run.settings, parts.dim)
    return ensemble


def _write_inputs(run: Run, ensemble: Ensemble) -> None:
    # The configuration first: with it a run that is killed here goes on.
    save_text(run.config_file, dump_settings(run.settings))
    ensemble.save(run.ensemble_file)
    part_of = {i: name for name in PART_NAMES for i in getattr(run.split, name)}
    records = [{**asdict(p), "part": part_of[i], "answer_group": run.groups[i]} for i, p in enumerate(run.pairs)]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    save_text(run.folder / "pairs.jsonl", "".join(lines))


def load(folder: str | Path) -> Run:
    """The run in a folder.

    Raises:
        UserError: the folder holds no run, a damaged one, or one that was killed before the pairs that were given in
            Python were written.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder}: holds no run; `{command('train', '--out', folder)}` makes one")
    settings = load_settings(folder / "config.yaml")
    if not _has_begun(folder):  # killed before it had written its inputs
        if not settings.data.pairs:
            raise UserError(
                f"{folder}: was killed before its pairs, which were given in Python, were written; nothing is lost: "
                "delete the folder and call fit with them again"
            )
        return _prepared(folder, settings)
    pairs, groups = [], []
    split = Split([], [], [])
    path = folder / "pairs.jsonl"
    try:
        for i, (_, _, record) in enumerate(parse_json_lines(read_text(path), path)):
            getattr(split, record.pop("part")).append(i)
            groups.append(int(record.pop("answer_group")))
            pairs.append(Pair(**{**record, "context": tuple(record["context"])}))
    except UserError as error:
        raise UserError(f"{path}: damaged: {error}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: damaged: {error!r}") from error
    return Run(folder, settings, pairs, groups, split)


def train(run: Run, progress: bool = True) -> None:
    """Trains the run's model and writes it, history and audit; goes on from a checkpoint if there is one, and leaves a
    trained run as it is. Of several processes the first one writes.

    Raises:
        UserError: an audit failed (``audit.json`` says which; no model is saved), the embedding does not fill
            the cube, the device is not there, the folder holds a run of other settings by now, or what
            :func:`cube3d.training.trainer.fit` raises.
        BusyError: another process trains or evaluates the run.
    """
    trained = run.model_folder.is_dir()
    process = training_process(run.settings.training.device)
    process.wait_for_everyone()  # each has looked
    if trained:
        return
    checks = [check_split(run.pairs, run.groups, run.split)]
    require(checks)
    # What is wrong with the input shows before a file is written.
    _try_backend(run.settings, process.device)
    if progress and process.is_main_process:
        count = f", {process.num_processes} processes" if process.num_processes > 1 else ""
        teachers = ", ".join(f"{each.model} on {open_teacher(each).device}" for each in run.settings.teachers)
        say(f"training on {process.device}{count}; teachers: {teachers}")
    with process.main_process_first():  # the others find the teacher's vectors in the cache
        ensemble = run.ensemble if _has_begun(run.folder) else fit_teachers(run)
    process.wait_for_everyone()  # each has found the folder empty
    with locked(run.folder) if process.is_main_process else nullcontext():
        _train(run, ensemble, checks, process, progress)


def _train(run: Run, ensemble: Ensemble, checks: list[Check], process: PartialState, progress: bool) -> None:
    from cube3d.training import trainer

    begins = process.is_main_process and not _has_begun(run.folder)
    if process.is_main_process and run.config_file.exists() and load_settings(run.config_file) != run.settings:
        raise UserError(f"{run.folder}: holds a run of other settings, which began a moment ago; name another folder")
    if begins:
        _write_inputs(run, ensemble)
    process.wait_for_everyone()
    if not run.ensemble_file.exists():
        raise UserError(
            f"{run.folder}: process {process.process_index} does not see what the first one wrote there; all hosts "
            "of a run share its folder"
        )
    model: AnswerModel
    if run.settings.model == "mapping":
        model = new_cube(run.settings, run.parts.dim)
        trained = trainer.fit(
            model,
            task_mix(run.parts.train, run.settings.data.tasks, run.settings.seed),
            run.parts.validation,
            run.settings.training,
            run.training_folder,
            run.settings.seed,
            "training" if progress else None,
            lines=progress,
        )
        checks += trained.checks
        if run.settings.cube.steps > 0:
            checks.append(check_rollout(model, run.parts.validation.question))
    else:
        from cube3d.reader.train import distilled_reader, new_reader, tuned_reader

        # The texts take long to embed: a run that is killed meanwhile has its inputs, and goes on.
        try:
            with process.main_process_first():
                material = run.prepare_material()
                model = new_reader(material, run.settings.reader, run.parts.dim)
                model.encode([text for pair in run.pairs for text in (pair.prompt, pair.answer)])  # each can be read
        except UserError:
            if begins:
                shutil.rmtree(run.folder)
            raise
        checks.append(check_texts(material, run.pairs, run.split))
        checks += distilled_reader(
            model,
            material,
            run.parts,
            run.distilled_folder,
            run.training_folder / "distilling",
            "distilling" if progress else None,
            say if progress else None,
        )
        tuning, named = run.training_folder / "tuning", "training" if progress else None
        trained = tuned_reader(model, material, run.parts, tuning, named, progress)
        checks += trained.checks
        if run.settings.reader.context == "lattice" and run.settings.reader.steps > 0:
            checks.append(check_reading(model, run.parts.validation.text))
        model = model.stored(run.settings.reader.storage)
    if process.is_main_process:
        run.save_results("history", trained.history)
        run.save_results("audit", [check.as_dict() for check in checks])
    require(checks)
    if process.is_main_process:
        if isinstance(model, CubeModel) and run.settings.mixture == "ridge":
            metric = run.settings.training.stop_on
            share = mix(model, ridge(run.parts, residual=True), run.parts, metric)
            if progress:
                say(f"share of ridge: {share:g}, the best {metric} on validation")
        run.save_answers()
    model.save(run.model_folder)


def _try_backend(settings: Settings, device: torch.device) -> None:
    """Raises BackendError now, not after the texts are embedded, where the named one does not run on the device."""
    mapping = settings.model == "mapping"
    named: LatticeSettings = settings.cube if mapping else settings.reader
    if not mapping and settings.reader.context != "lattice":
        return
    depth, height, width = settings.cube.shape if mapping else (*settings.reader.cells, 1)
    lattice = named.lattice((depth, height, width))
    try:
        layer = CubeLayer(lattice, named.rule(), steps=1, backend=named.backend).to(device)
    except ValueError as error:
        raise UserError(str(error)) from error
    layer(torch.zeros(0, *lattice.state_shape, device=device))


def _kind(settings: Settings) -> type[AnswerModel]:
    return CubeModel if settings.model == "mapping" else ReaderModel


def new_cube(settings: Settings, dim: int) -> CubeModel:
    """The cube of a mapping before training: the same for the same seed.

    Args:
        settings: of the run.
        dim: of the teachers' space.

    Raises:
        UserError: that many dimensions do not fill it.
    """
    torch.manual_seed(settings.seed)
    try:
        return CubeModel(CubeConfig(dim=dim, cube=settings.cube.model_dump(), loss=settings.loss.model_dump()))
    except ValueError as error:
        names = ", ".join(repr(teacher.model) for teacher in settings.teachers)
        raise UserError(f"no such cube for the {dim} dimensions of {names}: {error}") from error
