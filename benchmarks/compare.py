"""`python -m benchmarks.compare [--out FILE]`: one side-by-side table.

The peers of a case take turns, A B C A B C, in one process, so that a change of the machine's speed meets all of
them; printed are the median, the range, and how many times ours each peer takes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from benchmarks.cases import CASES, DIRECTIONS, PEERS, workload

ROUNDS = 15


def cpu_name() -> str:
    """As the system calls it, with the instruction sets that matter here."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in text]
    return " ".join([names[0] if names else platform.processor(), *flags])


def measure(case: str, direction: str) -> dict[str, list[float]]:
    """Milliseconds of each round of each peer."""
    calls = {peer: workload(case, direction, peer) for peer in PEERS}
    times: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for round_ in range(ROUNDS + 2):
        for peer, call in calls.items():
            start = time.perf_counter()
            call()
            if round_ >= 2:  # the first two warm up
                times[peer].append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    out = parser.parse_args().out
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": ROUNDS}
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    rows = []
    for case in CASES:
        for direction in DIRECTIONS:
            times = measure(case, direction)
            ours = statistics.median(times["native"])
            print(f"\n{case}, {direction}")
            for peer, values in times.items():
                median = statistics.median(values)
                print(f"  {peer:<14} {median:8.2f} ms [{min(values):.2f}, {max(values):.2f}]  {median / ours:5.2f} x")
                rows.append({"case": case, "direction": direction, "peer": peer, "ms": values})
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
