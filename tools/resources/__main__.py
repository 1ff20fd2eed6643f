"""What the GPU kernels need on every target: the table in ``docs/resources.json``.

    python -m tools.resources --write     # measure again
    python -m tools.resources             # compare with the table; fails where code got worse

A row is one kernel of one case in one configuration on one target; :mod:`tools.resources.budget` says what it may use.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.resources.budget import Rows, beyond_limits, worse

TABLE = Path(__file__).parents[2] / "docs" / "resources.json"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
PARTS = {
    **{target: ("tools.resources.table", target) for target in TARGETS},
    "cuda": ("tools.resources.cuda",),
    "traffic": ("tools.resources.traffic",),
}
"""The commands that print rows. Each is a process of its own: Triton holds one driver."""

FLAGS = {
    "--sample": "only the first case of each target",
    "--every-configuration": "all that the autotuner tries on each target, held to the limits alone",
}


def measure(parts: list[str], flags: list[str], jobs: int) -> Rows:
    def rows(part: str) -> Rows:
        command = [sys.executable, "-m", *PARTS[part], *flags]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

    together: Rows = {}
    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(rows, parts):
            for name, row in found.items():
                together.setdefault(name, {}).update(row)
    return together


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.resources", description="Resources of the GPU kernels")
    parser.add_argument("--write", action="store_true", help=f"put what is measured into {TABLE.name}")
    for flag, help in FLAGS.items():
        parser.add_argument(flag, action="append_const", dest="flags", default=[], const=flag, help=help)
    parser.add_argument("--jobs", type=int, default=2, help="parts measured at once")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    options = parser.parse_args()
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"part {part!r}; valid: {', '.join(PARTS)}")
    parts = options.parts or list(TARGETS if options.flags else PARTS)
    rows = measure(parts, options.flags, options.jobs)
    problems = beyond_limits({name: row for name, row in rows.items() if "spills" in row})
    if "--every-configuration" not in options.flags:
        anew = options.write and not options.parts and not options.flags
        table = {} if anew else json.loads(TABLE.read_text())
        # A kernel that several cases share is compiled, and has its row, in the first of them alone.
        rows = {name: row for name, row in rows.items() if "spills" in row or name in table}
        if options.write:
            table = {name: table.get(name, {}) | rows.get(name, {}) for name in table.keys() | rows.keys()}
            TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
        problems += worse(rows, table)
    print("\n".join([f"{len(rows)} kernels", *problems]))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
