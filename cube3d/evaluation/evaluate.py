"""The trained model and its baselines on the answer groups that a run held out, for one run or over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube3d.config import differences
from cube3d.device import first_process, training_process
from cube3d.errors import UserError
from cube3d.evaluation.baselines import CUBE, baselines, rows
from cube3d.evaluation.intervals import Bootstrap
from cube3d.evaluation.methods import Method, measure_speeds
from cube3d.evaluation.probe import told_apart
from cube3d.evaluation.subsets import ALL, HEADWORD, OTHER, is_headword_question
from cube3d.evaluation.teachers import teacher_results
from cube3d.files import locked
from cube3d.metrics import METRICS, Floats, anisotropy, effective_dimensions, per_question
from cube3d.model import CubeModel
from cube3d.pairs import normalized
from cube3d.pairs.minimal import minimal_pairs
from cube3d.run import Run

CONTROLS = ("teacher", "identity")
"""What is no model: in a reader's table and in a cube's."""

MIN_GROUPS = 2
"""A subset of fewer answer groups has no interval and is not measured."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one run measured, question by question.

    Attributes:
        seed: of the run.
        main: the method that the run trained, which the others are measured beside.
        control: the method that is no model: the teachers' own vectors.
        answers: how many answers each question was ranked against.
        question: the text of each, ``[N]``.
        group: each question's answer group, ``[N]``, by its first answer's text, which is the same for every seed.
        headword: :func:`cube3d.evaluation.subsets.is_headword_question`, ``[N]``.
        values: for each method and metric, ``[N]`` values.
        properties: for each method ``parameters``, ``anisotropy`` and ``effective_dimensions``; ``bytes`` and
            ``questions_a_second`` of those that can be asked; ``told_apart`` of those that
            have a ``probe``: the share of all questions, ``alone``.
        probe: for each reader and the teachers, and each kind of minimal pair, the ``alone`` and ``paired`` of
            :class:`cube3d.evaluation.probe.ToldApart`.
    """

    seed: int
    main: str
    control: str
    answers: int
    question: list[str]
    group: list[str]
    headword: list[bool]
    values: dict[str, dict[str, list[float]]]
    properties: dict[str, dict[str, float]]
    probe: dict[str, dict[str, dict[str, float]]]


def evaluate(run: Run, say: Callable[[str], None] = print) -> Evaluation:
    """Measures the run's model and every baseline on its test part, and saves ``questions.json``,
    ``metrics.json`` and ``teachers.json``. Killed while it trains baselines, the same call goes on where it was.
    Several processes, started by ``torchrun``, train the baselines together; the first one measures.

    Args:
        run: trained.
        say: gets a line for each baseline that is trained.

    Raises:
        UserError: the run is not trained.
        BusyError: another process trains or evaluates the run.

    Example::

        evaluation = evaluate(load(Path("runs/mine")))
    """
    _ = run.model  # before anything is written
    process = training_process(run.settings.training.device)
    with process.main_process_first():  # the others find the teacher's vectors in the cache
        _ = run.parts
    with locked(run.folder) if process.is_main_process else nullcontext():
        methods = all_methods(run, say if process.is_main_process else _nobody)
        with first_process() as measures:
            if measures:
                return _measured(run, methods, say)
    return load_evaluations([run])[0]


def _nobody(line: str) -> None:
    """Hears the line."""


def _measured(run: Run, methods: dict[str, Method], say: Callable[[str], None]) -> Evaluation:
    parts, test = run.parts, run.parts.test
    # For a method that reads the answers itself, the mean of the training answers as it reads them.
    center = {
        name: (parts.train if method.bank is None else method.bank(parts.train)).answer.mean(0)
        for name, method in methods.items()
    }
    own = {name: test if method.bank is None else method.bank(test) for name, method in methods.items()}
    predictions = {name: method.predict(test) for name, method in methods.items()}
    if any(method.read for method in methods.values()):
        say("measuring speeds")
    speeds = measure_speeds(methods, list(dict.fromkeys(test.text)))
    label: dict[int, str] = {}
    for group, pair in zip(test.group.tolist(), test.pairs, strict=True):
        label[group] = min(label.get(group, normalized(pair.answer)), normalized(pair.answer))
    properties = {
        name: {
            "parameters": float(methods[name].parameters),
            "anisotropy": anisotropy(prediction),
            "effective_dimensions": effective_dimensions(prediction),
        }
        for name, prediction in predictions.items()
    }
    probe = {}
    if run.settings.model == "reader":
        for name, method in methods.items():
            if method.read is not None and method.bank is None:
                found = told_apart(minimal_pairs(), method.read, run.ensemble.answers)
                probe[name] = {kind: asdict(shares) for kind, shares in found.items()}
                properties[name]["told_apart"] = found["all"].alone
    for name, speed in speeds.items():
        properties[name] |= {"bytes": float(methods[name].size or 0), "questions_a_second": speed}
    evaluation = Evaluation(
        seed=run.settings.seed,
        main=next(iter(methods)),
        control=next(name for name in CONTROLS if name in methods),
        answers=len(test.bank_text),
        question=[pair.question for pair in test.pairs],
        group=[label[group] for group in test.group.tolist()],
        headword=[is_headword_question(pair.question) for pair in test.pairs],
        values={
            name: {
                metric: values.tolist() for metric, values in per_question(prediction, own[name], center[name]).items()
            }
            for name, prediction in predictions.items()
        },
        properties=properties,
        probe=probe,
    )
    run.save_results("questions", asdict(evaluation))
    run.save_results("metrics", summarize([evaluation]))
    run.save_results("teachers", teacher_results(run))
    return evaluation


def all_methods(run: Run, say: Callable[[str], None]) -> dict[str, Method]:
    """The run's model, first, and everything beside it, in the order of the tables."""
    if run.settings.model == "reader":
        from cube3d.evaluation.readers import reader_methods

        return reader_methods(run, say)
    model = run.model
    assert isinstance(model, CubeModel)
    return {
        **rows(CUBE, model),
        **baselines(model, run.parts, run.settings, run.baselines_folder, say),
    }


def require_same_configuration(runs: Sequence[Run]) -> None:
    """Raises UserError where runs differ in anything but the seed, or two have the same seed."""
    first, seeds = runs[0], [run.settings.seed for run in runs]
    for run in runs[1:]:
        differing = [name for name in differences(run.settings, first.settings) if name != "seed"]
        if differing:
            raise UserError(
                f"{run.folder} and {first.folder} differ in {', '.join(differing)}; "
                "only runs that differ in nothing but the seed are taken together"
            )
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{', '.join(str(run.folder) for run in runs)}: their seeds are {seeds}; each counts once")


def load_evaluations(runs: Sequence[Run]) -> list[Evaluation]:
    """What :func:`evaluate` saved for runs of one configuration.

    Raises:
        UserError: a run is not evaluated, and what :func:`require_same_configuration` raises.
    """
    require_same_configuration(runs)
    return [Evaluation(**run.results("questions")) for run in runs]


def summarize(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Means, intervals and tests over all runs.

    Returns:
        JSON-ready: ``main`` and ``control``, names of methods; ``seeds`` and ``answers`` by run; ``methods``: for each
        its properties, and ``probe``, as there (means over the runs); and ``subsets``: for ``all``, ``headword`` and
        ``other`` questions how many different ones there are, in how many ``groups``, and if these are at least two,
        ``means[method][metric]`` as :class:`cube3d.evaluation.intervals.Estimate` and ``gains[method][metric]``, the
        main method minus that method paired over questions, as :class:`cube3d.evaluation.intervals.Difference`.
    """
    names = list(evaluations[0].values)
    question = np.array([text for e in evaluations for text in e.question])
    group = np.array([label for e in evaluations for label in e.group])
    run = np.array([e.seed for e in evaluations for _ in e.group])
    headword = np.array([flag for e in evaluations for flag in e.headword])
    values = {
        name: {metric: np.concatenate([e.values[name][metric] for e in evaluations]) for metric in METRICS}
        for name in names
    }
    chosen = {ALL: np.full(len(group), True), HEADWORD: headword, OTHER: ~headword}
    main = evaluations[0].main
    return {
        "main": main,
        "control": evaluations[0].control,
        "seeds": [e.seed for e in evaluations],
        "answers": [e.answers for e in evaluations],
        "methods": {
            name: {key: float(np.mean([e.properties[name][key] for e in evaluations])) for key in properties}
            for name, properties in evaluations[0].properties.items()
        },
        "probe": {
            name: {
                kind: {key: float(np.mean([e.probe[name][kind][key] for e in evaluations])) for key in shares}
                for kind, shares in by_kind.items()
            }
            for name, by_kind in evaluations[0].probe.items()
        },
        "subsets": {
            subset: {"questions": len(np.unique(question[rows])), "groups": len(np.unique(group[rows]))}
            | _estimates(
                {name: {metric: v[rows] for metric, v in by_metric.items()} for name, by_metric in values.items()},
                main,
                group[rows],
                run[rows],
            )
            for subset, rows in chosen.items()
        },
    }


def _estimates(
    values: dict[str, dict[str, Floats]], main: str, group: NDArray[Any], run: NDArray[Any]
) -> dict[str, Any]:
    if len(np.unique(group)) < MIN_GROUPS:
        return {}
    bootstrap = Bootstrap(group, run, seed=0)
    means = {n: {m: asdict(bootstrap.estimate(v)) for m, v in by_metric.items()} for n, by_metric in values.items()}
    gains = {
        name: {m: asdict(bootstrap.difference(values[main][m] - v)) for m, v in by_metric.items()}
        for name, by_metric in values.items()
        if name != main
    }
    return {"means": means, "gains": gains}
