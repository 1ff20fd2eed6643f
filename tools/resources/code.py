"""What compiled GPU code uses, read off the code itself: registers, spills, shared memory, widths, tensor cores."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import triton


class Usage(NamedTuple):
    """Of one kernel."""

    registers: int
    spills: int
    """Bytes of memory a thread, for what registers do not hold."""
    shared: int
    """Bytes that are part of the code; what a launch asks for comes on top."""
    load_bits: dict[int, int]
    """Global loads by their width."""
    store_bits: dict[int, int]
    tensor_instructions: int
    instructions: int


def row_of(usage: Usage, shared: int) -> dict[str, Any]:
    """As the table has it; ``shared``: bytes that a block is launched with."""
    return {
        "registers": usage.registers,
        "spills": usage.spills,
        "shared bytes": shared,
        "widest load bits": max(usage.load_bits, default=0),
        "widest store bits": max(usage.store_bits, default=0),
        "tensor instructions": usage.tensor_instructions,
        "instructions": usage.instructions,
    }


_OPERATION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", re.MULTILINE)
_WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "16": 16, "64": 64, "128": 128, "256": 256}
_TENSOR = ("HMMA", "IMMA", "DMMA", "HGMMA", "QGMMA", "UTCHMMA", "UTCMMA", "UTCQMMA")


def _widths(operations: Counter[str], mnemonic: str) -> dict[int, int]:
    found: Counter[int] = Counter()
    for operation, count in operations.items():
        name, *modifiers = operation.split(".")
        if name == mnemonic:
            found[next((_WIDTHS[m] for m in modifiers if m in _WIDTHS), 32)] += count
    return dict(sorted(found.items()))


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


def nvidia_usage(cubin: bytes) -> dict[str, Usage]:
    """Of each kernel of a cubin, by the tools in Triton's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "code.cubin"
        path.write_bytes(cubin)
        resources = _run(triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path))
        listing = _run(triton.knobs.nvidia.nvdisasm.path, "-c", str(path))
    parts = re.split(r"^\.text\.(\S+):$", listing, flags=re.MULTILINE)
    code = dict(zip(parts[1::2], parts[2::2], strict=True))
    usage = {}
    for name, line in re.findall(r"Function (\S+):\s*\n(.*)", resources):
        numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", line)}
        operations = Counter(_OPERATION.findall(code[name]))
        usage[name] = Usage(
            registers=numbers["REG"],
            spills=numbers["STACK"] + numbers["LOCAL"],
            shared=numbers["SHARED"],
            load_bits=_widths(operations, "LDG"),
            store_bits=_widths(operations, "STG"),
            tensor_instructions=sum(n for o, n in operations.items() if o.split(".")[0] in _TENSOR),
            instructions=sum(operations.values()),
        )
    return usage


_AMD_WIDTHS = {"ubyte": 8, "sbyte": 8, "byte": 8, "ushort": 16, "sshort": 16, "short": 16, "dword": 32}


def _amd_widths(operations: Counter[str], direction: str) -> dict[int, int]:
    found: Counter[int] = Counter()
    for operation, count in operations.items():
        form = re.fullmatch(
            rf"(?:global|buffer|flat)_{direction}_([a-z]+)(?:_d16\w*)?(?:x(\d))?(?:_d16\w*)?", operation
        )
        if form:
            found[_AMD_WIDTHS[form[1]] * int(form[2] or 1)] += count
    return dict(sorted(found.items()))


def amd_usage(assembly: str) -> Usage:
    """Of the one kernel in what Triton's AMD backend writes."""

    def number(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", assembly)[1])  # type: ignore[index]

    operations = Counter(re.findall(r"^\t([a-z]\w+)", assembly, re.MULTILINE))
    return Usage(
        registers=number("vgpr_count"),
        spills=number("private_segment_fixed_size"),  # scalars beyond 106 go to lanes of vector registers
        shared=number("group_segment_fixed_size"),
        load_bits=_amd_widths(operations, "load"),
        store_bits=_amd_widths(operations, "store"),
        tensor_instructions=sum(n for o, n in operations.items() if o.startswith("v_mfma")),
        instructions=sum(operations.values()),
    )
