"""What every Triton kernel moves and computes for a cell, counted while its code for sm_80 runs in ``tools/ptx``:
columns of the table.

Sectors are 32 bytes; a warp's load counts each that it touches once, whichever cache then has it. What programs read
together (weights, offsets) is shared out among the cells.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import torch

from tools.ptx.triton_driver import launches, simulated_gpu
from tools.resources.recording import label
from tools.resources.table import CASES, VARIANTS, Variant


def measured(variants: list[Variant]) -> Iterator[tuple[str, dict[str, float]]]:
    """Columns by the names of rows; of a kernel that is launched several times, its first launch's."""
    torch.use_deterministic_algorithms(True)
    for variant in variants:
        launches.clear()
        with simulated_gpu(80):
            variant.run()
        for launch in reversed(launches):
            counted, cells = launch.statistics, CASES[variant.case].cells
            columns = {
                "bytes loaded a cell": counted.global_load_bytes,
                "bytes stored a cell": counted.global_store_bytes,
                "sectors loaded a cell": counted.global_load_sectors,
                "sectors stored a cell": counted.global_store_sectors,
                "FLOPs a cell": counted.flops,
            }
            name = f"sm_80 | {variant} | {label(launch.kernel, launch.sizes, launch.warps)}"
            yield name, {column: round(number / cells, 2) for column, number in columns.items()}


if __name__ == "__main__":
    print(json.dumps(dict(measured(VARIANTS[:1] if "--sample" in sys.argv else VARIANTS))))
