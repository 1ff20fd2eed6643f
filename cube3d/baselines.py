"""What stands beside every cube. Without them a figure means nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cube3d.config import Settings
from cube3d.data.tasks import task_mix
from cube3d.metrics import ranks
from cube3d.model import CubeConfig, CubeModel, MappingModel, MLPConfig, MLPModel, load_model
from cube3d.vectors import Part, Parts

Predictor = Callable[[Tensor], Tensor]

RIDGE_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def identity(questions: Tensor) -> Tensor:
    """No model: the question's own vector."""
    return questions


def mean_answer(train: Part) -> Predictor:
    """The mean training answer, whatever is asked."""
    center = train.answer.mean(0)
    return lambda questions: center.expand_as(questions)


def ridge(parts: Parts, residual: bool) -> Predictor:
    """Linear least squares with an L2 penalty and an intercept, from the question to the answer or (residual)
    to what the answer adds to the question; the penalty with the best validation MRR
    (Hoerl and Kennard, 1970)."""
    x = parts.train.question.double()
    y = parts.train.answer.double() - (x if residual else 0)
    x_mean, y_mean = x.mean(0), y.mean(0)
    gram, cross = (x - x_mean).T @ (x - x_mean), (x - x_mean).T @ (y - y_mean)

    def fitted(penalty: float) -> Predictor:
        weight = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=gram.dtype), cross)

        def predict(questions: Tensor) -> Tensor:
            q = questions.double()
            return ((q - x_mean) @ weight + y_mean + (q if residual else 0)).to(questions.dtype)

        return predict

    def validation_mrr(predict: Predictor) -> float:
        return (1 / ranks(predict(parts.validation.question), parts.validation)).mean().item()

    return max(map(fitted, RIDGE_PENALTIES), key=validation_mrr)


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


def equal_mlp(cube: CubeModel) -> MLPConfig:
    """The residual perceptron with about as many parameters as the cube."""
    count = sum(p.numel() for p in cube.mapping.parameters())
    dim = cube.config.dim
    return MLPConfig(dim=dim, hidden=max(1, round((count - dim) / (2 * dim + 1))), loss=cube.config.loss)


def trained_baselines(
    cube: CubeModel, parts: Parts, settings: Settings, folder: Path, say: Callable[[str], None]
) -> dict[str, Predictor]:
    """The baselines that are trained exactly as the cube was: same losses, schedule, data order and early
    stopping. What is in the folder already is loaded.

    - ``lattice off``: lift and readout without a rollout between.
    - ``MLP``: a residual perceptron of equal size.
    - ``shuffled pairs``: the same cube on training pairs whose answers were exchanged.
    """
    off = CubeConfig(dim=cube.config.dim, cube={**cube.config.cube, "steps": 0}, loss=cube.config.loss)
    jobs: Sequence[tuple[str, type[MappingModel], CubeConfig | MLPConfig, Part]] = (
        ("lattice off", CubeModel, off, parts.train),
        ("MLP", MLPModel, equal_mlp(cube), parts.train),
        ("shuffled pairs", CubeModel, cube.config, shuffled(parts.train, settings.seed)),
    )
    predictors: dict[str, Predictor] = {}
    for name, kind, config, train in jobs:
        saved = folder / name.replace(" ", "_")
        if not saved.is_dir():
            from cube3d.trainer import fit

            say(f"training the baseline {name}")
            torch.manual_seed(settings.seed)
            model = kind(config)
            fit(
                model,
                task_mix(train, settings.data.tasks, settings.seed),
                parts.validation,
                settings.training,
                folder / f".{saved.name}-training",
                settings.seed,
            )
            model.save(saved)
        predictors[name] = load_model(kind, saved).predict
    return predictors
