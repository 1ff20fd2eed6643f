"""The pictures of a report, each as PNG bytes."""

from __future__ import annotations

import io
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

CUBE_COLOR = "#3b5bdb"
OTHER_COLOR = "#adb5bd"
SECOND_COLOR = "#e8590c"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def learning_curves(history: list[dict[str, float]], identity_mrr: float) -> bytes:
    """Loss by epoch on both parts, and validation MRR beside that of no model.

    Args:
        history: the Trainer's log.
        identity_mrr: validation MRR of the question's own vector.
    """
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_mrr" in entry]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss, mrr = figure.subplots(1, 2)
    loss.plot([e["epoch"] for e in training], [e["loss"] for e in training], color=CUBE_COLOR, label="training")
    loss.plot(
        [e["epoch"] for e in validation], [e["eval_loss"] for e in validation], color=SECOND_COLOR, label="validation"
    )
    loss.set(xlabel="epoch", ylabel="loss", title="Loss")
    loss.legend(frameon=False)
    mrr.plot([e["epoch"] for e in validation], [e["eval_mrr"] for e in validation], color=CUBE_COLOR, label="cube")
    mrr.axhline(identity_mrr, color="#495057", linestyle=":", label="identity (no model)")
    mrr.set(xlabel="epoch", ylabel="MRR", title="Validation MRR")
    mrr.legend(frameon=False)
    return _png(figure)


def comparison(methods: dict[str, dict[str, Any]], metric: str) -> bytes:
    """One metric for every method with its interval."""
    names = list(methods)[::-1]
    figure = Figure(figsize=(9, 0.4 * len(names) + 0.9), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(names):
        value = methods[name][metric]
        color = CUBE_COLOR if name == "cube" else OTHER_COLOR
        axes.plot([value["low"], value["high"]], [y, y], color=color, linewidth=5, solid_capstyle="butt")
        axes.plot(value["mean"], y, "o", color="#212529", markersize=5)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=f"{metric} on held-out questions, mean and 95 % interval over answer groups")
    axes.grid(axis="x", color="#e9ecef")
    return _png(figure)


def activity(trajectory: Tensor) -> bytes:
    """How far each cell has moved from its first state, slice by slice (rows) and step by step (columns).

    Args:
        trajectory: states of one question, ``[steps + 1, D, H, W, C]``.
    """
    moved = (trajectory - trajectory[0]).square().mean(dim=-1).sqrt()
    steps, depth = moved.shape[:2]
    shown = torch.linspace(0, steps - 1, min(steps, 10)).round().int().unique().tolist()
    figure = Figure(figsize=(1.1 * len(shown) + 1.2, 1.1 * depth + 0.7), layout="constrained")
    grid = figure.subplots(depth, len(shown), squeeze=False)
    top = moved.max().clamp_min(1e-12).item()
    for row, axes_row in enumerate(grid):
        for step, axes in zip(shown, axes_row, strict=True):
            image = axes.imshow(moved[step, row].numpy(), vmin=0, vmax=top, cmap="magma")
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(f"step {step}", fontsize=9)
        axes_row[0].set_ylabel(f"slice {row}", fontsize=9)
    figure.colorbar(image, ax=grid.ravel().tolist(), shrink=0.8, label="RMS change since step 0")
    return _png(figure)
