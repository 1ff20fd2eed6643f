"""The search for good values of settings: every combination, or a tree-structured Parzen estimator's proposals.

Beside the files of :mod:`cube3d.experiments.plan`: ``study.sqlite``, optuna's study where no storage is shared, and
``winner.json``. Points are chosen by their validation parts alone. The test part is read when the search has ended,
once, by the winner.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, model_validator

from cube3d import run as runs
from cube3d.config import Settings
from cube3d.errors import UserError
from cube3d.evaluation.evaluate import evaluate, summarize
from cube3d.experiments.pictures import importance, parallel_coordinates
from cube3d.experiments.plan import Plan, save_picture, save_plan, save_results
from cube3d.experiments.space import Space, grid, parse_space, samples
from cube3d.experiments.storage import check_waiting, opened
from cube3d.experiments.variants import InfeasibleError, Variants, describe, measured, plain
from cube3d.files import load_json, locked, save_json
from cube3d.metrics import METRICS
from cube3d.progress import Progress, say
from cube3d.run import Run

TOLD = (TrialState.COMPLETE, TrialState.PRUNED)

POLL = 2.0
"""Seconds between two looks at what other workers have done."""


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


def search(
    folder: Path,
    base: Settings,
    plan: SearchPlan,
    say: Callable[[str], None] = say,
    storage: str | None = None,
    alone: bool = False,
) -> dict[str, Any]:
    """Goes through the space, or on through what is left of it, and measures the winner.

    The plan has numbered places, one for each point. A process takes the first place that no other has taken; the place
    of one that was killed is free again, and keeps the values that were proposed for it.

    Args:
        folder: new, or that of the same search.
        base: the settings of every point that the space does not name.
        plan: the search.
        say: gets a line for each point.
        storage: what the workers of a shared search have in common, see :func:`cube3d.experiments.storage.opened`;
            None: a file in the folder, for one process at a time.
        alone: no other worker is at work: whatever is taken and not done is free.

    Returns:
        ``winner.json``: ``changes``, ``score``, ``scores`` by seed, ``runs`` (their folder), and ``test``, which is
        what :func:`cube3d.evaluation.evaluate.summarize` makes of the winner's runs; without it, and not saved, where
        another worker has the runs.

    Raises:
        UserError: the space names a setting or a value that there is not, no point could be trained, or the storage
            cannot be used.
        BusyError: another process is at work in the folder, or on a run of it.
    """
    space = parse_space(plan.space)
    combinations = list(grid(space)) if plan.method == "grid" else []
    variants = Variants(base, plan.seeds, folder / "runs")
    for name, dimension in space.items():
        for value in samples(dimension):
            variants.check(name, value)
    places = combinations or [{}] * (plan.trials or 0)
    with locked(folder) if storage is None else nullcontext():
        save_plan(folder, base, plan)
        with opened(storage, folder, base, plan) as study:
            # Nobody else is there: what is taken was left by killed processes.
            _go_through(study, places, variants, plan, space, folder, say, alone or storage is None)
            best, *_ = points = _points(_told(study))
            by = next(trial.user_attrs["by"] for trial in _told(study) if trial.user_attrs["point"] == best)
            if "infeasible" in best:
                raise UserError(f"{folder}: no point of the space could be trained; the first: {best['infeasible']}")
            trained = [point for point in points if "score" in point]
            _save(folder, points, plan)
            save_picture(folder, "importance", importance(_importances(study, trained)))
            save_picture(folder, "parallel_coordinates", parallel_coordinates(trained, space, plan.metric))
        return _winner(folder, best, by, say)


class _TakenError(Exception):
    """Another worker had the same place a moment earlier."""


def _go_through(
    study: optuna.Study,
    places: Sequence[dict[str, Any]],
    variants: Variants,
    plan: SearchPlan,
    space: Space,
    folder: Path,
    say: Callable[[str], None],
    alone: bool,
) -> None:
    """Until every place is told. ``places`` have the parameters that are given, all or none."""
    if alone:
        for stale in study.get_trials(states=[TrialState.RUNNING]):
            study.tell(stale.number, state=TrialState.FAIL)

    tried: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        tried.append(trial.number)
        place = trial.user_attrs.get("place")
        if place is None or _holders(study)[place].number != trial.number:
            raise _TakenError
        # Seeded by its place, a resumed search proposes what an uninterrupted one would have.
        study.sampler = optuna.samplers.TPESampler(seed=place)
        changes = {name: dimension.suggest(trial, name) for name, dimension in space.items()}
        twin = _twin(study, trial)
        point = twin or _measure(variants, changes, plan)
        trial.set_user_attr("by", f"{socket.gethostname()}:{folder.resolve()}")
        trial.set_user_attr("point", point)
        if "infeasible" in point:
            result = f"cannot be trained: {point['infeasible']}"
        else:
            result = f"{plan.metric} {point['score']:.4f}" + (", as before" if twin else "")
        say(f"point {place + 1}/{len(places)}  {describe(changes)}  {result}")
        if "infeasible" in point:
            raise optuna.TrialPruned  # the estimator keeps away from such points
        return float(point["score"])

    with closing(Progress("searching", len(places))) as shown:
        done = len(_told(study))
        shown.skip(done)
        while (told := len(_told(study))) < len(places):
            shown.advance(told - done)
            done = told
            if not study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
                holders = _holders(study)
                free = next((place for place in range(len(places)) if place not in holders), None)
                if free is None:
                    _wait(study, "the last points")
                    continue
                study.enqueue_trial(places[free] or _proposed(study, free, space), user_attrs={"place": free})
            try:
                study.optimize(objective, n_trials=1, catch=_TakenError)
            except ValueError as error:
                if isinstance(error, UserError) or study.get_trials(deepcopy=False)[tried[-1]].state != TrialState.FAIL:
                    raise
                say("this worker gave no sign of life for too long; another does its point again")
            _save(folder, _points(_told(study)), plan)


def _holders(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Who has each place: of several workers that took it at once, the first."""
    found: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.FAIL and "place" in trial.user_attrs:
            found.setdefault(trial.user_attrs["place"], trial)
    return found


def _proposed(study: optuna.Study, place: int, space: Space) -> dict[str, Any]:
    """What was proposed for a place before its worker died: its runs may have begun. {} if not all of it was."""
    for trial in reversed(study.get_trials(deepcopy=False, states=[TrialState.FAIL])):
        if trial.user_attrs.get("place") == place and trial.params.keys() == space.keys():
            return trial.params
    return {}


def _twin(study: optuna.Study, trial: optuna.Trial) -> dict[str, Any] | None:
    """The same point from an earlier trial, once it is done."""
    while True:
        same = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.params == trial.params
            and (other.state in TOLD or (other.state == TrialState.RUNNING and other.number < trial.number))
            and "place" in other.user_attrs
        ]
        told = next((other for other in same if other.state in TOLD), None)
        if told is not None or not same:
            return None if told is None else dict(told.user_attrs["point"])
        _wait(study, "the same point")


def _wait(study: optuna.Study, for_what: str) -> None:
    """For another worker, or until it is clear that it is dead."""
    check_waiting(study, for_what)
    time.sleep(POLL)


def _importances(study: optuna.Study, points: list[dict[str, Any]]) -> dict[str, float]:
    """The share of the scores' variance that each setting explains (fANOVA, Hutter et al., 2014). With some dozens
    of points optuna's default, PED-ANOVA, looks at the best two or three alone."""
    if len({point["score"] for point in points}) == 1:
        return dict.fromkeys(points[0]["changes"], 0.0)  # there is no variance to explain
    return optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))


def _told(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are done, of each place one."""
    return [trial for _, trial in sorted(_holders(study).items()) if trial.state in TOLD]


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


def _winner(folder: Path, best: dict[str, Any], by: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The best point with its results on the test part, which are measured if they have not been."""
    path = folder / "winner.json"
    if path.exists():
        return dict(load_json(path))
    folders = [folder / "runs" / best["runs"] / f"seed-{seed}" for seed in best["scores"]]
    if not all((run / "model").is_dir() for run in folders):
        say(f"the winner's runs are in {by}: the worker there tests them")
        return best
    winner = best | {"test": tested([runs.load(run) for run in folders], say)}
    save_json(path, winner)
    return winner


def tested(trained: Sequence[Run], say: Callable[[str], None]) -> dict[str, Any]:
    """The cube and its baselines on the test part that the runs share."""
    return summarize([evaluate(run, say) for run in trained])
