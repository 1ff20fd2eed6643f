"""The CUDA backend's module in forms that take CPU tensors, built when they are not up to date."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import pybind11
import pytest
import torch

from cube_kernels import Lattice, Rule
from cube_kernels.automaton import bind
from cube_kernels.backends import cuda
from tests.building import SOURCE, cmake, configure, run


def build_folder(form: str) -> Path:
    """Kept between runs: compiling takes longer than testing."""
    return SOURCE.parent / "build" / f"cuda-{form}-{sys.implementation.cache_tag}"


def built(form: str, build: Path, source: Path = SOURCE) -> ModuleType:
    """``form``: what CMake calls CUBE_MODULE."""
    tools = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    configure(build, f"-DCUBE_MODULE={form}", *tools, source=source)
    run(cmake(), "--build", str(build))
    # A name of its own: pybind11 hands out a module once more for a name that it has seen.
    spec = importlib.util.spec_from_file_location(f"{form}._cuda", next(build.glob("_cuda.*.so")))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@contextmanager
def in_place(module: ModuleType) -> Iterator[pytest.MonkeyPatch]:
    """Meanwhile, backend "cuda" is this module, takes CPU tensors, and asks in every call what device there is."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_device_problem", "_limits"):
            patch.setattr(cuda, name, getattr(cuda, name).__wrapped__)
        patch.setattr(cuda, "extension", lambda: (module, ""))
        patch.setattr(cuda, "DEVICE_TYPE", "cpu")
        patch.setattr(cuda, "stream", lambda device: 0)
        yield patch


@contextmanager
def only_clusters(lattice: Lattice, rule: Rule, dtype: torch.dtype) -> Iterator[None]:
    """Meanwhile, blocks have the least shared memory with which eight of them can take a call, and one cannot."""
    module, _ = cuda.extension()
    assert module is not None
    least, alone = (cuda._least_shared_bytes(module, bind(lattice, rule), dtype, blocks) for blocks in (8, 1))
    assert least < alone
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBE_EMULATED_SHARED_BYTES", str(least))
        yield


@cache
def _emulated() -> ModuleType:
    return built("emulated", build_folder("emulated"))


@contextmanager
def emulated() -> Iterator[None]:
    """Meanwhile, backend "cuda" is what the C++ compiler makes of its sources, kernels included."""
    with in_place(_emulated()):
        yield
