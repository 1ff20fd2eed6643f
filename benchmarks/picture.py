"""``python -m benchmarks.picture RESULT.json OUT.png``: each peer's time over ours, a line for each row."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from benchmarks.peers import OURS, PEERS

MARKERS = "osD^vP*X"


def draw(result: dict[str, Any], out: Path) -> None:
    rows = [row for row in result["rows"] if OURS in row["milliseconds"]]
    for row in result["rows"]:
        if row not in rows:
            print(f"not drawn, for want of ours: {row['name']}")
    heights = range(len(rows), 0, -1)
    figure, axes = plt.subplots(figsize=(11, 1.8 + 0.34 * len(rows)), layout="constrained")
    peers = [name for name in PEERS if name != OURS and any(name in row["milliseconds"] for row in rows)]
    colors = plt.get_cmap("tab10").colors
    for i, name in enumerate(peers):
        points = [
            (statistics.median(row["milliseconds"][name]) / statistics.median(row["milliseconds"][OURS]), height)
            for row, height in zip(rows, heights, strict=True)
            if name in row["milliseconds"]
        ]
        look = {"color": colors[i % len(colors)], "marker": MARKERS[i % len(MARKERS)], "s": 36, "zorder": 3}
        axes.scatter(*zip(*points, strict=True), label=name, **look)
    axes.axvline(1, color="black", linewidth=1.2, zorder=2)
    axes.set_xscale("log")
    ticks = [t for t in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set_yticks(list(heights), [row["name"] for row in rows], fontsize=8)
    axes.grid(axis="both", color="0.9", zorder=0)
    axes.set_xlabel("time over that of cube-kernels (right of 1: cube-kernels is faster)")
    facts = result["machine"]
    axes.set_title(
        f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}, {facts['date'][:10]}", fontsize=10
    )
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="what `python -m benchmarks.compare --out` wrote")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    draw(json.loads(options.result.read_text()), options.out)


if __name__ == "__main__":
    main()
