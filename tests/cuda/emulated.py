"""The CUDA backend on the CPU: its sources compiled by the C++ compiler, its calls on CPU tensors."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pybind11
import pytest

from cube_kernels.backends import cuda
from tests.building import SOURCE, cmake, configure, run

# Kept between runs: compiling takes longer than testing.
BUILD = SOURCE.parent / "build" / f"cuda-emulated-{sys.implementation.cache_tag}"


@lru_cache(maxsize=1)
def module() -> ModuleType:
    """Built if it is not up to date."""
    tools = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    configure(BUILD, "-DCUBE_MODULE=emulated", *tools)
    run(cmake(), "--build", str(BUILD))
    return load(next(BUILD.glob("_cuda.*.so")))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_cuda", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@contextmanager
def emulated() -> Iterator[None]:
    """Meanwhile, backend "cuda" is the emulated one, and takes CPU tensors."""
    built = module()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "extension", lambda: (built, ""))
        patch.setattr(cuda, "DEVICE_TYPE", "cpu")
        patch.setattr(cuda, "stream", lambda device: 0)
        yield
