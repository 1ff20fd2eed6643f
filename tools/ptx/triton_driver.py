"""A Triton driver without a GPU: ``kernel[grid](...)`` on CPU tensors compiles for the chosen target as usual, through
the binder, specialization, the autotuner and the cache, and the PTX that comes out runs in the interpreter.

    from tools.ptx.triton_driver import launches, simulated_gpu

    with simulated_gpu(capability=80):
        kernel[grid](x, y, n)
    print(launches[-1].statistics)

It stands in for the process's driver meanwhile: no other thread may use a real one. Triton must not be
imported with ``TRITON_INTERPRET=1``.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton
from triton.runtime import driver

from tools.host_driver import HostDriver, HostUtils, standing_in

from . import Program, Statistics, UnsupportedError, launch, load

CAPABILITIES = (80, 90, 100)
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
    if capability not in CAPABILITIES:
        raise ValueError(f"capability {capability}; {', '.join(map(str, CAPABILITIES))} are possible")
    if triton.knobs.runtime.interpret:
        raise RuntimeError("Triton runs in its own interpreter (TRITON_INTERPRET): nothing would be compiled")
    with standing_in(HostDriver(f"sm_{capability}", _Utils(), _Launcher), _remember):
        yield


def _remember(*, metadata_group: dict[str, str], **_: Any) -> None:
    files = {pathlib.Path(path).suffix: pathlib.Path(path) for path in metadata_group.values()}
    if ".cubin" in files:
        _ptx[files[".cubin"].read_bytes()] = files[".ptx"].read_text()


class _Utils(HostUtils):
    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, Program, int, int, int]:
        """Registers and spills are those of the compiled code, which nobody looks at."""
        return None, load(_ptx[bytes(binary)], name), 0, 0, 1024


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
        capability = driver.active.get_current_target().arch
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
