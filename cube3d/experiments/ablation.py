"""What each setting is worth: one change at a time from a base, paired with it question by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from cube3d.config import Settings
from cube3d.errors import UserError
from cube3d.evaluation.intervals import Bootstrap
from cube3d.experiments.pictures import differences
from cube3d.experiments.plan import Plan, save_picture, save_plan, save_results
from cube3d.experiments.variants import InfeasibleError, Variants, describe, has, measured
from cube3d.files import locked
from cube3d.metrics import METRICS, Floats
from cube3d.progress import progress, say
from cube3d.run import Run
from cube3d.vectors import Part


class AblationPlan(Plan):
    """An ablation: the changes, and where their worth is measured."""

    changes: dict[str, list[Any]] = Field(min_length=1)
    """For each setting by its dotted name the values that are tried, each by itself."""
    part: Literal["validation", "test"] = "validation"
    """The questions that are measured. What is to be chosen by the result must not be measured on test."""


def ablate(folder: Path, base: Settings, plan: AblationPlan, say: Callable[[str], None] = say) -> dict[str, Any]:
    """Trains the base and each change, or what is left of them, and compares them.

    Args:
        folder: new, or that of the same ablation.
        base: what the changes change.
        plan: the changes.
        say: gets a line for each change.

    Returns:
        ``results.json``: ``part``, ``base`` with its ``means`` by metric, and ``changes``: rows with their ``name``,
        ``changes``, ``means``, and ``differences`` from the base by metric, each ``mean``, ``low``, ``high`` and
        ``p`` over answer groups and seeds, and whether the change left every prediction ``unchanged``; or with
        ``infeasible``, the reason why it cannot be trained.

    Raises:
        UserError: a setting or value that there is not, one that is the base's own, or a base that cannot be trained.
        BusyError: another process is at work in the folder.
    """
    variants = Variants(base, plan.seeds, folder / "runs")
    changes = [{name: value} for name, values in plan.changes.items() for value in values]
    for change in changes:
        for name, value in change.items():
            variants.check(name, value)
            if has(base, name, value):
                raise UserError(f"{describe(change)} is the base's own value")
    with locked(folder):
        save_plan(folder, base, plan)

        try:
            trained = variants.train({})
        except InfeasibleError as error:
            raise UserError(f"the base cannot be trained: {error}") from error
        parts = [_part(run, plan) for run in trained]
        bootstrap = Bootstrap(
            np.concatenate([part.group.numpy() for part in parts]),
            np.repeat(plan.seeds, [len(part) for part in parts]),
            seed=0,
        )
        base_values = _values(trained, plan)
        results: dict[str, Any] = {"part": plan.part, "base": {"means": _means(base_values)}, "changes": []}
        say(f"base  mrr {results['base']['means']['mrr']:.4f} on {plan.part}")
        for change in progress(changes, "ablating", len(changes)):
            row: dict[str, Any] = {"name": describe(change), "changes": change}
            try:
                values = _values(variants.train(change), plan)
            except InfeasibleError as error:
                row["infeasible"] = str(error)
                say(f"{row['name']}  cannot be trained: {error}")
            else:
                row["means"] = _means(values)
                row["differences"] = {m: asdict(bootstrap.difference(values[m] - base_values[m])) for m in METRICS}
                row["unchanged"] = np.array_equal(values["cosine"], base_values["cosine"])
                row["runs"] = variants.folder(change).name
                mrr = row["differences"]["mrr"]
                note = "; every prediction is the base's" if row["unchanged"] else ""
                say(f"{row['name']}  mrr {mrr['mean']:+.4f} [{mrr['low']:+.4f}, {mrr['high']:+.4f}]{note}")
            results["changes"].append(row)
        _save(folder, results)
        return results


def _part(run: Run, plan: AblationPlan) -> Part:
    part = getattr(run.parts, plan.part)
    assert isinstance(part, Part)
    return part


def _values(trained: Sequence[Run], plan: AblationPlan) -> dict[str, Floats]:
    """Each metric for each question of each seed, one seed after the other."""
    by_seed = [measured(run, _part(run, plan)) for run in trained]
    return {metric: np.concatenate([values[metric] for values in by_seed]) for metric in METRICS}


def _means(values: dict[str, Floats]) -> dict[str, float]:
    return {metric: float(values[metric].mean()) for metric in METRICS}


def _save(folder: Path, results: dict[str, Any]) -> None:
    keys = ("mean", "low", "high", "p")
    header = ["change", *METRICS, *(f"{metric} difference {key}" for metric in METRICS for key in keys), "infeasible"]
    rows = [["base", *results["base"]["means"].values(), *[None] * (len(METRICS) * len(keys)), None]]
    for row in results["changes"]:
        means = [row.get("means", {}).get(metric) for metric in METRICS]
        found = [row.get("differences", {}).get(metric, {}).get(key) for metric in METRICS for key in keys]
        rows.append([row["name"], *means, *found, row.get("infeasible")])
    save_results(folder, results, header, rows)
    drawn = [row for row in results["changes"] if "differences" in row]
    for metric in ("mrr", "cosine"):
        save_picture(folder, metric, differences(drawn, metric, results["part"]))
