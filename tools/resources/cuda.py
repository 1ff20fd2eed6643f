"""What every kernel of the CUDA module needs, as nvcc compiled it: rows of the table."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton

from cube_kernels.backends import cuda
from tools.resources.code import nvidia_usage, row_of
from tools.resources.occupancy import MULTIPROCESSORS, occupancy

THREADS = 256
CLUSTER = "in clusters"
STORAGES = {"f": "float32", "13__nv_bfloat16": "bfloat16", "6__half": "float16"}
_MANGLED = re.compile(rf"\d([a-z_]+)I({'|'.join(STORAGES)})(?:Li(\d)|NS0_4([A-Z]\w\w\w))?.*?(Cluster)?E*v")


def _label(mangled: str) -> tuple[str, str]:
    """A kernel's name, and what its template was given."""
    match = _MANGLED.search(mangled)
    if match is None:
        raise ValueError(f"{mangled} is no kernel of the module's")
    name, storage, packet, products, cluster = match.groups()
    by = {"1": "by numbers", "4": "by packets"}.get(packet, products)
    return name, ", ".join(filter(None, (STORAGES[storage], by, cluster and CLUSTER)))


def measured() -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows by name. A rollout's block takes what shared memory a multiprocessor has; the rows are of one that takes
    all."""
    module, reason = cuda.extension()
    if module is None:
        raise SystemExit(f"the CUDA module is not built: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        command = [triton.knobs.nvidia.cuobjdump.path, "-xelf", "all", str(module.__file__)]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        for cubin in sorted(Path(folder).glob("*.cubin")):
            target = cubin.name.split(".")[-2]
            for mangled, used in nvidia_usage(cubin.read_bytes()).items():
                name, variant = _label(mangled)
                if CLUSTER in variant and target == "sm_80":
                    continue  # it has none: the kernel is empty
                whole = name in ("forward", "backward")
                shared = MULTIPROCESSORS[target].block_shared if whole else used.shared
                row = row_of(used, shared) | {"occupancy": occupancy(target, THREADS, used.registers, shared)}
                yield f"{target} | CUDA, {variant} | {name}", row


if __name__ == "__main__":
    print(json.dumps(dict(measured())))
