"""What is printed of the rows: tables, and what they add up to."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from benchmarks.measure import Row
from benchmarks.peers import OURS, peers_of

# Of the best peer's time over ours: the least in any row, and the geometric mean over rows.
AIMS = {"forward": (1.5, 2.5), "forward+backward": (3.0, 3.0)}


def _median(row: Row, name: str) -> float:
    return statistics.median(row.milliseconds[name])


def best_peer(row: Row) -> str | None:
    """The fastest that is not ours."""
    theirs = [name for name in row.milliseconds if not peers_of(row.case)[name].ours]
    return min(theirs, key=lambda name: _median(row, name), default=None)


def ratios(row: Row) -> dict[str, float]:
    """Each peer's time over ours; empty where ours did not run."""
    if OURS not in row.milliseconds:
        return {}
    return {name: _median(row, name) / _median(row, OURS) for name in row.milliseconds}


def table(row: Row, ceilings: dict[str, float]) -> str:
    """One row of the grid, a line for each peer."""
    case, to_ours = row.case, ratios(row)
    shares = ["fp32 matmul GFLOP/s", *(["bf16 matmul GFLOP/s"] if case.dtype == "bf16" else [])]
    shares = ["copy GB/s"] if case.heat else shares
    heads = "".join(f"{'of ' + share.split()[0] + ' ' + share.split()[1].replace('GB/s', ''):>16}" for share in shares)
    memory = f"{'peak MB':>9}" if row.peak_bytes else ""
    lines = [
        f"\n{case}: {case.flops / 1e9:.2f} GFLOP",
        f"  {'':<34}{'median ms':>10}{'min–max':>20}{'× ours':>8}{'Mcell-steps/s':>15}{'GFLOP/s':>9}{heads}{memory}",
    ]
    for name, samples in row.milliseconds.items():
        median = _median(row, name)
        rate = case.flops / median / 1e6
        gigabytes = case.compulsory_bytes / median / 1e6
        ratio = f"{to_ours[name]:.2f}" if to_ours else "–"
        line = f"  {name:<34}{median:>10.2f}{f'{min(samples):.2f}–{max(samples):.2f}':>20}{ratio:>8}"
        line += f"{case.cell_steps / median / 1e3:>15.2f}{rate:>9.1f}"
        line += "".join(f"{(gigabytes if case.heat else rate) / ceilings[share]:>16.0%}" for share in shares)
        if row.peak_bytes:
            line += f"{row.peak_bytes[name] / 1e6:>9.1f}" if name in row.peak_bytes else f"{'–':>9}"
        lines.append(line)
    lines += [f"  {name:<34}{reason}" for name, reason in row.refused.items()]
    return "\n".join(lines)


def _listed(title: str, lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    return [f"{title}: {len(lines) or 'none'}", *(f"  {line}" for line in lines)]


def summary(rows: list[Row]) -> str:
    """Geometric means of best peer over ours, the worst row, and every row that we lost or that misses its aim."""
    best = {}
    for row in rows:
        peer = best_peer(row)
        if peer is not None and OURS in row.milliseconds:
            best[row.case] = (ratios(row)[peer], peer)

    def told(case) -> str:
        return f"{best[case][0]:.2f} × ours by {best[case][1]}: {case}"

    lines = ["", "best peer's time over ours (above 1, ours is faster)"]
    kinds = [(dtype, direction, False) for dtype in ("fp32", "bf16") for direction in AIMS]
    for dtype, direction, heat in [*kinds, ("fp32", "forward", True)]:
        group = [c for c in best if (c.dtype, c.direction, c.heat) == (dtype, direction, heat)]
        if group:
            mean = statistics.geometric_mean(best[case][0] for case in group)
            worst = min(group, key=lambda case: best[case][0])
            aim = "" if heat else f" (aim {AIMS[direction][1]})"
            lines.append(
                f"{'heat' if heat else dtype} {direction}: geometric mean {mean:.2f}{aim} of {len(group)} rows"
            )
            lines.append(f"  worst {told(worst)}")
    lines += _listed("rows lost", (told(case) for case in best if best[case][0] < 1))
    missed = [case for case in best if not case.heat and best[case][0] < AIMS[case.direction][0]]
    aims = ", ".join(f"{direction} {least}" for direction, (least, _) in AIMS.items())
    lines += _listed(f"rows below the aim ({aims})", map(told, missed))
    lines += _listed("rows without a comparison", (str(row.case) for row in rows if row.case not in best))
    return "\n".join(lines)
