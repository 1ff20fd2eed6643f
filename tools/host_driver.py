"""What Triton asks of a driver, answered without a GPU: kernels compile for a chosen target, and tensors are the CPU's.
What becomes of a compiled kernel is for ``utils`` and ``launcher_cls`` to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver


class Target(NamedTuple):
    gpu: GPUTarget
    shared_bytes: int  # that a block may have


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 166912),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 232448),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 232448),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 65536),
}


class HostUtils:
    """What Triton asks of a device; ``load_binary`` gives module, function, registers, spills and threads a block."""

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, Any, int, int, int]:
        return None, None, 0, 0, 1024

    def unload_module(self, module: Any) -> None:
        pass

    def get_device_properties(self, device: int) -> dict[str, int]:
        target = list(TARGETS.values())[device]
        return {
            "max_shared_mem": target.shared_bytes,
            "multiprocessor_count": 132,
            "warpSize": target.gpu.warp_size,
        }


class HostDriver:
    """A device for each of :data:`TARGETS`, numbered in their order: Triton caches compilations by device."""

    def __init__(self, target: str, utils: HostUtils, launcher_cls: Callable[[Any, Any], Callable[..., None]]) -> None:
        self.target, self.utils, self.launcher_cls = target, utils, launcher_cls

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self.target].gpu

    def get_current_device(self) -> int:
        return list(TARGETS).index(self.target)

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_device_capability(self, device: int | None = None) -> tuple[int, int]:
        return divmod(TARGETS[self.target].gpu.arch, 10)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cpu

    def get_benchmarker(self) -> Callable[..., Any]:
        """One that runs a kernel once and finds every one equally fast: the autotuner takes the first that runs."""

        def benchmark(call: Callable[[], None], quantiles: Any = None, **_: Any) -> Any:
            call()
            return [0.0] * len(quantiles) if quantiles else 0.0

        return benchmark


@contextmanager
def standing_in(host: HostDriver, listener: Callable[..., None]) -> Iterator[None]:
    """Inside, Triton has this driver, and the listener hears of every compilation; no thread may use another."""
    before = driver._active, triton.knobs.compilation.listener
    driver._active, triton.knobs.compilation.listener = host, listener
    try:
        yield
    finally:
        driver._active, triton.knobs.compilation.listener = before
