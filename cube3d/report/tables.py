"""The results in words and tables: the same cells for the terminal, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube3d.evaluation.subsets import ALL, HEADWORD, OTHER
from cube3d.metrics import METRICS

HEADLINE = ("cosine", "centered_cosine", "mrr")
"""The metrics that the verdict speaks of."""

NAMES = {"cosine": "cosine", "centered_cosine": "centered cosine", "mrr": "MRR"}

SUBSETS = {
    ALL: "all questions",
    HEADWORD: "“What is X?” questions, whose headword leaks into the answer",
    OTHER: "other questions",
}

CONTROL = (
    "an untrained system was once reported with a question-to-answer similarity of 38.4 %: that was this row, "
    "the cosine of the teacher's own vectors"
)

RIVAL_SIZE = 4
"""A baseline of at most so many times the cube's parameters is a rival in the verdict."""

SIGNIFICANT = 0.05
"""A difference whose p is below this is called measurable."""


@dataclass(frozen=True)
class Table:
    """Text cells; the first column names the rows. An interval follows its mean as `` [low, high]``."""

    title: str
    header: list[str]
    rows: list[list[str]]


def metric_name(metric: str) -> str:
    return NAMES.get(metric, metric)


def _estimate_text(estimate: dict[str, float]) -> str:
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def gain_text(gain: dict[str, float]) -> str:
    p = "p < 0.001" if gain["p"] < 0.001 else f"p = {gain['p']:.3f}"
    return f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] {p}"


def verdict(results: dict[str, Any]) -> list[str]:
    """Sentences: the model against no model first, then against every baseline of a similar size."""
    gains, methods = results["subsets"][ALL]["gains"], results["methods"]
    main, control = results["main"], results["control"]
    sentences = []
    for metric in HEADLINE:
        gain = gains[control][metric]
        outcome = {1: "beats", 0: "does NOT measurably differ from", -1: "is WORSE than"}[sign(gain)]
        sentences.append(f"The {main} {outcome} the {control} in {metric_name(metric)}: {gain_text(gain)}.")
    rivals = [name for name in gains if methods[name]["parameters"] <= RIVAL_SIZE * methods[main]["parameters"]]
    beside = f"beside the {len(rivals)} baseline{'s' * (len(rivals) != 1)} of at most {RIVAL_SIZE} times its parameters"
    for metric in HEADLINE:
        places = {1: "above", 0: "not measurably different from", -1: "BELOW"}
        found = []
        for side, place in places.items():
            names = [name for name in rivals if sign(gains[name][metric]) == side]
            if names:
                found.append(f"{place} {', '.join(names)}")
        if found:
            sentences.append(f"In {metric_name(metric)}, {beside}, it is {'; '.join(found)}.")
    return sentences


def sign(gain: Mapping[str, float]) -> int:
    """1 or -1 where a difference is measurable, and 0 where it is not."""
    if gain["p"] >= SIGNIFICANT:
        return 0
    return 1 if gain["mean"] > 0 else -1


def headline(results: dict[str, Any]) -> str:
    """What was measured on what."""
    measured, seeds, answers = results["subsets"][ALL], results["seeds"], sorted(set(results["answers"]))
    runs = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"
    choices = f"{answers[0]}" if len(answers) == 1 else f"{answers[0]} to {answers[-1]}"
    return (
        f"{runs}: {measured['questions']} held-out questions of {measured['groups']} answer groups, "
        f"{choices} answers to choose from; mean [95 % interval]"
    )


def gain_table(results: dict[str, Any], metrics: Sequence[str] = METRICS) -> Table:
    """The model minus no model, for all questions and for each kind apart."""
    control = results["control"]
    rows = []
    for subset, measured in results["subsets"].items():
        name = f"{SUBSETS[subset]} ({measured['questions']})"
        gains = measured.get("gains")
        rows.append([name, *(gain_text(gains[control][m]) if gains else "too few to measure" for m in metrics)])
    return Table(f"Gain over {control}", ["questions", *map(metric_name, metrics)], rows)


USE = {
    "MB": ("bytes", 1e-6, 1),
    "questions/s": ("questions_a_second", 1.0, 0),
    "told apart": ("told_apart", 1.0, 2),
}
"""Columns of what can be asked: the property, its scale and digits."""


def _number(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{value * scale:,.{digits}f}"


def method_table(results: dict[str, Any], subset: str = ALL, metrics: Sequence[str] = METRICS) -> Table:
    """The model and every baseline, for a subset that was measured."""
    rows = []
    asked = subset == ALL and any("bytes" in properties for properties in results["methods"].values())
    for name, means in results["subsets"][subset]["means"].items():
        cells = (_estimate_text(means[m]) for m in metrics)
        properties = results["methods"][name]
        shape = (
            [f"{properties['anisotropy']:.3f}", f"{properties['effective_dimensions']:.1f}"] if subset == ALL else []
        )
        use = [_number(properties.get(key), scale, digits) for key, scale, digits in USE.values()] if asked else []
        rows.append([name, f"{properties['parameters']:,.0f}", *use, *cells, *shape])
    shape_header = ["anisotropy", "effective dimensions"] if subset == ALL else []
    header = [
        "method",
        "parameters",
        *(USE if asked else []),
        *map(metric_name, metrics),
        *shape_header,
    ]
    return Table(f"The methods, {SUBSETS[subset]}", header, rows)


def difference_table(results: dict[str, Any], subset: str = ALL, metrics: Sequence[str] = METRICS) -> Table:
    """The model minus each baseline, for a subset that was measured."""
    gains = results["subsets"][subset]["gains"]
    rows = [[name, *(gain_text(by_metric[m]) for m in metrics)] for name, by_metric in gains.items()]
    return Table(
        f"The {results['main']} minus each baseline, {SUBSETS[subset]}", ["against", *map(metric_name, metrics)], rows
    )


def probe_table(results: dict[str, Any]) -> Table:
    """What tells questions of the same words apart, by :mod:`cube3d.evaluation.probe`; no rows where none reads."""
    kinds = list(next(iter(results["probe"].values()), ()))
    rows = [
        [name, *(f"{by_kind[kind]['paired']:.2f} / {by_kind[kind]['alone']:.2f}" for kind in kinds)]
        for name, by_kind in results["probe"].items()
    ]
    return Table(
        "Minimal pairs told apart, pairs / questions alone; what sees a bag of words has 0.50", ["method", *kinds], rows
    )


def teacher_names(teachers: dict[str, Any]) -> list[str]:
    """The teachers by position, which tells two of one model apart."""
    return [f"{i}. {Path(member['name']).name}" for i, member in enumerate(teachers["members"])]


def teacher_table(teachers: dict[str, Any], metrics: Sequence[str] = METRICS) -> Table:
    """Each teacher alone, with no model after it, from :func:`cube3d.evaluation.teachers.teacher_results`."""
    rows = [
        [
            name,
            str(member["dim"]),
            "yes" if member["whitened"] else "no",
            f"{member['weight']:.3f}",
            *(_estimate_text(member[metric]) for metric in metrics),
        ]
        for name, member in zip(teacher_names(teachers), teachers["members"], strict=True)
    ]
    return Table("The teachers", ["teacher", "dimensions", "whitened", "weight", *map(metric_name, metrics)], rows)


def measured_subsets(results: dict[str, Any]) -> list[str]:
    return [subset for subset, measured in results["subsets"].items() if "means" in measured]


def terminal(results: dict[str, Any]) -> str:
    """For a screen: gains over no model, the methods, the verdict; the metrics of the headline."""
    tables = [gain_table(results, HEADLINE), method_table(results, ALL, HEADLINE)]
    return "\n\n".join([headline(results), *map(_aligned, tables), "\n".join(verdict(results))])


def markdown(results: dict[str, Any]) -> str:
    """For a document: the verdict, gains over no model, then methods and differences for each kind of question."""
    tables = [gain_table(results, HEADLINE)]
    for subset in measured_subsets(results):
        tables += [method_table(results, subset, HEADLINE), difference_table(results, subset, HEADLINE)]
    if results["probe"]:
        tables.append(probe_table(results))
    sentences = "\n".join(f"- {sentence}" for sentence in verdict(results))
    note = f"On the row “{results['control']}”: {CONTROL}."
    return "\n\n".join([f"{headline(results)}.", sentences, *map(_piped, tables), note]) + "\n"


def _aligned(table: Table) -> str:
    lines = [table.header, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join([f"{table.title}:", *(line.rstrip() for line in padded)])


def _piped(table: Table) -> str:
    rule = ["---"] * len(table.header)
    lines = [f"| {' | '.join(line)} |" for line in (table.header, rule, *table.rows)]
    return "\n".join([f"**{table.title}**", "", *lines])
