"""The search for good values of settings: every combination, or a tree-structured Parzen estimator's proposals.

Beside the files of :mod:`cube3d.experiments.plan`: ``study.sqlite``, optuna's study, and ``winner.json``. Points are
chosen by their validation parts alone. The test part is read when the search has ended, once, by the winner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, model_validator

from cube3d import run as runs
from cube3d.config import Settings
from cube3d.errors import UserError
from cube3d.evaluate import evaluate, summarize
from cube3d.experiments.pictures import importance, parallel_coordinates
from cube3d.experiments.plan import Plan, save_picture, save_plan, save_results
from cube3d.experiments.space import grid, parse_space, samples
from cube3d.experiments.variants import InfeasibleError, Variants, describe, measured, plain
from cube3d.files import load_json, save_json
from cube3d.metrics import METRICS
from cube3d.progress import Progress, say
from cube3d.run import Run


class SearchPlan(Plan):
    """A search: the space, how it is gone through, and what is best."""

    space: dict[str, Any] = Field(min_length=1)
    """For each setting by its dotted name what :func:`cube3d.experiments.space.parse_space` takes."""
    method: Literal["grid", "tpe"] = "tpe"
    """Every combination, or proposals that learn from the points before (Bergstra et al., 2011)."""
    trials: int | None = Field(None, ge=1)
    """Proposals of tpe."""
    metric: str = "mrr"
    """What is to be high: its mean over the seeds, on their validation parts."""

    @model_validator(mode="after")
    def _fits(self) -> SearchPlan:
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric!r}; valid: {', '.join(map(repr, METRICS))}")
        if (self.method == "tpe") != (self.trials is not None):
            raise ValueError("method tpe needs the number of trials; method grid takes every combination, and none")
        return self


def search(folder: Path, base: Settings, plan: SearchPlan, say: Callable[[str], None] = say) -> dict[str, Any]:
    """Goes through the space, or on through what is left of it, and measures the winner.

    Args:
        folder: new, or that of the same search.
        base: the settings of every point that the space does not name.
        plan: the search.
        say: gets a line for each point.

    Returns:
        ``winner.json``: ``changes``, ``score``, ``scores`` by seed, ``runs`` (their folder), and ``test``, which is
        what :func:`cube3d.evaluate.summarize` makes of the winner's runs.

    Raises:
        UserError: the space names a setting or a value that there is not, or no point could be trained.
    """
    space = parse_space(plan.space)
    combinations = list(grid(space)) if plan.method == "grid" else []
    variants = Variants(base, plan.seeds, folder / "runs")
    for name, dimension in space.items():
        for value in samples(dimension):
            variants.check(name, value)
    save_plan(folder, base, plan)

    study = _study(folder)
    for combination in combinations:
        study.enqueue_trial(combination, skip_if_exists=True)
    for stale in study.get_trials(states=[TrialState.RUNNING]):  # killed: it comes again, and its runs go on
        study.enqueue_trial(stale.params)
        study.tell(stale.number, state=TrialState.FAIL)
    total = plan.trials or len(combinations)
    told = _told(study)
    with closing(Progress("searching", total)) as shown:
        shown.skip(len(told))
        while study.get_trials(states=[TrialState.WAITING]) if combinations else len(told) < total:
            # Seeded by what is known, a resumed search proposes what an uninterrupted one would have.
            study.sampler = optuna.samplers.TPESampler(seed=len(told))
            trial = study.ask()
            changes = {name: dimension.suggest(trial, name) for name, dimension in space.items()}
            twin = next((other.user_attrs["point"] for other in told if other.params == trial.params), None)
            point = twin or _measure(variants, changes, plan)
            trial.set_user_attr("point", point)
            if "infeasible" in point:
                study.tell(trial, state=TrialState.PRUNED)  # the estimator keeps away from such points
                result = f"cannot be trained: {point['infeasible']}"
            else:
                study.tell(trial, point["score"])
                result = f"{plan.metric} {point['score']:.4f}" + (", as before" if twin else "")
            told = _told(study)
            say(f"point {len(told)}/{total}  {describe(changes)}  {result}")
            _save(folder, _points(told), plan)
            shown.advance()
    best, *_ = points = _points(told)
    if "infeasible" in best:
        raise UserError(f"{folder}: no point of the space could be trained; the first: {best['infeasible']}")
    trained = [point for point in points if "score" in point]
    save_picture(folder, "importance", importance(_importances(study, trained)))
    save_picture(folder, "parallel_coordinates", parallel_coordinates(trained, space, plan.metric))
    return _winner(folder, best, say)


def _importances(study: optuna.Study, points: list[dict[str, Any]]) -> dict[str, float]:
    """The share of the scores' variance that each setting explains (fANOVA, Hutter et al., 2014). With some dozens
    of points optuna's default, PED-ANOVA, looks at the best two or three alone."""
    if len({point["score"] for point in points}) == 1:
        return dict.fromkeys(points[0]["changes"], 0.0)  # there is no variance to explain
    return optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))


def _study(folder: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=f"sqlite:///{folder / 'study.sqlite'}", study_name="search", direction="maximize", load_if_exists=True
    )


def _told(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])


def _measure(variants: Variants, changes: dict[str, Any], plan: SearchPlan) -> dict[str, Any]:
    """The point as it stands in the results."""
    point = {"changes": changes}
    try:
        trained = variants.train(changes)
    except InfeasibleError as error:
        return point | {"infeasible": str(error)}
    scores = [float(measured(run, run.parts.validation)[plan.metric].mean()) for run in trained]
    return point | {
        "score": mean(scores),
        "scores": dict(zip(map(str, plan.seeds), scores, strict=True)),
        "runs": variants.folder(changes).name,
    }


def _points(told: list[FrozenTrial]) -> list[dict[str, Any]]:
    """The different points, best first, and those that cannot be trained at the end."""
    points: list[dict[str, Any]] = []
    for trial in told:
        if trial.user_attrs["point"] not in points:
            points.append(trial.user_attrs["point"])
    return sorted(points, key=lambda point: -point.get("score", -math.inf))


def _save(folder: Path, points: list[dict[str, Any]], plan: SearchPlan) -> None:
    header = [*plan.space, plan.metric, *(f"seed {seed}" for seed in plan.seeds), "runs", "infeasible"]
    rows = [
        [
            *(plain(point["changes"][name]) for name in plan.space),
            point.get("score"),
            *(point.get("scores", {}).get(str(seed)) for seed in plan.seeds),
            point.get("runs"),
            point.get("infeasible"),
        ]
        for point in points
    ]
    save_results(folder, points, header, rows)


def _winner(folder: Path, best: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The best point with its results on the test part, which are measured if they have not been."""
    path = folder / "winner.json"
    if path.exists():
        return dict(load_json(path))
    trained = [runs.load(folder / "runs" / best["runs"] / f"seed-{seed}") for seed in best["scores"]]
    winner = best | {"test": tested(trained, say)}
    save_json(path, winner)
    return winner


def tested(trained: Sequence[Run], say: Callable[[str], None]) -> dict[str, Any]:
    """The cube and its baselines on the test part that the runs share."""
    return summarize([evaluate(run, say) for run in trained])
