"""See :mod:`tools.resources.table`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.resources.budget import exceeded

TABLE = Path(__file__).parents[2] / "docs" / "resources.json"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


def measure(targets: list[str], every_configuration: bool, jobs: int) -> dict[str, dict[str, float]]:
    """The rows of these targets, each in a process of its own: Triton holds one driver."""
    flags = ["--every-configuration"] if every_configuration else []

    def rows(target: str) -> dict[str, dict[str, float]]:
        command = [sys.executable, "-m", "tools.resources.table", target, *flags]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

    with ThreadPoolExecutor(jobs) as pool:
        return {name: row for found in pool.map(rows, targets) for name, row in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.resources", description="Resources of the Triton kernels")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} anew instead of comparing with it")
    parser.add_argument("--every-configuration", action="store_true", help="all that the autotuner tries; limits only")
    parser.add_argument("--jobs", type=int, default=2, help="targets compiled at once")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    options = parser.parse_args()
    for target in options.targets:
        if target not in TARGETS:
            parser.error(f"target {target!r}; valid: {', '.join(TARGETS)}")
    rows = measure(options.targets or list(TARGETS), options.every_configuration, options.jobs)
    if options.write:
        TABLE.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
    table = {} if options.every_configuration else json.loads(TABLE.read_text())
    problems = exceeded(rows, table)
    print("\n".join([f"{len(rows)} kernels", *problems]))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
