"""The curves that a run logged, sorted into panels by the names of what was logged."""

from __future__ import annotations

from collections.abc import Sequence

History = list[dict[str, float]]
Points = tuple[list[float], list[float]]

TITLES = {
    "loss": ("loss", "training"),
    "eval_loss": ("loss", "validation"),
    "eval_mrr": ("validation MRR", "cube"),
    "eval_ranking_loss": ("validation ranking loss", "cube"),
    "grad_norm": ("gradient norm of the parameters", "all"),
    "learning_rate": ("learning rate", "all"),
}
"""Panel and series of what every run logs."""

BOOKKEEPING = ("epoch", "step", "total_flos", "train_loss", "_runtime", "_per_second")
"""Names, or their ends, that are no curves."""


def panels(histories: Sequence[History]) -> dict[str, dict[str, list[Points]]]:
    """For each panel and series one curve a history.

    What has no title of its own goes by its name: ``loss_cosine`` is the series ``cosine`` of the panel
    ``loss: components``; other names with an underscore, such as ``weight_minilm``, are the series after it in the
    panel before it.
    """
    found: dict[str, dict[str, list[Points]]] = {}
    for history in histories:
        for name in dict.fromkeys(name for entry in history for name in entry):
            if name.endswith(BOOKKEEPING):
                continue
            panel, series = TITLES.get(name) or _by_name(name)
            logged = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            points = ([x for x, _ in logged], [y for _, y in logged])
            found.setdefault(panel, {}).setdefault(series, []).append(points)
    return found


def _by_name(name: str) -> tuple[str, str]:
    panel, _, series = name.partition("_")
    return ("loss: components" if panel == "loss" else panel, series or panel)
