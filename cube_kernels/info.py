"""``python -m cube_kernels.info``: versions, the CPU, and each backend with its reason if it cannot run."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from cube_kernels.backends import cuda, native
from cube_kernels.dispatch import BACKENDS
from cube_kernels.lattice import Lattice
from cube_kernels.rule import Rule


def installed(distribution: str) -> str:
    """Its version."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def report() -> str:
    """The report as text, one fact a line."""
    lines = [f"{name:<14}{installed(name)}" for name in ("cube-kernels", "torch", "numpy")]
    lines.append(f"{'python':<14}{platform.python_version()} on {platform.platform()}")
    lines.append(f"{'cuda device':<14}{'yes' if torch.cuda.is_available() else 'none'}")
    lines.append(f"{'threads':<14}{torch.get_num_threads()} (torch.get_num_threads)")
    module, _ = native.extension()
    if module is not None:
        lines.append(f"{'native':<14}{module.compiler}; this CPU runs {', '.join(module.supported_isas())}")
    module, _ = cuda.extension()
    if module is not None:
        lines.append(f"{'cuda':<14}{module.build}; {module.device_report()}")
    lines.append("backends, for float32 states on the CPU, in the order of the automatic choice:")
    for name, backend in BACKENDS.items():
        reason = backend.why_not(Lattice((8, 8, 8), 16), Rule(), torch.float32, torch.device("cpu"))
        lines.append(f"  {name:<12}{'yes' if reason is None else 'no: ' + reason}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
