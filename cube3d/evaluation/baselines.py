"""What stands beside every cube. Without them a figure means nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cube3d.config import Settings
from cube3d.evaluation.methods import Method
from cube3d.model import CubeConfig, CubeModel, MappingModel, MLPConfig, MLPModel, load_model
from cube3d.training.mixture import mix
from cube3d.training.ridge import ridge
from cube3d.training.tasks import task_mix
from cube3d.vectors import Part, Parts

Predictor = Callable[[Tensor], Tensor]
"""Questions ``[N, dim]`` to predicted answers ``[N, dim]``."""

CUBE = "cube"
IDENTITY = "identity"
MEAN_ANSWER = "mean answer"


def identity(questions: Tensor) -> Tensor:
    """No model: the question's own vector."""
    return questions


def mean_answer(train: Part) -> Predictor:
    """The mean training answer, whatever is asked."""
    center = train.answer.mean(0)
    return lambda questions: center.expand_as(questions)


def shuffled(train: Part, seed: int) -> Part:
    """The training pairs with each answer group given another group's answer: what can be learned without a
    question's own answer."""
    groups = train.group.unique()
    order = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))]
    # Along a cycle no group keeps its own.
    other = dict(zip(order.tolist(), order.roll(1).tolist(), strict=True))
    first_row = {int(g): i for i, g in reversed(list(enumerate(train.group.tolist())))}
    rows = [first_row[other[int(g)]] for g in train.group]
    return replace(train, answer=train.answer[rows], group=train.group[rows])


def sized_mlp(cube: CubeModel, times: int) -> MLPConfig:
    """The residual perceptron with about ``times`` as many parameters as the cube, ridge left aside."""
    count = times * mapping_size(cube)
    dim = cube.config.dim
    return MLPConfig(dim=dim, hidden=max(1, round((count - dim) / (2 * dim + 1))), loss=cube.config.loss)


def parameter_count(model: MappingModel) -> int:
    """Fitted numbers between question and prediction: the mapping's and those of the ridge that is mixed in."""
    fitted = 0 if model.mixture is None else sum(buffer.numel() for buffer in model.mixture.buffers())
    return mapping_size(model) + fitted


def mapping_size(model: MappingModel) -> int:
    """Learned numbers of the mapping. Those of the losses do not count, nor a rule's that no step applies."""
    return sum(model.get_parameter(name).numel() for name in model.trainable() if name.startswith("mapping."))


def lattice_off(cube: CubeModel) -> CubeConfig:
    """The same cube without steps. Nothing crosses its lattice, so the answer is read where the question enters."""
    still = {**cube.config.cube, "steps": 0, "output": cube.config.cube["input"]}
    return CubeConfig(dim=cube.config.dim, cube=still, loss=cube.config.loss)


def _of_vectors(predict: Predictor, parameters: int) -> Method:
    return Method(lambda part: predict(part.question), parameters)


def rows(name: str, model: MappingModel) -> dict[str, Method]:
    """The model's row of the tables, and where ridge is mixed in, that of its mapping alone."""
    methods = {name: Method(model.predict, parameter_count(model))}
    if model.mixture is not None:
        methods[f"{name} alone"] = _of_vectors(model.alone, mapping_size(model))
    return methods


def trained_baselines(
    cube: CubeModel, parts: Parts, settings: Settings, folder: Path, say: Callable[[str], None]
) -> dict[str, Method]:
    """The baselines that are trained exactly as the cube was: same losses, schedule, data order, early
    stopping and mixture. What is in the folder already is loaded.

    - ``lattice off``: lift and readout without a rollout between.
    - ``MLP``, ``MLP x4``: residual perceptrons of the cube's size and of four times that.
    - ``shuffled pairs``: the same cube on training pairs whose answers were exchanged, and ridge with it.
    """
    same = CubeConfig(dim=cube.config.dim, cube=cube.config.cube, loss=cube.config.loss)
    jobs: Sequence[tuple[str, type[MappingModel], CubeConfig | MLPConfig, Part]] = (
        ("lattice off", CubeModel, lattice_off(cube), parts.train),
        ("MLP", MLPModel, sized_mlp(cube, 1), parts.train),
        ("MLP x4", MLPModel, sized_mlp(cube, 4), parts.train),
        ("shuffled pairs", CubeModel, same, shuffled(parts.train, settings.seed)),
    )
    methods: dict[str, Method] = {}
    for name, kind, config, train in jobs:
        saved = folder / name.replace(" ", "_")
        training = folder / f".{saved.name}-training"
        if not saved.is_dir():
            from cube3d.training.trainer import fit

            say(f"training the baseline {name}")
            torch.manual_seed(settings.seed)
            model = kind(config)
            fit(
                model,
                task_mix(train, settings.data.tasks, settings.seed),
                parts.validation,
                settings.training,
                training,
                settings.seed,
                name,
            )
            if settings.mixture == "ridge":
                of_these = replace(parts, train=train)
                mix(model, ridge(of_these, residual=True), of_these, settings.training.stop_on)
            model.save(saved)
        shutil.rmtree(training, ignore_errors=True)
        methods |= rows(name, load_model(kind, saved).to(cube.device))
    return methods


def baselines(
    cube: CubeModel, parts: Parts, settings: Settings, folder: Path, say: Callable[[str], None]
) -> dict[str, Method]:
    """Everything that stands beside the cube, in the order of the tables.

    Args:
        cube: trained; the baselines take their size and losses from it.
        parts: training fits them, validation chooses among them.
        settings: of the run.
        folder: for those that are trained; what is there is not trained again.
        say: gets a line for each that is trained.
    """
    dim = cube.config.dim
    return {
        IDENTITY: _of_vectors(identity, 0),
        MEAN_ANSWER: _of_vectors(mean_answer(parts.train), dim),
        "ridge": _of_vectors(ridge(parts, residual=False), dim * dim + dim),
        "residual ridge": _of_vectors(ridge(parts, residual=True), dim * dim + dim),
        **trained_baselines(cube, parts, settings, folder, say),
    }
