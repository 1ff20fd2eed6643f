"""The pictures of a report, each as PNG bytes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from cube3d.report.history import Points
from cube3d.report.tables import sign

CUBE_COLOR = "#3b5bdb"
OTHER_COLOR = "#adb5bd"
SECOND_COLOR = "#e8590c"
DARK = "#212529"
COLORS = (CUBE_COLOR, SECOND_COLOR, "#2b8a3e", "#862e9c", "#c92a2a", "#0b7285", "#5f3dc4", "#846358")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def intervals(panels: Mapping[str, Mapping[str, Mapping[str, float]]], line: Mapping[str, float], note: str) -> bytes:
    """Means with their intervals, a panel a metric, a row a method.

    Args:
        panels: for each title and method ``mean``, ``low`` and ``high``, and ``p`` of a difference.
        line: for each title where the dotted line stands, which the others are to be compared with.
        note: what that line is.
    """
    names = list(next(iter(panels.values())))[::-1]
    figure = Figure(figsize=(3.4 * len(panels) + 1, 0.34 * len(names) + 1.1), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, by_method) in zip(all_axes, panels.items(), strict=True):
        axes.axvline(line[title], color=DARK, linestyle=":", linewidth=1)
        for y, name in enumerate(names):
            value = by_method[name]
            color = CUBE_COLOR if name in ("cube", "reader") else OTHER_COLOR
            if "p" in value:
                color = {1: CUBE_COLOR, 0: OTHER_COLOR, -1: SECOND_COLOR}[sign(value)]
            axes.plot([value["low"], value["high"]], [y, y], color=color, linewidth=5, solid_capstyle="butt")
            axes.plot(value["mean"], y, "o", color=DARK, markersize=4)
        axes.set_yticks(range(len(names)), names)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", color="#e9ecef")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    figure.supxlabel(f"mean and 95 % interval; dotted: {note}", fontsize=9)
    return _png(figure)


def curves(
    panels: Mapping[str, Mapping[str, Sequence[Points]]], line: Mapping[str, tuple[str, float]], x: str = "epoch"
) -> bytes:
    """What was logged over time.

    Args:
        panels: for each title and series one curve a run.
        line: for some titles a named level to compare with.
        x: what the curves run over.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.5 * columns, 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (title, series) in zip(grid, panels.items(), strict=False):
        for i, (name, runs) in enumerate(series.items()):
            for j, (along, values) in enumerate(runs):
                style = {"marker": "o", "markersize": 3} if len(along) < 3 else {}
                label = name if j == 0 and len(series) > 1 else None
                axes.plot(along, values, color=COLORS[i % len(COLORS)], linewidth=1.2, label=label, **style)
        if title in line:
            name, level = line[title]
            axes.axhline(level, color=DARK, linestyle=":", linewidth=1, label=name)
        _label(axes, title, x)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def _label(axes: Axes, title: str, x: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#f1f3f5")
    axes.set_axisbelow(True)


def activity(states: Tensor) -> bytes:
    """How far each cell has moved from its first state, slice by slice (rows) and step by step (columns).

    Args:
        states: of one question, ``[steps + 1, D, H, W, C]``.
    """
    moved = (states - states[0]).square().mean(dim=-1).sqrt()
    steps, slices = (_spread(count) for count in moved.shape[:2])
    figure = Figure(figsize=(1.1 * len(steps) + 1.6, 1.1 * len(slices) + 0.7), layout="constrained")
    grid = figure.subplots(len(slices), len(steps), squeeze=False)
    top = moved.max().clamp_min(1e-12).item()
    for depth, axes_row in zip(slices, grid, strict=True):
        for step, axes in zip(steps, axes_row, strict=True):
            image = axes.imshow(moved[step, depth].numpy(), vmin=0, vmax=top, cmap="magma")
            axes.set_xticks([])
            axes.set_yticks([])
            if depth == 0:
                axes.set_title(f"step {step}", fontsize=9)
        axes_row[0].set_ylabel(f"slice {depth}", fontsize=9)
    figure.colorbar(image, ax=grid.ravel().tolist(), shrink=0.9, label="RMS change\nsince step 0")
    return _png(figure)


def movement(tokens: Sequence[str], moved: Tensor) -> bytes:
    """How far each token's cells have moved from their first state.

    Args:
        tokens: of a text, ``L``.
        moved: distances ``[steps + 1, L]``.
    """
    figure = Figure(figsize=(max(4.0, 0.5 * len(tokens) + 1.5), 0.4 * len(moved) + 1.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(moved.numpy(), aspect="auto", cmap="Blues")
    axes.set_xticks(range(len(tokens)), tokens, rotation=45, ha="right")
    axes.set_yticks(range(len(moved)))
    axes.set_ylabel("step")
    figure.colorbar(image, ax=axes, label="distance from the first state")
    return _png(figure)


def _spread(count: int, most: int = 10) -> list[int]:
    """At most so many of the indices below ``count``, the first and the last among them."""
    return torch.linspace(0, count - 1, min(count, most)).round().int().unique().tolist()


def gradients(norms: Tensor) -> bytes:
    """The gradient's norm at each step's state: the median over questions and the middle 80 %.

    Args:
        norms: ``[steps + 1, N]``.
    """
    figure = Figure(figsize=(5.2, 2.7), layout="constrained")
    axes = figure.subplots()
    steps = list(range(len(norms)))
    low, middle, high = (norms.quantile(q, dim=1).tolist() for q in (0.1, 0.5, 0.9))
    axes.fill_between(steps, low, high, color=CUBE_COLOR, alpha=0.2, linewidth=0)
    axes.plot(steps, middle, "o-", color=CUBE_COLOR, markersize=4)
    if norms.min() > 0 and norms.max() > 30 * norms.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    _label(axes, "Gradient at each state", "step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("norm", fontsize=9)
    return _png(figure)


def matrix(names: Sequence[str], values: Sequence[Sequence[float]]) -> bytes:
    """A symmetric matrix of correlations, written out.

    Args:
        names: of rows and columns, ``n``.
        values: ``[n][n]``, between -1 and 1.
    """
    n = len(names)
    figure = Figure(figsize=(1.2 * n + 1.6, 0.8 * n + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, vmin=-1, vmax=1, cmap="RdBu", aspect="auto")
    axes.set_xticks(range(n), names, fontsize=9)
    axes.set_yticks(range(n), names, fontsize=9)
    for row, column in itertools.product(range(n), repeat=2):
        value = values[row][column]
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.6 else DARK)
    return _png(figure)
