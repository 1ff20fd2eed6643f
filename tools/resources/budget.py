"""What compiled code may use: limits that hold for all of it, and the table that it was measured at."""

from __future__ import annotations

import re
from typing import Any

Rows = dict[str, dict[str, Any]]

GROWTH = 1.02
"""Registers and instructions move a little with the compiler's version; more than that is looked at."""
COSTS = (
    "registers",
    "shared bytes",
    "instructions",
    "bytes loaded a cell",
    "bytes stored a cell",
    "sectors loaded a cell",
    "sectors stored a cell",
    "FLOPs a cell",
)
MERITS = ("widest load bits", "widest store bits", "tensor instructions", "occupancy", "executed")

_MOVES_CHANNELS = re.compile(r"_kernel|float32, (Ieee|Tf32)|float32, by packets \| (perceive|adjoint)")
_ON_TENSOR_CORES = re.compile(r"bf16.*step|CUDA, \w+, (Tf32|Half)")
_EXACT = re.compile(r"sm_\d+ .*(fp32|Ieee)")  # NVIDIA's tensor cores round float32


def beyond_limits(rows: Rows) -> list[str]:
    """A line for each limit that a row breaks, whatever the table says."""
    problems = []
    for name, row in rows.items():
        if row["spills"] > 0:
            problems.append(f"{name}: spills {row['spills']}")
        if "unaligned" not in name and _MOVES_CHANNELS.search(name) and row["widest load bits"] < 128:
            problems.append(f"{name}: its widest load is {row['widest load bits']} bits")
        if _ON_TENSOR_CORES.search(name) and row["tensor instructions"] == 0:
            problems.append(f"{name}: no tensor-core instruction")
        if _EXACT.match(name) and row["tensor instructions"] > 0:
            problems.append(f"{name}: exact products on tensor cores")
        if row.get("occupancy") == 0:
            problems.append(f"{name}: a multiprocessor has not the registers for one block")
        if not row.get("executed", True) and not row["because of"].startswith(("wgmma", "tcgen05")):
            problems.append(f"{name}: not executed because of {row['because of']}")
    return problems


def worse(rows: Rows, table: Rows) -> list[str]:
    """A line for each quantity of a row that is worse than in the table."""
    problems = [f"{name}: not in the table; --write adds it" for name in rows if name not in table]
    for name in rows.keys() & table.keys():
        now, before = rows[name], table[name]
        for quantity in now.keys() & before.keys():
            costs_more = quantity in COSTS and now[quantity] > GROWTH * before[quantity]
            is_worth_less = quantity in MERITS and now[quantity] < before[quantity]
            if costs_more or is_worth_less:
                problems.append(f"{name}: {quantity} {now[quantity]}, in the table {before[quantity]}")
    return problems
