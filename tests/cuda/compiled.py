"""The CUDA backend on the CPU, with the kernels that nvcc compiled: the host's half decides on layouts and launches as
on a GPU, and the PTX of each kernel runs in the interpreter of ``tools/ptx``, on the memory of CPU tensors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from cube_kernels.backends import cuda
from tests.building import SOURCE, run
from tests.cuda.modules import build_folder, built, in_place
from tools.host_driver import TARGETS
from tools.ptx import launch, load

TYPES = {"float32": "float", "bfloat16": "__nv_bfloat16", "float16": "__half"}
CALLS = ("forward", "backward", "perceive", "perceive_adjoint", "filter_gradient")


@cache
def host() -> ModuleType:
    return built("handed", build_folder("handed"))


def compiled(storage: str, architecture: int, source: Path = SOURCE) -> str:
    """The PTX of a storage's kernels, kept by what it was compiled from."""
    headers = sorted([*source.glob("*.h"), *source.glob("cuda/*")])
    content = hashlib.sha256(b"".join(path.read_bytes() for path in headers)).hexdigest()[:16]
    ptx = build_folder("ptx") / f"{storage}-sm_{architecture}-{content}.ptx"
    if not ptx.exists():
        ptx.parent.mkdir(parents=True, exist_ok=True)
        names = [f"-DCUBE_STORAGE={storage}_kernels", f"-DCUBE_STORAGE_TYPE={TYPES[storage]}"]
        options = ["-std=c++17", "--expt-relaxed-constexpr", "-O3", f"-arch=sm_{architecture}", "-ptx"]
        run("nvcc", *options, *names, str(source / "cuda" / "storage.cu"), "-o", str(ptx))
    return ptx.read_text()


class Device:
    """A GPU of an architecture: what launches run on."""

    def __init__(self, architecture: int, source: Path) -> None:
        self.architecture, self.source = architecture, source
        self.tensors: dict[int, torch.Tensor] = {}  # those whose addresses the call has handed over
        self.launched: list[str] = []

    def run(
        self, kernel: str, storage: str, blocks: int, cluster: int, threads: int, shared: int, arguments: bytes
    ) -> None:
        text = compiled(storage, self.architecture, self.source)
        names = re.findall(rf"\.entry\s+(\w*\d{kernel}\w*)\(", text)
        assert len(names) == 1, f"kernels named like {kernel}: {names}"
        self.launched.append(names[0])
        tensors = list(self.tensors.values())
        program, grid, block = load(text, names[0]), (blocks, 1, 1), (threads, 1, 1)
        launch(program, grid, block, arguments, tensors, shared, most_steps=10**7, cluster=cluster)


_devices: list[Device] = []


def run_kernel(*arguments: Any) -> None:
    """Called by the host's half (csrc/tests/handed.cpp)."""
    _devices[-1].run(*arguments)


@contextmanager
def simulated_device(architecture: int, module: ModuleType | None = None, source: Path = SOURCE) -> Iterator[Device]:
    """Meanwhile, backend "cuda" runs on CPU tensors, as compiled from these sources; with another host's half than
    theirs as it stands."""
    device = Device(architecture, source)
    address = torch.Tensor.data_ptr

    def recorded_address(tensor: torch.Tensor) -> int:
        device.tensors[id(tensor)] = tensor
        return address(tensor)

    def call_of_its_own(call: Any) -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            device.tensors.clear()
            return call(*arguments, **named)

        return called

    with in_place(module or host()) as patch:
        patch.setattr(torch.Tensor, "data_ptr", recorded_address)
        for name in CALLS:
            patch.setattr(cuda, name, call_of_its_own(getattr(cuda, name)))
        patch.setenv("CUBE_EMULATED_CAPABILITY", str(architecture))
        patch.setenv("CUBE_EMULATED_SHARED_BYTES", str(TARGETS[f"sm_{architecture}"].shared_bytes))
        _devices.append(device)
        try:
            yield device
        finally:
            _devices.pop()
