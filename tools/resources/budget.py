"""What compiled code may use: limits that hold for all of it, and the table that it was measured at."""

from __future__ import annotations

GROWTH = 1.02
"""Registers and instructions move a little with the compiler's version; more than that is looked at."""


def exceeded(rows: dict[str, dict[str, float]], table: dict[str, dict[str, float]]) -> list[str]:
    """A line for each row that breaks a limit, or is worse than the table's; an empty table compares nothing."""
    problems = []
    for name, row in rows.items():
        if row["spills"] > 0:
            problems.append(f"{name}: spills {row['spills']}")
        if "unaligned" not in name and "_kernel" in name and row["widest load bits"] < 128:
            problems.append(f"{name}: its widest load is {row['widest load bits']} bits")
        if "bf16" in name and "step" in name and row["tensor instructions"] == 0:
            problems.append(f"{name}: no tensor-core instruction")
        if not table:
            continue
        if name not in table:
            problems.append(f"{name}: not in the table; --write adds it")
            continue
        for quantity in ("registers", "shared bytes", "instructions"):
            if row[quantity] > GROWTH * table[name][quantity]:
                problems.append(f"{name}: {quantity} {row[quantity]}, in the table {table[name][quantity]}")
        for quantity in ("widest load bits", "widest store bits", "tensor instructions", "occupancy"):
            if row.get(quantity, 0) < table[name].get(quantity, 0):
                problems.append(f"{name}: {quantity} {row[quantity]}, in the table {table[name][quantity]}")
    return problems
