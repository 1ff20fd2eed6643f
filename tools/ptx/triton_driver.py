"""A Triton driver without a GPU: ``kernel[grid](...)`` on CPU tensors compiles for the chosen target as usual, through
the binder, specialization, the autotuner and the cache, and the PTX that comes out runs in the interpreter.

    from tools.ptx.triton_driver import launches, simulated_gpu

    with simulated_gpu(capability=80):
        kernel[grid](x, y, n)
    print(launches[-1].statistics)

It stands in for the process's driver meanwhile: no other thread may use a real one. Triton must not be
imported with ``TRITON_INTERPRET=1``. Everything that leans on Triton's private interfaces is in this module.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from . import Program, Statistics, UnsupportedError, launch, load

SHARED_BYTES = {80: 166912, 90: 232448, 100: 232448}  # a block's limit, by compute capability
WARP = 32


class Launch(NamedTuple):
    kernel: str
    sizes: dict[str, int]  # see `sizes_of`
    capability: int
    grid: tuple[int, int, int]
    warps: int
    statistics: Statistics


launches: list[Launch] = []
"""Every launch since the process began, or since the list was cleared."""


def sizes_of(source: Any) -> dict[str, int]:
    """The numbers in capitals that a kernel was compiled with: by custom, the sizes of its configuration."""
    named = {source.fn.arg_names[path[0]]: value for path, value in source.constants.items() if len(path) == 1}
    return {name: value for name, value in named.items() if name.isupper() and isinstance(value, int)}


_ptx: dict[bytes, str] = {}  # by compiled binary, which is all that a driver is handed


@contextmanager
def simulated_gpu(capability: int) -> Iterator[None]:
    """Inside, Triton compiles for compute capability 8.0, 9.0 or 10.0 (80, 90, 100) and runs on the CPU.

    A kernel that needs what the interpreter lacks raises :class:`UnsupportedError` at its launch, and one that fails a
    check :class:`KernelError`.
    """
    if capability not in SHARED_BYTES:
        raise ValueError(f"capability {capability}; {', '.join(map(str, SHARED_BYTES))} are possible")
    if triton.knobs.runtime.interpret:
        raise RuntimeError("Triton runs in its own interpreter (TRITON_INTERPRET): nothing would be compiled")
    before = driver._active, triton.knobs.compilation.listener
    driver._active, triton.knobs.compilation.listener = _Driver(capability), _remember
    try:
        yield
    finally:
        driver._active, triton.knobs.compilation.listener = before


def _remember(*, metadata_group: dict[str, str], **_: Any) -> None:
    files = {pathlib.Path(path).suffix: pathlib.Path(path) for path in metadata_group.values()}
    if ".cubin" in files:
        _ptx[files[".cubin"].read_bytes()] = files[".ptx"].read_text()


class _Utils:
    """What Triton asks of a device and of compiled kernels."""

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, Program, int, int, int]:
        """Module, function, registers, spills and threads a block: of the compiled code, which nobody looks at."""
        return None, load(_ptx[bytes(binary)], name), 0, 0, 1024

    def unload_module(self, module: Any) -> None:
        pass

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_BYTES[device], "multiprocessor_count": 132, "warpSize": WARP}


class _Launcher:
    """Stands in for the C function that Triton generates for each signature."""

    def __init__(self, source: Any, metadata: Any):
        self.signature, self.sizes = list(source.signature.items()), sizes_of(source)
        self.metadata = metadata
        for size in ("global_scratch_size", "profile_scratch_size"):
            if getattr(metadata, size, 0):
                raise UnsupportedError(f"{metadata.name} takes {size}")
        if getattr(metadata, "num_ctas", 1) != 1:
            raise UnsupportedError(f"{metadata.name} runs in clusters of blocks")

    def __call__(
        self,
        x: int,
        y: int,
        z: int,
        stream: int,
        program: Program,
        packed_metadata: Any,
        launch_metadata: Any,
        enter: Callable[..., None] | None,
        leave: Callable[..., None] | None,
        *arguments: Any,
    ) -> None:
        given = [
            (type_, value) for (_, type_), value in zip(self.signature, arguments, strict=True) if type_ != "constexpr"
        ]
        statistics = launch(
            program,
            (x, y, z),
            (WARP * self.metadata.num_warps, 1, 1),
            program.pack([_argument(type_, value) for type_, value in given]),
            [value for _, value in given if isinstance(value, torch.Tensor)],
            self.metadata.shared,
        )
        capability = driver.active.get_current_device()
        launches.append(
            Launch(self.metadata.name, self.sizes, capability, (x, y, z), self.metadata.num_warps, statistics)
        )


FLOATS = {"fp16": "e", "fp32": "f", "f32": "f", "fp64": "d"}


def _argument(type_: str, value: Any) -> int | bytes:
    """As :meth:`Program.pack` wants it."""
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    if type_ in FLOATS:
        return struct.pack(f"<{FLOATS[type_]}", value)
    if type_[0] in "iu*" and (value is None or isinstance(value, int)):
        return int(value or 0)
    raise UnsupportedError(f"an argument of type {type_}: {value!r}")


class _Driver:
    """Its device is numbered by the capability, so that Triton caches a kernel's compilations for each apart."""

    launcher_cls = _Launcher
    utils = _Utils()

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, WARP)

    def get_current_device(self) -> int:
        return self.capability

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_device_capability(self, device: int | None = None) -> tuple[int, int]:
        return divmod(self.capability, 10)

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
