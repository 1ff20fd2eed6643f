"""The pictures of a search and of an ablation, each as PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cube3d.experiments.space import Range, Space
from cube3d.experiments.variants import plain

BAR_COLOR = "#3b5bdb"
ZERO_COLOR = "#495057"
LABEL_BOX = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}


def importance(shares: Mapping[str, float]) -> bytes:
    """The share of the scores' variance that each setting explains, by name."""
    figure = Figure(figsize=(8, 0.4 * len(shares) + 1), layout="constrained")
    axes = figure.subplots()
    names = sorted(shares, key=lambda name: shares[name])
    bars = axes.barh(names, [shares[name] for name in names], color=BAR_COLOR)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlabel="share of the scores' variance that it explains (fANOVA)", xlim=(0, 1.1))
    return _png(figure)


def parallel_coordinates(points: Sequence[Mapping[str, Any]], space: Space, metric: str) -> bytes:
    """A line for each point through its values and, on the right, its score; the best are drawn last.

    Args:
        points: with ``changes`` and ``score``.
        space: what the values were taken from.
        metric: the score's name.
    """
    scores = [point["score"] for point in points]
    low, high = min(scores), max(scores)
    color, norm = colormaps["viridis_r"], Normalize(low, high)
    figure = Figure(figsize=(1.9 * len(space) + 3, 4.5), layout="constrained")
    axes = figure.subplots()
    for point in sorted(points, key=lambda point: point["score"]):
        heights = [_height(dimension, point["changes"][name]) for name, dimension in space.items()]
        heights.append((point["score"] - low) / (high - low) if high > low else 0.5)
        axes.plot(range(len(heights)), heights, color=color(norm(point["score"])), alpha=0.8)
    for x, dimension in enumerate(space.values()):
        axes.axvline(x, color=ZERO_COLOR, linewidth=0.8)
        for height, label in _ticks(dimension):
            axes.annotate(label, (x, height), (4, 3), textcoords="offset points", fontsize=8, bbox=LABEL_BOX)
    axes.set_xticks(range(len(space) + 1), [name.replace(".", ".\n") for name in [*space, metric]])
    axes.set(xlim=(0, len(space)), ylim=(-0.03, 1.05), yticks=[])
    score_axis = axes.twinx()
    score_axis.set(ylim=(low - 0.03 * (high - low), high + 0.05 * (high - low)) if high > low else (low - 1, low + 1))
    for edge in ("top", "bottom", "left"):
        axes.spines[edge].set_visible(False)
        score_axis.spines[edge].set_visible(False)
    return _png(figure)


def _height(dimension: Any, value: Any) -> float:
    """Where a value stands on its axis, from 0 to 1."""
    if isinstance(dimension, Range):
        scale = math.log if dimension.kind == "log" else float
        return (scale(value) - scale(dimension.low)) / (scale(dimension.high) - scale(dimension.low))
    return dimension.values.index(value) / max(1, len(dimension.values) - 1)


def _ticks(dimension: Any) -> list[tuple[float, str]]:
    """Heights and labels along an axis."""
    if not isinstance(dimension, Range):
        return [(_height(dimension, value), plain(value)) for value in dimension.values]
    return [(0.0, f"{dimension.low:g}"), (1.0, f"{dimension.high:g}")]


def differences(rows: Sequence[Mapping[str, Any]], metric: str, part: str) -> bytes:
    """What each change adds to a metric, with its interval; zero is the base.

    Args:
        rows: with ``name`` and ``differences[metric]``: ``mean``, ``low``, ``high``.
        metric: the one that is drawn.
        part: what it was measured on.
    """
    figure = Figure(figsize=(8, 0.4 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(reversed(rows)):
        value = row["differences"][metric]
        axes.plot([value["low"], value["high"]], [y, y], color=BAR_COLOR, linewidth=5, solid_capstyle="butt")
        axes.plot(value["mean"], y, "o", color="#212529", markersize=5)
    axes.axvline(0, color=ZERO_COLOR, linestyle=":")
    axes.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    axes.set(xlabel=f"{metric} less that of the base on {part} questions, mean and 95 % interval")
    axes.grid(axis="x", color="#e9ecef")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
