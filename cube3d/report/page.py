"""The report as one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from cube3d.config import dump_settings
from cube3d.evaluation.baselines import MEAN_ANSWER
from cube3d.evaluation.evaluate import load_evaluations, summarize
from cube3d.evaluation.subsets import ALL
from cube3d.metrics import per_question
from cube3d.model import CubeModel
from cube3d.reader.model import ReaderModel
from cube3d.report import pictures, tables
from cube3d.report.history import panels
from cube3d.report.lattice import movement, signal
from cube3d.report.samples import samples
from cube3d.run import Run

SIGNAL_QUESTIONS = 64
"""Held-out questions over which the gradient inside the lattice is measured."""


def page(runs: Sequence[Run]) -> str:
    """The page of one run, or of several seeds. What belongs to one model is shown for the first.

    Raises:
        UserError: training or evaluation has not been done, or runs differ in more than the seed.
    """
    results = summarize(load_evaluations(runs))
    first = runs[0]
    test = first.parts.test
    lattice, drawn = _lattice(first)
    teachers = first.results("teachers")
    template = Environment(
        loader=PackageLoader("cube3d", "report"), autoescape=True, undefined=StrictUndefined
    ).get_template("report.html")
    return template.render(
        headline=tables.headline(results),
        verdict=tables.verdict(results),
        control=tables.CONTROL,
        main=results["main"],
        control_name=results["control"],
        gain=tables.gain_table(results),
        measured=[
            (tables.method_table(results, subset), tables.difference_table(results, subset))
            for subset in tables.measured_subsets(results)
        ],
        probe=tables.probe_table(results),
        samples=samples(first),
        first=first,
        teachers=tables.teacher_table(teachers),
        sizes={name: (len(part), len(part.group.unique())) for name, part in vars(first.parts).items()},
        parameters=f"{results['methods'][results['main']]['parameters']:,.0f}",
        question=test.pairs[0].question,
        lattice=lattice,
        audits={f"seed {run.settings.seed}": run.results("audit") for run in runs},
        settings=dump_settings(first.settings),
        mixture=first.settings.mixture,
        versions={"cube-kernels": version("cube-kernels"), "torch": torch.__version__},
        images={
            name: base64.b64encode(data).decode()
            for name, data in {
                "means": _means(results),
                "gains": _gains(results),
                "curves": _curves(runs, results["control"]),
                **drawn,
                **(_teachers(teachers) if teachers["agreement"] else {}),
            }.items()
        },
    )


def _lattice(run: Run) -> tuple[dict[str, float], dict[str, bytes]]:
    """What goes on inside the run's lattice, in numbers and pictures; nothing of a reader without one."""
    model, test = run.model.cpu(), run.parts.test
    if isinstance(model, CubeModel):
        states, gradients = signal(model, test.question[:SIGNAL_QUESTIONS], test.answer[:SIGNAL_QUESTIONS])
        norms = gradients.flatten(2).norm(dim=-1)
        entering = gradients[0][(slice(None), *model.mapping.input)].flatten(1).norm(dim=-1)
        numbers = {"questions": float(norms.shape[1]), "ratio": (entering / norms[-1]).median().item()}
        return numbers, {"activity": pictures.activity(states[:, 0]), "gradients": pictures.gradients(norms)}
    assert isinstance(model, ReaderModel)
    if model.settings.context != "lattice":
        return {}, {}
    return {}, {"movement": pictures.movement(*movement(model, test.text[0]))}


def _means(results: dict[str, Any]) -> bytes:
    means = results["subsets"][ALL]["means"]
    lines = {tables.metric_name(metric): means[results["control"]][metric]["mean"] for metric in tables.HEADLINE}
    return pictures.intervals(_by_metric(means), lines, results["control"])


def _gains(results: dict[str, Any]) -> bytes:
    lines = {tables.metric_name(metric): 0.0 for metric in tables.HEADLINE}
    return pictures.intervals(_by_metric(results["subsets"][ALL]["gains"]), lines, "no difference")


def _by_metric(estimates: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        tables.metric_name(metric): {name: e[metric] for name, e in estimates.items() if name != MEAN_ANSWER}
        for metric in tables.HEADLINE
    }


def _curves(runs: Sequence[Run], control: str) -> bytes:
    found = panels([run.results("history") for run in runs])
    if len(runs) > 1:  # each seed has a validation part of its own
        return pictures.curves(found, {})
    parts = runs[0].parts
    values = per_question(parts.validation.question, parts.validation, parts.train.answer.mean(0))
    levels = {f"validation {tables.metric_name(metric)}": float(v.mean()) for metric, v in values.items()}
    return pictures.curves(found, {title: (control, level) for title, level in levels.items()})


def _teachers(teachers: dict[str, Any]) -> dict[str, bytes]:
    """How far several teachers agree, and how their weights came about."""
    names, noted = tables.teacher_names(teachers), teachers["weights"]
    pictures_of = {}
    for key in ("similarity", "top_1"):
        values = [[1.0] * len(names) for _ in names]
        for pair in teachers["agreement"]:
            i, j = pair["between"]
            values[i][j] = values[j][i] = pair[key]
        pictures_of[f"agreement_{key}"] = pictures.matrix(names, values)
    batches = [float(entry["batch"]) for entry in noted]
    series = {name: [(batches, [entry["weights"][i] for entry in noted])] for i, name in enumerate(names)}
    return pictures_of | {"weights": pictures.curves({"weight": series}, {}, "batch")}
