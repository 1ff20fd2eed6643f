"""The CUDA module as nvcc compiled it, and how an installation decides whether to compile it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cube_kernels.backends import cuda
from tests.building import SOURCE, outcome


@pytest.fixture(scope="module")
def usage(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What each kernel uses, for each architecture, read off the code in the built module."""
    pytest.importorskip("triton", reason="its wheel has the tools that read GPU code")
    from triton import knobs

    from tools.resources.code import nvidia_usage

    module, reason = cuda.extension()
    if module is None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cubins")
    subprocess.run([knobs.nvidia.cuobjdump.path, "-xelf", "all", str(module.__file__)], cwd=folder, check=True)
    found: dict[str, dict[str, Any]] = {}
    for cubin in folder.glob("*.cubin"):
        of_storage = nvidia_usage(cubin.read_bytes())
        found.setdefault(cubin.name.split(".")[-2], {}).update({cubin.name + name: u for name, u in of_storage.items()})
    return found


def test_every_architecture_has_every_kernel(usage):
    assert set(usage) == {"sm_80", "sm_90", "sm_100"}
    of_each_storage = ["pack", "collect", "collect_bank"] + 2 * ["perceive_all", "adjoint_all", "bank_gradient"]
    rollouts = 2 * ["float32, IEEE", "float32, TF32", "bfloat16", "float16"]
    for kernels in usage.values():
        assert len(kernels) == 3 * len(of_each_storage) + len(rollouts)


def test_no_kernel_spills(usage):
    assert {(a, name): u.spills for a, kernels in usage.items() for name, u in kernels.items() if u.spills} == {}


def test_all_threads_of_a_block_have_their_registers(usage):
    most = max(u.registers for kernels in usage.values() for u in kernels.values())
    assert most * 256 <= 65536


@pytest.mark.parametrize("products", ["Tf32", "Half", "Ieee"])
@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_products_run_on_tensor_cores_where_they_should(usage, kernel, products):
    chosen = [u for kernels in usage.values() for name, u in kernels.items() if kernel in name and products in name]
    assert len(chosen) == 3 * (2 if products == "Half" else 1)
    assert all((u.tensor_instructions > 0) == (products != "Ieee") for u in chosen)


@pytest.mark.parametrize("kernel", ["forwardIfNS", "backwardIfNS", "perceive_allIfLi4E", "adjoint_allIfLi4E"])
def test_states_of_whole_packets_move_by_the_widest_accesses(usage, kernel):
    """float32 by 128 bits; half-width packets have 64."""
    for kernels in usage.values():
        chosen = [u for name, u in kernels.items() if kernel in name]
        assert chosen
        assert max(max(u.load_bits) for u in chosen) == 128
        assert max(max(u.store_bits) for u in chosen) == 128


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
