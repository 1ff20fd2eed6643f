"""How an installation decides whether to compile the CUDA module. What nvcc makes of it: `tests/test_resources.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.building import SOURCE, outcome


def build(tmp_path: Path, **variables: str) -> tuple[int, str]:
    command = [sys.executable, str(SOURCE.parent / "setup.py"), "-q", "build_ext", "--build-lib", str(tmp_path)]
    return outcome(*command, CUBE_KERNELS_BUILD_NATIVE="0", CUDA_HOME=str(tmp_path), **variables)


def test_a_build_that_is_demanded_fails_without_nvcc(tmp_path):
    code, printed = build(tmp_path, CUBE_KERNELS_BUILD_CUDA="1")
    assert code != 0
    assert "CUBE_KERNELS_BUILD_CUDA is 1, but there is no nvcc in CUDA_HOME, on the PATH or in" in printed


@pytest.mark.parametrize("choice", ["auto", "0"])
def test_without_nvcc_an_installation_has_no_cuda_module(tmp_path, choice):
    assert build(tmp_path, CUBE_KERNELS_BUILD_CUDA=choice)[0] == 0
    assert not list(tmp_path.rglob("_cuda*"))


def test_an_unknown_choice_is_an_error(tmp_path):
    code, printed = build(tmp_path, CUBE_KERNELS_BUILD_CUDA="yes")
    assert code != 0
    assert "CUBE_KERNELS_BUILD_CUDA is 'yes'; valid: auto, 0, 1" in printed
