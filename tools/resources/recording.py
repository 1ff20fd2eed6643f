"""A Triton driver that compiles for a target and runs nothing: what a call would launch, as compiled.

Calls go through the package's own wrappers, so that each kernel is compiled with the specialization, the constants and
the configuration of a real launch.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from tools.ptx.triton_driver import sizes_of

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class Compiled(NamedTuple):
    """One compiled kernel."""

    kernel: str
    sizes: dict[str, int]  # of its configuration
    warps: int
    shared: int  # bytes that it asks for at launch
    files: dict[str, bytes]  # by suffix: ".cubin" and ".ptx", or ".amdgcn"

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def label(self) -> str:
        return label(self.kernel, self.sizes, self.warps)


def label(kernel: str, sizes: dict[str, int], warps: int) -> str:
    """Of one kernel in one configuration."""
    return " ".join([kernel, *(f"{name} {size}" for name, size in sizes.items()), f"warps {warps}"])


class _Launcher:
    def __init__(self, source: Any, metadata: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> None:
        pass


class _Utils:
    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, ...]:
        return None, None, 0, 0, 1024

    def unload_module(self, module: Any) -> None:
        pass

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448 if device != 80 else 166912, "multiprocessor_count": 132, "warpSize": 32}


class _Driver:
    launcher_cls = _Launcher
    utils = _Utils()

    def __init__(self, name: str) -> None:
        self.target = TARGETS[name]
        self.device = list(TARGETS).index(name)  # Triton keeps a kernel's compilations by device

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.device

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cpu

    def get_benchmarker(self) -> Callable[..., Any]:
        def benchmark(call: Callable[[], None], quantiles: Any = None, **_: Any) -> Any:
            call()
            return [0.0] * len(quantiles) if quantiles else 0.0

        return benchmark


@contextmanager
def recording(target: str) -> Iterator[list[Compiled]]:
    """Collects what calls on CPU tensors compile for a target meanwhile. Their results hold garbage, and the process
    has no other Triton driver from then on."""
    compiled: list[Compiled] = []

    def remember(*, src: Any, metadata_group: dict[str, str], **_: Any) -> None:
        files = {pathlib.Path(path).suffix: pathlib.Path(path) for path in metadata_group.values()}
        metadata = json.loads(files[".json"].read_text())
        kept = {s: f.read_bytes() for s, f in files.items() if s in (".cubin", ".ptx", ".amdgcn")}
        compiled.append(Compiled(metadata["name"], sizes_of(src), metadata["num_warps"], metadata["shared"], kept))

    triton.knobs.compilation.listener = remember
    driver.set_active(_Driver(target))
    try:
        yield compiled
    finally:
        triton.knobs.compilation.listener = None
