"""``python -m benchmarks.compare``: ours beside every peer, each checked to compute our numbers first."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.cases import select
from benchmarks.measure import TURNS, Row, ceilings, measure
from benchmarks.report import summary, table
from benchmarks.verify import DisagreementError
from cube_kernels.info import installed

DISTRIBUTIONS = ("cube-kernels", "torch", "numpy", "jax", "jaxlib", "flax", "cax", "scipy", "devito")
SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "CUBE_KERNELS_ISA")

LOUD = """WARNING: the machine is not quiet; do not quote these figures. Peers that wait actively in OpenMP barriers, as
eager torch does, suffer many times more than others when another process takes one of their cores."""


def machine() -> dict[str, object]:
    """What a figure depends on beside the code."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    flags = ("fma", "avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": facts.get("model name", platform.processor()),
        "flags": [flag for flag in flags if flag in facts.get("flags", "").split()],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load average": os.getloadavg(),
        "python": platform.python_version(),
        **{name: installed(name) for name in DISTRIBUTIONS},
        "environment": {name: os.environ.get(name, "not set") for name in SPIN_VARIABLES},
        "turns": TURNS,
    }


def as_json(row: Row) -> dict[str, object]:
    figures = {"milliseconds": row.milliseconds, "refused": row.refused, "peak bytes": row.peak_bytes}
    return {"name": str(row.case), "case": asdict(row.case), "flops": row.case.flops, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="the full grid instead of the default rows; takes hours")
    parser.add_argument("--case", default="", metavar="SUBSTRING", help="of those, the rows whose name contains this")
    parser.add_argument("--memory", action="store_true", help="peak memory too, each in a fresh process; slow")
    parser.add_argument("--out", type=Path, help="write the machine and every sample as JSON")
    options = parser.parse_args()
    chosen, left_out = select(options.all, options.case)
    if not chosen:
        parser.error(f"no row's name contains {options.case!r}" + ("" if options.all else "; --all has more rows"))

    facts = {**machine(), **ceilings()}
    for key, value in facts.items():
        print(f"{key}: {value:.1f}" if isinstance(value, float) else f"{key}: {value}")
    if os.getloadavg()[0] > 0.3:
        print(LOUD)
    rows, wrong = [], {}
    for case in chosen:
        try:
            rows.append(measure(case, options.memory))
        except DisagreementError as disagreement:
            wrong[str(case)] = str(disagreement)
            print(f"\n{case}\n  ROW REFUSED, other numbers than the reference's: {disagreement}", flush=True)
            continue
        print(table(rows[-1], facts), flush=True)
    print(summary(rows))
    names = "; ".join(map(str, left_out)) or "none"
    print(textwrap.fill(f"not run, {len(left_out)} rows of the grid (--all runs them): {names}", 120))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "machine": facts,
            "rows": [as_json(r) for r in rows],
            "wrong": wrong,
            "not run": list(map(str, left_out)),
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
