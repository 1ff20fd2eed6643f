"""A Triton driver that compiles for a target and runs nothing: what a call would launch, as compiled.

Calls go through the package's own wrappers, so that each kernel is compiled with the specialization, the constants and
the configuration of a real launch.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tools.host_driver import HostDriver, HostUtils, standing_in
from tools.ptx.triton_driver import sizes_of


class Compiled(NamedTuple):
    """One compiled kernel."""

    kernel: str
    sizes: dict[str, int]  # of its configuration
    warps: int
    shared: int  # bytes that it asks for at launch
    files: dict[str, bytes]  # by suffix: ".cubin" and ".ptx", or ".amdgcn"

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


@contextmanager
def recording(target: str) -> Iterator[list[Compiled]]:
    """Collects what calls on CPU tensors compile for one of :data:`tools.host_driver.TARGETS` meanwhile. Their results
    hold garbage."""
    compiled: list[Compiled] = []

    def remember(*, src: Any, metadata_group: dict[str, str], **_: Any) -> None:
        files = {pathlib.Path(path).suffix: pathlib.Path(path) for path in metadata_group.values()}
        metadata = json.loads(files[".json"].read_text())
        kept = {s: f.read_bytes() for s, f in files.items() if s in (".cubin", ".ptx", ".amdgcn")}
        compiled.append(Compiled(metadata["name"], sizes_of(src), metadata["num_warps"], metadata["shared"], kept))

    with standing_in(HostDriver(target, HostUtils(), _Launcher), remember):
        yield compiled
