"""The curves that runs logged, sorted into panels by the names of what was logged."""

from __future__ import annotations

from collections.abc import Sequence

History = list[dict[str, float]]
Points = tuple[list[float], list[float]]
"""The x and the y of a curve."""

TITLES = {
    "mrr": "MRR",
    "centered_cosine": "centered cosine",
    "ranking_loss": "ranking loss",
    "grad_norm": "gradient norm of the parameters",
    "learning_rate": "learning rate",
    "competence": "curriculum: share of the pairs",
}

BOOKKEEPING = ("epoch", "step", "total_flos", "train_loss", "_runtime", "_per_second")
"""Names, or their ends, that are no curves."""


def panels(histories: Sequence[History]) -> dict[str, dict[str, list[Points]]]:
    """For each panel and series one curve a history: losses first, validation metrics next, then all the rest.

    Each loss has a panel with the series ``training`` and ``validation``; other metrics of the validation part have
    one each. A name with an underscore that has no title, such as ``weight_minilm``, is the series after it in the
    panel before it.
    """
    found: dict[str, dict[str, list[Points]]] = {}
    for history in histories:
        for name in dict.fromkeys(name for entry in history for name in entry):
            if name.endswith(BOOKKEEPING):
                continue
            panel, series = _place(name)
            logged = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            points = ([x for x, _ in logged], [y for _, y in logged])
            found.setdefault(panel, {}).setdefault(series, []).append(points)
    order = sorted(found, key=lambda panel: (not panel.startswith("loss"), not panel.startswith("validation")))
    return {panel: found[panel] for panel in order}


def _place(name: str) -> tuple[str, str]:
    """Panel and series of a logged name."""
    measured = name.removeprefix("eval_")
    if measured.startswith("loss"):
        _, _, component = measured.partition("_")
        return f"loss: {component}" if component else "loss", "training" if measured == name else "validation"
    if measured != name:
        return f"validation {TITLES.get(measured, measured)}", "cube"
    if name in TITLES:
        return TITLES[name], "all"
    panel, _, series = name.partition("_")
    return panel, series or "all"
