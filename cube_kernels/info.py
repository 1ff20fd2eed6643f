"""``python -m cube_kernels.info``: versions, the CPU, what GPUs there are, and which backend runs a call, each other
with its reason if it cannot. ``--shape 16 16 16 --channels 16 --hidden 128 --dtype bfloat16`` asks of such calls."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from cube_kernels.backends import cuda, native
from cube_kernels.backends.contract import BackendError
from cube_kernels.call import door
from cube_kernels.call.dispatch import BACKENDS, choose
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import Rule


def installed(distribution: str) -> str:
    """Its version."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in door.DTYPES}
CALL = Lattice((8, 8, 8), 16), Rule()


def report(
    lattice: Lattice = CALL[0],
    rule: Rule = CALL[1],
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> str:
    """The report as text, one fact a line.

    Args:
        lattice, rule, dtype, device: of the calls for which it says what each backend makes of them; a GPU if there is
            one.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    size = "x".join(map(str, lattice.shape))
    lines.append(
        f"backends, for {size} cells of {lattice.channels} channels, hidden={rule.hidden}, {dtype} on {device}:"
    )
    for name, backend in BACKENDS.items():
        reason = backend.why_not(lattice, rule, dtype, device)
        lines.append(f"  {name:<12}{'yes' if reason is None else 'no: ' + reason}")
    try:
        lines.append(f"automatic     {choose('auto', lattice, rule, dtype, device).name}")
    except (BackendError, ValueError) as error:  # of CUBE_KERNELS_BACKEND
        lines.append(f"automatic     none: {error}")
    return "\n".join(lines)


def main() -> None:
    lattice, rule = CALL
    parser = argparse.ArgumentParser(prog="python -m cube_kernels.info", description="What is installed, and what runs")
    parser.add_argument("--shape", type=int, nargs=3, default=lattice.shape, metavar=("D", "H", "W"))
    parser.add_argument("--channels", type=int, default=lattice.channels)
    parser.add_argument("--hidden", type=int, default=rule.hidden)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    asked = parser.parse_args()
    try:
        lattice, rule = Lattice(tuple(asked.shape), asked.channels), Rule(hidden=asked.hidden)
    except ValueError as error:
        parser.error(str(error))
    print(report(lattice, rule, DTYPES[asked.dtype]))


if __name__ == "__main__":
    main()
