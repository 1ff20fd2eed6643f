"""The cube and its baselines on the held-out answer groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cube3d.baselines import Predictor, identity, mean_answer, ridge, trained_baselines
from cube3d.config import Settings
from cube3d.metrics import METRICS, Bootstrap, anisotropy, effective_dimensions, per_question
from cube3d.model import CubeModel
from cube3d.vectors import Parts

CUBE = "cube"
IDENTITY = "identity"


def evaluate(
    cube: CubeModel, parts: Parts, settings: Settings, folder: Path, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Every metric for the cube and each baseline on the test part.

    Args:
        cube: trained.
        parts: training fits the baselines, validation chooses among them, test measures.
        settings: of the run.
        folder: for the trained baselines; what is there is not trained again.
        say: gets a line for each baseline that is trained.

    Returns:
        ``{"test": sizes, "methods": {name: {metric: {mean, low, high}, "anisotropy", "effective_dimensions"}},
        "gains": {name: {metric: {mean, low, high}}}}``, JSON-ready. A gain is the cube minus that method, paired
        over questions, with its own interval.
    """
    predictors: dict[str, Predictor] = {
        CUBE: cube.predict,
        IDENTITY: identity,
        "mean answer": mean_answer(parts.train),
        "ridge": ridge(parts, residual=False),
        "residual ridge": ridge(parts, residual=True),
        **trained_baselines(cube, parts, settings, folder, say),
    }
    test, center = parts.test, parts.train.answer.mean(0)
    bootstrap = Bootstrap(test.group, settings.seed)
    predictions = {name: predict(test.question) for name, predict in predictors.items()}
    values = {name: per_question(prediction, test, center) for name, prediction in predictions.items()}
    methods = {
        name: {
            **{metric: asdict(bootstrap.estimate(values[name][metric])) for metric in METRICS},
            "anisotropy": anisotropy(prediction),
            "effective_dimensions": effective_dimensions(prediction),
        }
        for name, prediction in predictions.items()
    }
    gains = {
        name: {metric: asdict(bootstrap.estimate(values[CUBE][metric] - values[name][metric])) for metric in METRICS}
        for name in predictors
        if name != CUBE
    }
    sizes = {"questions": len(test), "answers": len(test.bank_text), "groups": len(test.group.unique())}
    return {"test": sizes, "methods": methods, "gains": gains}


def verdict(results: dict[str, Any]) -> str:
    """One sentence: whether the cube beats no model at all in MRR."""
    gain = results["gains"][IDENTITY]["mrr"]
    figures = f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    if gain["low"] > 0:
        return f"The cube beats identity in MRR: {figures}; the 95 % interval excludes zero."
    if gain["high"] < 0:
        return f"The cube is WORSE than identity in MRR: {figures}; the 95 % interval excludes zero."
    return f"The cube does NOT measurably beat identity in MRR: {figures}; the 95 % interval includes zero."


def table(results: dict[str, Any]) -> str:
    """The results as text for a terminal: mean and 95 % interval."""
    sizes = results["test"]
    width = max(map(len, results["methods"]))
    lines = [
        f"{sizes['questions']} held-out questions, {sizes['answers']} answers to choose from; mean [95 % interval]",
        " ".join([" " * width, *(f"{metric:^20}" for metric in METRICS)]).rstrip(),
    ]
    for name, values in results["methods"].items():
        cells = (f"{v['mean']:.3f} [{v['low']:.3f},{v['high']:.3f}]" for v in (values[m] for m in METRICS))
        lines.append(" ".join([f"{name:<{width}}", *(f"{cell:^20}" for cell in cells)]).rstrip())
    return "\n".join([*lines, verdict(results)])
